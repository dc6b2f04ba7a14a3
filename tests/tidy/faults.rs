//! Patches of `tests/faults`: each states its fault and names a test that exists.
//!
//! `deploy/lib/faults` shows that the named test catches the fault.

use crate::source::Source;

/// Fewest patches.
pub(crate) const FAULTS_MIN: usize = 30;
/// The folder of each crate with tests that a patch may name.
const CRATES: &[(&str, &str)] = &[("postern", ""), ("keys", "keys/"), ("bastion", "bastion/")];

/// The module that a file is, below one of `folders`. `None`: the file is elsewhere.
fn module(path: &str, folders: &[String]) -> Option<String> {
    let inside = folders.iter().find_map(|it| path.strip_prefix(&**it))?;
    let inside = inside.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    Some(inside.replace('/', "::"))
}

/// Whether a test `crate binary module::name` is defined. A module within a file is not looked at.
fn is_defined(test: &str, sources: &[Source]) -> bool {
    let words: Vec<_> = test.split(' ').collect();
    let &[name, binary, test] = words.as_slice() else {
        return false;
    };
    let Some((_, root)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return false;
    };
    let folders = match binary {
        "lib" => vec![format!("{root}src/")],
        _ => vec![format!("{root}tests/{binary}/"), format!("{root}tests/")],
    };
    // A test of a binary with one file has no module.
    let (modules, function) = test.rsplit_once("::").unwrap_or((binary, test));
    // The module `tests` may be a file beside its parent: `upgrade_tests.rs`.
    let beside = modules
        .strip_suffix("::tests")
        .map(|of| format!("{of}_tests"));
    let main = format!("{root}tests/{binary}/main.rs");
    let is_of = |source: &Source| {
        if modules == binary && source.path == main {
            return true;
        }
        let module = module(&source.path, &folders);
        if module.is_some() && module == beside {
            return true;
        }
        let rest = module.and_then(|module| modules.strip_prefix(&*module));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let definition = format!("fn {function}(");
    let mut files = sources.iter().filter(|source| is_of(source));
    files.any(|source| source.tests().contains(&definition))
}

/// Faults of one patch.
pub(crate) fn violations(path: &str, text: &str, sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault = |what: String| found.push(format!("{path}: {what}"));
    let name = path.rsplit('/').next().unwrap_or_default();
    let number = name.split('-').next().unwrap_or_default();
    if number.len() != 2 || number.parse::<u8>().is_err() {
        fault("is not named NN-fault.patch".into());
    }
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name);
    match field("Fault: ") {
        Some(sentence) if sentence.ends_with('.') => {}
        _ => fault("its first line is not `Fault: sentence.`".into()),
    }
    match field("Test: ") {
        Some(test) if is_defined(test, sources) => {}
        Some(test) => fault(format!("the test `{test}` does not exist")),
        None => fault("its second line is not `Test: crate binary module::name`".into()),
    }
    if !text.contains("\ndiff --git a/") {
        fault("contains no change in the format of git".into());
    }
    found
}

/// Numbers that several patches have.
pub(crate) fn shared_numbers(paths: &[&str]) -> Vec<String> {
    let number = |path: &str| path.rsplit('/').next().map(|name| name[..2].to_owned());
    let mut numbers: Vec<_> = paths.iter().filter_map(|path| number(path)).collect();
    numbers.sort();
    let shared = numbers.windows(2).filter(|pair| pair[0] == pair[1]);
    shared
        .map(|pair| format!("tests/faults: two patches have the number {}", pair[0]))
        .collect()
}

#[test]
fn finds_each_fault_of_a_patch() {
    let sources = [
        Source::new("src/acl/tests.rs", "#[test]\nfn one() {}"),
        Source::new("src/peer/x.rs", "#[cfg(test)]\nmod tests { fn two() {} }"),
        Source::new("src/peer/y_tests.rs", "fn six() {}"),
        Source::new("tests/core/windows.rs", "fn three() {}"),
        Source::new("tests/story.rs", "fn four() {}"),
        Source::new("tests/sim/main.rs", "fn seven() {}"),
        Source::new("bastion/tests/all/gate.rs", "fn five() {}"),
    ];
    let check = |path: &str, test: &str, count: usize| {
        let text = format!("Fault: One is two.\nTest: {test}\n\ndiff --git a/x b/x\n");
        let found = violations(path, &text, &sources);
        assert_eq!(found.len(), count, "{test}: {found:?}");
    };
    let path = "tests/faults/01-x.patch";
    for test in [
        "postern lib acl::tests::one",
        "postern lib peer::x::tests::two",
        "postern lib peer::y::tests::six",
        "postern core windows::three",
        "postern story four",
        "postern sim seven",
        "bastion all gate::five",
    ] {
        check(path, test, 0);
    }
    for test in [
        "postern lib acl::tests::two",
        "postern lib peer::y::six",
        "postern core parts::three",
        "postern lib windows::three",
        "keys all gate::five",
        "windows::three",
    ] {
        check(path, test, 1);
    }
    check("tests/faults/x.patch", "postern story four", 1);
    let without = "Fault: one\nTest: postern story four\n\ndiff --git a/x b/x\n";
    assert_eq!(violations(path, without, &sources).len(), 1);
    let empty = "Fault: One.\nTest: postern story four\n";
    assert_eq!(violations(path, empty, &sources).len(), 1);
}

#[test]
fn finds_a_shared_number() {
    let paths = ["tests/faults/01-a.patch", "tests/faults/02-b.patch"];
    assert!(shared_numbers(&paths).is_empty());
    let paths = ["tests/faults/01-a.patch", "tests/faults/01-b.patch"];
    assert_eq!(shared_numbers(&paths).len(), 1);
}

//! The rules of docs/ARCHITECTURE.md and CONTRIBUTING.md, checked on the source text.
//!
//! Each rule is a function over one file or over all files, and has a test that shows it failing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends here"
)]

mod arrows;
mod causes;
mod codes;
mod cycles;
mod documents;
mod faults;
mod manifests;
mod names;
mod paths;
mod prose;
mod routes;
mod sentences;
mod source;
mod statuses;
mod words;

use std::fs;
use std::path::Path;

use documents::Document;
use paths::paths;
use source::Source;

/// Longest file, in lines. The aim is 300.
const LINES_MAX: usize = 450;

/// Test files that may poll, because they watch processes that report nothing.
const MAY_POLL: &[&str] = &["tests/testnet/tests/processes.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository with this ending: path from the root, and text.
fn files(ending: &str) -> Vec<(String, String)> {
    let found = files_where(|path| path.ends_with(ending));
    assert!(!found.is_empty(), "no file ends in {ending}");
    found
}

fn files_where(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let is_hidden = name.starts_with('.') && !matches!(&*name, ".ci" | ".config");
            if entry.file_type().unwrap().is_dir() {
                if !is_hidden && name != "target" {
                    folders.push(path);
                }
                continue;
            }
            let short = path.strip_prefix(root()).unwrap().to_str().unwrap();
            if is_wanted(short) {
                found.push((short.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let mut sources: Vec<_> = files(".rs")
        .iter()
        .map(|(path, text)| Source::new(path, text))
        .collect();
    let tests: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        source.is_test |= tests.iter().any(|test| {
            source.path == *test || test.ends_with('/') && source.path.starts_with(test)
        });
    }
    sources
}

fn documents() -> Vec<Document> {
    files(".md")
        .into_iter()
        .map(|(path, text)| Document { path, text })
        .collect()
}

/// Runs a rule over every source and reports all violations at once.
fn all_keep(rule: impl Fn(&Source) -> Vec<String>) {
    no_violations(sources().iter().flat_map(rule).collect());
}

fn no_violations(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn restricted_names_stay_in_their_modules() {
    all_keep(|source| {
        words::RULES
            .iter()
            .flat_map(|rule| words::violations(source, rule))
            .collect()
    });
}

#[test]
fn modules_import_lower_layers_only() {
    all_keep(arrows::violations);
}

#[test]
fn documented_layers_are_those_of_the_rule() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    assert_eq!(arrows::in_document(&text), arrows::wanted_in_document());
}

#[test]
fn files_have_no_import_cycles() {
    no_violations(cycles::violations(&sources()));
}

#[test]
fn errors_are_shown_with_their_causes() {
    all_keep(causes::violations);
}

#[test]
fn types_have_names_of_their_own() {
    no_violations(names::violations(&sources()));
}

/// Whether a file that is not Rust has text for people.
fn is_text(path: &str) -> bool {
    let endings = [".md", ".toml", ".sql", ".py"];
    endings.iter().any(|ending| path.ends_with(ending))
        || path.starts_with("deploy/")
        || path.starts_with(".ci/")
}

#[test]
fn texts_are_plain_english() {
    let texts = files_where(is_text);
    let mut found = Vec::new();
    for (path, text) in &texts {
        found.extend(prose::in_text(path, text));
        found.extend(sentences::in_text(path, text));
    }
    for source in &sources() {
        found.extend(prose::in_source(source));
        found.extend(sentences::in_source(source));
    }
    no_violations(found);
}

#[test]
fn files_have_the_required_form() {
    all_keep(form);
}

/// Header, length, `forbid(unsafe_code)`, no ignored test, no mark of unfinished work.
fn form(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut fault = |what: String| found.push(format!("{}: {what}", source.path));
    if !source.text.starts_with("//!") {
        fault("begins without a `//!` header: what the module is, and its invariant".into());
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        fault(format!("{lines} lines, more than {LINES_MAX}: split it"));
    }
    let is_root = ["src/lib.rs", "src/main.rs"]
        .iter()
        .any(|end| source.path.ends_with(end));
    if is_root && !source.code.contains("#![forbid(unsafe_code)]") {
        fault("a crate root without `#![forbid(unsafe_code)]`".into());
    }
    if source.code.contains("#[ignore") {
        fault("an ignored test".into());
    }
    for comment in &source.comments {
        if comment.text.contains("FIXME") || comment.text.contains("XXX") {
            fault(format!("line {}: unfinished", comment.line));
        }
    }
    found
}

#[test]
fn form_finds_each_fault() {
    let check = |path: &str, text: &str, count: usize| {
        assert_eq!(form(&Source::new(path, text)).len(), count, "{text}")
    };
    check("src/x.rs", "//! What it is.\nfn f() {}\n", 0);
    check("src/x.rs", "fn f() {}\n", 1);
    check(
        "src/x.rs",
        &format!("//! Long.\n{}", "\n".repeat(LINES_MAX)),
        1,
    );
    check("keys/src/lib.rs", "//! Root.\n", 1);
    check("keys/src/lib.rs", "//! Root.\n#![forbid(unsafe_code)]\n", 0);
    check(
        "src/x.rs",
        "//! X.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}\n",
        1,
    );
    check(
        "src/x.rs",
        "//! X.\n// FIXME: later\nconst F: &str = \"FIXME\";\n",
        1,
    );
}

#[test]
fn tests_wait_for_conditions_not_for_time() {
    all_keep(sleeps);
}

fn sleeps(source: &Source) -> Vec<String> {
    if MAY_POLL.contains(&&*source.path) {
        return Vec::new();
    }
    let calls = paths(&source.tests())
        .into_iter()
        .filter(|path| path.text.split("::").any(|part| part == "sleep"));
    calls
        .map(|path| {
            format!(
                "{}:{}: a test waits for a condition, not for time",
                source.path, path.line
            )
        })
        .collect()
}

#[test]
fn sleeps_finds_a_sleeping_test() {
    let check = |path: &str, text: &str, count: usize| {
        assert_eq!(sleeps(&Source::new(path, text)).len(), count, "{text}")
    };
    check("tests/x.rs", "fn f() { std::thread::sleep(d) }", 1);
    check("tests/x.rs", "use tokio::time::{sleep, timeout};", 1);
    check(
        "src/x.rs",
        "#[cfg(test)]\nmod tests { fn f() { tokio::time::sleep(d) } }",
        1,
    );
    check("src/x.rs", "async fn f() { sleep(d).await }", 0);
}

#[test]
fn sql_is_in_the_store_only() {
    all_keep(sql);
}

fn sql(source: &Source) -> Vec<String> {
    const VERBS: [&str; 8] = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM ",
        "CREATE TABLE",
        "CREATE INDEX",
        "DROP TABLE",
        "PRAGMA ",
    ];
    if source.path.starts_with("src/store/") || source.path.starts_with("tests/") {
        return Vec::new();
    }
    let is_sql = |text: &str| VERBS.iter().any(|verb| text.trim_start().starts_with(verb));
    let strings = source.strings.iter().filter(|string| is_sql(&string.text));
    strings
        .map(|string| format!("{}:{}: SQL outside src/store", source.path, string.line))
        .collect()
}

#[test]
fn sql_finds_statements_outside_the_store() {
    let check = |path: &str, text: &str, count: usize| {
        assert_eq!(sql(&Source::new(path, text)).len(), count, "{text}")
    };
    check("src/graph/x.rs", "const Q: &str = \"SELECT 1\";", 1);
    check(
        "src/graph/x.rs",
        "const Q: &str = r#\"\n  INSERT INTO a VALUES (1)\"#;",
        1,
    );
    check(
        "src/graph/x.rs",
        "// SELECT 1\nconst Q: &str = \"it does not SELECT \";",
        0,
    );
    check("src/store/x.rs", "const Q: &str = \"SELECT 1\";", 0);
}

#[test]
fn manifests_name_allowed_dependencies_only() {
    let manifests = files("Cargo.toml");
    let lines = manifests
        .iter()
        .flat_map(|(path, text)| text.lines().map(move |line| (&**path, line)));
    let found = lines.filter(|(path, line)| manifests::is_fault(path, line));
    no_violations(
        found
            .map(|(path, line)| format!("{path}: {line}"))
            .collect(),
    );
}

#[test]
fn faults_name_tests_that_exist() {
    let (patches, sources) = (files(".patch"), sources());
    assert!(patches.len() >= faults::FAULTS_MIN, "{}", patches.len());
    let paths: Vec<&str> = patches.iter().map(|(path, _)| &**path).collect();
    let mut found = faults::shared_numbers(&paths);
    for (path, text) in &patches {
        found.extend(faults::violations(path, text, &sources));
    }
    no_violations(found);
}

#[test]
fn acl_module_has_its_name_of_the_story_as_an_alias() {
    let text = fs::read_to_string(root().join("src/acl/mod.rs")).unwrap();
    assert!(text.contains("#[doc(alias = \"ACLManager\")]"));
}

#[test]
fn error_catalogue_equals_the_codes_of_the_source() {
    let page = fs::read_to_string(root().join("docs/ERRORS.md")).unwrap();
    no_violations(codes::differences(&page, &sources()));
}

#[test]
fn error_catalogue_gives_the_http_statuses_of_the_source() {
    let page = fs::read_to_string(root().join("docs/ERRORS.md")).unwrap();
    no_violations(statuses::differences(&page, &sources()));
}

#[test]
fn api_page_lists_the_routes_of_the_source() {
    let page = fs::read_to_string(root().join("docs/API.md")).unwrap();
    let source = fs::read_to_string(root().join("src/api/routes.rs")).unwrap();
    no_violations(routes::differences(&page, &source));
}

#[test]
fn links_and_file_names_in_documents_exist() {
    let text_of = |path: &Path| {
        let path = root().join(path);
        if path.is_dir() {
            Some(String::new())
        } else {
            fs::read_to_string(path).ok()
        }
    };
    let exists = |path: &Path| root().join(path).exists();
    let found = documents().into_iter().flat_map(|document| {
        let mut found = documents::broken_links(&document, &text_of);
        found.extend(documents::missing_files(&document, &exists));
        found
    });
    no_violations(found.collect());
}

#[test]
fn files_named_in_comments_and_texts_exist() {
    let exists = |path: &Path| root().join(path).exists();
    let mut found = Vec::new();
    for source in sources() {
        // The rules themselves have examples.
        if source.path.starts_with("tests/tidy/") {
            continue;
        }
        let pieces = source.comments.iter().chain(&source.strings);
        let pieces = pieces.map(|piece| (piece.line, &*piece.text));
        found.extend(documents::missing_in_text(&source.path, pieces, &exists));
    }
    let texts = files_where(|path| is_text(path) && !path.ends_with(".md"));
    for (path, text) in &texts {
        let whole = [(1, &**text)].into_iter();
        found.extend(documents::missing_in_text(path, whole, &exists));
    }
    no_violations(found);
}

#[test]
fn sections_cited_in_comments_exist() {
    for (word, document) in [
        ("docs/STORY.md", "docs/STORY.md"),
        ("docs/DECISIONS.md", "docs/DECISIONS.md"),
    ] {
        let known = documents::sections(&fs::read_to_string(root().join(document)).unwrap());
        all_keep(|source| {
            let is_tidy = source.path.starts_with("tests/tidy");
            if is_tidy {
                Vec::new()
            } else {
                documents::unknown_sections(source, word, &known)
            }
        });
    }
}

//! Links, file names in backquotes and cited sections lead to something that exists.

use std::path::{Component, Path, PathBuf};

use crate::source::Source;

/// A Markdown file, with its path from the root.
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The headings, each as the anchor of a link.
fn anchors(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

/// The texts between `open` and `close` outside of code blocks, each with its line.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<(usize, &'a str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        fenced ^= line.trim_start().starts_with("```");
        let mut rest = line;
        while let Some((inner, behind)) = (!fenced)
            .then(|| rest.split_once(open))
            .flatten()
            .and_then(|(_, it)| it.split_once(close))
        {
            found.push((number, inner));
            rest = behind;
        }
    }
    found
}

fn resolved(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = clean.pop(),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

/// Links without a target. `text_of` returns the text of a file, and an empty text for a folder.
pub(crate) fn broken_links(
    document: &Document,
    text_of: &dyn Fn(&Path) -> Option<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (line, target) in between(&document.text, "](", ')') {
        let target = target.split_whitespace().next().unwrap_or_default();
        if ["https://", "http://", "mailto:"]
            .iter()
            .any(|scheme| target.starts_with(scheme))
        {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
        let file = if file.is_empty() {
            PathBuf::from(&document.path)
        } else {
            resolved(&folder.join(file))
        };
        let exists = text_of(&file)
            .is_some_and(|text| anchor.is_empty() || anchors(&text).iter().any(|it| it == anchor));
        if !exists {
            found.push(format!(
                "{}:{line}: the link to {target} has no target",
                document.path
            ));
        }
    }
    found
}

/// Folders that hold files; a text in backquotes that begins with one is a file name.
const ROOTS: [&str; 8] = [
    "src/", "keys/", "bastion/", "tests/", "docs/", "deploy/", ".ci/", ".config/",
];

/// Files named in backquotes that do not exist. A module may be named without its `.rs`.
pub(crate) fn missing_files(document: &Document, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let named = between(&document.text, "`", '`').into_iter();
    let named = named.filter(|(_, word)| ROOTS.iter().any(|root| word.starts_with(root)));
    let is_file_or_module =
        |path: &str| exists(Path::new(path)) || exists(Path::new(&format!("{path}.rs")));
    // Whole paths only: no arguments, placeholders or patterns.
    let named = named.filter(|(_, word)| !word.contains([' ', '<', '*', '{', '$']));
    let named = named.filter(|(_, word)| !word.contains("NAME"));
    let missing =
        named.filter(|(_, word)| !is_file_or_module(word.split([':', '#']).next().unwrap_or(word)));
    missing
        .map(|(line, word)| format!("{}:{line}: {word} does not exist", document.path))
        .collect()
}

/// Endings of the files that a text outside of Markdown may name without backquotes.
const ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".sql", ".json", ".py", ".service"];

/// Files named in a text of the file at `path` that do not exist, neither from the root nor from
/// the folder of its crate. Each text has its first line.
pub(crate) fn missing_in_text<'t>(
    path: &str,
    texts: impl Iterator<Item = (usize, &'t str)>,
    exists: &dyn Fn(&Path) -> bool,
) -> Vec<String> {
    let crate_folder = match path.split('/').collect::<Vec<_>>()[..] {
        ["tests", member, _, ..] => format!("tests/{member}"),
        [member, ..] => member.to_owned(),
        [] => String::new(),
    };
    let exists =
        |word: &str| exists(Path::new(word)) || exists(&Path::new(&crate_folder).join(word));
    let lines = texts.flat_map(|(first, text)| (first..).zip(text.lines()));
    let words = lines.flat_map(|(line, text)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_./-*{".contains(c);
        let words = text.split(move |c| !is_name(c));
        words.map(move |word| (line, word.trim_end_matches('.')))
    });
    let named = words.filter(|(_, word)| {
        ROOTS.iter().any(|root| word.starts_with(root))
            && ENDINGS.iter().any(|ending| word.ends_with(ending))
            && !word.contains(['*', '{'])
    });
    let missing = named.filter(|(_, word)| !exists(word));
    missing
        .map(|(line, word)| format!("{path}:{line}: {word} does not exist"))
        .collect()
}

/// The numbers of the sections: `## 2. Data` is 2, `### 2.1 Messages` is 2.1.
pub(crate) fn sections(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with("##"));
    let numbers =
        headings.filter_map(|line| line.trim_start_matches('#').split_whitespace().next());
    let numbers = numbers.map(|number| number.trim_end_matches('.').to_owned());
    numbers
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Sections that comments cite as `NAME 2.1, 3` and that the document does not have.
pub(crate) fn unknown_sections(source: &Source, word: &str, known: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for comment in &source.comments {
        for (_, behind) in comment
            .text
            .match_indices(word)
            .map(|(place, _)| comment.text.split_at(place + word.len()))
        {
            for number in cited(behind) {
                if !known.contains(&number) {
                    found.push(format!(
                        "{}:{}: there is no section {word} {number}",
                        source.path, comment.line
                    ));
                }
            }
        }
    }
    found
}

/// The numbers in a citation: `" 2.1 steps 2-7, 4, 6.2; more"` cites 2.1, 4 and 6.2.
fn cited(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text
        .split([';', ')', '/'])
        .next()
        .unwrap_or_default()
        .split(',')
    {
        let number: String = part
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            break;
        }
        found.push(number.trim_end_matches('.').to_owned());
    }
    found
}

#[test]
fn broken_links_finds_a_missing_target() {
    let text_of = |path: &Path| match path.to_str() {
        Some("docs/A.md") => Some("# One title\n## 2. Two, *more*\n".to_owned()),
        Some("src") => Some(String::new()),
        _ => None,
    };
    let check = |text: &str, count: usize| {
        let document = Document {
            path: "docs/B.md".into(),
            text: text.into(),
        };
        assert_eq!(broken_links(&document, &text_of).len(), count, "{text}");
    };
    check(
        "[a](A.md), [b](../docs/A.md#one-title), [c](A.md#2-two-more), \
         [d](../src), [e](https://example.org/x)",
        0,
    );
    check("[a](C.md)", 1);
    check("[a](A.md#three) and [b](#nothing)", 2);
    check("```\n[a](C.md)\n```", 0);
}

#[test]
fn missing_files_finds_a_missing_file() {
    let exists = |path: &Path| path == Path::new("src/lib.rs");
    let document = Document {
        path: "README.md".into(),
        text: "`src/lib.rs` `src/lib.rs:3` `src/lib` `src/nothing.rs`\n`src/*.rs` `keys`".into(),
    };
    assert_eq!(
        missing_files(&document, &exists),
        ["README.md:1: src/nothing.rs does not exist"]
    );
}

#[test]
fn missing_in_text_finds_a_missing_file() {
    let exists =
        |path: &Path| path == Path::new("src/lib.rs") || path == Path::new("keys/src/a.rs");
    let check = |path: &str, text: &str, count: usize| {
        let found = missing_in_text(path, [(3, text)].into_iter(), &exists);
        assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
    };
    check("a.toml", "the clock is in src/clock.rs.", 1);
    check("a.toml", "see src/lib.rs, `src/*.rs` and src/{a,b}.rs", 0);
    check("keys/src/b.rs", "Tested in `src/a.rs` and src/lib.rs.", 0);
    check("src/b.rs", "Tested in `src/a.rs`.", 1);
    check("tests/fuzz/src/b.rs", "/tmp/src/a.rs and a/src/a.rs", 0);
}

#[test]
fn unknown_sections_finds_a_missing_section() {
    let known = sections("# Story\n## 2. Pull\n### 2.1 Messages\n## 6. ACL\ntext 9\n");
    assert_eq!(known, ["2", "2.1", "6"]);
    let check = |comment: &str, count: usize| {
        let source = Source::new("src/x.rs", &format!("// {comment}\nfn f() {{}}"));
        assert_eq!(
            unknown_sections(&source, "SEED", &known).len(),
            count,
            "{comment}"
        );
    };
    check("(SEED 2.1 steps 2-7, 6; 99)", 0);
    check("SEED.md, SEED's nouns are kept. SEED 2.1 step 3.", 0);
    check("(SEED 3)", 1);
    check("(SEED 2.1, 3, 4, DESIGN 6)", 2);
}

//! What documents and comments point at must be there: links, files in backquotes, numbered sections.

use std::path::{Component, Path, PathBuf};

use crate::source::Source;

/// A Markdown file, from the repository's root on.
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Headings, each as the anchor by which it is linked.
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

/// What stands between `open` and `close`, outside of code blocks, with its line.
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

/// Links that lead nowhere. `text_of` gives a file's text, an empty one for a folder.
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
        let is_there = text_of(&file)
            .is_some_and(|text| anchor.is_empty() || anchors(&text).iter().any(|it| it == anchor));
        if !is_there {
            found.push(format!(
                "{}:{line}: the link to {target} leads nowhere",
                document.path
            ));
        }
    }
    found
}

/// Places in the tree that a file can be in; a word in backquotes that begins so is taken for a file.
const ROOTS: [&str; 8] = [
    "src/", "keys/", "bastion/", "tests/", "docs/", "deploy/", ".ci/", ".config/",
];

/// Files named in backquotes that are not there. A module may be named without its `.rs`.
pub(crate) fn missing_files(document: &Document, is_there: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let named = between(&document.text, "`", '`').into_iter();
    let named = named.filter(|(_, word)| ROOTS.iter().any(|root| word.starts_with(root)));
    let is_file_or_module =
        |path: &str| is_there(Path::new(path)) || is_there(Path::new(&format!("{path}.rs")));
    // Whole paths only: no arguments, placeholders or patterns.
    let named = named.filter(|(_, word)| !word.contains([' ', '<', '*', '{', '$']));
    let missing =
        named.filter(|(_, word)| !is_file_or_module(word.split([':', '#']).next().unwrap_or(word)));
    missing
        .map(|(line, word)| format!("{}:{line}: there is no {word}", document.path))
        .collect()
}

/// The numbers of a document's sections: `## 2. Data` is 2, `### 2.1 Messages` is 2.1.
pub(crate) fn sections(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with("##"));
    let numbers =
        headings.filter_map(|line| line.trim_start_matches('#').split_whitespace().next());
    let numbers = numbers.map(|number| number.trim_end_matches('.').to_owned());
    numbers
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Sections cited in comments as `WORD 2.1, 3` that the document behind the word does not have.
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

/// `" 2.1 steps 2-7, 4, 6.2; more"` cites 2.1, 4 and 6.2: numbers, each perhaps with its steps, between commas.
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
fn a_link_that_leads_nowhere_is_found() {
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
        "[a](A.md), [b](../docs/A.md#one-title), [c](A.md#2-two-more), [d](../src), [e](https://example.org/x)",
        0,
    );
    check("[a](C.md)", 1);
    check("[a](A.md#three) and [b](#nothing)", 2);
    check("```\n[a](C.md)\n```", 0);
}

#[test]
fn a_file_that_is_not_there_is_found() {
    let is_there = |path: &Path| path == Path::new("src/lib.rs");
    let document = Document {
        path: "README.md".into(),
        text: "`src/lib.rs` `src/lib.rs:3` `src/lib` `src/nothing.rs`\n`src/*.rs` `keys`".into(),
    };
    assert_eq!(
        missing_files(&document, &is_there),
        ["README.md:1: there is no src/nothing.rs"]
    );
}

#[test]
fn a_section_that_is_not_there_is_found() {
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

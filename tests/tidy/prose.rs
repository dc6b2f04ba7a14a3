//! Plain English in comments, documents and texts: no banned word, no line over 100 columns.
//!
//! The rules for sentences are in `sentences.rs`.

use crate::source::{Source, is_word};

/// Longest line, in columns. Tables, links and code in Markdown may be longer.
const COLUMNS_MAX: usize = 100;

/// Words that no text uses, in lower case; each with the ending `*` where longer forms count too.
const BANNED: &[&str] = &[
    "a config",
    "anew",
    "anybody*",
    "arrow*",
    "as good as",
    "calm*",
    "crowd*",
    "dear",
    "dearer",
    "everybody*",
    "for ever",
    "heed*",
    "its config",
    "knock*",
    "lest",
    "lobby*",
    "minted",
    "nobody*",
    "nought",
    "ours",
    "somebody*",
    "storm*",
    "stranger*",
    "thaw*",
    "the config",
    "theirs",
    "thereof",
    "whence",
    "wherein",
    "whoever",
    "whom",
    "whomever",
];

/// Names that are no words of the prose, each with the files that may have them.
const NAMES: &[(&str, &str)] = &[
    // A file of these rules.
    ("", "arrows.rs"),
    // A column of an earlier version.
    ("src/store/migrations/", "knocks"),
    // Names of the API of an earlier version.
    ("CHANGELOG.md", "`crowd"),
    ("CHANGELOG.md", "`knocks`"),
    ("CHANGELOG.md", "/thaw`"),
];

/// Files without these rules: they list configuration keys of earlier versions, or the words.
const EXEMPT: &[&str] = &[
    "src/config/removed/list.rs",
    "tests/tidy/prose.rs",
    "tests/tidy/sentences.rs",
];

/// Faults in the comments, the string literals and the lines of a source.
pub(crate) fn in_source(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for piece in source.comments.iter().chain(&source.strings) {
        found.extend(banned(&source.path, piece.line, &piece.text));
    }
    found.extend(long_lines(&source.path, &source.text));
    permitted(&source.path, found)
}

/// Faults in a file that is not Rust. In Markdown, code blocks are not considered.
pub(crate) fn in_text(path: &str, text: &str) -> Vec<String> {
    let mut found = long_lines(path, text);
    let lines = (1..).zip(text.lines());
    for (number, line) in lines.filter(|(number, _)| !is_fenced(path, text, *number)) {
        found.extend(banned(path, number, line));
    }
    permitted(path, found)
}

fn permitted(path: &str, found: Vec<String>) -> Vec<String> {
    // The tables of earlier versions, as they were.
    let is_frozen = path.starts_with("src/store/migrations/version_");
    let is_exempt = is_frozen || EXEMPT.contains(&path);
    if is_exempt { Vec::new() } else { found }
}

fn banned(path: &str, line: usize, text: &str) -> Vec<String> {
    let names = NAMES.iter().filter(|(files, _)| path.starts_with(files));
    let text = names.fold(text.to_lowercase(), |text, (_, name)| {
        text.replace(name, "")
    });
    let holds = |word: &str| {
        let stem = word.trim_end_matches('*');
        text.match_indices(stem).any(|(start, _)| {
            let behind = &text[start + stem.len()..];
            let is_end = stem.len() < word.len() || !behind.starts_with(is_word);
            is_end && !text[..start].ends_with(is_word)
        })
    };
    let words = BANNED.iter().filter(|word| holds(word));
    words
        .map(|word| format!("{path}:{line}: `{word}` is banned"))
        .collect()
}

fn long_lines(path: &str, text: &str) -> Vec<String> {
    let is_markdown = path.ends_with(".md");
    let lines = (1..).zip(text.lines());
    let long = lines.filter(|(number, line)| {
        let may_be_long = is_markdown && (line.starts_with('|') || line.contains("]("));
        line.chars().count() > COLUMNS_MAX && !may_be_long && !is_fenced(path, text, *number)
    });
    long.map(|(number, _)| format!("{path}:{number}: longer than {COLUMNS_MAX} columns"))
        .collect()
}

/// Whether a line of a Markdown file is in a code block.
fn is_fenced(path: &str, text: &str, number: usize) -> bool {
    let before = text.lines().take(number);
    path.ends_with(".md")
        && before
            .filter(|line| line.trim_start().starts_with("```"))
            .count()
            % 2
            == 1
}

#[test]
fn finds_banned_words_and_long_lines() {
    let check = |path: &str, text: &str, count: usize| {
        let found = match path.ends_with(".rs") {
            true => in_source(&Source::new(path, text)),
            false => in_text(path, text),
        };
        assert_eq!(found.len(), count, "{path}: {text}");
    };
    check("src/x.rs", "// Whoever knocks.\nfn storm() {}", 2);
    check("src/x.rs", "const T: &str = \"told nobody, for ever\";", 2);
    check("src/x.rs", "// Largest of orders; a knoll.", 0);
    check("a.toml", "# Made anew.\n", 1);
    check("a.sql", "a TEXT -- knocks", 1);
    check("src/store/migrations/a.sql", "knocks TEXT -- made anew", 1);
    check(
        "docs/CONFIG.md",
        "Made anew.\n```text\nbastion.effort_calm\n```",
        1,
    );
    check("docs/A.md", "Nobody.\n```\nnobody\n```\n", 1);
    let long = "x".repeat(COLUMNS_MAX + 1);
    check("src/x.rs", &format!("// {long}"), 1);
    check("a.sql", &long, 1);
    check(
        "docs/A.md",
        &format!("{long}\n| {long} |\n[a](b) {long}\n```\n{long}\n```"),
        1,
    );
}

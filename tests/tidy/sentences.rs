//! Sentences of comments and documents: none begins with a relative clause or a pronoun, and none
//! has more words than [`WORDS_MAX`].
//!
//! Tables, code blocks and headings of Markdown are not read. A list item is a paragraph.

use crate::source::{Piece, Source, is_word};

/// Longest sentence, in words. The aim is 25.
const WORDS_MAX: usize = 25;

/// Words that begin no sentence: its subject would be a relative clause or a pronoun.
const NO_SUBJECT: &[&str] = &[
    "It", "Whatever", "What", "Who", "Whoever", "Whom", "Whomever", "Whose",
];

/// Phrases that begin no sentence.
const NO_BEGINNING: &[&str] = &["Of two", "Of the two", "Of several"];

/// A paragraph as its lines, each with its number.
type Paragraph = Vec<(usize, String)>;

/// A line of a text: its number, whether it shares the line with code, and its text.
type Line = (usize, bool, String);

/// Faults in the comments of a source.
pub(crate) fn in_source(source: &Source) -> Vec<String> {
    let code: Vec<_> = source.code.lines().collect();
    let is_behind_code = |line: usize| {
        code.get(line - 1)
            .is_some_and(|code| !code.trim().is_empty())
    };
    let lines = source.comments.iter().flat_map(|Piece { line, text }| {
        let lines = (*line..).zip(text.lines());
        lines.map(|(number, text)| (number, is_behind_code(number), text.trim_start()))
    });
    let lines = lines.map(|(number, is_behind_code, text)| {
        let marker = ["///", "//!", "//", "/**", "/*", "*"]
            .into_iter()
            .find(|marker| text.starts_with(marker))
            .unwrap_or_default();
        let text = text[marker.len()..].trim_end_matches("*/");
        (number, is_behind_code, text.to_owned())
    });
    faults(&source.path, &paragraphs(lines))
}

/// Faults in a file that is not Rust: the text of Markdown, the comments of other files.
pub(crate) fn in_text(path: &str, text: &str) -> Vec<String> {
    let lines = (1..).zip(text.lines());
    if path.ends_with(".md") {
        let lines = lines.map(|(number, line)| (number, false, line.to_owned()));
        return faults(path, &paragraphs(lines));
    }
    let marker = if path.ends_with(".sql") { "--" } else { "#" };
    // A mark in a string or within a word begins no comment.
    let begins_comment = |code: &str| {
        (code.is_empty() || code.ends_with(' ')) && code.matches('"').count().is_multiple_of(2)
    };
    let comments = lines.filter_map(|(number, line)| {
        let mut places = line
            .match_indices(marker)
            .map(|(place, _)| line.split_at(place));
        let (code, comment) = places.find(|(code, _)| begins_comment(code))?;
        let comment = comment.trim_start_matches(['#', '-']).to_owned();
        Some((number, !code.trim().is_empty(), comment))
    });
    let mut found = faults(path, &paragraphs(comments));
    if path.ends_with(".py") {
        let docs = docstrings(text).into_iter();
        let docs = docs.map(|(number, line)| (number, false, line));
        found.extend(faults(path, &paragraphs(docs)));
    }
    found
}

/// The lines of the docstrings of a Python file.
fn docstrings(text: &str) -> Vec<(usize, String)> {
    let mut is_open = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let marks = line.matches("\"\"\"").count();
        if is_open || marks > 0 {
            found.push((number, line.replace("\"\"\"", "")));
        }
        is_open ^= marks % 2 == 1;
    }
    found
}

/// The paragraphs of a text. An empty line, a list item, a table, a heading and a code block end
/// one. So does a missing line number. A comment behind code is a paragraph of its own.
fn paragraphs(lines: impl Iterator<Item = Line>) -> Vec<Paragraph> {
    let mut found = vec![Paragraph::new()];
    let (mut is_fenced, mut last) = (false, 0);
    for (number, is_behind_code, line) in lines {
        let text = line.trim();
        let is_fence = text.starts_with("```");
        is_fenced ^= is_fence;
        let is_code = line.starts_with("      ") && !is_behind_code;
        let is_skipped = is_fenced || is_fence || is_code || text.starts_with(['|', '#', '<']);
        let is_separate = is_item(text) || is_behind_code || text.is_empty() || last + 1 != number;
        if is_skipped || is_separate {
            found.push(Paragraph::new());
        }
        last = number;
        if let Some(paragraph) = found.last_mut().filter(|_| !is_skipped) {
            paragraph.push((number, text.to_owned()));
        }
    }
    found
}

/// Whether a line begins an item of a list: `- `, `* ` or `1. `.
fn is_item(text: &str) -> bool {
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    text.starts_with("- ")
        || text.starts_with("* ")
        || number.len() < text.len() && number.starts_with(". ")
}

fn faults(path: &str, paragraphs: &[Paragraph]) -> Vec<String> {
    let mut found = Vec::new();
    for (line, sentence) in paragraphs.iter().flat_map(sentences) {
        let first = sentence.split(|c| !is_word(c)).next().unwrap_or_default();
        let begins_badly = NO_SUBJECT.contains(&first)
            || NO_BEGINNING.iter().any(|words| sentence.starts_with(words));
        if begins_badly && !sentence.ends_with('?') {
            found.push(format!("{path}:{line}: begins with `{first}`: {sentence}"));
        }
        let words = sentence
            .split_whitespace()
            .filter(|word| word.contains(is_word))
            .count();
        if words > WORDS_MAX {
            found.push(format!("{path}:{line}: {words} words: {sentence}"));
        }
    }
    found
}

/// The sentences of a paragraph, each with the line that it begins on. Code in backquotes is one
/// word.
fn sentences(paragraph: &Paragraph) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let mut is_code = false;
    for (number, line) in paragraph {
        for word in line
            .split_whitespace()
            .filter(|word| !matches!(*word, "-" | "*"))
        {
            let was_code = is_code;
            is_code ^= word.matches('`').count() % 2 == 1;
            match words.last_mut() {
                Some((_, last)) if was_code => *last = format!("{last}_{word}"),
                _ => words.push((*number, word.to_owned())),
            }
        }
    }
    let mut found = Vec::<(usize, String)>::new();
    let mut is_end = true;
    for (place, (number, word)) in words.iter().enumerate() {
        match found.last_mut() {
            Some((_, sentence)) if !is_end => *sentence = format!("{sentence} {word}"),
            _ => found.push((
                *number,
                word.trim_start_matches(['*', '(', '"', '_']).to_owned(),
            )),
        }
        let bare = word.trim_end_matches(['*', ')', '"', '`', '_']);
        let next = words.get(place + 1).map(|(_, word)| &**word);
        let begins = next.is_none_or(|next| {
            let bare = next.trim_start_matches(['*', '(', '"']);
            next.starts_with("**") || bare.starts_with(|c: char| !c.is_lowercase())
        });
        is_end = bare.ends_with(['.', '!', '?']) && begins && !bare.ends_with("e.g.");
    }
    found
}

#[test]
fn finds_each_sentence_that_breaks_a_rule() {
    let check = |path: &str, text: &str, count: usize| {
        let found = match path.ends_with(".rs") {
            true => in_source(&Source::new(path, text)),
            false => in_text(path, text),
        };
        assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
    };
    check("src/x.rs", "/// What is sent.\nfn f() {}", 1);
    check("src/x.rs", "/// A peer. Who asks, waits.", 1);
    check("src/x.rs", "/// The peer knows\n/// Who is who.", 0);
    check("src/x.rs", "/// The peer knows.\n/// Who is who.", 1);
    check("src/x.rs", "/// Whether it is open. Why so?", 0);
    check(
        "src/x.rs",
        "// A file. It is small.\nlet x = \"It is.\";",
        1,
    );
    check(
        "docs/A.md",
        "- It is so.\n\n```\nIt is so.\n```\n| It is so. |",
        1,
    );
    check("docs/A.md", "The file. Of two\nfiles one is left.", 1);
    check("docs/A.md", "1. A `file. It` is left.", 0);
    check(
        "a.sql",
        "-- It is so.\na TEXT, -- a word\nb TEXT -- It is so.",
        2,
    );
    check("a.toml", "a = \"# It is so.\" # It is so.", 1);
    check(
        "a.py",
        "\"\"\"A file.\n\nIt is so.\n\"\"\"\nx = 1  # no doc",
        1,
    );
    let long = |words: usize| vec!["word"; words].join(" ");
    check("docs/A.md", &format!("{}.", long(WORDS_MAX)), 0);
    check("docs/A.md", &format!("{}.", long(WORDS_MAX + 1)), 1);
    check("docs/A.md", &format!("{}. Then {}.", long(20), long(20)), 0);
    check("docs/A.md", &format!("{}\n- {}", long(20), long(20)), 0);
    check("docs/A.md", &format!("`{}` is code.", long(WORDS_MAX)), 0);
    check(
        "a.sql",
        &format!("a, -- {}\nb, -- {}", long(20), long(20)),
        0,
    );
}

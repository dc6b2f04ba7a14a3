//! docs/ERRORS.md lists every stable error code of the source, and no other.

use std::collections::BTreeSet;

/// Codes in the source: string literals in functions named `code`, in calls of `ApiError::new`,
/// `refused` and `.end`, in `Refused("..")`, and the names of `RefusalCode`.
pub(crate) fn in_source(path: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in starts(text, "fn code(") {
        found.extend(literals(body(&text[start..])));
    }
    for call in ["ApiError::new(", "Self::new(\n            StatusCode::"] {
        for start in starts(text, call) {
            let arguments = text[start..].split(';').next().unwrap_or_default();
            found.extend(literals(arguments).into_iter().take(1));
        }
    }
    if path.starts_with("src/peer/") {
        for call in [".end(\"", "Refused(\"", "ended_with(\""] {
            for start in starts(text, call) {
                let rest = &text[start + call.len()..];
                found.extend(rest.split('"').next().map(str::to_owned));
            }
        }
    }
    if let Some(start) = text.find("pub enum RefusalCode {") {
        let errors = starts(&text[start..], "#[error(\"").into_iter();
        let names = errors.map(|at| text[start + at + 9..].split('"').next().unwrap_or_default());
        found.extend(names.take_while(|name| is_code(name)).map(str::to_owned));
    }
    found.retain(|code| is_code(code));
    found
}

/// Codes in the first column of the tables of docs/ERRORS.md.
pub(crate) fn in_document(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect()
}

fn starts(text: &str, pattern: &str) -> Vec<usize> {
    text.match_indices(pattern).map(|(at, _)| at).collect()
}

/// The text from the first brace to the brace that closes it.
fn body(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn literals(text: &str) -> Vec<String> {
    let pieces = text.split('"').skip(1).step_by(2);
    pieces.map(str::to_owned).collect()
}

fn is_code(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    !text.is_empty() && text.chars().all(is_word)
}

#[test]
fn in_source_finds_codes_of_errors_and_calls() {
    let text = "fn code(&self) -> &str { match self { A => \"one\", B { .. } => \"two\" } }\n\
                fn f() { ApiError::new(StatusCode::X, \"three\", \"a text\"); other(\"no\"); }";
    let found = in_source("src/api/x.rs", text);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["one", "three", "two"]
    );
    let ends = in_source("src/peer/x.rs", "fn f() { handle.end(\"over\") }");
    assert!(ends.contains("over"));
}

#[test]
fn in_document_reads_the_first_column() {
    let text = "| code | meaning |\n| --- | --- |\n| `one` | x `two` |\n";
    assert_eq!(in_document(text).into_iter().collect::<Vec<_>>(), ["one"]);
}

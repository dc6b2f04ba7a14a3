//! Errors are logged and shown with their causes: `error_chain` instead of `Display`.

use crate::source::{Source, is_word};

/// Usual names of variables that hold an error.
const ERRORS: &[&str] = &["error", "fault", "end", "why", "err", "e"];

/// Names of these that also hold a text. Formats may show that text.
const TEXTS: &[&str] = &["end", "why"];

/// Places where an error is shown without its causes: `%error` in a log event, `error.to_string()`
/// and `{error}` in a format.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    if !["src/", "bastion/src/"]
        .iter()
        .any(|place| source.path.starts_with(place))
    {
        return Vec::new();
    }
    let production = source.production();
    let lines: Vec<_> = production.lines().collect();
    let is_production = |line: usize| {
        lines
            .get(line - 1)
            .is_some_and(|text| !text.trim().is_empty())
    };
    let code = lines.iter().enumerate().flat_map(|(index, text)| {
        let found = ERRORS.iter().filter(|name| shows(text, name));
        found.map(move |name| (index + 1, *name))
    });
    let formats = source.strings.iter().flat_map(|piece| {
        let found = ERRORS.iter().filter(|name| !TEXTS.contains(name));
        let found = found.filter(|name| {
            let with = |end: &str| piece.text.contains(&format!("{{{name}{end}"));
            with("}") || with(":")
        });
        found.map(|name| (piece.line, *name))
    });
    let formats = formats.filter(|(line, _)| is_production(*line));
    code.chain(formats)
        .map(|(line, name)| {
            let path = &source.path;
            format!("{path}:{line}: `{name}` without its causes: use keys::error_chain")
        })
        .collect()
}

fn shows(line: &str, name: &str) -> bool {
    let shorthand = format!("%{name}");
    let is_shorthand = line
        .match_indices(&shorthand)
        .any(|(at, _)| !line[at + shorthand.len()..].starts_with(is_word));
    let display = format!("{name}.to_string()");
    let is_display = line
        .match_indices(&display)
        .any(|(at, _)| !line[..at].ends_with(is_word));
    is_shorthand || is_display
}

#[test]
fn violations_finds_errors_without_their_causes() {
    let check = |path: &str, text: &str| violations(&Source::new(path, text)).len();
    for wrong in [
        "fn f() { tracing::warn!(%error, \"x\") }",
        "fn f() { tracing::warn!(error = %error, \"x\") }",
        "fn f() { g(error.to_string()) }",
        "fn f() { format!(\"x: {error}\") }",
        "fn f() { format!(\"x: {fault:?}\") }",
    ] {
        assert_eq!(check("src/a.rs", wrong), 1, "{wrong}");
        assert_eq!(check("tests/a.rs", wrong), 0);
        let test = format!("#[cfg(test)]\nmod tests {{\n{wrong}\n}}");
        assert_eq!(check("src/a.rs", &test), 0, "{test}");
    }
    for right in [
        "fn f() { tracing::warn!(error = %error_chain(&error), \"x\") }",
        "fn f() { g(my_error.to_string(), %ending) }",
        "#[error(\"x: {source}\")] struct A;",
    ] {
        assert_eq!(check("src/a.rs", right), 0, "{right}");
    }
}

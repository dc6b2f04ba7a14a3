//! docs/ERRORS.md lists every stable error code of the source, and no other.
//!
//! Each table of the page is compared with the places that make codes of its kind. A code that is
//! neither a literal nor the result of a function `code` cannot be compared, and is a violation.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, is_word};

/// The codes of one kind in the source.
#[derive(Default)]
struct Found {
    codes: BTreeSet<String>,
    /// Places whose code is not readable in the source.
    unreadable: Vec<String>,
}

impl Found {
    /// Takes the code that an expression yields.
    fn take(&mut self, source: &Source, at: usize, expression: &str) {
        let literal = expression
            .strip_prefix('"')
            .and_then(|rest| rest.split('"').next());
        match literal {
            Some(code) => drop(self.codes.insert(code.to_owned())),
            None if expression.ends_with(".code()") => {}
            None => {
                let line = 1 + source.text[..at].matches('\n').count();
                let path = &source.path;
                let found = format!("{path}:{line}: the code `{expression}` is not a literal");
                self.unreadable.push(found);
            }
        }
    }

    /// Takes the literals of functions named `code`.
    fn take_functions(&mut self, source: &Source) {
        let code = source.production();
        for at in starts(&code, "fn code(") {
            let Some(open) = code[at..].find('{') else {
                continue;
            };
            let (start, end) = (at + open, close(&code, at + open));
            let pieces = source.text[start..end].split('"').skip(1).step_by(2);
            let literals = pieces.filter(|text| is_code(text)).map(str::to_owned);
            self.codes.extend(literals);
        }
    }

    /// Takes the second argument of calls of a function.
    fn take_calls(&mut self, source: &Source, function: &str) {
        let code = source.production();
        for at in starts(&code, &format!("{function}(")) {
            let before = &code[..at];
            let is_method = before.ends_with('.') && !before.ends_with("..");
            if before.ends_with(is_word) || is_method || before.ends_with("fn ") {
                continue;
            }
            let open = at + function.len();
            let arguments = split(&code, &source.text, open);
            // `code` comes from a pair that begins with its status.
            if let Some(code) = arguments.get(1).filter(|code| **code != "code") {
                self.take(source, at, code);
            }
        }
    }

    /// Takes the second part of pairs and the second argument of calls whose first one is a status.
    fn take_statuses(&mut self, source: &Source) {
        let code = source.production();
        for at in starts(&code, "StatusCode::") {
            let Some(open) = code[..at].trim_end().strip_suffix('(') else {
                continue;
            };
            if let Some(code) = split(&code, &source.text, open.len()).get(1) {
                self.take(source, at, code);
            }
        }
    }

    /// Takes the literal field `code` of a struct.
    fn take_fields(&mut self, source: &Source, structure: &str) {
        let code = source.production();
        for at in starts(&code, &format!("{structure} {{")) {
            let open = at + structure.len() + 1;
            let fields = split(&code, &source.text, open);
            let codes = fields
                .iter()
                .filter_map(|field| field.strip_prefix("code: \""));
            let codes = codes.filter_map(|rest| rest.split('"').next());
            self.codes.extend(codes.map(str::to_owned));
        }
    }

    /// Takes the texts of the variants of `RefusalCode`.
    fn take_refusals(&mut self, source: &Source) {
        let code = source.production();
        for at in starts(&code, "pub enum RefusalCode {") {
            let (start, end) = (at, close(&code, at));
            let texts = source.text[start..end].split("#[error(\"").skip(1);
            let texts = texts.filter_map(|rest| rest.split('"').next());
            self.codes.extend(texts.map(str::to_owned));
        }
    }
}

/// A heading of the page, and what finds its codes in a file.
type Kind = (&'static str, fn(&mut Found, &Source));

/// The table of refused objects. The API has its codes too.
const OBJECTS: &str = "Object rejects";
const API: &str = "API errors";

const KINDS: &[Kind] = &[
    ("Handshake refusals", |found, source| {
        if source.path == "bastion/src/messages.rs" {
            found.take_refusals(source);
        }
    }),
    ("Session ends", |found, source| {
        if source.path == "src/peer/end_code.rs" {
            found.take_functions(source);
        }
    }),
    ("Request refusals", |found, source| {
        if source.path == "src/state_engine/package.rs" {
            found.take_functions(source);
        }
        if source.path.starts_with("src/peer/") {
            found.take_calls(source, "refused");
            found.take_fields(source, "RequestRefusal");
        }
    }),
    (OBJECTS, |found, source| {
        if [
            "src/acl/mod.rs",
            "src/graph/error.rs",
            "src/graph/remote.rs",
        ]
        .contains(&&*source.path)
        {
            found.take_functions(source);
        }
    }),
    (API, |found, source| {
        if source.path.starts_with("src/api/") {
            found.take_functions(source);
            found.take_statuses(source);
            found.take_calls(source, "ApiError::new");
            found.take_calls(source, "Self::new");
        }
    }),
];

/// Codes that only one of the source and the page has, by table, and codes that are not readable.
pub(crate) fn differences(page: &str, sources: &[Source]) -> Vec<String> {
    let documented = in_page(page);
    let none = BTreeSet::new();
    let of = |heading: &str| documented.get(heading).unwrap_or(&none);
    let mut wrong = Vec::new();
    for (heading, find) in KINDS {
        let mut found = Found::default();
        for source in sources {
            find(&mut found, source);
        }
        wrong.extend(found.unreadable);
        let also = if *heading == API { of(OBJECTS) } else { &none };
        let missing = found.codes.difference(of(heading));
        let missing = missing.filter(|code| !also.contains(*code));
        wrong.extend(missing.map(|code| format!("{heading}: `{code}` is not on the page")));
        let stale = of(heading).difference(&found.codes);
        wrong.extend(stale.map(|code| format!("{heading}: `{code}` is not in the source")));
    }
    wrong
}

/// Codes in the first column of the page's tables, by heading.
fn in_page(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (mut tables, mut heading) = (BTreeMap::<_, BTreeSet<_>>::new(), String::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            heading = name.to_owned();
        } else if let Some((code, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`'))
        {
            let codes = tables.entry(heading.clone()).or_default();
            codes.insert(code.to_owned());
        }
    }
    tables
}

pub(crate) fn starts(text: &str, pattern: &str) -> Vec<usize> {
    text.match_indices(pattern).map(|(at, _)| at).collect()
}

/// The place of the bracket that closes the first one at or after `from`.
pub(crate) fn close(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return from + at;
        }
    }
    code.len()
}

/// The parts between the bracket at `open` and its partner, as they are in `text`.
pub(crate) fn split<'t>(code: &str, text: &'t str, open: usize) -> Vec<&'t str> {
    let end = close(code, open);
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, open + 1);
    for (at, c) in code[open..end].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 1 => {
                parts.push(text[from..open + at].trim());
                from = open + at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from.min(end)..end].trim());
    parts
}

fn is_code(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    !text.is_empty() && text.chars().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "## Handshake refusals\n| `banned` | x `y` |\n\
                        ## Session ends\n| `busy` | x |\n\
                        ## Request refusals\n| `gap` | x |\n| `busy` | x |\n| `window` | x |\n\
                        ## Object rejects\n| `fork` | x |\n\
                        ## API errors\n| `alone` | x |\n| `host` | x |\n| `too_long` | x |\n\
                        | `self` | x |\n";

    fn sources() -> Vec<Source> {
        let texts = [
            (
                "bastion/src/messages.rs",
                "pub enum RefusalCode { #[error(\"banned\")] Banned }",
            ),
            (
                "src/peer/end_code.rs",
                "fn code(self) -> &'static str { match self { A => \"busy\" } }",
            ),
            (
                "src/peer/serve.rs",
                "fn f() { S { a, ..refused(g(1, 2), \"gap\") }; refused(id, fault.code()); \
                 log.refused(a, b); RequestRefusal { id, code: \"busy\".into() } }\n\
                 fn refused(id: u64, code: &str) {}\n\
                 #[cfg(test)]\nmod tests { fn f() { refused(1, \"test\") } }",
            ),
            (
                "src/state_engine/package.rs",
                "fn code(&self) -> &str { match self { A { .. } => \"window\" } }",
            ),
            (
                "src/acl/mod.rs",
                "fn code(self) -> &str { if x { \"fork\" } }",
            ),
            (
                "src/api/error.rs",
                "fn f() { let (status, code) = match e { A => (StatusCode::X, \"alone\"),\n\
                 B => (StatusCode::Y, \"fork\"), C => (StatusCode::Z, denied.code()) };\n\
                 Self::new(status, code, text);\n\
                 ApiError::new(\n    StatusCode::X,\n    \"host\", w);\n\
                 ApiError::new(status, \"too_long\", w) }",
            ),
            ("src/api/control.rs", "fn code(&self) -> &str { \"self\" }"),
        ];
        texts.map(|(path, text)| Source::new(path, text)).into()
    }

    #[test]
    fn equal_page_and_source_have_no_differences() {
        assert_eq!(differences(PAGE, &sources()), Vec::<String>::new());
    }

    #[test]
    fn missing_and_stale_codes_are_named_with_their_table() {
        let page = PAGE.replace("| `gap` | x |\n", "| `old` | x |\n");
        assert_eq!(
            differences(&page, &sources()),
            [
                "Request refusals: `gap` is not on the page",
                "Request refusals: `old` is not in the source",
            ]
        );
        let page = PAGE.replace("## Session ends\n", "");
        assert_eq!(
            differences(&page, &sources()),
            [
                "Handshake refusals: `busy` is not in the source",
                "Session ends: `busy` is not on the page",
            ]
        );
    }

    #[test]
    fn code_that_is_not_readable_is_a_violation() {
        for (path, text) in [
            ("src/peer/a.rs", "fn f() { refused(id, name) }"),
            ("src/api/a.rs", "fn f() { (StatusCode::X, name) }"),
            ("src/api/a.rs", "fn f() { ApiError::new(status, name, w) }"),
        ] {
            let mut sources = sources();
            sources.push(Source::new(path, text));
            let expected = format!("{path}:1: the code `name` is not a literal");
            assert_eq!(differences(PAGE, &sources), [expected]);
        }
    }
}

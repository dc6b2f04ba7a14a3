//! The table "API errors" of docs/ERRORS.md gives the HTTP status with which the source answers.
//!
//! Compared are pairs of a status and a literal code, and the two functions of `ControlError`. A
//! status that only a variable holds is not compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::codes::{close, split, starts};
use crate::source::{Source, is_word};

/// The statuses that the API uses.
const STATUSES: &[(&str, &str)] = &[
    ("BAD_GATEWAY", "502"),
    ("BAD_REQUEST", "400"),
    ("CONFLICT", "409"),
    ("FORBIDDEN", "403"),
    ("GATEWAY_TIMEOUT", "504"),
    ("INTERNAL_SERVER_ERROR", "500"),
    ("METHOD_NOT_ALLOWED", "405"),
    ("NOT_FOUND", "404"),
    ("PAYLOAD_TOO_LARGE", "413"),
    ("SERVICE_UNAVAILABLE", "503"),
    ("UNAUTHORIZED", "401"),
    ("UNPROCESSABLE_ENTITY", "422"),
];

/// The statuses of each code.
type Statuses = BTreeMap<String, BTreeSet<String>>;

/// Codes whose status on the page is not that of the source.
pub(crate) fn differences(page: &str, sources: &[Source]) -> Vec<String> {
    let mut found = Statuses::new();
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with("src/api/"))
    {
        take_pairs(source, &mut found);
        take_functions(source, &mut found);
    }
    let mut wrong = Vec::new();
    for (code, statuses) in in_page(page) {
        let in_source = found.get(&code);
        if in_source.is_some_and(|in_source| *in_source != statuses) {
            let text = |statuses: &BTreeSet<String>| {
                statuses.iter().cloned().collect::<Vec<_>>().join(", ")
            };
            wrong.push(format!(
                "`{code}`: {} on the page, {} in the source",
                text(&statuses),
                in_source.map(text).unwrap_or_default(),
            ));
        }
    }
    wrong
}

fn number(status: &str) -> String {
    let name = status.trim_start_matches("StatusCode::");
    let known = STATUSES.iter().find(|(known, _)| *known == name);
    known.map_or(name, |(_, number)| number).to_owned()
}

/// Takes the pairs and calls that begin with a status and a literal code.
fn take_pairs(source: &Source, found: &mut Statuses) {
    let code = source.production();
    for at in starts(&code, "StatusCode::") {
        let Some(open) = code[..at].trim_end().strip_suffix('(') else {
            continue;
        };
        let parts = split(&code, &source.text, open.len());
        let literal = parts.get(1).and_then(|code| code.strip_prefix('"'));
        if let Some((code, _)) = literal.and_then(|rest| rest.split_once('"')) {
            let statuses = found.entry(code.to_owned()).or_default();
            statuses.insert(number(parts[0]));
        }
    }
}

/// Takes the codes and statuses that functions on the same enum return for its variants.
fn take_functions(source: &Source, found: &mut Statuses) {
    let codes = by_variant(source, "fn code(&self)", |rest| {
        rest.strip_prefix('"')?.split('"').next().map(str::to_owned)
    });
    let statuses = by_variant(source, "fn status(&self) -> StatusCode", |rest| {
        let name = rest.strip_prefix("StatusCode::")?;
        name.split(|c: char| !is_word(c)).next().map(number)
    });
    for (variant, code) in codes {
        if let Some(status) = statuses.get(&variant) {
            found.entry(code).or_default().insert(status.clone());
        }
    }
}

/// The value of each variant in a function that matches on the variants of its enum.
fn by_variant(
    source: &Source,
    function: &str,
    value: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let code = source.production();
    let (mut values, mut variants) = (BTreeMap::new(), Vec::new());
    for at in starts(&code, function) {
        let Some(open) = code[at..].find('{') else {
            continue;
        };
        let body = &source.text[at + open..close(&code, at + open)];
        for (place, _) in body.char_indices() {
            let rest = &body[place..];
            if let Some(name) = rest.strip_prefix("Self::") {
                let name = name.split(|c: char| !is_word(c)).next();
                variants.extend(name.map(str::to_owned));
            } else if let Some(value) = value(rest).filter(|_| !variants.is_empty()) {
                values.extend(variants.drain(..).map(|variant| (variant, value.clone())));
            }
        }
    }
    values
}

/// The statuses of each code in the table "API errors".
fn in_page(page: &str) -> Statuses {
    let table = page.split("## API errors").nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let mut statuses = Statuses::new();
    for line in table.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let [_, code, status, ..] = cells[..]
            && let Some(code) = code.strip_prefix('`').and_then(|it| it.strip_suffix('`'))
        {
            let of_code = statuses.entry(code.to_owned()).or_default();
            of_code.extend(status.split(", ").map(str::to_owned));
        }
    }
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "## API errors\n| `alone` | 422 | x |\n| `busy` | 503 | x |\n\
                        | `gone` | 404 | x |\n## Others\n| `busy` | 1 | x |\n";

    fn sources() -> Vec<Source> {
        let texts = [
            (
                "src/api/error.rs",
                "fn f() { A => (StatusCode::UNPROCESSABLE_ENTITY, \"alone\") }",
            ),
            (
                "src/api/control.rs",
                "fn code(&self) -> &str { match self {\n\
                 Self::A => \"busy\", Self::B(_) => \"gone\" } }\n\
                 fn status(&self) -> StatusCode { match self {\n\
                 Self::A => StatusCode::SERVICE_UNAVAILABLE,\n\
                 Self::B(_) | Self::C => { StatusCode::NOT_FOUND } } }",
            ),
        ];
        texts.map(|(path, text)| Source::new(path, text)).into()
    }

    #[test]
    fn equal_statuses_have_no_differences() {
        assert_eq!(differences(PAGE, &sources()), Vec::<String>::new());
    }

    #[test]
    fn other_statuses_are_named() {
        let page = PAGE.replace("| 422 |", "| 409 |").replace("404", "410");
        assert_eq!(
            differences(&page, &sources()),
            [
                "`alone`: 409 on the page, 422 in the source",
                "`gone`: 410 on the page, 404 in the source",
            ]
        );
    }
}

//! Rewrites the messages of serde for the people who write the file.
//!
//! Invariant: no message names a type of the program (tested here and in `src/config`).

/// The valid word that is most similar to `wrong`. Its edit distance must be at most a third of the
/// length of `wrong`, or 1.
pub(crate) fn nearest<'a>(
    wrong: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance_max = (wrong.chars().count() / 3).max(1);
    let distances = valid
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), word));
    distances
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, word)| word)
}

/// Rewrites an error message of serde for an operator. Returns the message and the most similar
/// valid word. For a missing key, returns no message and the key.
pub(super) fn reword(message: &str) -> (Option<String>, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    let valid: Vec<&str> = quoted.collect();
    let suggestion = nearest(first, valid.iter().copied()).map(str::to_owned);
    let listed = if suggestion.is_some() || valid.is_empty() {
        String::new()
    } else {
        format!("; possible: {}", valid.join(", "))
    };
    if message.starts_with("unknown field") {
        (Some("unknown key".to_owned() + &listed), suggestion)
    } else if message.starts_with("unknown variant") {
        (
            Some(format!("`{first}` is not a valid value{listed}")),
            suggestion,
        )
    } else if message.starts_with("missing field") {
        (None, Some(first.to_owned()))
    } else {
        (Some(wrong_type(message)), None)
    }
}

/// Rewrites a message about a value of a wrong type or out of its type's range.
fn wrong_type(message: &str) -> String {
    let parts = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|parts| parts.split_once(", expected "));
    match parts {
        Some((found, expected)) => {
            let is_type = message.starts_with("invalid type");
            format!(
                "must be {}, not {}",
                wanted(expected, is_type),
                shown(found)
            )
        }
        None => message.to_owned(),
    }
}

/// The expected type in plain English. `is_type`: the value has another type, so that the range of
/// a number does not matter.
fn wanted(expected: &str, is_type: bool) -> String {
    let range = match expected {
        "u8" => " from 0 to 255",
        "u16" => " from 0 to 65535",
        "u32" => " from 0 to 4294967295",
        "u64" | "usize" => " of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "",
        "a boolean" => return "`true` or `false`".to_owned(),
        "a sequence" => return "a list".to_owned(),
        "a string" | "path string" | "string or table" | "string only" => {
            return "a text in quotes".to_owned();
        }
        "socket address" => return "an IP address and port in quotes".to_owned(),
        "a map" => return "a table".to_owned(),
        text if text.starts_with("struct ") || text.starts_with("internally tagged") => {
            return "a table".to_owned();
        }
        text if text.starts_with("enum ") || text.starts_with("variant") => {
            return "a text in quotes".to_owned();
        }
        text => return text.to_owned(),
    };
    let range = if is_type { "" } else { range };
    format!("a whole number{range}")
}

/// The value in the file, as serde describes it, in plain English.
fn shown(found: &str) -> String {
    let value = || found.split('`').nth(1).unwrap_or_default().to_owned();
    match found.split_whitespace().next().unwrap_or_default() {
        "integer" | "floating" | "boolean" => value(),
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        "string" => found.replacen("string", "the text", 1),
        _ => found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_errors_name_no_type_of_the_program() {
        for (message, plain) in [
            (
                "invalid type: string \"4\", expected usize",
                "must be a whole number, not the text \"4\"",
            ),
            (
                "invalid value: integer `-4`, expected u64",
                "must be a whole number of at least 0, not -4",
            ),
            (
                "invalid value: integer `300`, expected u8",
                "must be a whole number from 0 to 255, not 300",
            ),
            (
                "invalid type: floating point `1.5`, expected i64",
                "must be a whole number, not 1.5",
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "must be a text in quotes, not true",
            ),
            (
                "invalid type: integer `5`, expected struct UntrustedQuotaTable",
                "must be a table, not 5",
            ),
            (
                "invalid type: map, expected a sequence",
                "must be a list, not a table",
            ),
            (
                "invalid type: sequence, expected a boolean",
                "must be `true` or `false`, not a list",
            ),
        ] {
            assert_eq!(reword(message), (Some(plain.to_owned()), None));
        }
    }
}

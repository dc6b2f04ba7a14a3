//! Formats the API's replies for a terminal.
//!
//! Text from other nodes is shown without control characters, so that a message cannot control the
//! terminal.

use std::io::Write as _;

use serde_json::Value;

use crate::text::{escape, is_hidden};

/// Prints a line. A closed pipe (a reader such as `head`) ends the process with success.
pub(super) fn print(line: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let is_closed_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        std::process::exit(i32::from(!is_closed_pipe));
    }
}

/// Prints a reply as JSON on one line.
pub(super) fn print_json(value: &Value) {
    print(escape_json(value));
}

/// Escapes all control characters and direction marks, beyond those that JSON requires. The value
/// stays the same.
fn escape_json(value: &Value) -> String {
    let mut shown = String::new();
    for letter in value.to_string().chars() {
        if is_hidden(letter) {
            let mut units = [0; 2];
            let units = letter.encode_utf16(&mut units);
            shown.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A field's text, or `-`.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("-")
}

/// A field's number, or 0.
pub(super) fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// A field's elements, or none.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The first 12 digits of an id.
pub(super) fn short(id: &str) -> String {
    match id.get(..12) {
        Some(start) if id.len() > 12 => format!("{start}…"),
        _ => id.to_owned(),
    }
}

/// Makes control characters visible and indents the lines of a message after the first.
pub(super) fn sanitize(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("\n    "),
            letter if is_hidden(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Escapes what is hidden in text that must stay on one line, such as names and reasons.
pub(super) fn line(text: &str) -> String {
    escape(text)
}

/// The label of an identity: its petname, or its marked claim with digits of its oid.
pub(super) fn label(person: &Value) -> String {
    line(text(person, "label"))
}

/// The labels of the identities in a field, separated by commas.
pub(super) fn labels(value: &Value, field: &str) -> String {
    let people = list(value, field).iter().map(label);
    people.collect::<Vec<_>>().join(", ")
}

/// A word that a person gave, in quotes, so that an empty or blank one is visible.
pub(super) fn quoted(word: &str) -> String {
    format!("\"{}\"", line(word))
}

/// The names in a field, separated by commas.
pub(super) fn words(value: &Value, field: &str) -> String {
    list(value, field)
        .iter()
        .filter_map(Value::as_str)
        .map(line)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A time in milliseconds since 1970, formatted to the minute.
pub(super) fn utc(ms: u64) -> String {
    let (days, minutes) = (ms / 86_400_000, ms / 60_000 % 1440);
    // Days since 1 March of year 0: leap days are last, and every 400 years have as many days.
    let since = days + 719_468;
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, carried) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let (hour, minute) = (minutes / 60, minutes % 60);
    format!(
        "{:04}-{month:02}-{of_month:02} {hour:02}:{minute:02} UTC",
        era * 400 + year + carried
    )
}

/// The title of a conversation, unless it is blank.
pub(super) fn title(conversation: &Value) -> Option<String> {
    let title = conversation.get("title").and_then(Value::as_str)?;
    (!title.trim().is_empty()).then(|| line(title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitize_escapes_control_and_direction_characters() {
        assert_eq!(sanitize("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(sanitize("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(
            sanitize("Bo\u{200b}b\u{feff}\u{ad}\u{2028}"),
            "Bo\\u{200b}b\\u{feff}\\u{ad}\\u{2028}"
        );
        assert_eq!(sanitize("👩\u{200d}🌾"), "👩\u{200d}🌾");
        assert_eq!(sanitize("one\ntwo"), "one\n    two");
    }

    #[test]
    fn escape_json_escapes_control_characters_and_keeps_the_value() {
        let value = serde_json::json!({ "names": ["a\u{9b}2Jb\u{7f}\u{1b}", "c\u{202e}d ö 😀"] });
        let shown = escape_json(&value);
        assert_eq!(
            shown,
            "{\"names\":[\"a\\u009b2Jb\\u007f\\u001b\",\"c\\u202ed ö 😀\"]}"
        );
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn line_keeps_names_on_one_line() {
        assert_eq!(quoted(" "), "\" \"");
        assert_eq!(line("Bob\npeer 00\u{7f}"), "Bob\\npeer 00\\u{7f}");
        assert_eq!(
            words(&serde_json::json!({ "names": ["a\u{9b}b", "c"] }), "names"),
            "a\\u{9b}b, c"
        );
    }

    #[test]
    fn utc_formats_times_to_the_minute() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (951_868_799_999, "2000-02-29 23:59 UTC"),
            (951_868_800_000, "2000-03-01 00:00 UTC"),
            (1_700_000_000_000, "2023-11-14 22:13 UTC"),
            (4_107_542_399_000, "2100-02-28 23:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(ms), expected);
        }
    }
}

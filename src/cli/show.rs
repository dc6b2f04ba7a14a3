//! How answers look on a terminal.
//!
//! What others wrote is shown without control characters, so that no message can play with the terminal. Never reads
//! anything by itself.

use std::io::Write as _;

use serde_json::Value;

/// A line of the answer. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn say(line: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let is_enough = error.kind() == std::io::ErrorKind::BrokenPipe;
        std::process::exit(i32::from(!is_enough));
    }
}

/// An answer as JSON on one line.
pub(super) fn say_json(value: &Value) {
    say(tame_json(value));
}

/// JSON escapes few control characters; the others, and marks that turn a line, are escaped too: the value is the same.
fn tame_json(value: &Value) -> String {
    let mut shown = String::new();
    for letter in value.to_string().chars() {
        if letter.is_control() || is_hidden_mark(letter) {
            let mut units = [0; 2];
            let units = letter.encode_utf16(&mut units);
            shown.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A field's text.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("-")
}

/// A field's number.
pub(super) fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// A field's elements.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The start of an id, for eyes.
pub(super) fn short(id: &str) -> String {
    match id.get(..12) {
        Some(start) if id.len() > 12 => format!("{start}…"),
        _ => id.to_owned(),
    }
}

/// Marks that turn the direction of what follows, so that a line could read as another one, break it, or show nothing, so
/// that two names could look alike. Not those that join letters: people write with them.
fn is_hidden_mark(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Control characters become visible; lines of a message are indented below the first.
pub(super) fn tame(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("\n    "),
            letter if letter.is_control() || is_hidden_mark(letter) => {
                shown.extend(letter.escape_unicode())
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// What must stay on its line: names and reasons, whoever wrote them.
pub(super) fn line(text: &str) -> String {
    tame(&text.replace('\n', "\\n"))
}

/// Names in a field, each on one line, with commas between them.
pub(super) fn words(value: &Value, field: &str) -> String {
    list(value, field)
        .iter()
        .filter_map(Value::as_str)
        .map(line)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A moment in milliseconds since 1970, to the minute.
pub(super) fn utc(ms: u64) -> String {
    let (days, minutes) = (ms / 86_400_000, ms / 60_000 % 1440);
    // Days from 1 March of the year 0 on: leap days come last, and 400 years have always as many days.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_play_with_the_terminal() {
        assert_eq!(tame("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(tame("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(
            tame("Bo\u{200b}b\u{feff}\u{ad}\u{2028}"),
            "Bo\\u{200b}b\\u{feff}\\u{ad}\\u{2028}"
        );
        assert_eq!(tame("👩\u{200d}🌾"), "👩\u{200d}🌾");
        assert_eq!(tame("one\ntwo"), "one\n    two");
    }

    #[test]
    fn json_cannot_play_with_the_terminal_either_and_means_the_same() {
        let value = serde_json::json!({ "names": ["a\u{9b}2Jb\u{7f}\u{1b}", "c\u{202e}d ö 😀"] });
        let shown = tame_json(&value);
        assert_eq!(
            shown,
            "{\"names\":[\"a\\u009b2Jb\\u007f\\u001b\",\"c\\u202ed ö 😀\"]}"
        );
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(line("Bob\npeer 00\u{7f}"), "Bob\\npeer 00\\u{7f}");
        assert_eq!(
            words(&serde_json::json!({ "names": ["a\u{9b}b", "c"] }), "names"),
            "a\\u{9b}b, c"
        );
    }

    #[test]
    fn moments_are_shown_as_dates() {
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

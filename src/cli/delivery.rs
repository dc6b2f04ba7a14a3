//! The delivery state of messages as text.
//!
//! Text from other nodes is sanitized: see [`super::show`].

use serde_json::Value;

use super::show::{label, line, list, number, short, text, utc};

/// One line for each recipient of a message that was just sent.
pub(super) fn lines(delivery: &Value) -> Vec<String> {
    let now_ms = number(delivery, "now");
    let recipients = list(delivery, "recipients").iter();
    recipients
        .map(|recipient| line_of(recipient, now_ms))
        .collect()
}

fn line_of(recipient: &Value, now_ms: u64) -> String {
    let who = label(recipient);
    match text(recipient, "state") {
        "delivered" => {
            let at = recipient.get("at").and_then(Value::as_u64).unwrap_or(0);
            format!("delivered to {who} at {}", utc(at))
        }
        "no_route" => format!("no route to {who}: this node sends it nothing now"),
        _ => format!("queued: {who}'s node {}", reached(recipient, now_ms)),
    }
}

/// When a node was reached.
fn reached(recipient: &Value, now_ms: u64) -> String {
    if recipient.get("connected") == Some(&Value::Bool(true)) {
        return "is connected now".to_owned();
    }
    match recipient.get("last_reached").and_then(Value::as_u64) {
        None => "was never reached".to_owned(),
        Some(at) => format!("was last reached {}", ago(now_ms.saturating_sub(at))),
    }
}

/// A duration in its largest whole unit.
fn ago(ms: u64) -> String {
    let minutes = ms / 60_000;
    let (count, unit) = match minutes {
        0 => return "less than a minute ago".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// The states of a message in a few words. Empty: it has no recipients, or they were not examined.
pub(super) fn summary(delivery: &Value) -> String {
    let [delivered, queued, no_route] =
        ["delivered", "queued", "no_route"].map(|state| number(delivery, state));
    let all = delivered + queued + no_route;
    match (all, list(delivery, "recipients")) {
        (0, _) => String::new(),
        (1, [only]) => match text(only, "state") {
            "delivered" => {
                let at = only.get("at").and_then(Value::as_u64).unwrap_or(0);
                format!("delivered {}", utc(at))
            }
            "no_route" => "no route".to_owned(),
            _ => "queued".to_owned(),
        },
        _ => {
            let mut words = format!("delivered to {delivered} of {all}");
            for (word, count) in [("queued for", queued), ("no route to", no_route)] {
                if count > 0 {
                    words.push_str(&format!(", {word} {count}"));
                }
            }
            words
        }
    }
}

/// A line for each of the newest own messages of a conversation, and one for each listed recipient
/// that does not have it.
pub(super) fn own_messages(conversation: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for message in list(conversation, "own_messages") {
        let delivery = message.get("delivery").unwrap_or(&Value::Null);
        let state = summary(delivery);
        lines.push(format!(
            "  message {}  by {}, {}{}{state}",
            short(text(message, "oid")),
            line(text(message, "sender_label")),
            utc(number(message, "sent_at")),
            if state.is_empty() { "" } else { ": " },
        ));
        let recipients = list(delivery, "recipients");
        if recipients.len() < 2 {
            continue;
        }
        for (state, words) in [("queued", "queued"), ("no_route", "no route")] {
            let missing = recipients.iter().filter(|it| text(it, "state") == state);
            let missing: Vec<_> = missing.map(label).collect();
            if !missing.is_empty() {
                lines.push(format!("    {words}: {}", missing.join(", ")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOUR: u64 = 3_600_000;

    fn recipient(label: &str, state: &str, last_reached: Option<u64>) -> Value {
        json!({
            "label": label, "state": state, "at": 0, "last_reached": last_reached,
            "connected": false,
        })
    }

    fn delivery(recipients: &[Value]) -> Value {
        let count = |state| recipients.iter().filter(|it| it["state"] == state).count();
        json!({
            "delivered": count("delivered"), "queued": count("queued"),
            "no_route": count("no_route"), "recipients": recipients, "now": 4 * HOUR,
        })
    }

    #[test]
    fn lines_say_what_is_known_of_each_recipient() {
        let mut connected = recipient("Eve", "queued", Some(HOUR));
        connected["connected"] = json!(true);
        let sent = delivery(&[
            recipient("Bo\u{1b}b", "queued", Some(HOUR)),
            recipient("Carol", "queued", None),
            recipient("Dave", "no_route", None),
            recipient("Alice", "delivered", None),
            connected,
        ]);
        assert_eq!(
            lines(&sent),
            [
                "queued: Bo\\u{1b}b's node was last reached 3 hours ago",
                "queued: Carol's node was never reached",
                "no route to Dave: this node sends it nothing now",
                "delivered to Alice at 1970-01-01 00:00 UTC",
                "queued: Eve's node is connected now",
            ]
        );
    }

    #[test]
    fn ago_uses_the_largest_whole_unit() {
        for (ms, expected) in [
            (59_999, "less than a minute ago"),
            (60_000, "1 minute ago"),
            (HOUR - 1, "59 minutes ago"),
            (HOUR, "1 hour ago"),
            (24 * HOUR - 1, "23 hours ago"),
            (49 * HOUR, "2 days ago"),
        ] {
            assert_eq!(ago(ms), expected);
        }
    }

    #[test]
    fn summary_counts_several_recipients() {
        let one = |state| summary(&delivery(&[recipient("Bob", state, None)]));
        assert_eq!(one("delivered"), "delivered 1970-01-01 00:00 UTC");
        assert_eq!(
            (one("queued"), one("no_route")),
            ("queued".into(), "no route".into())
        );
        let several = delivery(&[
            recipient("Bob", "delivered", None),
            recipient("Carol", "queued", None),
            recipient("Dave", "no_route", None),
        ]);
        assert_eq!(
            summary(&several),
            "delivered to 1 of 3, queued for 1, no route to 1"
        );
        assert_eq!(summary(&Value::Null), "");
    }
}

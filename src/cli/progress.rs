//! How far a dial is, on a terminal, while it lasts.
//!
//! One line that is written over; never where standard error is no terminal. Invariant: the line is gone when the dial is
//! over.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::Failure;
use super::client::Client;
use super::show::{list, number, text};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Back to the beginning of the line, and nothing on it.
pub(super) const ERASE: &str = "\r\u{1b}[K";

/// Awaits a dial, and shows how far it is.
pub(super) async fn while_dialling(
    client: &Client,
    onion: &str,
    dialling: impl Future<Output = Result<Value, Failure>>,
) -> Result<Value, Failure> {
    if !std::io::stderr().is_terminal() {
        return dialling.await;
    }
    let mut dialling = std::pin::pin!(dialling);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut dialling => break done,
            _ = looks.tick() => {
                // That the node cannot be asked now is no reason to stop waiting for the dial itself.
                if let Ok(underway) = client.get("/api/dials").await
                    && let Some(dial) = list(&underway, "dials").iter().find(|dial| text(dial, "onion") == onion.trim())
                {
                    let _ = write!(std::io::stderr(), "{ERASE}{}", words(dial));
                }
            }
        }
    };
    let _ = write!(std::io::stderr(), "{ERASE}");
    done
}

/// A dial in words.
fn words(dial: &Value) -> String {
    let expected_ms = dial.get("expected_ms").and_then(Value::as_u64);
    match text(dial, "step") {
        "solving" => {
            let (done, effort) = (number(dial, "evaluations"), number(dial, "effort"));
            let begin = format!("Solving: {done} evaluations tried, {effort} expected");
            match expected_ms.map(|expected| expected.saturating_sub(number(dial, "elapsed_ms"))) {
                // It has no memory: what was tried in vain brings the end no nearer.
                Some(0) => format!("{begin}; longer than expected, any moment now"),
                Some(left) => format!("{begin}; about {} s more", left.div_ceil(1000)),
                None => begin,
            }
        }
        "presenting" => "The work is done; waiting to be admitted …".to_owned(),
        "waiting" => format!(
            "The other node is busy; knocking again in {} s",
            expected_ms.unwrap_or_default().div_ceil(1000)
        ),
        _ => "Reaching the onion service …".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(dial: Value, expected: &str) {
        assert_eq!(words(&dial), expected);
    }

    #[test]
    fn a_dial_is_told_in_words() {
        check(
            json!({ "step": "dialling" }),
            "Reaching the onion service …",
        );
        let solving = |elapsed: u64, expected: Option<u64>| {
            json!({
                "step": "solving", "evaluations": 500, "effort": 4096, "elapsed_ms": elapsed, "expected_ms": expected,
            })
        };
        let begin = "Solving: 500 evaluations tried, 4096 expected";
        check(solving(0, None), begin);
        check(
            solving(400, Some(2500)),
            &format!("{begin}; about 3 s more"),
        );
        check(
            solving(3000, Some(2500)),
            &format!("{begin}; longer than expected, any moment now"),
        );
        check(
            json!({ "step": "waiting", "expected_ms": 1500 }),
            "The other node is busy; knocking again in 2 s",
        );
    }
}

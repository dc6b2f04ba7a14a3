//! Shows the progress of a dial, a backup or a move on a terminal.
//!
//! One line that overwrites itself, on standard error, only if that is a terminal. The line is
//! erased when the dial ends.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::client::ApiClient;
use super::failure::Failure;
use super::show::{list, number, text};

/// Interval between progress updates.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// Returns to the start of the line and clears it.
pub(super) const ERASE: &str = "\r\u{1b}[K";

/// A line that overwrites itself. Shown only on a terminal, and erased on drop.
pub(super) struct StatusLine {
    is_shown: bool,
}

impl StatusLine {
    pub(super) fn new(as_json: bool) -> Self {
        Self {
            is_shown: !as_json && std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn show(&self, words: &str) {
        if self.is_shown {
            // A closed terminal does not stop the work.
            let _ = write!(std::io::stderr(), "{ERASE}{words}");
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.show("");
    }
}

/// Awaits a dial and shows its progress.
pub(super) async fn while_dialling(
    client: &ApiClient,
    onion: &str,
    dialling: impl Future<Output = Result<Value, Failure>>,
) -> Result<Value, Failure> {
    if !std::io::stderr().is_terminal() {
        return dialling.await;
    }
    let mut dialling = std::pin::pin!(dialling);
    let mut looks = interval(REFRESH_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut dialling => break done,
            _ = looks.tick() => {
                // A failed progress request does not end the dial.
                if let Ok(underway) = client.get("/api/dials").await
                    && let Some(dial) = find(&underway, onion)
                {
                    let _ = write!(std::io::stderr(), "{ERASE}{}", words(dial));
                }
            }
        }
    };
    let _ = write!(std::io::stderr(), "{ERASE}");
    done
}

/// The dial to this onion address, if it is in progress.
fn find<'v>(underway: &'v Value, onion: &str) -> Option<&'v Value> {
    let mut dials = list(underway, "dials").iter();
    dials.find(|dial| text(dial, "onion") == onion.trim())
}

/// The progress line of a dial.
fn words(dial: &Value) -> String {
    let expected_ms = dial.get("expected_ms").and_then(Value::as_u64);
    match text(dial, "step") {
        "solving" => {
            let (done, effort) = (number(dial, "evaluations"), number(dial, "effort"));
            let begin = format!("Solving: {done} evaluations tried, {effort} expected");
            match expected_ms.map(|expected| expected.saturating_sub(number(dial, "elapsed_ms"))) {
                // The search has no memory: failed tries do not shorten the remaining time.
                Some(0) => format!("{begin}; taking longer than expected"),
                Some(left) => format!("{begin}; about {} s more", left.div_ceil(1000)),
                None => begin,
            }
        }
        "verifying" => "Puzzle solved; waiting for admission …".to_owned(),
        "waiting" => format!(
            "The node is busy; retrying in {} s",
            expected_ms.unwrap_or_default().div_ceil(1000)
        ),
        _ => "Connecting to the onion service …".to_owned(),
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
    fn progress_line_describes_each_step_of_a_dial() {
        check(
            json!({ "step": "dialling" }),
            "Connecting to the onion service …",
        );
        let solving = |elapsed: u64, expected: Option<u64>| {
            json!({
                "step": "solving", "evaluations": 500, "effort": 4096, "elapsed_ms": elapsed,
                "expected_ms": expected,
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
            &format!("{begin}; taking longer than expected"),
        );
        check(
            json!({ "step": "waiting", "expected_ms": 1500 }),
            "The node is busy; retrying in 2 s",
        );
    }
}

//! `postern peer remove` and `postern peer ban --purge`: waits until what the peer sent is removed,
//! and shows the progress.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::progress::ERASE;
use super::show::{list, number, print, print_json, text};

/// Interval between two looks at the progress.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Removes a peer. With `purge`, also what it sent.
pub(super) async fn remove(id: &str, purge: bool, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let request = json!({ "peer_id": id, "purge": purge });
    let answer = client.post("/api/v1/peers/remove", &request).await?;
    let peer = text(&answer, "peer_id").to_owned();
    if !api.json {
        let also = match answer.get("session_ended") {
            Some(Value::Bool(true)) => "; its session has ended",
            _ => "",
        };
        print(format_args!("peer {peer} is removed{also}"));
        if !purge {
            print("What it sent stays. `postern peer remove --purge` removes that too.");
        }
    }
    let removed = match purge {
        true => wait(&client, &peer, api).await?,
        false => None,
    };
    if api.json {
        print_json(&json!({ "removed": answer, "purge": removed }));
    }
    Ok(())
}

/// Waits until what a peer sent is removed, and prints how much that was. Returns the last state.
/// `None`: the node had nothing of it.
pub(super) async fn wait(
    client: &ApiClient,
    peer: &str,
    api: &ApiArgs,
) -> Result<Option<Value>, Failure> {
    let shows = !api.json && std::io::stderr().is_terminal();
    let found = loop {
        let purges = client.get("/api/v1/purges").await?;
        let found = list(&purges, "purges");
        let found = found.iter().find(|purge| text(purge, "peer_id") == peer);
        match look(&purges, found) {
            PurgeLook::Ended => break found.cloned(),
            PurgeLook::Underway => {}
            PurgeLook::Waits => {
                return Err(Failure::failed(
                    "the node recovers, and the removal waits for the end of the recovery: it \
                     then goes on by itself (`postern recovery`, `postern status`)",
                ));
            }
        }
        if shows {
            let line = found.map(|purge| progress(purge, number(&purges, "done_permille")));
            let _ = write!(std::io::stderr(), "{ERASE}{}", line.unwrap_or_default());
        }
        sleep(LOOK_INTERVAL).await;
    };
    if shows {
        let _ = write!(std::io::stderr(), "{ERASE}");
    }
    if let (Some(purge), false) = (&found, api.json) {
        print(summary(purge));
    }
    Ok(found)
}

/// The state of one purge, as the purges of a node show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PurgeLook {
    Ended,
    Underway,
    /// For an event that may never come.
    Waits,
}

fn look(purges: &Value, found: Option<&Value>) -> PurgeLook {
    let is_underway =
        found.is_some_and(|purge| ["queued", "running"].contains(&text(purge, "state")));
    match (is_underway, purges.get("waits_for_recovery")) {
        (false, _) => PurgeLook::Ended,
        (true, Some(Value::Bool(true))) => PurgeLook::Waits,
        (true, _) => PurgeLook::Underway,
    }
}

/// The progress line of a purge.
fn progress(purge: &Value, permille: u64) -> String {
    match text(purge, "state") {
        "queued" => "Waiting for another removal …".to_owned(),
        _ => format!(
            "Removing what the peer sent: {} %, {} objects so far",
            permille / 10,
            number(purge, "removed_objects")
        ),
    }
}

/// The result of a purge.
fn summary(purge: &Value) -> String {
    format!(
        "removed {} objects ({} bytes), and {} identities among them",
        number(purge, "removed_objects"),
        number(purge, "removed_bytes"),
        number(purge, "forgotten_identities")
    )
}

/// A line on the removals that are underway. `None`: there is none.
pub(super) fn status_line(status: &Value) -> Option<String> {
    let removals = status.get("removals")?;
    let purges = list(removals, "purges").iter();
    let underway = purges.filter(|purge| ["queued", "running"].contains(&text(purge, "state")));
    let count = underway.count();
    (count > 0).then(|| {
        format!(
            "removals       of {count} peers, {} % done",
            number(removals, "done_permille") / 10
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_that_waits_for_a_recovery_is_not_waited_for() {
        for (state, waits, expected) in [
            ("running", false, PurgeLook::Underway),
            ("queued", true, PurgeLook::Waits),
            ("running", true, PurgeLook::Waits),
            ("done", true, PurgeLook::Ended),
        ] {
            let purges = json!({ "waits_for_recovery": waits });
            assert_eq!(look(&purges, Some(&json!({ "state": state }))), expected);
        }
        assert_eq!(
            look(&json!({ "waits_for_recovery": true }), None),
            PurgeLook::Ended
        );
    }

    #[test]
    fn progress_and_result_have_their_numbers() {
        let purge = json!({
            "state": "running", "removed_objects": 7, "removed_bytes": 900,
            "forgotten_identities": 2,
        });
        assert_eq!(
            progress(&purge, 456),
            "Removing what the peer sent: 45 %, 7 objects so far"
        );
        assert_eq!(
            summary(&purge),
            "removed 7 objects (900 bytes), and 2 identities among them"
        );
        let status = json!({ "removals": { "purges": [purge], "done_permille": 456 } });
        assert_eq!(
            status_line(&status).unwrap(),
            "removals       of 1 peers, 45 % done"
        );
        assert_eq!(status_line(&json!({})), None);
    }
}

//! `postern rejects`: objects of peers that a rule refused permanently.

use serde_json::Value;

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::show::{line, list, number, print, print_json, quoted, short, text, utc};

pub(super) async fn rejects(peer: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let path = match peer {
        Some(peer) if peer.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("/api/v1/rejects?peer={peer}")
        }
        Some(peer) => {
            let why = format!("{} is not the begin of a peer id", quoted(&peer));
            return Err(Failure::usage(why));
        }
        None => "/api/v1/rejects".to_owned(),
    };
    let answer = client.get(&path).await?;
    if api.json {
        print_json(&answer);
        return Ok(());
    }
    let groups = list(&answer, "groups");
    if groups.is_empty() {
        print("no refused objects");
        return Ok(());
    }
    print(row("newest", "count", "peer", "type", "reason"));
    for group in groups {
        print(summary(group));
    }
    print("docs/ERRORS.md explains each reason; `--json` shows the newest objects");
    Ok(())
}

/// A line on the objects of one peer with one reason and type.
fn summary(group: &Value) -> String {
    row(
        &utc(number(group, "newest_at")),
        &number(group, "count").to_string(),
        &short(text(group, "peer_id")),
        &line(text(group, "type")),
        &line(text(group, "code")),
    )
}

fn row(newest: &str, count: &str, peer: &str, kind: &str, reason: &str) -> String {
    format!("{newest:<20} {count:>6}  {peer:<14} {kind:<24} {reason}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn summary_shows_time_count_peer_type_and_reason() {
        let group = json!({
            "peer_id": "0123456789abcdef0123456789abcdef", "code": "not_participant",
            "type": null, "count": 12, "newest_at": 0,
        });
        let expected =
            "1970-01-01 00:00 UTC     12  0123456789ab…  -                        not_participant";
        assert_eq!(summary(&group), expected);
        assert!(row("newest", "count", "peer", "type", "reason").starts_with("newest"));
    }
}

//! `postern policy` and `postern peer pending | approve | refuse | ban | unban | bans`: who gets in.
//!
//! What strangers claim is shown tame and on one line. Never decides anything: the node does.

use serde_json::{Map, Value, json};

use super::client::Client;
use super::show::{line, list, number, say, say_json, text, utc, words};
use super::{Asking, Failure};

const DAY_S: u64 = 24 * 60 * 60;

/// One line on who is let in.
pub(super) fn summary(admission: &Value) -> String {
    let by_hand = text(admission, "set_by") == "operator";
    format!(
        "policy {}{}, {} pending, {} refused, {} banned",
        text(admission, "policy"),
        if by_hand { " (by hand)" } else { "" },
        number(admission, "pending"),
        number(admission, "refusals"),
        number(admission, "bans")
    )
}

pub(super) async fn policy(wanted: Option<String>, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let now = match &wanted {
        Some(policy) => {
            client
                .put("/api/admission", &json!({ "policy": policy }))
                .await?
        }
        None => client.get("/api/admission").await?,
    };
    if asking.json {
        say_json(&now);
        return Ok(());
    }
    say(summary(&now));
    if text(&now, "set_by") == "operator" {
        say(format_args!("it holds until {}", text(&now, "holds_until")));
    }
    Ok(())
}

pub(super) async fn pending(asking: &Asking) -> Result<(), Failure> {
    let answer = Client::find(&asking.node.config)?
        .get("/api/admission/pending")
        .await?;
    if asking.json {
        say_json(&answer);
        return Ok(());
    }
    let strangers = list(&answer, "pending");
    if strangers.is_empty() {
        say("nobody waits for approval");
    }
    for stranger in strangers {
        say(format_args!("{}", text(stranger, "peer_id")));
        say(format_args!("  onion    {}", text(stranger, "onion")));
        say(format_args!(
            "  claims   names: {}",
            words(stranger, "names")
        ));
        say(format_args!("           apps: {}", words(stranger, "apps")));
        say(format_args!(
            "           domains: {}",
            words(stranger, "sync_domains")
        ));
        say(format_args!(
            "  attempts {}: first {}, last {}; worked {}",
            number(stranger, "attempts"),
            utc(number(stranger, "first_seen")),
            utc(number(stranger, "last_seen")),
            number(stranger, "effort")
        ));
    }
    Ok(())
}

pub(super) async fn bans(asking: &Asking) -> Result<(), Failure> {
    let answer = Client::find(&asking.node.config)?
        .get("/api/admission/bans")
        .await?;
    if asking.json {
        say_json(&answer);
        return Ok(());
    }
    let kept_out = list(&answer, "bans");
    if kept_out.is_empty() {
        say("nobody is banned or refused");
    }
    for row in kept_out {
        say(format_args!("{}  {}", text(row, "peer_id"), ended(row)));
        say(format_args!(
            "  since {}: {}",
            utc(number(row, "at")),
            line(text(row, "reason"))
        ));
    }
    Ok(())
}

/// What was said, and until when it holds.
fn ended(row: &Value) -> String {
    match row.get("until").and_then(Value::as_u64) {
        Some(until) => format!("{} until {}", text(row, "verdict"), utc(until)),
        None => text(row, "verdict").to_owned(),
    }
}

/// A word on a peer: `approve`, `refuse`, `ban`, `unban`.
pub(super) async fn say_of(
    verb: &str,
    id: &str,
    reason: Option<String>,
    days: Option<u64>,
    asking: &Asking,
) -> Result<(), Failure> {
    let mut request = Map::from_iter([("peer_id".to_owned(), json!(id))]);
    request.extend(reason.map(|reason| ("reason".to_owned(), json!(reason))));
    request.extend(days.map(|days| ("for_s".to_owned(), json!(days.saturating_mul(DAY_S)))));
    let path = format!("/api/admission/{verb}");
    let answer = Client::find(&asking.node.config)?
        .post(&path, &request.into())
        .await?;
    if asking.json {
        say_json(&answer);
        return Ok(());
    }
    let peer = text(&answer, "peer_id");
    if verb == "unban" {
        say(format_args!(
            "peer {peer} is a stranger again; tickets that a ban made void stay void"
        ));
        return Ok(());
    }
    let also = match answer.get("session_ended") {
        Some(Value::Bool(true)) => "; its session was ended",
        _ => "",
    };
    say(format_args!("peer {peer} is {}{also}", ended(&answer)));
    Ok(())
}

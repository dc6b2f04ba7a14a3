//! `postern policy` and `postern peer pending | approve | refuse | ban | unban | bans`.
//!
//! Claims of unadmitted nodes are sanitized and shown on one line.

use serde_json::{Map, Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::removal;
use super::show::{line, list, number, print, print_json, text, utc, words};
use crate::text::show_claim;

const DAY_S: u64 = 24 * 60 * 60;

/// One line about the admission policy.
pub(super) fn summary(admission: &Value) -> String {
    let by_hand = text(admission, "set_by") == "operator";
    format!(
        "policy {}{}, {} pending, {} refused, {} banned",
        text(admission, "policy"),
        if by_hand { " (set by hand)" } else { "" },
        number(admission, "pending"),
        number(admission, "refusals"),
        number(admission, "bans")
    )
}

pub(super) async fn policy(wanted: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let now = match &wanted {
        Some(policy) => {
            client
                .put("/api/admission", &json!({ "policy": policy }))
                .await?
        }
        None => client.get("/api/admission").await?,
    };
    if api.json {
        print_json(&now);
        return Ok(());
    }
    print(summary(&now));
    if text(&now, "set_by") == "operator" {
        print(format_args!("in force until {}", text(&now, "holds_until")));
    }
    Ok(())
}

/// The names that a node claims for its identities, each marked as a claim.
fn claims(request: &Value) -> String {
    let names = list(request, "names").iter().filter_map(Value::as_str);
    names.map(show_claim).collect::<Vec<_>>().join(", ")
}

pub(super) async fn pending(api: &ApiArgs) -> Result<(), Failure> {
    let answer = ApiClient::find(&api.node.config)?
        .get("/api/admission/pending")
        .await?;
    if api.json {
        print_json(&answer);
        return Ok(());
    }
    let requests = list(&answer, "pending");
    if requests.is_empty() {
        print("no pending requests");
    }
    for request in requests {
        print(format_args!("{}", text(request, "peer_id")));
        print(format_args!("  onion    {}", text(request, "onion")));
        print(format_args!("  claims   names: {}", claims(request)));
        print(format_args!("           apps: {}", words(request, "apps")));
        print(format_args!(
            "           domains: {}",
            words(request, "sync_domains")
        ));
        print(format_args!(
            "  attempts {}: first {}, last {}; effort {}",
            number(request, "attempts"),
            utc(number(request, "first_seen")),
            utc(number(request, "last_seen")),
            number(request, "effort")
        ));
    }
    Ok(())
}

pub(super) async fn bans(api: &ApiArgs) -> Result<(), Failure> {
    let answer = ApiClient::find(&api.node.config)?
        .get("/api/admission/bans")
        .await?;
    if api.json {
        print_json(&answer);
        return Ok(());
    }
    let kept_out = list(&answer, "bans");
    if kept_out.is_empty() {
        print("no bans or refusals");
    }
    for row in kept_out {
        print(format_args!("{}  {}", text(row, "peer_id"), ended(row)));
        print(format_args!(
            "  since {}: {}",
            utc(number(row, "at")),
            line(text(row, "reason"))
        ));
    }
    Ok(())
}

/// The verdict and its end.
fn ended(row: &Value) -> String {
    match row.get("until").and_then(Value::as_u64) {
        Some(until) => format!("{} until {}", text(row, "verdict"), utc(until)),
        None => text(row, "verdict").to_owned(),
    }
}

/// Sends a verdict on a peer: `approve`, `refuse`, `ban` or `unban`.
pub(super) async fn send_verdict(
    verb: &str,
    id: &str,
    (reason, days, purge): (Option<String>, Option<u64>, bool),
    api: &ApiArgs,
) -> Result<(), Failure> {
    let mut request = Map::from_iter([("peer_id".to_owned(), json!(id))]);
    request.extend(reason.map(|reason| ("reason".to_owned(), json!(reason))));
    request.extend(days.map(|days| ("for_s".to_owned(), json!(days.saturating_mul(DAY_S)))));
    request.extend(purge.then(|| ("purge".to_owned(), json!(true))));
    let path = format!("/api/admission/{verb}");
    let client = ApiClient::find(&api.node.config)?;
    let answer = client.post(&path, &request.into()).await?;
    let peer = text(&answer, "peer_id");
    if api.json {
        let removed = match purge {
            true => removal::wait(&client, peer, api).await?,
            false => None,
        };
        let mut shown = answer.clone();
        if let (Some(fields), Some(removed)) = (shown.as_object_mut(), removed) {
            fields.insert("purge".to_owned(), removed);
        }
        print_json(&shown);
        return Ok(());
    }
    if verb == "unban" {
        print(format_args!(
            "peer {peer} is no longer banned or refused; tickets that a ban made void stay void"
        ));
        return Ok(());
    }
    let also = match answer.get("session_ended") {
        Some(Value::Bool(true)) => "; its session has ended",
        _ => "",
    };
    print(format_args!("peer {peer} is {}{also}", ended(&answer)));
    if purge {
        removal::wait(&client, peer, api).await?;
    }
    Ok(())
}

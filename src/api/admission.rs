//! `/api/admission`: who is let in, who waits, and the operator's word on them.
//!
//! Never shows a stranger anything. What strangers claim is shown as they said it: JSON escapes, a terminal has to.

use axum::Json;
use axum::http::StatusCode;
use keys::PeerId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::SessionEffect;
use super::error::ApiError;
use super::read::Body;
use super::state::{ApiState, Traced};
use crate::config::Policy;
use crate::graph::GraphManager;
use crate::op_context::Timestamp;
use crate::services::verdicts::{self as verbs, Reason, VerdictError};
use crate::store::{PendingRow, StoreError, Verdict, VerdictRow};

/// Fewest digits of a peer id that may stand for it.
const PREFIX_DIGITS_MIN: usize = 8;
/// Longest time that a refusal or a ban may be given, in seconds: ten years. What is meant to last longer has no end.
const FOR_S_MAX: u64 = 3650 * 24 * 60 * 60;
/// How long a policy that was set here holds.
const UNTIL_READ_AGAIN: &str = "the next start or SIGHUP: the config file is the operator's word";

/// Who is let in, and how many wait or are kept out. Part of the status too.
pub(super) async fn summary(state: &ApiState) -> Result<Value, ApiError> {
    let admission = state.control.admission();
    let (now, since) = (state.engine.now(), since(state));
    let counting = state.engine.read(move |view| {
        let count = |verdict| view.rows.verdict_count(verdict, now);
        let said = [
            count(Verdict::Approved)?,
            count(Verdict::Refused)?,
            count(Verdict::Banned)?,
        ];
        Ok::<_, StoreError>((view.rows.pending_count(since)?, said))
    });
    let (pending, [approvals, refusals, bans]) = counting.await?;
    Ok(json!({
        "policy": admission.config.policy,
        "set_by": if admission.is_overridden { "operator" } else { "config" },
        "holds_until": admission.is_overridden.then_some(UNTIL_READ_AGAIN),
        "allow": admission.config.allow.len(),
        "pending": pending,
        "pending_max": admission.config.pending_max,
        "approvals": approvals,
        "refusals": refusals,
        "bans": bans,
    }))
}

pub(super) async fn show(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    Ok(Json(summary(&state).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    policy: Policy,
}

pub(super) async fn change(
    Traced(state): Traced,
    Body(request): Body<Change>,
) -> Result<Json<Value>, ApiError> {
    state.control.set_policy(request.policy);
    show(Traced(state)).await
}

/// Who last knocked before then is forgotten.
fn since(state: &ApiState) -> Timestamp {
    state
        .control
        .admission()
        .config
        .pending_since(state.engine.now())
}

pub(super) async fn pending(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let since = since(&state);
    let rows = state
        .engine
        .read(move |view| view.rows.pending(since))
        .await?;
    let shown: Vec<_> = rows.iter().map(show_pending).collect();
    Ok(Json(json!({ "pending": shown })))
}

fn show_pending(row: &PendingRow) -> Value {
    json!({
        "peer_id": row.request.peer_id.to_hex(),
        "onion": row.request.onion.to_onion_string(),
        "apps": row.request.apps,
        "sync_domains": row.request.sync_domains,
        "names": row.request.names,
        "effort": row.request.effort,
        "first_seen": row.first_seen.0,
        "last_seen": row.last_seen.0,
        "attempts": row.attempts,
    })
}

pub(super) async fn bans(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let now = state.engine.now();
    let rows = state
        .engine
        .read(move |view| view.rows.verdicts(now))
        .await?;
    let kept_out = rows.iter().filter(|row| row.verdict != Verdict::Approved);
    Ok(Json(
        json!({ "bans": kept_out.map(show_verdict).collect::<Vec<_>>() }),
    ))
}

fn show_verdict(row: &VerdictRow) -> Value {
    json!({
        "peer_id": row.peer_id.to_hex(),
        "verdict": row.verdict.as_str(),
        "reason": row.reason,
        "at": row.at.0,
        "until": row.until.map(|until| until.0),
    })
}

/// A word on a peer. Its id may be cut short where only one that is known begins so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    peer_id: String,
}

/// A word that keeps a peer out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptOut {
    peer_id: String,
    #[serde(default)]
    reason: String,
    for_s: Option<u64>,
}

pub(super) async fn approve(
    Traced(state): Traced,
    Body(said): Body<Named>,
) -> Result<Json<Value>, ApiError> {
    let peer = find(&state, &said.peer_id).await?;
    say(&state, SessionEffect::Trust, move |graph| {
        verbs::approve(graph, peer)
    })
    .await
}

pub(super) async fn refuse(
    Traced(state): Traced,
    Body(said): Body<KeptOut>,
) -> Result<Json<Value>, ApiError> {
    let peer = find(&state, &said.peer_id).await?;
    let config = state.control.admission().config;
    if config.allow.contains(&peer) {
        let why = "this peer is listed under admission.allow: take it out there, or ban it";
        return Err(ApiError::new(StatusCode::CONFLICT, "trusted", why));
    }
    let until = match end(&state, said.for_s)? {
        Some(until) => until,
        None => Timestamp(state.engine.now().0.saturating_add(config.refused_ms())),
    };
    let reason = reason(said.reason)?;
    say(&state, SessionEffect::Close, move |graph| {
        verbs::refuse(graph, peer, reason, Some(until))
    })
    .await
}

pub(super) async fn ban(
    Traced(state): Traced,
    Body(said): Body<KeptOut>,
) -> Result<Json<Value>, ApiError> {
    let peer = find(&state, &said.peer_id).await?;
    let (until, reason) = (end(&state, said.for_s)?, reason(said.reason)?);
    say(&state, SessionEffect::Close, move |graph| {
        verbs::ban(graph, peer, reason, until)
    })
    .await
}

pub(super) async fn unban(
    Traced(state): Traced,
    Body(said): Body<Named>,
) -> Result<Json<Value>, ApiError> {
    let peer = find(&state, &said.peer_id).await?;
    say(&state, SessionEffect::None, move |graph| {
        verbs::unban(graph, peer)
    })
    .await
}

/// Writes a verdict, then applies it to the peer's session. Both happen on the writer, because the request may be
/// cancelled in between and no session may outlive a ban.
async fn say(
    state: &ApiState,
    effect: SessionEffect,
    verb: impl FnOnce(&mut GraphManager<'_>) -> Result<VerdictRow, VerdictError> + Send + 'static,
) -> Result<Json<Value>, ApiError> {
    let control = state.control.clone();
    let writing = state.engine.write(move |core, now| {
        let row = core.write(now, verb)?;
        let ended = control.apply_verdict(&row.peer_id, effect);
        Ok::<_, VerdictError>((row, ended))
    });
    let (row, ended) = writing.await?;
    let holds = row.holds(state.engine.now());
    tracing::info!(peer = %row.peer_id, verdict = row.verdict.as_str(), holds, ended, "the operator decided on a peer");
    let mut shown = show_verdict(&row);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("session_ended".into(), json!(ended));
    }
    Ok(Json(shown))
}

/// A peer by its whole id, known or not, or by the start of one that is known.
async fn find(state: &ApiState, text: &str) -> Result<PeerId, ApiError> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let is_prefix =
        text.len() >= PREFIX_DIGITS_MIN && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_prefix {
        let why = format!(
            "peer_id: 64 hexadecimal digits, or the first {PREFIX_DIGITS_MIN} or more of a known one"
        );
        return Err(ApiError::bad_request(why));
    }
    let prefix = text.to_owned();
    let found = state
        .engine
        .read(move |view| view.rows.peers_by_prefix(&prefix))
        .await?;
    match found.as_slice() {
        [peer] => Ok(*peer),
        [] => Err(ApiError::not_found("peer_id: no known peer's id begins so")),
        _ => {
            let why = "peer_id: the ids of several peers begin so: give more digits";
            Err(ApiError::new(StatusCode::CONFLICT, "ambiguous", why))
        }
    }
}

fn reason(text: String) -> Result<Reason, ApiError> {
    Reason::new(text).map_err(|error| ApiError::bad_request(format!("reason: {error}")))
}

/// When a word that holds for so long ends.
fn end(state: &ApiState, for_s: Option<u64>) -> Result<Option<Timestamp>, ApiError> {
    match for_s {
        None => Ok(None),
        Some(for_s @ 1..=FOR_S_MAX) => Ok(Some(Timestamp(
            state.engine.now().0.saturating_add(for_s * 1000),
        ))),
        Some(_) => Err(ApiError::bad_request(format!(
            "for_s: must be 1 to {FOR_S_MAX}"
        ))),
    }
}

//! `/api/admission`: the admission policy, pending requests, and the operator's verdicts.
//!
//! Names that unadmitted nodes claim are returned on one line, with hidden characters escaped.

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
use crate::services::removals;
use crate::services::verdicts::{self as verbs, Reason};
use crate::store::{PendingRow, StoreError, Verdict, VerdictRow};
use crate::text::escape;

/// Shortest accepted prefix of a peer id, in digits.
const PREFIX_DIGITS_MIN: usize = 8;
/// Longest duration of a refusal or ban, in seconds: ten years. A ban without a duration has no
/// end.
const FOR_S_MAX: u64 = 3650 * 24 * 60 * 60;
/// End of a policy that was set through the API.
const OVERRIDE_END: &str = "the next start or SIGHUP";

/// The policy and the number of pending requests and verdicts. Also part of the status.
pub(super) async fn summary(state: &ApiState) -> Result<Value, ApiError> {
    let admission = state.control.admission();
    let (now, since) = (state.engine.now(), since(state));
    let counting = state.engine.read(move |view| {
        let count = |verdict| view.rows.verdict_count(verdict, now);
        let verdicts = [
            count(Verdict::Approved)?,
            count(Verdict::Refused)?,
            count(Verdict::Banned)?,
        ];
        Ok::<_, StoreError>((view.rows.pending_count(since)?, verdicts))
    });
    let (pending, [approvals, refusals, bans]) = counting.await?;
    Ok(json!({
        "policy": admission.config.policy,
        "set_by": if admission.is_overridden { "operator" } else { "config" },
        "holds_until": admission.is_overridden.then_some(OVERRIDE_END),
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
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct PolicyRequest {
    policy: Policy,
}

pub(super) async fn change(
    Traced(state): Traced,
    Body(request): Body<PolicyRequest>,
) -> Result<Json<Value>, ApiError> {
    state.control.set_policy(request.policy);
    show(Traced(state)).await
}

/// Pending requests that were last seen before this time have expired.
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
        "names": row.request.names.iter().map(|name| escape(name)).collect::<Vec<_>>(),
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
    let denied = rows.iter().filter(|row| row.verdict != Verdict::Approved);
    Ok(Json(
        json!({ "bans": denied.map(show_verdict).collect::<Vec<_>>() }),
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

/// Names a peer, by its whole id or by a unique prefix of a known one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct PeerRequest {
    peer_id: String,
}

/// A refusal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct VerdictRequest {
    peer_id: String,
    #[serde(default)]
    reason: String,
    for_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct BanRequest {
    peer_id: String,
    #[serde(default)]
    reason: String,
    for_s: Option<u64>,
    /// Whether what the peer sent is removed too.
    #[serde(default)]
    purge: bool,
}

pub(super) async fn approve(
    Traced(state): Traced,
    Body(request): Body<PeerRequest>,
) -> Result<Json<Value>, ApiError> {
    let peer = find_peer(&state, "peer_id", &request.peer_id).await?;
    write_verdict(&state, SessionEffect::Trust, move |graph| {
        verbs::approve(graph, peer)
    })
    .await
}

pub(super) async fn refuse(
    Traced(state): Traced,
    Body(request): Body<VerdictRequest>,
) -> Result<Json<Value>, ApiError> {
    let peer = find_peer(&state, "peer_id", &request.peer_id).await?;
    let config = state.control.admission().config;
    if config.allow.contains(&peer) {
        let why = "the peer is listed under admission.allow: remove it there, or ban it";
        return Err(ApiError::new(StatusCode::CONFLICT, "trusted", why));
    }
    let until = match end(&state, request.for_s)? {
        Some(until) => until,
        None => Timestamp(state.engine.now().0.saturating_add(config.refused_ms())),
    };
    let reason = reason(request.reason)?;
    write_verdict(&state, SessionEffect::Close, move |graph| {
        verbs::refuse(graph, peer, reason, Some(until))
    })
    .await
}

pub(super) async fn ban(
    Traced(state): Traced,
    Body(request): Body<BanRequest>,
) -> Result<Json<Value>, ApiError> {
    let peer = find_peer(&state, "peer_id", &request.peer_id).await?;
    let (until, reason) = (end(&state, request.for_s)?, reason(request.reason)?);
    let (purge, quotas) = (request.purge, state.engine.context().limits.quotas);
    write_verdict(&state, SessionEffect::Close, move |graph| match purge {
        true => removals::ban_and_purge(graph, &quotas, peer, (reason, until)),
        false => Ok(verbs::ban(graph, peer, reason, until)?),
    })
    .await
}

pub(super) async fn unban(
    Traced(state): Traced,
    Body(request): Body<PeerRequest>,
) -> Result<Json<Value>, ApiError> {
    let peer = find_peer(&state, "peer_id", &request.peer_id).await?;
    write_verdict(&state, SessionEffect::None, move |graph| {
        verbs::unban(graph, peer)
    })
    .await
}

/// Writes a verdict, then applies it to the peer's session. Both happen on the writer, because the
/// request may be cancelled in between and no session may outlive a ban.
async fn write_verdict<E>(
    state: &ApiState,
    effect: SessionEffect,
    verb: impl FnOnce(&mut GraphManager<'_>) -> Result<VerdictRow, E> + Send + 'static,
) -> Result<Json<Value>, ApiError>
where
    E: std::error::Error + From<StoreError> + Into<ApiError> + Send + 'static,
{
    let control = state.control.clone();
    let writing = state.engine.write(move |core, now| {
        let row = core.write(now, verb)?;
        let ended = control.apply_verdict(&row.peer_id, effect);
        Ok::<_, E>((row, ended))
    });
    let (row, ended) = writing.await?;
    let holds = row.holds(state.engine.now());
    let verdict = row.verdict.as_str();
    tracing::info!(peer = %row.peer_id, verdict, holds, ended, "verdict written");
    let mut shown = show_verdict(&row);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("session_ended".into(), json!(ended));
    }
    Ok(Json(shown))
}

/// Returns the peer with this id, known or not, or the only known peer whose id has this prefix.
pub(super) async fn find_peer(
    state: &ApiState,
    field: &str,
    text: &str,
) -> Result<PeerId, ApiError> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let is_prefix =
        text.len() >= PREFIX_DIGITS_MIN && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_prefix {
        let why = format!(
            "{field}: must be 64 hexadecimal digits, or the first {PREFIX_DIGITS_MIN} or more of a \
             known peer's id"
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
        [] => Err(ApiError::not_found(format!(
            "{field}: no known peer's id has this prefix"
        ))),
        _ => {
            let why = format!("{field}: several peers' ids have this prefix: give more digits");
            Err(ApiError::new(StatusCode::CONFLICT, "ambiguous", why))
        }
    }
}

fn reason(text: String) -> Result<Reason, ApiError> {
    Reason::new(text).map_err(|error| ApiError::bad_field("reason", &error))
}

/// The end of a verdict of this duration.
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

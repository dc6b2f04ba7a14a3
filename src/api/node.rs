//! `/api/status`, `/api/dials`, `/api/peers`, `/api/sync`: the node, its peers and their sync.

use axum::Json;
use axum::http::StatusCode;
use bastion::{AppClaim, Tier};
use futures::future::join_all;
use keys::{OnionAddr, PeerId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::{SyncDirection, SyncReport};
use super::error::ApiError;
use super::people::show as show_person;
use super::read::{Body, peer_id};
use super::state::{ApiState, Traced};
use super::{admission, recovery as recovery_api, removals};
use crate::schema::identities;
use crate::services::contacts::{self, Naming};
use crate::services::people;
use crate::state_engine::View;
use crate::store::{StoreError, Usage};

/// All peers with their usage and cursors.
fn peer_rows(view: &View<'_>) -> Result<Vec<Value>, StoreError> {
    let mut rows = Vec::new();
    for peer in view.rows.peers()? {
        let stored = view
            .rows
            .stored_by(&peer.peer_id)?
            .map_or_else(Usage::default, |stored| stored.usage);
        let states =
            view.rows
                .sync_states(&peer.peer_id)?
                .into_iter()
                .map(|(domain, direction, state)| {
                    json!({
                        "domain": domain,
                        "direction": direction.as_str(),
                        "epoch": state.epoch.to_hex(),
                        "last_seq": state.last_seq,
                        "acked_seq": state.acked_seq,
                    })
                });
        let people = people::at_home(&view.rows, &peer.peer_id)?;
        let waiting = view.rows.waiting_by_cause(&peer.peer_id)?;
        let again = view.rows.pull_again_counts(&peer.peer_id)?;
        rows.push(json!({
            "peer_id": peer.peer_id.to_hex(),
            "onion": peer.onion.to_onion_string(),
            "peer_apps": peer.peer_apps.iter().map(|app| &app.slug).collect::<Vec<_>>(),
            "schemas": schemas(&peer.peer_apps),
            "peer_sync_domains": peer.peer_sync_domains,
            "domains": peer.domains,
            "identities": people.people().iter().map(show_person).collect::<Vec<_>>(),
            "more_identities": people.has_more(),
            "tier": peer.tier.as_str(),
            "introduced": view.rows.introduction(&peer.peer_id)?.is_some(),
            "epoch": peer.epoch.to_hex(),
            "last_contact": peer.last_contact.0,
            "stored_objects": stored.objects,
            "stored_bytes": stored.bytes,
            "waiting": view.rows.waiting_count(&peer.peer_id)?.all,
            "waiting_for": {
                "object": waiting.object,
                "key": waiting.key,
                "unfreezing": waiting.unfreezing,
                "home": waiting.home,
                "rights_list": waiting.rights_list,
                "schema": waiting.schema,
            },
            "pull_again": {
                "no_room": again.no_room,
                "expired": again.expired,
                "named": again.named,
            },
            "rejects": view.rows.reject_count(Some(&peer.peer_id))?,
            "sync_state": states.collect::<Vec<_>>(),
        }));
    }
    Ok(rows)
}

/// Version and digest of each app's schema, by slug.
fn schemas(claims: &[AppClaim]) -> Value {
    let row = |it: &AppClaim| {
        let schema = json!({ "version": it.version, "digest": it.digest.to_hex() });
        (it.slug.clone(), schema)
    };
    Value::Object(claims.iter().map(row).collect())
}

/// Usage and quota of each tier.
fn tier_rows(view: &View<'_>) -> Result<Value, StoreError> {
    let mut rows = serde_json::Map::new();
    for tier in [Tier::Untrusted, Tier::Trusted] {
        let usage = view.rows.tier_usage(tier)?;
        let quota = view.context.limits.quotas.of(tier);
        let row = json!({
            "stored_objects": usage.objects,
            "stored_bytes": usage.bytes,
            "total_objects_max": quota.total_objects_max,
            "total_bytes_max": quota.total_bytes_max,
            "peer_stored_objects_max": quota.stored_objects_max,
            "peer_stored_bytes_max": quota.stored_bytes_max,
            "requests_per_minute_max": quota.requests_per_minute_max,
        });
        rows.insert(tier.as_str().into(), row);
    }
    Ok(Value::Object(rows))
}

/// Most invitations that a status counts.
const INVITATIONS_MAX: u64 = 1000;

/// Returns the dials in progress only, because clients poll them during a dial.
pub(super) async fn dials(Traced(state): Traced) -> Json<Value> {
    Json(json!({ "dials": state.control.status().dials }))
}

pub(super) async fn status(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let node = state.control.status();
    let (head, peers, tiers, recovery, counts, purges) = state
        .engine
        .read(|view| {
            Ok::<_, StoreError>((
                view.head()?,
                peer_rows(&view)?,
                tier_rows(&view)?,
                view.recovery()?,
                (
                    view.rows.frozen_count()?,
                    view.rows
                        .open_invitations(&view.this_node(), INVITATIONS_MAX)?,
                ),
                removals::shown(&view)?,
            ))
        })
        .await?;
    let (context, admission) = (state.engine.context(), admission::summary(&state).await?);
    let domains = context.schemas.sync_domains();
    let domains = domains.map(|domain| &domain.name).collect::<Vec<_>>();
    let (gate, handshakes) = (&node.gate, &node.gate.handshakes);
    Ok(Json(json!({
        "peer_id": node.peer_id.to_hex(),
        "onion": node.onion.to_onion_string(),
        "network": node.network,
        "epoch": context.epoch.to_hex(),
        "change_seq": head,
        "apps": context.schemas.apps().map(|app| &app.slug).collect::<Vec<_>>(),
        "schemas": schemas(&context.schemas.claims()),
        "sync_domains": domains,
        "admission": admission,
        "frozen_identities": counts.0,
        "open_invitations": counts.1,
        "removals": purges,
        "recovery": recovery_api::summary(&recovery, state.engine.now()),
        "gate": {
            "effort": gate.effort,
            "load_permille": gate.load_permille,
            "open_handshakes": handshakes.without_ticket(),
            "handshakes": {
                "awaiting_hello": handshakes.awaiting_hello,
                "challenged": handshakes.challenged,
                "verifying": handshakes.verifying,
                "untrusted_ticket": handshakes.untrusted_ticket,
                "trusted_ticket": handshakes.trusted_ticket,
            },
            "queue": gate.queue,
            "verifying": gate.verifying,
            "failures_per_minute": gate.failures_per_minute,
            "admissions_per_minute": gate.admissions_per_minute,
            "cached_replies": gate.cached_replies,
            "admitted_total": gate.admitted_total,
            "by_ticket_total": gate.by_ticket_total,
            "refused_total": gate.refused_total,
            "busy_total": gate.busy_total,
        },
        "dialled_total": node.dialled_total,
        "tor": super::tor::show(node.tor),
        "sessions": node.sessions,
        "dials": node.dials,
        "peers": peers,
        "tiers": tiers,
    })))
}

pub(super) async fn peers(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let peers = state.engine.read(|view| peer_rows(&view)).await?;
    Ok(Json(json!({ "peers": peers })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct DialRequest {
    onion: String,
    /// Petname for the only listed identity of the node.
    r#as: Option<String>,
}

pub(super) async fn dial(
    Traced(state): Traced,
    Body(request): Body<DialRequest>,
) -> Result<Json<Value>, ApiError> {
    let onion: OnionAddr = request
        .onion
        .trim()
        .parse()
        .map_err(|error| ApiError::bad_field("onion", &error))?;
    let name = request.r#as;
    // Before the work of a dial.
    name.as_deref().map_or(Ok(()), contacts::check_petname)?;
    let dialled = state.control.dial(onion).await?;
    let peer = dialled.peer;
    let naming = match name {
        Some(name) => Some(name_at_peer(&state, peer, name).await?),
        None => None,
    };
    let reading = state
        .engine
        .read(move |view| people::at_home(&view.rows, &peer));
    let people = reading.await?;
    Ok(Json(json!({
        "peer_id": peer.to_hex(),
        "effort": dialled.effort,
        "solving_ms": dialled.solving_ms,
        "identities": people.people().iter().map(show_person).collect::<Vec<_>>(),
        "more_identities": people.has_more(),
        "named": matches!(naming, Some(Naming::Named)),
        "not_named": naming.as_ref().and_then(not_named),
    })))
}

/// Names the only identity of a dialled node. A handshake shows only some of several identities, so
/// that all are pulled first.
async fn name_at_peer(state: &ApiState, peer: PeerId, name: String) -> Result<Naming, ApiError> {
    let domain = identities::DOMAIN.to_owned();
    let pulled = state.control.sync(peer, domain, SyncDirection::Pull).await;
    if pulled.is_err() {
        return Ok(Naming::Unread);
    }
    let naming = state
        .engine
        .graph::<_, StoreError>(move |graph| contacts::name_at_peer(graph, &peer, &name));
    Ok(naming.await?)
}

/// Why no identity of a dialled node was named. `None`: one was.
fn not_named(naming: &Naming) -> Option<String> {
    match naming {
        Naming::Named => None,
        Naming::Unread => Some("its identities could not be read".to_owned()),
        Naming::NoIdentity => Some("the node has no listed identity".to_owned()),
        Naming::Several => Some("the node has several identities".to_owned()),
        Naming::Refused(error) => Some(keys::error_chain(error)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SyncRequest {
    peer: Option<String>,
    domain: Option<String>,
    #[serde(default)]
    direction: SyncDirection,
}

/// Syncs one peer, or all with a session; one domain, or the whole intersection.
///
/// # Errors
/// If peer and domain are given, the sync's error. Otherwise a failed sync is one of the reports,
/// so that the reports of other peers are returned too.
pub(super) async fn sync(
    Traced(state): Traced,
    Body(request): Body<SyncRequest>,
) -> Result<Json<Value>, ApiError> {
    let only_peer = request
        .peer
        .as_deref()
        .map(|text| peer_id("peer", text))
        .transpose()?;
    let direction = request.direction;
    if let (Some(peer), Some(domain)) = (only_peer, request.domain.clone()) {
        let done = state.control.sync(peer, domain, direction).await?;
        let reports: Vec<_> = done
            .iter()
            .map(|report| show_report(report, &peer))
            .collect();
        return Ok(Json(json!({ "reports": reports })));
    }
    let mut wanted = Vec::new();
    for session in state.control.status().sessions {
        let peer = peer_id("peer", &session.peer_id)?;
        let is_wanted = |name: &String| request.domain.as_ref().is_none_or(|domain| domain == name);
        let domains: Vec<String> = session.domains.into_iter().filter(is_wanted).collect();
        if only_peer.is_none_or(|only| only == peer) {
            wanted.push((peer, domains));
        }
    }
    if only_peer.is_some() && wanted.is_empty() {
        let why =
            "no session with this peer: dial it first (POST /api/peers, or `postern peer add`)";
        return Err(ApiError::new(StatusCode::CONFLICT, "no_session", why));
    }
    let syncs = wanted
        .into_iter()
        .map(|(peer, domains)| sync_peer(&state, peer, domains, direction));
    let reports = join_all(syncs).await.concat();
    Ok(Json(json!({ "reports": reports })))
}

async fn sync_peer(
    state: &ApiState,
    peer: PeerId,
    domains: Vec<String>,
    direction: SyncDirection,
) -> Vec<Value> {
    let mut reports = Vec::new();
    for domain in domains {
        match state.control.sync(peer, domain.clone(), direction).await {
            Ok(done) => reports.extend(done.iter().map(|report| show_report(report, &peer))),
            Err(error) => reports.push(json!({
                "peer": peer.to_hex(),
                "domain": domain,
                "direction": direction,
                "window": null,
                "outcome": "failed",
                "error": keys::error_chain(&error),
            })),
        }
    }
    reports
}

fn show_report(report: &SyncReport, peer: &PeerId) -> Value {
    let outcome = match (report.window, report.direction) {
        (None, _) => "up_to_date",
        (Some(_), SyncDirection::Pull) => "applied",
        (Some(_), SyncDirection::Push) => "acknowledged",
    };
    let mut value = json!(report);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("peer".into(), json!(peer.to_hex()));
        fields.insert("outcome".into(), json!(outcome));
    }
    value
}

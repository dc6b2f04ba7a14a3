//! `/api/v1/peers/remove` and `/api/v1/purges`: removes peers and what they sent, and shows how far
//! that is.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admission::find_peer;
use super::control::SessionEffect;
use super::error::ApiError;
use super::read::Body;
use super::state::Traced;
use crate::services::removals::{self, RemovalError};
use crate::state_engine::View;
use crate::store::{PurgeProgress, PurgeRow, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RemoveRequest {
    peer_id: String,
    /// Whether what the peer sent is removed too.
    #[serde(default)]
    purge: bool,
}

/// Removes a peer: ends its session and its dials. The writer removes its objects after the reply.
pub(super) async fn remove(
    Traced(state): Traced,
    Body(request): Body<RemoveRequest>,
) -> Result<Json<Value>, ApiError> {
    let (peer, purge) = (
        find_peer(&state, "peer_id", &request.peer_id).await?,
        request.purge,
    );
    let known = state.engine.read(move |view| view.rows.peer(&peer)).await?;
    let is_allowed = state.control.admission().config.allow.contains(&peer);
    let onion = known.map(|known| known.onion);
    if is_allowed || onion.is_some_and(|onion| state.control.is_configured(&onion)) {
        let why = "the peer is listed under [[peer]] or admission.allow, so that it would be \
                   admitted again: remove it there and restart, or ban it";
        return Err(ApiError::new(StatusCode::CONFLICT, "configured", why));
    }
    let (control, quotas) = (state.control.clone(), state.engine.context().limits.quotas);
    // The session ends on the writer, because the request may be cancelled in between.
    let removing = state.engine.write(move |core, now| {
        let removed = core.write(now, |graph| removals::remove(graph, &quotas, peer, purge))?;
        if let Some(onion) = &removed.onion {
            control.stop_dialling(onion);
        }
        Ok::<_, RemovalError>(control.apply_verdict(&peer, SessionEffect::Close))
    });
    let ended = removing.await?;
    tracing::info!(%peer, purge, ended, "peer removed");
    Ok(Json(json!({
        "peer_id": peer.to_hex(),
        "purge": purge,
        "session_ended": ended,
    })))
}

/// The purges and how far they are. Also part of the status.
pub(super) fn shown(view: &View<'_>) -> Result<Value, StoreError> {
    let purges = view.rows.purges()?;
    let progress = view.rows.purge_progress()?;
    Ok(json!({
        "purges": purges.iter().map(row).collect::<Vec<_>>(),
        "done_permille": progress.as_ref().map(permille),
        "waits_for_recovery": view.recovery()?.write_mode.is_some(),
    }))
}

pub(super) async fn list(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let reading = state.engine.read(|view| shown(&view));
    Ok(Json(reading.await?))
}

fn row(purge: &PurgeRow) -> Value {
    json!({
        "peer_id": purge.peer.to_hex(),
        "state": purge.state.as_str(),
        "with_objects": purge.order.takes_objects,
        "removed_objects": purge.removed.objects,
        "removed_bytes": purge.removed.bytes,
        "forgotten_identities": purge.identities,
        "remembered": purge.remembered,
    })
}

/// How much of all steps is done, in thousandths.
fn permille(progress: &PurgeProgress) -> u64 {
    let steps = progress.steps.max(1) as u64;
    let within = match progress.to_look_at {
        0 => 0,
        to_look_at => 1000 * progress.looked_at.min(to_look_at) / to_look_at,
    };
    (1000 * progress.steps_done as u64 + within) / steps
}

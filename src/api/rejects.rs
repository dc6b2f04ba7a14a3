//! `/api/v1/rejects`: objects of peers that a rule refused permanently, for the operator.

use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admission::find_peer;
use super::error::ApiError;
use super::read::{QueryParams, page};
use super::state::Traced;
use crate::store::{RejectGroup, RejectRow, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RejectsQuery {
    /// A peer id, or the first digits of a known one. Default: all peers.
    peer: Option<String>,
    /// Largest number of groups, and of rejects.
    limit: Option<usize>,
}

pub(super) async fn list(
    Traced(state): Traced,
    QueryParams(query): QueryParams<RejectsQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = page(query.limit)?;
    let peer = match &query.peer {
        Some(text) => Some(find_peer(&state, "peer", text).await?),
        None => None,
    };
    let reading = state.engine.read(move |view| {
        let groups = view.rows.reject_groups(peer.as_ref(), limit)?;
        let rejects = view.rows.rejects(peer.as_ref(), limit)?;
        Ok::<_, StoreError>((groups, rejects))
    });
    let (groups, rejects) = reading.await?;
    Ok(Json(json!({
        "groups": groups.iter().map(show_group).collect::<Vec<_>>(),
        "rejects": rejects.iter().map(show).collect::<Vec<_>>(),
    })))
}

fn show_group(group: &RejectGroup) -> Value {
    json!({
        "peer_id": group.peer.map(|peer| peer.to_hex()),
        "code": group.code,
        "type": group.type_name,
        "count": group.count,
        "newest_at": group.newest_at.0,
    })
}

fn show(row: &RejectRow) -> Value {
    json!({
        "peer_id": row.peer.map(|peer| peer.to_hex()),
        "domain": row.domain,
        "epoch": row.epoch.to_hex(),
        "seq": row.seq,
        "oid": row.oid.map(|oid| oid.to_hex()),
        "type": row.type_name,
        "code": row.code,
        "at": row.at.0,
    })
}

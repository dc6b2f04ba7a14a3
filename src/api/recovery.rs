//! `/api/recovery`: shows why writes are restricted, and ends the restriction by the operator's
//! decision.

use axum::Json;
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::Traced;
use crate::op_context::Timestamp;
use crate::state_engine::RecoveryStatus;
use crate::store::WriteMode;

/// Returns the write mode (`read_write`, `new_objects_only` or `read_only`) and its cause.
pub(super) async fn show(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let recovery = state.engine.read(|view| view.recovery()).await?;
    Ok(Json(summary(&recovery, state.engine.now())))
}

/// The write mode as JSON. `now` gives the hours left.
pub(super) fn summary(recovery: &RecoveryStatus, now: Timestamp) -> Value {
    let row = recovery.write_mode.as_ref();
    let until = row.and_then(|row| row.until);
    json!({
        "write_mode": row.map_or("read_write", |row| match row.mode {
            WriteMode::ReadWrite => "read_write",
            WriteMode::NewObjectsOnly => "new_objects_only",
            WriteMode::ReadOnly => "read_only",
        }),
        "reason": row.map(|row| &row.reason),
        "since": row.map(|row| row.since.0),
        "until": until.map(|until| until.0),
        "hours_left": until.map(|until| until.0.saturating_sub(now.0).div_ceil(3_600_000)),
        "foreign_epoch": row.and_then(|row| row.foreign_epoch).map(|epoch| epoch.to_hex()),
        "waits_for": recovery.waits_for.iter().map(|peer| peer.to_hex()).collect::<Vec<_>>(),
        "resolved": recovery.is_resolved,
    })
}

/// Ends the recovery without waiting for further peers.
pub(super) async fn finish(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let finished = state
        .engine
        .write(|core, now| core.end_recovery(now))
        .await?;
    Ok(Json(json!({ "finished": finished })))
}

/// Records that no other copy of this node runs. After the next start the node continues as a
/// restored one.
pub(super) async fn resolve(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let resolved = state
        .engine
        .write(|core, _| core.resolve_read_only())
        .await?;
    Ok(Json(json!({ "resolved": resolved })))
}

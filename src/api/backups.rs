//! `/api/backup`: starts a backup and shows its progress.
//!
//! The node writes the file; no backup is sent over HTTP. A backup continues after the request that
//! started it has ended.

use std::path::PathBuf;

use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::read::Body;
use super::state::Traced;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct BackupRequest {
    path: String,
}

pub(super) async fn start(
    Traced(state): Traced,
    Body(request): Body<BackupRequest>,
) -> Result<Json<Value>, ApiError> {
    let path = PathBuf::from(request.path);
    if !path.is_absolute() {
        return Err(ApiError::bad_request(
            "path: must be absolute, because the node's working folder differs from the client's",
        ));
    }
    Ok(Json(json!(state.control.start_backup(path)?)))
}

pub(super) async fn show(Traced(state): Traced) -> Json<Value> {
    Json(json!({ "backup": state.control.last_backup() }))
}

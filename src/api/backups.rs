//! `/api/backup`: makes a backup, and tells how far it is.
//!
//! Never sends a backup over HTTP: the node writes the file. A backup outlives the request that began it.

use std::path::PathBuf;

use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::read::Body;
use super::state::Traced;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    path: String,
}

pub(super) async fn start(
    Traced(state): Traced,
    Body(request): Body<Start>,
) -> Result<Json<Value>, ApiError> {
    let path = PathBuf::from(request.path);
    if !path.is_absolute() {
        return Err(ApiError::bad_request(
            "path: must be absolute, since the node has another working folder than you",
        ));
    }
    Ok(Json(json!(state.control.start_backup(path)?)))
}

pub(super) async fn show(Traced(state): Traced) -> Json<Value> {
    Json(json!({ "backup": state.control.last_backup() }))
}

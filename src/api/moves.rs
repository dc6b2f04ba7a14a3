//! `/api/v1/identities`: moves of identities to and from this node.
//!
//! The node writes and reads the file; no secret of an identity is sent over HTTP. To open a file
//! the node needs its key, which opens nothing else. A move continues after the request that
//! started it has ended.

use std::path::PathBuf;

use axum::Json;
use axum::extract::Path;
use keys::MoveFileKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::read::{Body, oid};
use super::state::Traced;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct MoveRequest {
    onion: String,
    path: String,
}

/// Starts to write the file that moves an identity to a node.
pub(super) async fn start(
    Traced(state): Traced,
    Path(identity): Path<String>,
    Body(request): Body<MoveRequest>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    let onion = request
        .onion
        .parse()
        .map_err(|error| ApiError::bad_field("onion", &error))?;
    let path = absolute(request.path)?;
    let row = state.control.start_move(identity, onion, path)?;
    Ok(Json(json!(row)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ReceiveRequest {
    path: String,
    key: String,
}

/// Starts to take an identity from a file.
pub(super) async fn receive(
    Traced(state): Traced,
    Body(request): Body<ReceiveRequest>,
) -> Result<Json<Value>, ApiError> {
    let key = MoveFileKey::from_hex(&request.key);
    let key = key.map_err(|error| ApiError::bad_field("key", &error))?;
    let row = state.control.start_receive(absolute(request.path)?, key)?;
    Ok(Json(json!(row)))
}

/// Shows the running move, or the last one since the node started.
pub(super) async fn show(Traced(state): Traced) -> Json<Value> {
    Json(json!({ "move": state.control.last_move() }))
}

/// Removes the keys of an identity that lives at its new home.
pub(super) async fn finish(
    Traced(state): Traced,
    Path(identity): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    let had_keys = state.control.finish_move(identity).await?;
    Ok(Json(
        json!({ "oid": identity.to_hex(), "had_keys": had_keys }),
    ))
}

fn absolute(path: String) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(path);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(ApiError::bad_request(
            "path: must be absolute, because the node's working folder differs from the client's",
        )),
    }
}

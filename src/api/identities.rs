//! `/api/identities`: who lives here, who is known, and new ones.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiState;
use super::error::ApiError;
use super::read::Body;
use crate::services::identities;

pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    let cards = state.engine.read(|view| identities::known(&view)).await?;
    let cards: Vec<_> = cards
        .into_iter()
        .map(|card| {
            json!({ "oid": card.oid.to_hex(), "name": card.name, "home_peer_id": card.home.to_hex(), "here": card.here })
        })
        .collect();
    Ok(Json(json!({ "identities": cards })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: Option<String>,
}

pub(super) async fn create(
    State(state): State<ApiState>,
    Body(request): Body<Create>,
) -> Result<Json<Value>, ApiError> {
    let oid = state.control.new_identity(request.name).await?;
    Ok(Json(json!({ "oid": oid.to_hex() })))
}

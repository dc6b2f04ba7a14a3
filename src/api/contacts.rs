//! `/api/v1/contacts`: the address book, which never leaves this node.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use keys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::people::named;
use super::read::{Body, QueryParams, oid, page_up_to};
use super::state::{ApiState, Traced};
use crate::services::contacts::{self, ContactError, ContactNote};
use crate::services::people;
use crate::state_engine::View;
use crate::store::{ContactRow, StoreError};

/// Largest number of contacts in a page: each has a note of at most 2,000 bytes.
const CONTACTS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ContactsQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// Lists the address book by name. `after` of a reply is the position of the next page.
pub(super) async fn list(
    Traced(state): Traced,
    QueryParams(query): QueryParams<ContactsQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = page_up_to(query.limit, CONTACTS_MAX)?;
    let after = query.after.unwrap_or_default();
    let reading = state.engine.read(move |view| {
        let mut rows = view.rows.contacts(&after, limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let after = rows.last().map_or(after, |row| row.folded.clone());
        let shown = rows.iter().map(|row| show(&view, row));
        let shown: Vec<_> = shown.collect::<Result<_, _>>()?;
        Ok::<_, StoreError>(json!({ "contacts": shown, "after": after, "more": more }))
    });
    Ok(Json(reading.await?))
}

fn show(view: &View<'_>, row: &ContactRow) -> Result<Value, StoreError> {
    let home = people::known(&view.rows, &row.identity)?.map(|it| it.home);
    let fields = json!({
        "identity_oid": row.identity.to_hex(),
        "note": row.note,
        "known": home.is_some(),
        "local": home == Some(view.this_node()),
    });
    Ok(named(&people::person(&view.rows, &row.identity)?, fields))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct AddRequest {
    /// Need not be known to this node yet.
    identity_oid: String,
    name: String,
    #[serde(default)]
    note: String,
}

pub(super) async fn add(
    Traced(state): Traced,
    Body(request): Body<AddRequest>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let identity = oid("identity_oid", &request.identity_oid)?;
    let note = ContactNote::new(request.note)?;
    state
        .engine
        .graph(move |graph| contacts::add(graph, identity, &request.name, &note))
        .await?;
    let status = StatusCode::CREATED;
    Ok((status, shown(&state, identity).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ContactChange {
    name: Option<String>,
    /// Empty: no note.
    note: Option<String>,
}

/// Changes name, note or both.
pub(super) async fn change(
    Traced(state): Traced,
    Path(identity): Path<String>,
    Body(request): Body<ContactChange>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("the path", &identity)?;
    let note = request.note.map(ContactNote::new).transpose()?;
    let name = request.name;
    if name.is_none() && note.is_none() {
        return Err(ApiError::bad_request(
            "the body: `name` or `note` is needed",
        ));
    }
    state
        .engine
        .graph(move |graph| contacts::change(graph, identity, name.as_deref(), note.as_ref()))
        .await?;
    shown(&state, identity).await
}

pub(super) async fn remove(
    Traced(state): Traced,
    Path(identity): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("the path", &identity)?;
    state
        .engine
        .graph::<_, ContactError>(move |graph| contacts::remove(graph, identity))
        .await?;
    Ok(Json(json!({ "identity_oid": identity.to_hex() })))
}

/// A contact after a change.
async fn shown(state: &ApiState, identity: Oid) -> Result<Json<Value>, ApiError> {
    let reading = state.engine.read(move |view| {
        let row = view.rows.contact(&identity)?;
        let row = row.map(|row| show(&view, &row));
        row.transpose()
    });
    let shown: Option<Value> = reading.await?;
    Ok(Json(shown.unwrap_or_default()))
}

//! `/api/identities`: lists known identities, creates local ones, and renames, retires, rotates and
//! unfreezes them. Confirms homes.

use axum::Json;
use axum::extract::Path;
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::KeyOwner;
use super::error::ApiError;
use super::people::named;
use super::read::{Body, QueryParams, oid, page_up_to, peer_id};
use super::state::Traced;
use crate::services::identities::{self, IdentityCard, IdentityError};
use crate::services::people::{self, FindError};
use crate::store::{PendingHome, PutAside, StoreError};

/// Identities of untrusted peers that the list shows.
const UNTRUSTED_SHOWN: usize = 8;
/// Largest number of identities in a page.
const IDENTITIES_MAX: usize = 1000;

/// Lists the known identities. Those of untrusted peers without a petname are counted, and
/// some are shown apart.
pub(super) async fn list(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let reading = state.engine.read(|view| {
        let untrusted = identities::untrusted(&view, None, UNTRUSTED_SHOWN)?;
        let known = identities::known(&view)?;
        Ok::<_, StoreError>(json!({
            "identities": known.iter().map(show).collect::<Vec<_>>(),
            "untrusted": untrusted.cards.iter().map(show).collect::<Vec<_>>(),
            "untrusted_count": identities::untrusted_count(&view)?,
        }))
    });
    Ok(Json(reading.await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct UntrustedQuery {
    /// The oid of the last identity of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

/// Lists the identities of untrusted peers without a petname, by oid.
pub(super) async fn untrusted(
    Traced(state): Traced,
    QueryParams(query): QueryParams<UntrustedQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = page_up_to(query.limit, IDENTITIES_MAX)?;
    let after = match query.after.as_deref() {
        None | Some("") => None,
        Some(after) => Some(oid("after", after)?),
    };
    let reading = state.engine.read(move |view| {
        let page = identities::untrusted(&view, after, limit)?;
        let last = page.cards.last().map(|card| card.person.oid).or(after);
        Ok::<_, StoreError>(json!({
            "identities": page.cards.iter().map(show).collect::<Vec<_>>(),
            "after": last.map_or_else(String::new, |oid| oid.to_hex()),
            "more": page.more,
        }))
    });
    Ok(Json(reading.await?))
}

fn show(card: &IdentityCard) -> Value {
    let fields = json!({
        "oid": card.person.oid.to_hex(),
        "name": card.person.shown_claim(),
        "home_peer_id": card.home.to_hex(),
        "local": card.is_local,
        "key_id": card.key_id,
        "retired": card.retired,
        "frozen": card.frozen,
        "moves_to": card.moves_to.map(|node| node.to_hex()),
        "pending_home": card.pending_home.as_ref().map(pending_home),
    });
    named(&card.person, fields)
}

/// A home that does not count yet. `due` is the time from which it counts; `null`: when the
/// operator confirms it.
fn pending_home(pending: &PendingHome) -> Value {
    let due = match &pending.until {
        PutAside::Due(due) => Some(due.0),
        PutAside::Confirmed(..) => None,
    };
    json!({
        "home_peer_id": pending.home.to_hex(),
        "key_id": pending.key_id,
        "counter": pending.counter,
        "at": pending.at.0,
        "due": due,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct NameRequest {
    name: Option<String>,
}

pub(super) async fn create(
    Traced(state): Traced,
    Body(request): Body<NameRequest>,
) -> Result<Json<Value>, ApiError> {
    let oid = state.control.new_identity(request.name).await?;
    Ok(Json(json!({ "oid": oid.to_hex() })))
}

/// Renames a local identity. Without `name`, the identity has no name.
pub(super) async fn rename(
    Traced(state): Traced,
    Path(identity): Path<String>,
    Body(request): Body<NameRequest>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    let saved = state
        .engine
        .graph(move |graph| identities::rename(graph, identity, request.name.as_deref()))
        .await?;
    Ok(Json(
        json!({ "oid": identity.to_hex(), "change_seq": saved.change_seq }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RetireRequest {
    /// `false` undoes the retirement.
    #[serde(default = "yes")]
    retired: bool,
}

fn yes() -> bool {
    true
}

/// Retires a local identity, or undoes it.
pub(super) async fn retire(
    Traced(state): Traced,
    Path(identity): Path<String>,
    Body(request): Body<RetireRequest>,
) -> Result<Json<Value>, ApiError> {
    let (identity, retired) = (oid("identity", &identity)?, request.retired);
    let saved = state
        .engine
        .graph(move |graph| identities::retire(graph, identity, retired))
        .await?;
    Ok(Json(
        json!({ "oid": identity.to_hex(), "retired": retired, "change_seq": saved.change_seq }),
    ))
}

/// Unfreezes an identity: its objects are accepted again.
pub(super) async fn unfreeze(
    Traced(state): Traced,
    Path(identity): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    state
        .engine
        .graph::<_, IdentityError>(move |graph| identities::unfreeze(graph, identity))
        .await?;
    Ok(Json(json!({ "oid": identity.to_hex(), "frozen": false })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ConfirmRequest {
    /// The home that the operator saw.
    home_peer_id: String,
}

/// Lets the home of an identity count that waits.
pub(super) async fn confirm_home(
    Traced(state): Traced,
    Path(identity): Path<String>,
    Body(request): Body<ConfirmRequest>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    let home = peer_id("home_peer_id", &request.home_peer_id)?;
    state
        .engine
        .graph(move |graph| identities::confirm_home(graph, identity, home))
        .await?;
    tracing::info!(identity = identity.short(), home = %home, "the operator confirmed a home");
    Ok(Json(
        json!({ "oid": identity.to_hex(), "home_peer_id": home.to_hex() }),
    ))
}

/// Rotates the key of a local identity to the next key of its chain.
pub(super) async fn rotate(
    Traced(state): Traced,
    Path(identity): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let identity = oid("identity", &identity)?;
    let key_id = state.control.rotate(KeyOwner::Identity(identity)).await?;
    Ok(Json(json!({ "oid": identity.to_hex(), "key_id": key_id })))
}

/// Rotates the node's own key.
pub(super) async fn rotate_node(Traced(state): Traced) -> Result<Json<Value>, ApiError> {
    let key_id = state.control.rotate(KeyOwner::Node).await?;
    Ok(Json(json!({ "key_id": key_id })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct FindQuery {
    /// A petname, an oid, or the first 8 or more digits of one.
    who: String,
    /// Whether the identity has to live on this node.
    #[serde(default)]
    local: bool,
}

pub(super) async fn find(
    Traced(state): Traced,
    QueryParams(query): QueryParams<FindQuery>,
) -> Result<Json<Value>, ApiError> {
    let reading = state.engine.read(move |view| {
        let this_node = view.this_node();
        let person = people::find(&view.rows, &this_node, &query.who, query.local)?;
        let card = identities::card_of(&view, &person.oid)?;
        let mut shown = match &card {
            Some(card) => show(card),
            None => named(
                &person,
                json!({ "oid": person.oid.to_hex(), "local": false }),
            ),
        };
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("known".to_owned(), json!(card.is_some()));
        }
        Ok::<_, FindError>(shown)
    });
    Ok(Json(reading.await?))
}

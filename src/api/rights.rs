//! `/api/v1/rights/{app}/{oid}`: shows and changes who may read and write in a scope of any app.
//! Identities leave a scope here too. So sharing needs no code in an app.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use keys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::people::named;
use super::read::{Body, oid};
use super::state::Traced;
use crate::object::Rights;
use crate::services::people::person;
use crate::services::rights;
use crate::store::Onlooker;

/// The rights of an identity, as a word.
pub(super) fn rights_word(rights: Option<Rights>) -> &'static str {
    match rights.map(|rights| (rights.may_read(), rights.may_write())) {
        Some((true, true)) => "read_write",
        Some((true, false)) => "read",
        Some((false, true)) => "write",
        Some((false, false)) | None => "none",
    }
}

/// Shows the rights list in force.
pub(super) async fn show(
    Traced(state): Traced,
    Path((app, scope)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let scope = oid("the path", &scope)?;
    let reading = state.engine.read(move |view| {
        let onlooker = Onlooker::AnyAt(view.this_node());
        let Some(shared) = rights::find(&view.rows, onlooker, &app, &scope)? else {
            return Err(rights::missing(&view.rows, &app, scope));
        };
        let mut entries = Vec::new();
        for (identity, rights) in shared.list.rights.iter() {
            let fields = json!({
                "identity_oid": identity.to_hex(),
                "rights": rights_word(Some(rights)),
                "left": shared.has_left(&view.rows, identity)?,
            });
            entries.push(named(&person(&view.rows, identity)?, fields));
        }
        Ok::<_, rights::RightsError>(json!({
            "oid": scope.to_hex(),
            "owner_identity_oid": shared.parent.owner.to_hex(),
            "version": shared.list.version,
            "entries": entries,
        }))
    });
    Ok(Json(reading.await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ChangeRequest {
    changes: Vec<RightsChange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct RightsChange {
    identity_oid: String,
    rights: RightsWord,
}

/// The word of a request for the rights of an identity.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RightsWord {
    None,
    Read,
    Write,
    ReadWrite,
}

impl RightsWord {
    fn rights(self) -> Option<Rights> {
        match self {
            Self::None => None,
            Self::Read => Some(Rights::READ),
            Self::Write => Some(Rights::WRITE),
            Self::ReadWrite => Some(Rights::READ_WRITE),
        }
    }
}

/// Changes rights; the owner of the scope signs the new list. The rights of identities that are not
/// named stay. Returns the list in force, which is a new one only if something changed.
pub(super) async fn change(
    Traced(state): Traced,
    Path((app, scope)): Path<(String, String)>,
    Body(request): Body<ChangeRequest>,
) -> Result<Json<Value>, ApiError> {
    let scope = oid("the path", &scope)?;
    let mut changes: BTreeMap<Oid, Option<Rights>> = BTreeMap::new();
    for change in request.changes {
        let identity = oid("changes.identity_oid", &change.identity_oid)?;
        if changes.insert(identity, change.rights.rights()).is_some() {
            let why = format!("changes: the identity {} is named twice", identity.to_hex());
            return Err(ApiError::bad_request(why));
        }
    }
    let changes: Vec<_> = changes.into_iter().collect();
    if changes.is_empty() {
        return Err(ApiError::bad_request("changes: at least one is needed"));
    }
    let changed = state
        .engine
        .graph(move |graph| rights::change(graph, &app, scope, &changes))
        .await?;
    Ok(Json(json!({
        "oid": scope.to_hex(),
        "version": changed.version,
        "change_seq": changed.saved.change_seq,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct LeaveRequest {
    identity_oid: String,
}

/// Ends the right of an identity of this node to read a scope.
pub(super) async fn leave(
    Traced(state): Traced,
    Path((app, scope)): Path<(String, String)>,
    Body(request): Body<LeaveRequest>,
) -> Result<Json<Value>, ApiError> {
    let scope = oid("the path", &scope)?;
    let identity = oid("identity_oid", &request.identity_oid)?;
    let saved = state
        .engine
        .graph(move |graph| rights::leave(graph, &app, scope, identity))
        .await?;
    Ok(Json(json!({
        "oid": scope.to_hex(),
        "identity_oid": identity.to_hex(),
        "change_seq": saved.change_seq,
    })))
}

//! Identities in replies: petname, claim and label. `/api/v1/identities/find`: the identity that a
//! person names.

use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::read::QueryParams;
use super::state::Traced;
use crate::services::people::{self, FindError, Person};

/// Adds the fields that name an identity to those of a reply.
pub(super) fn named(person: &Person, mut fields: Value) -> Value {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("petname".to_owned(), json!(person.petname));
        fields.insert("claim".to_owned(), json!(person.shown_claim()));
        fields.insert("label".to_owned(), json!(person.label()));
    }
    fields
}

/// An identity in a list.
pub(super) fn show(person: &Person) -> Value {
    named(person, json!({ "identity_oid": person.oid.to_hex() }))
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
        let row = people::known(&view.rows, &person.oid)?;
        let fields = json!({
            "oid": person.oid.to_hex(),
            "known": row.is_some(),
            "local": row.is_some_and(|row| row.home == this_node),
        });
        Ok::<_, FindError>(named(&person, fields))
    });
    Ok(Json(reading.await?))
}

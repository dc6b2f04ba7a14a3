//! Identities in replies: petname, claim and label.

use serde_json::{Value, json};

use crate::services::people::Person;

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

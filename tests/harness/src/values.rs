//! Attributes of the built-in types.

use keys::Oid;
use postern::object::{Attrs, Value};

use crate::START;

/// A ride's attributes.
pub fn ride(origin: &str, seats: i64) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(origin)]),
        (2, vec![Value::from("the sea")]),
        (3, vec![Value::from(1_800_000_000_000)]),
        (4, vec![Value::from(seats)]),
    ])
}

/// A market offer's attributes.
pub fn offer(title: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(title)]),
        (2, vec![Value::from("as new")]),
        (3, vec![Value::from("5 EUR")]),
    ])
}

/// A contact card's attributes.
pub fn card(subject: Oid, name: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(&subject)]),
        (2, vec![Value::from(name)]),
    ])
}

/// A conversation's attributes.
pub fn conversation(participants: &[Oid]) -> Attrs {
    Attrs::from([(1, participants.iter().map(Value::from).collect())])
}

/// A message's attributes.
pub fn message(conversation: Oid, body: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(&conversation)]),
        (2, vec![Value::from(body)]),
        (3, vec![Value::from(START as i64)]),
    ])
}

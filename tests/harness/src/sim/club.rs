//! The own app of the simulation: rooms with notes, and public events that refer to each other.

use keys::Oid;
use postern::object::{Attrs, Value};

/// The app's name.
pub(super) const APP: &str = "club";
/// Type `club.room`: a scope.
pub(super) const ROOM: u16 = 1;
/// Type `club.note`: within a room, and may refer to another note.
pub(super) const NOTE: u16 = 2;
/// Type `club.event`: public, and refers to other events.
pub(super) const EVENT: u16 = 3;

/// The file `club.toml`.
pub(super) const SCHEMA: &str = r#"
slug = "club"
version = 1
[[type]]
number = 1
name = "club.room"
visibility = { participants_here = "members" }
  [[type.attr]]
  number = 1
  name = "members"
  kind = "identity"
  min = 1
  max = 16
  [[type.attr]]
  number = 2
  name = "topic"
  kind = "text"
  min = 0
  bytes_max = 200
[[type]]
number = 2
name = "club.note"
visibility = { participants = "room" }
  [[type.attr]]
  number = 1
  name = "room"
  kind = { parent = "club.room" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 4000
  [[type.attr]]
  number = 3
  name = "about"
  kind = { parent = "club.note" }
  min = 0
[[type]]
number = 3
name = "club.event"
visibility = "public"
  [[type.attr]]
  number = 1
  name = "title"
  kind = "text"
  bytes_max = 4000
  [[type.attr]]
  number = 2
  name = "after"
  kind = { parent = "club.event" }
  min = 0
  max = 3
[[domain]]
name = "club"
parent_types = ["club.room", "club.note"]
mode = "allow_update"
[[domain]]
name = "club.events"
parent_types = ["club.event"]
mode = "allow_update"
"#;

fn oids(oids: &[Oid]) -> Vec<Value> {
    oids.iter().map(Value::from).collect()
}

pub(super) fn room(members: &[Oid], topic: &str) -> Attrs {
    Attrs::from([(1, oids(members)), (2, vec![Value::from(topic)])])
}

pub(super) fn note(room: Oid, text: &str, about: &[Oid]) -> Attrs {
    let (room, text) = (oids(&[room]), vec![Value::from(text)]);
    Attrs::from([(1, room), (2, text), (3, oids(about))])
}

pub(super) fn event(title: &str, after: &[Oid]) -> Attrs {
    Attrs::from([(1, vec![Value::from(title)]), (2, oids(after))])
}

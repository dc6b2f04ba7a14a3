//! The own app of the simulation: rooms with notes, and public events. Notes refer to notes of any
//! room, events to events and notes, and both to themselves.

use keys::Oid;
use postern::object::{Attrs, Value};
use rand::RngExt as _;

use super::world::World;

/// The app's name.
pub(super) const APP: &str = "club";
/// Type `club.room`: a scope.
pub(super) const ROOM: u16 = 1;
/// Type `club.note`: within a room, and may refer to a note.
pub(super) const NOTE: u16 = 2;
/// Type `club.event`: public, and refers to events and a note.
pub(super) const EVENT: u16 = 3;
/// Type `club.poll`: public, from version 2 on.
pub(super) const POLL: u16 = 4;
/// Attribute `motto` of a room, from version 3 on.
pub(super) const MOTTO: u16 = 3;
/// Attribute `place` of an event, from version 2 on.
pub(super) const PLACE: u16 = 3;
/// The last version.
pub(super) const VERSION_MAX: u8 = 3;

/// The file `club.toml` in its first version. Comments are what later versions add.
const SCHEMA: &str = r#"
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
# v3   [[type.attr]]
# v3   number = 3
# v3   name = "motto"
# v3   kind = "text"
# v3   min = 0
# v3   bytes_max = 200
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
# v2   max = 2
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
  [[type.attr]]
  number = 4
  name = "about"
  kind = { parent = "club.note" }
  min = 0
# v2   [[type.attr]]
# v2   number = 3
# v2   name = "place"
# v2   kind = "text"
# v2   min = 0
# v2   bytes_max = 200
# v2 [[type]]
# v2 number = 4
# v2 name = "club.poll"
# v2 visibility = "public"
# v2   [[type.attr]]
# v2   number = 1
# v2   name = "question"
# v2   kind = "text"
# v2   bytes_max = 200
[[domain]]
name = "club"
parent_types = ["club.room", "club.note"]
mode = "allow_update"
[[domain]]
name = "club.events"
parent_types = ["club.event"]
mode = "allow_update"
# v3 [[domain]]
# v3 name = "club.all"
# v3 parent_types = ["club.room", "club.note", "club.event"]
# v3 mode = "allow_update"
"#;

/// The file `club.toml` of a version. Each accepts what the earlier ones do.
pub(super) fn schema(version: u8) -> String {
    let mut text = SCHEMA.replacen("version = 1", &format!("version = {version}"), 1);
    if version >= 2 {
        text = text.replace("# v2 ", "");
        text = text.replacen("[\"club.event\"]", "[\"club.event\", \"club.poll\"]", 1);
    }
    if version >= 3 {
        text = text.replace("# v3 ", "");
    }
    text
}

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

pub(super) fn event(title: &str, after: &[Oid], about: &[Oid]) -> Attrs {
    let title = vec![Value::from(title)];
    Attrs::from([(1, title), (2, oids(after)), (4, oids(about))])
}

pub(super) fn poll(question: &str) -> Attrs {
    Attrs::from([(1, vec![Value::from(question)])])
}

impl World {
    /// A note that the node has stored. Its identities need not be readers.
    pub(super) fn any_note(&mut self, node: usize) -> Vec<Oid> {
        let note = self.held(node, APP, NOTE, None);
        let note = note.filter(|_| self.refers_to_others());
        note.into_iter().collect()
    }

    /// Lets a changed object sometimes refer to itself, or to any stored object of its type. So
    /// circles arise.
    pub(super) fn refer_anew(
        &mut self,
        node: usize,
        (oid, type_number): (Oid, u16),
        attrs: &mut Attrs,
    ) {
        let attr = match type_number {
            NOTE => 3,
            EVENT => 2,
            _ => return,
        };
        if !self.refers_to_others() || self.rng.random_bool(0.5) {
            return;
        }
        let to = match self.rng.random_bool(0.3) {
            true => Some(oid),
            false => self.held(node, APP, type_number, None),
        };
        if let Some(to) = to {
            attrs.insert(attr, oids(&[to]));
        }
    }
}

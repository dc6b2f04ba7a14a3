//! The app `club` in three versions, for tests of upgrades.

use std::fs;
use std::path::PathBuf;

use harness::pull::meet;
use harness::{Setup, TestNode};
use keys::Oid;
use postern::object::{Attrs, Value};
use tempfile::TempDir;

pub(crate) const ROOM: u16 = 1;
pub(crate) const NOTE: u16 = 2;
pub(crate) const NEWS: u16 = 3;
pub(crate) const EVENT: u16 = 4;

/// The app `club` in its first version. Each `# vN` stands for what a later version adds.
const CLUB: &str = r#"slug = "club"
version = 1

[[type]]
number = 1
name = "club.room"
visibility = { participants_here = "member" }
attr = [
  { number = 1, name = "member", kind = "identity", max = 8 },
  # v2 { number = 2, name = "motto", kind = "text", min = 0, bytes_max = 10 },
]

[[type]]
number = 2
name = "club.note"
visibility = { participants = "room" }
attr = [
  { number = 1, name = "room", kind = { parent = "club.room" } },
  { number = 2, name = "text", kind = "text", bytes_max = 10 },
]

[[type]]
number = 3
name = "club.news"
visibility = "public"
attr = [
  { number = 1, name = "text", kind = "text", bytes_max = 10 }, # v1
  # v2 { number = 1, name = "text", kind = "text", max = 2, bytes_max = 20 },
  # v3 { number = 1, name = "text", kind = "text", max = 2, bytes_max = 20 },
  # v2 { number = 2, name = "place", kind = "text", min = 0, bytes_max = 10 },
  # v3 { number = 3, name = "price", kind = "integer", min = 0 },
]

# v2 [[type]]
# v2 number = 4
# v2 name = "club.event"
# v2 visibility = "public"
# v2 attr = [{ number = 1, name = "text", kind = "text", bytes_max = 10 }]

[[domain]]
name = "club"
parent_types = ["club.room", "club.note"]
mode = "allow_update"

[[domain]]
name = "club.news"
parent_types = ["club.news"] # v1
# v2 parent_types = ["club.news", "club.event"]
mode = "allow_update"

# v3 [[domain]]
# v3 name = "club.headlines"
# v3 parent_types = ["club.news", "club.room", "club.note"]
# v3 mode = "allow_update"
"#;

/// The text of a version.
fn text(version: u8) -> String {
    let mut text = CLUB.replacen("version = 1", &format!("version = {version}"), 1);
    if version >= 2 {
        let lines = text.lines().filter(|line| !line.ends_with("# v1"));
        text = lines.collect::<Vec<_>>().join("\n");
        text = text.replace("# v2 ", "");
    }
    if version >= 3 {
        let lines: Vec<_> = text.lines().collect();
        let is_replaced = |line: &&str| line.contains("max = 2") && !line.contains("# v3");
        let lines = lines.into_iter().filter(|line| !is_replaced(line));
        text = lines.collect::<Vec<_>>().join("\n").replace("# v3 ", "");
    }
    text
}

/// A folder for the schema files of each version.
pub(crate) struct Versions(TempDir);

impl Versions {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn folder(&self, version: u8) -> PathBuf {
        let folder = self.0.path().join(version.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("club.toml"), text(version)).unwrap();
        folder
    }

    pub(crate) fn setup(&self, name: &str, version: u8) -> Setup {
        let setup = Setup::new(name).apps(&["identities", "club"]);
        setup.schema_dir(&self.folder(version))
    }

    /// A node that writes in version 2 or 3, and one that is behind.
    pub(crate) fn pair(&self, ahead: u8, behind: u8) -> (TestNode, TestNode) {
        let alice = self.setup("alice", ahead).node();
        let bob = self.setup("bob", behind).id_offset(300).node();
        meet(&alice, &bob);
        (alice, bob)
    }

    /// Stops a node and starts it with a later file. Both nodes meet again.
    pub(crate) fn upgrade(&self, node: TestNode, version: u8, other: &TestNode) -> TestNode {
        let node = node.into_setup().schema_dir(&self.folder(version)).node();
        meet(&node, other);
        node
    }
}

pub(crate) fn words(text: &str) -> Vec<Value> {
    vec![Value::Text(text.into())]
}

pub(crate) fn news(text: &str) -> Attrs {
    Attrs::from([(1, words(text))])
}

pub(crate) fn news_at(text: &str, place: &str) -> Attrs {
    Attrs::from([(1, words(text)), (2, words(place))])
}

pub(crate) fn room(members: &[Oid]) -> Attrs {
    let members = members
        .iter()
        .map(|oid| Value::Bytes(oid.as_bytes().to_vec()));
    Attrs::from([(1, members.collect())])
}

pub(crate) fn note(room: Oid, text: &str) -> Attrs {
    let room = vec![Value::Bytes(room.as_bytes().to_vec())];
    Attrs::from([(1, room), (2, words(text))])
}

/// Number of objects that wait.
pub(crate) fn waiting(node: &TestNode) -> usize {
    node.rows("waiting").len()
}

//! An app with folders that can be deleted, pages, and sheets of the largest size in a folder.

use anyhow::{Context as _, Result};
use harness::{START, Setup};
use keys::{Oid, SignedObject};
use postern::object::{Attrs, Object, OidParts, Place, Value};

use super::{Pair, Scale};

/// Slug of the app, and its domain.
pub(super) const WIKI: &str = "wiki";
/// Type of a folder.
pub(super) const FOLDER: u16 = 1;
/// Type of a page.
pub(super) const PAGE: u16 = 2;
/// Type of a sheet.
pub(super) const SHEET: u16 = 3;
/// Type of a scroll.
pub(super) const SCROLL: u16 = 4;
/// Values of a sheet besides its folder: as many as an object may have.
const LINES: usize = 255;

const SCHEMA: &str = r#"
slug = "wiki"
version = 1
[[type]]
number = 1
name = "wiki.folder"
visibility = { participants_here = "members" }
  [[type.attr]]
  number = 1
  name = "members"
  kind = "identity"
  min = 1
  max = 8
[[type]]
number = 2
name = "wiki.page"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 1000
[[type]]
number = 3
name = "wiki.sheet"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "line"
  kind = "text"
  min = 1
  max = 255
  bytes_max = 240
[[type]]
number = 4
name = "wiki.scroll"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 60000
[[domain]]
name = "wiki"
parent_types = ["wiki.folder", "wiki.page", "wiki.sheet", "wiki.scroll"]
mode = "allow_update"
"#;

/// The schema file of a later version, with a further domain of all types.
pub(super) fn later_schema() -> Result<String> {
    let domain = SCHEMA.find("[[domain]]").context("no domain")?;
    let (types, domain) = SCHEMA.split_at(domain);
    let further = domain.replacen("\"wiki\"", "\"wiki.all\"", 1);
    let types = types.replacen("version = 1", "version = 2", 1);
    Ok(format!("{types}{domain}{further}"))
}

/// Two nodes, both members of one folder.
pub(super) struct Wiki {
    pub(super) pair: Pair,
    pub(super) folder: Oid,
}

impl Wiki {
    /// The node's folder.
    pub(super) fn of_node(scale: &Scale<'_>) -> Result<Self> {
        let pair = Self::pair(scale)?;
        let folder = pair.node.make(WIKI, FOLDER, Self::members(&pair))?.oid;
        Ok(Self { pair, folder })
    }

    /// The peer's folder, which the node has.
    pub(super) fn of_peer(scale: &Scale<'_>) -> Result<Self> {
        let pair = Self::pair(scale)?;
        let folder = pair.peer.make(WIKI, FOLDER, Self::members(&pair))?.oid;
        let stored = pair.peer.object(WIKI, folder).context("no folder")?;
        pair.push(WIKI, vec![stored.1])?;
        Ok(Self { pair, folder })
    }

    fn pair(scale: &Scale<'_>) -> Result<Pair> {
        Pair::with(scale, |setup: Setup| setup.own_app(WIKI, SCHEMA))
    }

    fn members(pair: &Pair) -> Attrs {
        let members = [pair.node.identity, pair.peer.identity];
        Attrs::from([(1, members.iter().map(Value::from).collect())])
    }

    /// Values of a page.
    pub(super) fn page(&self) -> Attrs {
        Attrs::from([
            (1, vec![Value::from(&self.folder)]),
            (2, vec![Value::from("page")]),
        ])
    }

    /// Values of a sheet with as many values as possible, of `bytes` each.
    pub(super) fn sheet(&self, bytes: usize) -> Attrs {
        let line = "x".repeat(bytes);
        Attrs::from([
            (1, vec![Value::from(&self.folder)]),
            (2, vec![Value::from(line.as_str()); LINES]),
        ])
    }

    /// Values of a scroll: one of 60,000 bytes.
    pub(super) fn scroll(&self) -> Attrs {
        Attrs::from([
            (1, vec![Value::from(&self.folder)]),
            (2, vec![Value::from("x".repeat(60_000).as_str())]),
        ])
    }

    /// An object of the peer in the folder.
    pub(super) fn object(&self, type_number: u16, number: usize, attrs: Attrs) -> Object {
        self.object_of(self.pair.peer.identity, (type_number, number), attrs)
    }

    /// An object of an identity in the folder.
    pub(super) fn object_of(
        &self,
        owner: Oid,
        (type_number, number): (u16, usize),
        attrs: Attrs,
    ) -> Object {
        let parts = OidParts {
            owner: &owner,
            app: WIKI,
            type_number,
            place: &Place::In(self.folder),
        };
        Object {
            attrs: Some(attrs),
            ..Object::create(&parts, START, (number as u64).to_be_bytes())
        }
    }

    /// Sends objects of the peer in packages of `most`.
    pub(super) fn push_many(
        &self,
        (count, most): (usize, usize),
        object: impl Fn(usize) -> Object,
    ) -> Result<()> {
        for start in (0..count).step_by(most) {
            let numbers = start..count.min(start + most);
            let signed = |number| -> SignedObject { self.pair.peer.sign(&object(number)) };
            self.pair.push(WIKI, numbers.map(signed).collect())?;
        }
        Ok(())
    }
}

//! Versions of the own app: nodes have different ones, and upgrade at different times.
//!
//! An upgrade is an end, the next folder, and a start; a crash may follow each commit. In the end
//! all nodes have the last version. The oracle demands that nothing of an honest peer waits for a
//! schema then, or was refused by one. Every row must have the bits that the schema gives.

use std::fs;
use std::path::{Path, PathBuf};

use keys::protocol::CORE_TYPES_FROM;
use postern::object::{Attrs, Value};
use postern::schema::identities;
use postern::store::{RECEIVED_FLAG, ScopeId};
use rand::RngExt as _;
use rusqlite::{Connection, OpenFlags};

use super::club;
use super::scenario::Feature;
use super::world::{NodeState, World};

/// An object of another peer than `?1` that waits for a schema (`src/store/cause.rs`).
const WAITS: &str = "SELECT COALESCE(MIN(hex(w.oid)), '') FROM waiting AS w
     JOIN peers AS p ON p.id = w.peer_no WHERE w.needs_kind = 6 AND p.peer_id <> ?1";
/// A refusal of an object of another peer than `?1` by the schema.
const REFUSED: &str = "SELECT COALESCE(MIN(hex(oid) || ' ' || code), '') FROM sync_rejects
     WHERE code IN ('schema', 'unknown_type') AND peer_id <> ?1";

/// Writes a folder for each version.
pub(super) fn write_schemas(parent: &Path) {
    for version in 1..=club::VERSION_MAX {
        let folder = parent.join(version.to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("club.toml"), club::schema(version)).unwrap();
    }
}

impl World {
    /// The version with which a node starts first.
    pub(super) fn first_version(&mut self) -> u8 {
        match self.has(Feature::SchemaVersions) {
            true => self.rng.random_range(1..=club::VERSION_MAX),
            false => 1,
        }
    }

    pub(super) fn schema_folder(&self, version: u8) -> PathBuf {
        self.schemas.path().join(version.to_string())
    }

    /// Ends a node and starts it with the next version, if there is one.
    pub(super) async fn upgrade(&mut self, number: usize) {
        let next = self.nodes[number].version + 1;
        if next <= club::VERSION_MAX {
            self.stop(number).await;
            self.set_version(number, next);
            self.start(number);
        }
    }

    /// Ends every node that has an earlier version, and gives it the last one.
    pub(super) async fn upgrade_all(&mut self) {
        if !self.has(Feature::SchemaVersions) {
            return;
        }
        for number in 0..self.nodes.len() {
            if matches!(self.nodes[number].state, NodeState::Up(_)) {
                self.stop(number).await;
            }
            self.set_version(number, club::VERSION_MAX);
        }
    }

    fn set_version(&mut self, number: usize, version: u8) {
        let folder = self.schema_folder(version);
        self.nodes[number].version = version;
        self.change_setup(number, |setup| setup.schema_dir(&folder));
    }

    /// Sometimes adds values that an earlier version than that of the node does not allow.
    pub(super) fn add_later(&mut self, node: usize, type_number: u16, attrs: &mut Attrs) {
        let version = self.nodes[node].version;
        if version == 1 || !self.rng.random_bool(0.4) {
            return;
        }
        let value = Value::from("later");
        match type_number {
            club::ROOM if version >= 3 => drop(attrs.insert(club::MOTTO, vec![value])),
            club::NOTE => attrs.entry(2).or_default().push(value),
            club::EVENT => drop(attrs.insert(club::PLACE, vec![value])),
            _ => {}
        }
    }

    /// Whether a node writes a poll, which version 1 lacks.
    pub(super) fn writes_poll(&mut self, node: usize) -> bool {
        self.nodes[node].version >= 2 && self.rng.random_bool(0.2)
    }

    /// Nothing waits for a schema or was refused by one, and each row has its bits.
    pub(super) fn check_versions(&self, number: usize) -> Result<(), String> {
        let node = self.up(number).unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(node.database(), flags).unwrap();
        let hostile = self.mallory.core.peer_id();
        for (sql, what) in [(WAITS, "waits for a schema"), (REFUSED, "was refused")] {
            let found = connection.query_row(sql, [hostile.as_bytes()], |row| row.get(0));
            let found: String = found.unwrap();
            if !found.is_empty() {
                return Err(format!("at node {number} {found} {what}"));
            }
        }
        let mut apps = node.apps().iter();
        apps.try_for_each(|app| self.check_flags(number, app, &connection))
    }

    /// Each object, with all of its values, has the bits of the domains in which its type travels.
    /// A received one has [`RECEIVED_FLAG`] too. A received one in no scope has no bits, besides
    /// records of identities that lived on the node.
    fn check_flags(&self, number: usize, app: &str, connection: &Connection) -> Result<(), String> {
        let node = self.up(number).unwrap();
        let ScopeId(public) = ScopeId::PUBLIC;
        let sql = format!(
            "SELECT hex(p.oid), p.origin IS NULL, p.scope_id > {public}, p.sync_flags,
               CASE WHEN p.type < {CORE_TYPES_FROM} THEN p.type ELSE (
                 SELECT of.type FROM scope AS s JOIN app_{app}_parent AS of ON of.id = s.parent_id
                 WHERE s.id = p.scope_id) END,
               EXISTS (SELECT 1 FROM app_{app}_attr AS a
                 WHERE a.parent_id = p.id AND a.sync_flags <> p.sync_flags)
             FROM app_{app}_parent AS p WHERE p.rev > 0"
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| {
            let found: (String, bool, bool, i64, u16, bool) = (
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
            );
            Ok(found)
        });
        for row in rows.unwrap() {
            let (oid, is_local, is_scoped, flags, type_number, differs) = row.unwrap();
            let schema = node.schemas().app(app).unwrap();
            let domains = schema.domains_of(type_number).map(|it| it.name.clone());
            let is_record = app == identities::APP && flags != 0;
            let is_passed_on = is_record && !is_local && self.lived_at(number, &oid);
            let is_sent = is_local || is_scoped || is_passed_on;
            let domains: Vec<_> = domains.filter(|_| is_sent).collect();
            let bits = node.read(move |view| {
                let masks = domains.iter().map(|name| view.rows.apps().mask(name));
                let received = match is_sent && !is_local {
                    true => RECEIVED_FLAG,
                    false => 0,
                };
                Ok(masks.fold(received, |bits, mask| bits | mask))
            });
            if bits != flags || differs {
                return Err(format!(
                    "node {number} has the bits {flags:b} in {oid} of {app}, and not {bits:b}"
                ));
            }
        }
        Ok(())
    }

    /// Whether an identity lived on a node before it moved.
    fn lived_at(&self, number: usize, oid: &str) -> bool {
        let mut people = self.memory.people.iter();
        people.any(|(it, person)| {
            it.to_hex().eq_ignore_ascii_case(oid) && person.old_home == Some(number)
        })
    }
}

//! The oracle of what identities see on their own node after their right to read ended.
//!
//! An object names the rights list that its author knew. A former reader sees an object only if
//! that list, or a later one that its node stores, lets it read.

use keys::Oid;
use rusqlite::{Connection, OpenFlags};

use super::consent::shows;
use super::world::World;
use crate::live::LiveNode;

/// Live objects in scopes that identities of the node `?1` no longer read, and whose authors knew
/// that. The name of an app's table replaces `TABLE`.
const UNREADABLE: &str = "SELECT r.identity_oid, p.oid
    FROM identity AS i JOIN reader AS r ON r.identity_oid = i.oid
    JOIN TABLE AS p ON p.scope_id = r.scope_id
    JOIN rights_list AS named ON named.id = p.rights_id
    WHERE i.home_peer = ?1 AND r.until_seq IS NOT NULL
    AND p.deleted = 0 AND p.owner_oid <> i.oid AND NOT EXISTS (
        SELECT 1 FROM rights_list AS l JOIN rights_entry AS e ON e.list_id = l.id
        WHERE l.scope_id = p.scope_id AND l.version >= named.version
        AND e.identity_oid = i.oid AND e.rights & 1 = 1)";

impl World {
    /// No former reader sees what was written after its right to read ended.
    pub(super) fn check_sight(&self, number: usize) -> Result<(), String> {
        let node = self.up(number).unwrap();
        for app in node.apps() {
            for (identity, oid) in unreadable(node, app) {
                // A hostile author changes a first revision under a later key.
                let is_honest = self.memory.made.contains_key(&oid);
                if is_honest && shows(node, app, identity, oid) {
                    let made = self.memory.made.get(&oid);
                    return Err(format!(
                        "node {number} shows {oid:?} to {identity:?}, which may not read it: \
                         {made:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn unreadable(node: &LiveNode, app: &str) -> Vec<(Oid, Oid)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(node.database(), flags).unwrap();
    let sql = UNREADABLE.replace("TABLE", &format!("app_{app}_parent"));
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([node.peer_id().as_bytes()], |row| {
        Ok((Oid::from_bytes(row.get(0)?), Oid::from_bytes(row.get(1)?)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

//! The part of the oracle that looks for work which maintenance has left undone.

use rusqlite::{Connection, OpenFlags};

use super::settle::EXPIRY_S;
use super::world::World;

/// A waiting object that is not of this node and has waited since before `?1`.
const WAITS: &str =
    "SELECT COALESCE(MIN(hex(oid)), '') FROM waiting WHERE is_reclaimed = 0 AND at < ?1";
/// A recovery whose time limit was before `?1`.
const RECOVERS: &str = "SELECT COALESCE(MIN(reason), '') FROM write_mode WHERE until < ?1";

impl World {
    /// A node lets no object wait for more than 31 days, and does not recover longer than its
    /// limit. No scope with a deleted Parent has received values.
    pub(super) fn check_overdue(&self, number: usize) -> Result<(), String> {
        let node = self.up(number).unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(node.database(), flags).unwrap();
        let now = self.clock.timestamp().0;
        let find = |sql: &str, before: u64| -> String {
            let found = connection.query_row(sql, [before], |row| row.get(0));
            found.unwrap()
        };
        let waits = find(WAITS, now - EXPIRY_S * 1000);
        if !waits.is_empty() {
            return Err(format!("node {number} lets {waits} wait for over 31 days"));
        }
        let recovers = find(RECOVERS, now);
        if !recovers.is_empty() {
            return Err(format!("node {number} recovers for too long: {recovers}"));
        }
        for app in node.apps() {
            let parent = format!("app_{app}_parent");
            let kept = find(
                &format!(
                    "SELECT COALESCE(MIN(hex(p.oid)), '') FROM {parent} AS p
                     JOIN scope AS s ON s.id = p.scope_id
                     JOIN {parent} AS ended ON ended.id = s.parent_id
                     WHERE ended.deleted AND ended.rev > 0 AND p.origin IS NOT NULL
                       AND NOT p.deleted AND p.change_seq <= ?1"
                ),
                node.head(),
            );
            if !kept.is_empty() {
                return Err(format!("node {number} keeps {kept} of an ended scope"));
            }
        }
        Ok(())
    }
}

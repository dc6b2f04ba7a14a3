//! The statements of a purge on the pair of tables of an app.
//!
//! Each reads Parents in the order of their local ids, from one to another, because no index has
//! their senders. A further index would slow down every write.

use keys::protocol::CORE_TYPES_FROM;

/// The statements of a purge on one app's tables.
#[derive(Debug)]
pub(super) struct PurgeSql {
    pub(super) delete_parent: String,
    pub(super) last_id: String,
    pub(super) sent: String,
    pub(super) kept_scopes: String,
    pub(super) kept_owners: String,
    pub(super) in_going: String,
}

impl PurgeSql {
    /// `columns`: those of a Parent `p`.
    pub(super) fn new(parent: &str, columns: &str) -> Self {
        Self {
            delete_parent: format!("DELETE FROM {parent} WHERE id = ?1"),
            last_id: format!("SELECT COALESCE(MAX(id), 0) FROM {parent}"),
            sent: format!(
                "SELECT {columns} FROM {parent} AS p
                 CROSS JOIN purge AS g ON g.peer_no = p.origin
                 WHERE p.id > ?1 AND p.id <= ?2 AND g.state = 'running' AND g.takes_objects >= ?3
                 ORDER BY p.id LIMIT ?4"
            ),
            // Kept is each row but the Parent that is the scope, and objects of core types, if the
            // purged peer sent them.
            kept_scopes: format!(
                "SELECT p.scope_id FROM {parent} AS p
                 CROSS JOIN purge_scope AS c ON c.scope_id = p.scope_id
                 CROSS JOIN scope AS s ON s.id = p.scope_id
                 WHERE p.id > ?1 AND p.id <= ?2 AND c.is_going = 0
                   AND (p.origin IS NOT c.peer_no
                     OR p.type < {CORE_TYPES_FROM} AND p.id <> s.parent_id)"
            ),
            kept_owners: format!(
                "SELECT p.owner_oid FROM {parent} AS p
                 CROSS JOIN purge_identity AS c ON c.oid = p.owner_oid
                 WHERE p.id > ?1 AND p.id <= ?2 AND p.oid <> p.owner_oid"
            ),
            in_going: format!(
                "SELECT {columns} FROM {parent} AS p
                 WHERE p.scope_id = ?1 AND p.id <> ?2 ORDER BY p.change_seq LIMIT ?3"
            ),
        }
    }
}

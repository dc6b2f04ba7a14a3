//! Objects by owner and signing key (docs/DECISIONS.md 5, 10). A rotation re-signs them, a peer
//! reclaims them after a restore, and a move takes them along.
//!
//! Only reads.

use keys::Oid;

use super::app_tables::AppTable;
use super::error::StoreError;
use super::parents::{ParentRow, parent_row};
use super::rows::Rows;
use super::scope_id::ScopeId;

impl Rows<'_> {
    /// At most `limit` objects whose oid follows `after`, sorted by oid, from all owners and
    /// origins.
    pub fn by_oid(
        &self,
        app: &AppTable,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading objects by oid", &app.by_oid)?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        statement.all((after, limit), parent_row)
    }

    /// At most `limit` objects of this node's `owner` that an earlier key than `key_id` signed, the
    /// earliest that signed any; oldest first.
    pub fn signed_before(
        &self,
        app: &AppTable,
        owner: &Oid,
        key_id: u32,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare(
            "reading objects that an earlier key signed",
            &app.signed_before,
        )?;
        statement.all((owner.as_bytes(), key_id, limit), parent_row)
    }

    /// At most `limit` objects of an owner that were made on this node, after a position, by key
    /// number and `change_seq`.
    pub fn own_page(
        &self,
        app: &AppTable,
        owner: &Oid,
        (key_id, change_seq, id): (u32, u64, i64),
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading the objects of an owner", &app.own_page)?;
        let parameters = (owner.as_bytes(), key_id, change_seq, id, limit);
        statement.all(parameters, parent_row)
    }

    /// At most `limit` rights lists of a scope, after the list `after`, that a Parent holds. Each
    /// with its local id and that of the Parent.
    pub fn list_holders(
        &self,
        scope: ScopeId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut statement = self.prepare(
            "reading the lists of a scope",
            "SELECT id, parent_id FROM rights_list INDEXED BY rights_list_scope
             WHERE scope_id = ?1 AND id > ?2 AND parent_id IS NOT NULL ORDER BY id LIMIT ?3",
        )?;
        statement.all((scope.0, after, limit), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// At most `limit` objects in a scope, with a `change_seq` above `after` and up to `until`,
    /// oldest first. `received`: also objects of peers.
    pub fn restamped_in_scope(
        &self,
        app: &AppTable,
        scope_id: ScopeId,
        (after, until): (i64, i64),
        limit: usize,
        received: bool,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut statement = self.prepare("reading objects in a scope", &app.restamped_in_scope)?;
        statement.all((scope_id.0, after, until, limit, received), parent_row)
    }
}

//! Objects by owner and signing key: those that a rotation re-signs, and those that a peer reclaims
//! after a restore (docs/DECISIONS.md 5).
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

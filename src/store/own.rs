//! Objects by who made them and whose key signed them: what is signed again after a rotation, and what a peer that was
//! restored gets back (docs/DECISIONS.md 5).
//!
//! Never changes what an object says. Invariant: only [`WriteTx::put_signature`] writes here, beside unchanged content.

use keys::{Oid, Signature};

use super::parents::parent_row;
use super::{AppTable, Doing as _, ParentRow, Rows, StoreError, WriteTx};

impl Rows<'_> {
    /// Objects by oid, from `after` on, whoever made them: looked at by whoever wants those of one peer, a bounded number at a
    /// time.
    pub fn by_oid(
        &self,
        app: &AppTable,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let doing = "reading objects by oid";
        let mut statement = self.connection.prepare_cached(&app.by_oid).doing(doing)?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        let rows = statement
            .query_map((after, limit), parent_row)
            .doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// Objects of an owner that were made here and are signed with an earlier key than that number, oldest first.
    pub fn signed_before(
        &self,
        app: &AppTable,
        owner: &Oid,
        key_id: u32,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let doing = "reading what an earlier key signed";
        let mut statement = self
            .connection
            .prepare_cached(&app.signed_before)
            .doing(doing)?;
        let rows = statement
            .query_map((owner.as_bytes(), key_id, limit), parent_row)
            .doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }

    /// What was made here in a scope, oldest first.
    pub fn made_here_in(
        &self,
        app: &AppTable,
        scope_id: i64,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let doing = "reading what was made in a scope";
        let mut statement = self
            .connection
            .prepare_cached(&app.made_here_in)
            .doing(doing)?;
        let rows = statement.query_map([scope_id], parent_row).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }
}

impl WriteTx<'_> {
    /// Puts a later signature beside an object whose content stays what it is.
    pub fn put_signature(
        &self,
        app: &AppTable,
        id: i64,
        key_id: u32,
        signature: &Signature,
    ) -> Result<(), StoreError> {
        let doing = "noting a later signature";
        let mut statement = self
            .connection
            .prepare_cached(&app.put_signature)
            .doing(doing)?;
        statement
            .execute((id, key_id, signature.as_bytes()))
            .doing(doing)?;
        Ok(())
    }
}

//! Objects by who made them and whose key signed them: what is signed again after a rotation, and what a peer that was
//! restored gets back (docs/DECISIONS.md 5).
//!
//! Never changes what an object says. Invariant: only [`WriteTx::put_signature`] writes here, beside unchanged content.

use keys::{Oid, Signature};

use super::parents::parent_row;
use super::{AppTable, ParentRow, Rows, SqlContext as _, StoreError, WriteTx};

impl Rows<'_> {
    /// Objects by oid, from `after` on, whoever made them: looked at by whoever wants those of one peer, a bounded number at a
    /// time.
    pub fn by_oid(
        &self,
        app: &AppTable,
        after: Option<Oid>,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let context = "reading objects by oid";
        let mut statement = self
            .connection
            .prepare_cached(&app.by_oid)
            .context(context)?;
        let after = after.map(|oid| oid.as_bytes().to_vec()).unwrap_or_default();
        let rows = statement
            .query_map((after, limit), parent_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// Objects of an owner that were made here and are signed with an earlier key than that number, oldest first.
    pub fn signed_before(
        &self,
        app: &AppTable,
        owner: &Oid,
        key_id: u32,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let context = "reading what an earlier key signed";
        let mut statement = self
            .connection
            .prepare_cached(&app.signed_before)
            .context(context)?;
        let rows = statement
            .query_map((owner.as_bytes(), key_id, limit), parent_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }

    /// What was made here in a scope, oldest first.
    pub fn made_here_in(
        &self,
        app: &AppTable,
        scope_id: i64,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let context = "reading what was made in a scope";
        let mut statement = self
            .connection
            .prepare_cached(&app.made_here_in)
            .context(context)?;
        let rows = statement
            .query_map([scope_id], parent_row)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
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
        let context = "noting a later signature";
        let mut statement = self
            .connection
            .prepare_cached(&app.put_signature)
            .context(context)?;
        statement
            .execute((id, key_id, signature.as_bytes()))
            .context(context)?;
        Ok(())
    }
}

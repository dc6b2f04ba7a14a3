//! Rights lists: their digests and entries.
//!
//! Invariant: a list never changes. The founding list of a scope whose Parent was only seen as a
//! tombstone has a digest and no entries.

use keys::{Digest, Oid};
use rusqlite::OptionalExtension as _;

use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use crate::object::{Rights, RightsList};

/// A rights list without its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RightsRow {
    /// Its local id.
    pub id: i64,
    /// The digest that names it on every node.
    pub digest: Digest,
}

impl Rows<'_> {
    /// The founding list of a scope.
    pub fn founding_list(&self, scope: ScopeId) -> Result<RightsRow, StoreError> {
        let context = "reading a founding list";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT id, digest FROM rights_list WHERE scope_id = ?1 AND version = 0",
            )
            .context(context)?;
        statement
            .query_row([scope.0], |row| {
                Ok(RightsRow {
                    id: row.get(0)?,
                    digest: Digest::from_bytes(fixed(row, 1)?),
                })
            })
            .context(context)
    }

    /// The list with that digest in a scope. `None` if this node lacks it.
    pub fn rights_list(&self, scope: ScopeId, digest: &Digest) -> Result<Option<i64>, StoreError> {
        let context = "looking up a rights list";
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM rights_list WHERE scope_id = ?1 AND digest = ?2")
            .context(context)?;
        statement
            .query_row((scope.0, digest.as_bytes()), |row| row.get(0))
            .optional()
            .context(context)
    }

    /// The digest of a list.
    pub fn rights_digest(&self, list: i64) -> Result<Digest, StoreError> {
        let context = "reading the digest of a rights list";
        let mut statement = self
            .connection
            .prepare_cached("SELECT digest FROM rights_list WHERE id = ?1")
            .context(context)?;
        statement
            .query_row([list], |row| fixed(row, 0).map(Digest::from_bytes))
            .context(context)
    }

    /// The entries of a list.
    pub fn rights(&self, list: i64) -> Result<RightsList, StoreError> {
        let context = "reading a rights list";
        let mut statement = self
            .connection
            .prepare_cached("SELECT identity_oid, rights FROM rights_entry WHERE list_id = ?1")
            .context(context)?;
        let mut rows = statement.query([list]).context(context)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next().context(context)? {
            let identity = Oid::from_bytes(fixed(row, 0).context(context)?);
            let rights = Rights::from_bits(row.get(1).context(context)?)
                .ok_or(StoreError::Inconsistent("the bits of a rights entry"))?;
            entries.push((identity, rights));
        }
        Ok(entries.into_iter().collect())
    }
}

impl WriteTx<'_> {
    /// Writes the founding list of a new scope, without entries.
    pub fn insert_founding_list(
        &self,
        scope: ScopeId,
        digest: &Digest,
        key_number: u32,
    ) -> Result<(), StoreError> {
        let context = "writing a founding list";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO rights_list (scope_id, digest, key_number, version)
                 VALUES (?1, ?2, ?3, 0)",
            )
            .context(context)?;
        statement
            .execute((scope.0, digest.as_bytes(), key_number))
            .map(drop)
            .context(context)
    }

    /// Writes the entries of a list, unless they are stored already.
    pub fn put_rights(&self, list: i64, rights: &RightsList) -> Result<(), StoreError> {
        let context = "writing a rights list";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO rights_entry (list_id, identity_oid, rights) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
            )
            .context(context)?;
        for (identity, rights) in rights.iter() {
            statement
                .execute((list, identity.as_bytes(), rights.bits()))
                .context(context)?;
        }
        Ok(())
    }
}

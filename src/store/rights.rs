//! Rights lists: their digests, entries and order, and the identities that left a scope.
//!
//! Invariants: the entries of a list never change; its key number only rises. The founding list of
//! a scope whose Parent was only seen as a tombstone has a digest and no entries. Its key number is
//! that of the Parent. A list with a lower key number counts as absent, because a thief of an
//! earlier key may have signed it.

use keys::{Digest, Oid};
use rusqlite::Row;

use super::app_tables::AppTable;
use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::parents::{ParentRow, parent_row};
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
    /// Highest number of a key that signed it.
    pub key_number: u32,
    /// Its version; 0 for the founding list.
    pub version: u64,
    /// Local id of the Parent that holds the list. `None`: the founding list.
    pub parent_id: Option<i64>,
}

/// A rights list to be written.
#[derive(Debug)]
pub struct NewRights<'n> {
    /// The scope.
    pub scope: ScopeId,
    /// The digest that names the list.
    pub digest: Digest,
    /// Number of the key that signed it.
    pub key_number: u32,
    /// Its version, at least 1.
    pub version: u64,
    /// Local id of the Parent that holds it.
    pub parent_id: i64,
    /// Its entries.
    pub list: &'n RightsList,
}

pub(super) const COLUMNS: &str = "id, digest, key_number, version, parent_id";
/// Key number of the founding list of the scope `?1`: that of the scope's Parent.
pub(super) const FOUNDING_KEY: &str =
    "(SELECT key_number FROM rights_list WHERE scope_id = ?1 AND version = 0)";

pub(super) fn rights_row(row: &Row<'_>) -> rusqlite::Result<RightsRow> {
    Ok(RightsRow {
        id: row.get(0)?,
        digest: Digest::from_bytes(fixed(row, 1)?),
        key_number: row.get(2)?,
        version: row.get(3)?,
        parent_id: row.get(4)?,
    })
}

impl Rows<'_> {
    /// The founding list of a scope.
    pub fn founding_list(&self, scope: ScopeId) -> Result<RightsRow, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rights_list WHERE scope_id = ?1 AND version = 0");
        let mut statement = self.prepare("reading a founding list", &sql)?;
        statement.one([scope.0], rights_row)
    }

    /// The list in force in a scope whose Parent is live: the highest by key number, version and
    /// digest.
    pub fn list_in_force(&self, scope: ScopeId) -> Result<RightsRow, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rights_list WHERE scope_id = ?1
             ORDER BY key_number DESC, version DESC, digest DESC LIMIT 1"
        );
        let mut statement = self.prepare("reading the list in force", &sql)?;
        statement.one([scope.0], rights_row)
    }

    /// Local id of the list with that digest in a scope. `None` if this node lacks it, or if the
    /// list counts as absent.
    pub fn rights_list(&self, scope: ScopeId, digest: &Digest) -> Result<Option<i64>, StoreError> {
        let sql = format!(
            "SELECT id FROM rights_list
             WHERE scope_id = ?1 AND digest = ?2 AND key_number >= {FOUNDING_KEY}"
        );
        let mut statement = self.prepare("looking up a rights list", &sql)?;
        statement.first((scope.0, digest.as_bytes()), |row| row.get(0))
    }

    /// Whether a list of this version lets an identity read a scope.
    pub fn reads_by_version(
        &self,
        scope: ScopeId,
        version: u64,
        identity: &Oid,
    ) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a reader in the lists of a version",
            "SELECT 1 FROM rights_list AS l JOIN rights_entry AS e ON e.list_id = l.id
             WHERE l.scope_id = ?1 AND l.version = ?2 AND e.identity_oid = ?3
               AND e.rights & 1 = 1",
        )?;
        statement.exists((scope.0, version, identity.as_bytes()))
    }

    /// The digest of a list.
    pub fn rights_digest(&self, list: i64) -> Result<Digest, StoreError> {
        let mut statement = self.prepare(
            "reading the digest of a rights list",
            "SELECT digest FROM rights_list WHERE id = ?1",
        )?;
        statement.one([list], |row| fixed(row, 0).map(Digest::from_bytes))
    }

    /// The entries of a list.
    pub fn rights(&self, list: i64) -> Result<RightsList, StoreError> {
        let context = "reading a rights list";
        let mut statement = self.prepare(
            context,
            "SELECT identity_oid, rights FROM rights_entry WHERE list_id = ?1",
        )?;
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

    /// The number of entries of a list.
    pub fn entries_of(&self, list: i64) -> Result<usize, StoreError> {
        let mut statement = self.prepare(
            "counting the entries of a rights list",
            "SELECT COUNT(*) FROM rights_entry WHERE list_id = ?1",
        )?;
        statement.one([list], |row| row.get(0))
    }

    /// The rights that a list gives to an identity. `None`: it gives none.
    pub fn rights_of(&self, list: i64, identity: &Oid) -> Result<Option<Rights>, StoreError> {
        let mut statement = self.prepare(
            "reading the rights of an identity",
            "SELECT rights FROM rights_entry WHERE list_id = ?1 AND identity_oid = ?2",
        )?;
        let bits = statement.first((list, identity.as_bytes()), |row| row.get(0));
        let bits = bits?;
        let unknown = StoreError::Inconsistent("the bits of a rights entry");
        bits.map(|bits| Rights::from_bits(bits).ok_or(unknown))
            .transpose()
    }

    /// Whether a scope has a list that counts as absent, because a later key signed its Parent.
    pub fn has_absent_list(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT 1 FROM rights_list WHERE scope_id = ?1 AND key_number < {FOUNDING_KEY}"
        );
        let mut statement = self.prepare("looking for lists that count as absent", &sql)?;
        statement.exists([scope.0])
    }

    /// At most `limit` rights lists of one scope of this node's `owner` that a key with a lower
    /// number than `key_id` signed. The highest by key number, version and digest comes first.
    /// Empty: no scope has any.
    pub fn lists_before(
        &self,
        app: &AppTable,
        owner: &Oid,
        key_id: u32,
        limit: usize,
    ) -> Result<Vec<ParentRow>, StoreError> {
        let context = "reading rights lists that an earlier key signed";
        let mut statement = self.prepare(context, &app.list_before)?;
        let first = statement.first((owner.as_bytes(), key_id), parent_row)?;
        let Some(first) = first else {
            return Ok(Vec::new());
        };
        let mut statement = self.prepare(context, &app.lists_before)?;
        let rows: Vec<_> = statement.all((first.scope_id.0, key_id, limit), parent_row)?;
        // A second object with the same list is not found by the list.
        Ok(if rows.is_empty() { vec![first] } else { rows })
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
        let mut statement = self.prepare(
            "writing a founding list",
            "INSERT INTO rights_list (scope_id, digest, key_number, version)
             VALUES (?1, ?2, ?3, 0)",
        )?;
        statement
            .execute((scope.0, digest.as_bytes(), key_number))
            .map(drop)
    }

    /// Writes the entries of a list, unless they are stored already.
    pub fn put_rights(&self, list: i64, rights: &RightsList) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a rights list",
            "INSERT INTO rights_entry (list_id, identity_oid, rights) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
        )?;
        for (identity, rights) in rights.iter() {
            statement.execute((list, identity.as_bytes(), rights.bits()))?;
        }
        Ok(())
    }

    /// Writes a list with its entries. A list that is stored already keeps its row, with the
    /// higher key number. Returns whether it is new.
    pub fn put_list(&self, new: &NewRights<'_>) -> Result<bool, StoreError> {
        self.raise_key_number(new.scope, &new.digest, new.key_number)?;
        if self.list_id(new.scope, &new.digest)?.is_some() {
            return Ok(false);
        }
        let mut statement = self.prepare(
            "writing a rights list",
            "INSERT INTO rights_list (scope_id, digest, key_number, version, parent_id)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        // RETURNING would make SQLite scan the tables that refer to lists.
        statement.execute((
            new.scope.0,
            new.digest.as_bytes(),
            new.key_number,
            new.version,
            new.parent_id,
        ))?;
        let id = self.connection.last_insert_rowid();
        self.put_rights(id, new.list)?;
        Ok(true)
    }

    /// Raises the key number of a list, and of each answer that names it, because a later key
    /// signed the list. Returns whether it rose.
    pub fn raise_key_number(
        &self,
        scope: ScopeId,
        digest: &Digest,
        key_number: u32,
    ) -> Result<bool, StoreError> {
        let context = "raising the key number of a rights list";
        let mut statement = self.prepare(
            context,
            "UPDATE rights_list SET key_number = ?3
             WHERE scope_id = ?1 AND digest = ?2 AND key_number < ?3",
        )?;
        if statement.execute((scope.0, digest.as_bytes(), key_number))? == 0 {
            return Ok(false);
        }
        self.raise_answers(scope, digest, key_number)?;
        Ok(true)
    }
}

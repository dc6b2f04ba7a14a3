//! Which rights lists of a scope replace and merge which, to find those that its owner's node still
//! has to merge.
//!
//! Kept for scopes whose owners live here, so that no peer makes this node store it. Invariant: in
//! such a scope `is_head` is 1 for exactly the later lists that no stored list names.

use keys::Digest;

use super::error::StoreError;
use super::rights::{COLUMNS, RightsRow, rights_row};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

/// The lists that the list `?1` replaces or merges, in the columns of `rights::COLUMNS`.
const NAMED_BY: &str = "SELECT r.id, r.digest, r.key_number, r.version, r.parent_id \
     FROM list_named AS n LEFT JOIN rights_list AS r \
     ON r.scope_id = n.scope_id AND r.digest = n.digest WHERE n.by_list = ?1";

/// The lists that another one replaces or merges.
#[derive(Debug)]
pub struct NamedLists<'n> {
    /// The scope.
    pub scope: ScopeId,
    /// Digest of the list that names them.
    pub by: &'n Digest,
    /// Number of the key that signed the object with these names.
    pub key_number: u32,
    /// Their digests.
    pub digests: &'n [Digest],
}

impl Rows<'_> {
    /// Local id of the list with that digest in a scope, also if the list counts as absent.
    pub fn list_id(&self, scope: ScopeId, digest: &Digest) -> Result<Option<i64>, StoreError> {
        let mut statement = self.prepare(
            "looking for a rights list",
            "SELECT id FROM rights_list WHERE scope_id = ?1 AND digest = ?2",
        )?;
        statement.first((scope.0, digest.as_bytes()), |row| row.get(0))
    }

    /// At most `limit` lists of a scope that no stored list replaces or merges, the highest by key
    /// number, version and digest first. Empty if the owner of the scope lives elsewhere, and while
    /// the founding list is the only one.
    pub fn list_heads(&self, scope: ScopeId, limit: usize) -> Result<Vec<RightsRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rights_list WHERE scope_id = ?1 AND is_head = 1
             ORDER BY key_number DESC, version DESC, digest DESC LIMIT ?2"
        );
        let mut statement = self.prepare("reading the lists that no list replaces", &sql)?;
        statement.all((scope.0, limit), rights_row)
    }

    /// The lists that a list replaces or merges. `None`: a list that is not stored.
    pub fn named_by(&self, list: i64) -> Result<Vec<Option<RightsRow>>, StoreError> {
        let mut statement = self.prepare("reading the lists that a list replaces", NAMED_BY)?;
        statement.all([list], |row| match row.get::<_, Option<i64>>(0)? {
            Some(_) => rights_row(row).map(Some),
            None => Ok(None),
        })
    }
}

impl WriteTx<'_> {
    /// Notes which lists a list replaces or merges. A list may be met again with other names; all
    /// of them count. Only a lower version that no later key signed can be replaced, so that no
    /// thief of an earlier key hides a list. `is_new`: the naming list was just stored.
    pub fn put_named(&self, named: &NamedLists<'_>, is_new: bool) -> Result<(), StoreError> {
        let context = "noting the lists that a list replaces";
        let (scope, key_number) = (named.scope.0, named.key_number);
        let id = self.list_id(named.scope, named.by)?;
        let id = id.ok_or(StoreError::Inconsistent("a rights list without a row"))?;
        for digest in named.digests {
            let mut statement = self.prepare(
                context,
                "INSERT INTO list_named (scope_id, digest, by_list, key_number)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET key_number = MAX(key_number, excluded.key_number)",
            )?;
            statement.execute((scope, digest.as_bytes(), id, key_number))?;
            let mut statement = self.prepare(
                context,
                "UPDATE rights_list SET is_head = 0
                 WHERE scope_id = ?1 AND digest = ?2 AND key_number <= ?4
                   AND version < (SELECT version FROM rights_list WHERE id = ?3)",
            )?;
            statement.execute((scope, digest.as_bytes(), id, key_number))?;
        }
        if is_new {
            let mut statement = self.prepare(
                context,
                "UPDATE rights_list SET is_head = NOT EXISTS
                   (SELECT 1 FROM list_named AS n JOIN rights_list AS b ON b.id = n.by_list
                    WHERE n.scope_id = rights_list.scope_id
                      AND n.digest = rights_list.digest
                      AND n.key_number >= rights_list.key_number
                      AND b.version > rights_list.version)
                 WHERE id = ?1",
            )?;
            statement.execute([id])?;
        }
        Ok(())
    }
}

//! Table `merging`: scopes of this node with several rights lists that no other list replaces.
//!
//! Invariant: a scope has a row from the transaction that stored its second such list until the one
//! that leaves one list.

use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

impl Rows<'_> {
    /// Whether the lists of a scope have to be merged.
    pub fn is_merging(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for lists to be merged",
            "SELECT 1 FROM merging WHERE scope_id = ?1",
        )?;
        statement.exists([scope.0])
    }

    /// A scope whose lists can be merged now.
    pub fn next_merging(&self) -> Result<Option<ScopeId>, StoreError> {
        let mut statement = self.prepare(
            "looking for lists to be merged",
            "SELECT scope_id FROM merging WHERE is_held = 0 LIMIT 1",
        )?;
        statement.first([], |row| row.get(0).map(ScopeId))
    }
}

impl WriteTx<'_> {
    /// Notes that the lists of a scope have to be merged.
    pub fn note_merging(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_merging(
            "INSERT INTO merging (scope_id, is_held) VALUES (?1, 0)
             ON CONFLICT DO UPDATE SET is_held = 0",
            scope,
        )
    }

    /// Notes that a scope has one list again that no other replaces.
    pub fn remove_merging(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_merging("DELETE FROM merging WHERE scope_id = ?1", scope)
    }

    /// Puts off the merge of a scope until [`WriteTx::release_merging`].
    pub fn hold_merging(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_merging("UPDATE merging SET is_held = 1 WHERE scope_id = ?1", scope)
    }

    fn change_merging(&self, sql: &str, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare("noting lists to be merged", sql)?;
        statement.execute([scope.0]).map(drop)
    }

    /// Lets merges that were put off be tried again.
    pub fn release_merging(&self) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "releasing lists to be merged",
            "UPDATE merging SET is_held = 0 WHERE is_held = 1",
        )?;
        statement.execute([]).map(drop)
    }
}

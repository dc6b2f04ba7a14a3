//! Table `due_list`: scopes of this node in which the owner's next rights list is to be written at
//! once.
//!
//! Invariants: a scope is merging from the transaction that stored its second list that no other
//! list replaces until the one that leaves one list. A list of the owner's node ends any other row.

use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

impl Rows<'_> {
    /// Whether the lists of a scope have to be merged.
    pub fn is_merging(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for lists to be merged",
            "SELECT 1 FROM due_list WHERE scope_id = ?1 AND is_merging = 1",
        )?;
        statement.exists([scope.0])
    }

    /// A scope whose next list can be written now. `is_merging`: one whose lists have to be merged;
    /// otherwise one that an identity perhaps left.
    pub fn next_due_list(&self, is_merging: bool) -> Result<Option<ScopeId>, StoreError> {
        let mut statement = self.prepare(
            "looking for lists that are due",
            "SELECT scope_id FROM due_list WHERE is_merging = ?1 AND is_held = 0 LIMIT 1",
        )?;
        statement.first([is_merging], |row| row.get(0).map(ScopeId))
    }
}

impl WriteTx<'_> {
    /// Notes that the lists of a scope have to be merged.
    pub fn note_merging(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_due_list(
            "INSERT INTO due_list (scope_id, is_merging, is_held) VALUES (?1, 1, 0)
             ON CONFLICT DO UPDATE SET is_merging = 1, is_held = 0",
            scope,
        )
    }

    /// Notes that the list in force of a scope perhaps has an identity that left.
    pub fn note_left(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_due_list(
            "INSERT INTO due_list (scope_id, is_merging, is_held) VALUES (?1, 0, 0)
             ON CONFLICT DO UPDATE SET is_held = 0",
            scope,
        )
    }

    /// Notes that a scope has one list again that no other replaces. An identity perhaps left it.
    pub fn end_merging(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_due_list(
            "UPDATE due_list SET is_merging = 0, is_held = 0 WHERE scope_id = ?1",
            scope,
        )
    }

    /// Notes that the next list of a scope was written, or is not needed. A merge stays due.
    pub fn remove_due_list(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_due_list(
            "DELETE FROM due_list WHERE scope_id = ?1 AND is_merging = 0",
            scope,
        )
    }

    /// Puts off the next list of a scope until [`WriteTx::release_lists`].
    pub fn hold_list(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.change_due_list("UPDATE due_list SET is_held = 1 WHERE scope_id = ?1", scope)
    }

    fn change_due_list(&self, sql: &str, scope: ScopeId) -> Result<(), StoreError> {
        let mut statement = self.prepare("noting lists that are due", sql)?;
        statement.execute([scope.0]).map(drop)
    }

    /// Lets lists that were put off be tried again.
    pub fn release_lists(&self) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "releasing lists that are due",
            "UPDATE due_list SET is_held = 0 WHERE is_held = 1",
        )?;
        statement.execute([]).map(drop)
    }
}

//! Table `merging`: scopes of this node with several rights lists that no other list replaces.
//!
//! Invariant: a scope has a row from the transaction that stored its second such list until the one
//! that leaves one list.

use rusqlite::OptionalExtension as _;

use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;

impl Rows<'_> {
    /// Whether the lists of a scope have to be merged.
    pub fn is_merging(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let context = "looking for lists to be merged";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM merging WHERE scope_id = ?1")
            .context(context)?;
        statement.exists([scope.0]).context(context)
    }

    /// A scope whose lists can be merged now.
    pub fn next_merging(&self) -> Result<Option<ScopeId>, StoreError> {
        let context = "looking for lists to be merged";
        let mut statement = self
            .connection
            .prepare_cached("SELECT scope_id FROM merging WHERE is_held = 0 LIMIT 1")
            .context(context)?;
        statement
            .query_row([], |row| row.get(0).map(ScopeId))
            .optional()
            .context(context)
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
        let context = "noting lists to be merged";
        let mut statement = self.connection.prepare_cached(sql).context(context)?;
        statement.execute([scope.0]).map(drop).context(context)
    }

    /// Lets merges that were put off be tried again.
    pub fn release_merging(&self) -> Result<(), StoreError> {
        let context = "releasing lists to be merged";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE merging SET is_held = 0 WHERE is_held = 1")
            .context(context)?;
        statement.execute([]).map(drop).context(context)
    }
}

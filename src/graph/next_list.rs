//! Rights lists that the owner's node writes by itself (docs/DECISIONS.md 4). One kind merges
//! others after a restore; the other is without an identity whose `leave` crossed the list in
//! force.
//!
//! Invariant: such a list gives no identity a right that the owner did not sign. Tested in
//! `tests/core/rights_merge.rs` and `tests/core/leaving.rs`.

use keys::Oid;

use super::error::SaveError;
use super::manager::GraphManager;
use super::merge::HEADS_MAX;
use crate::acl::Denied;
use crate::object::RightsList;
use crate::store::{AppTable, Apps, ParentRow, RightsRow, ScopeId, StoreError};

/// The outcome of writing a list that is due. Except after [`NextList::Done`], it is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextList {
    /// Fewer heads are left, or the only one was replaced.
    Done,
    /// The scope's Parent is deleted. If the deletion is overruled, the merge follows.
    Ended,
    /// In the scope with this oid, the vault lacks the key of a head, or the owner's record does
    /// not name the present key.
    LacksKey(Oid),
    /// No head fewer is left in the scope with this oid.
    Useless(Oid),
}

impl<'e> GraphManager<'e> {
    /// Writes the list that merges the heads of a scope of this node.
    pub fn merge_lists(&mut self, scope: ScopeId) -> Result<NextList, SaveError> {
        let Some((app, parent)) = self.own_scope(scope)? else {
            return match self.live_parent(scope)? {
                Some(_) => Err(Denied::OwnerNotHere.into()),
                None => Ok(NextList::Ended),
            };
        };
        let heads = self.heads(scope)?;
        let list = self.next_rights(scope, &heads)?;
        self.write_next(app, &parent, &heads, list)
    }

    /// Writes the owner's next list if the list in force has an identity that left. Does nothing if
    /// the scope has ended, or its owner does not live here any more.
    pub fn follow_leaves(&mut self, scope: ScopeId) -> Result<NextList, SaveError> {
        if let Some((app, parent)) = self.own_scope(scope)? {
            let (heads, in_force) = (self.heads(scope)?, self.tx.list_in_force(scope)?);
            let list = self.next_rights(scope, &heads)?;
            if list != self.tx.rights(in_force.id)? {
                return self.write_next(app, &parent, &heads, list);
            }
        }
        self.tx.remove_due_list(scope)?;
        Ok(NextList::Done)
    }

    /// Writes the owner's next list, which only repeats what the owner and members signed.
    fn write_next(
        &mut self,
        app: &AppTable,
        parent: &ParentRow,
        heads: &[RightsRow],
        list: RightsList,
    ) -> Result<NextList, SaveError> {
        let key_number = self.keys().key_id(parent.owner)?;
        let is_latest = heads.iter().all(|head| head.key_number <= key_number);
        if !is_latest || !self.is_record_current(&parent.owner)? {
            return Ok(NextList::LacksKey(parent.oid));
        }
        self.write_list(None, app, parent, list)?;
        let left = self.tx.list_heads(parent.scope_id, HEADS_MAX)?.len();
        tracing::info!(
            lists = heads.len(),
            left,
            "wrote the next rights list of a scope"
        );
        Ok(match left < heads.len() || heads.len() == 1 {
            true => NextList::Done,
            false => NextList::Useless(parent.oid),
        })
    }

    /// The Parent of a scope whose owner lives here. `None`: the owner lives elsewhere, or the
    /// Parent is deleted.
    fn own_scope(&self, scope: ScopeId) -> Result<Option<(&'e AppTable, ParentRow)>, StoreError> {
        let (Some(row), Some(parent)) = (self.tx.scope(scope)?, self.live_parent(scope)?) else {
            return Ok(None);
        };
        let apps: &'e Apps = self.tx.apps();
        let app = apps.iter().find(|app| app.id == row.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        Ok(self.is_local(&parent.owner)?.then_some((app, parent)))
    }
}

//! Removes the scopes of purged peers in which nothing is kept.
//!
//! A scope is closed first, as if its Parent had been deleted, so that nothing is written in it any
//! more. Then its objects, lists and readers go in portions, and the Parent last. Invariant: a
//! scope has its Parent and its founding list as long as it has a row. Tested in
//! `tests/core/purge_scopes.rs`.

use std::collections::BTreeSet;

use keys::PeerId;

use super::manager::GraphManager;
use super::purge::{PORTION_SPENT_MAX, RemovedObjects};
use super::verify::ENTRY_CHARGE;
use crate::acl::AclManager;
use crate::store::{
    AppTable, ParentRow, PurgeStep, Purged, PurgedScope, ScopeRow, StoreError, Usage,
};

/// Most lists or objects of a scope that are read at once.
const READ_AT_ONCE: usize = 16;

/// A scope that a purge may remove.
struct GoingScope<'e> {
    noted: PurgedScope,
    peer: PeerId,
    app: &'e AppTable,
    scope: ScopeRow,
    parent: ParentRow,
}

impl<'e> GraphManager<'e> {
    /// Removes one portion of the scopes that are not kept. Returns whether all are removed.
    pub(super) fn purge_scopes(
        &mut self,
        removed: &mut RemovedObjects,
    ) -> Result<bool, StoreError> {
        if !self.keep_up(PurgeStep::Scopes)? {
            return Ok(false);
        }
        while let Some(noted) = self.tx.next_purged_scope()? {
            if self.spent() > PORTION_SPENT_MAX {
                return Ok(false);
            }
            self.look_at(1);
            let candidate = self.candidate(noted)?;
            if !noted.is_going {
                if self.keeps_scope(&candidate)? {
                    self.tx.drop_purged_scope(noted.scope)?;
                    continue;
                }
                self.close_purged(&candidate, removed)?;
            }
            if !self.empty_scope(&candidate, removed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn candidate(&self, noted: PurgedScope) -> Result<GoingScope<'e>, StoreError> {
        let lost = StoreError::Inconsistent("a purged scope without its Parent");
        let Some(scope) = self.tx.scope(noted.scope)? else {
            return Err(lost);
        };
        let apps: &'e crate::store::Apps = self.tx.apps();
        let app = apps.iter().find(|app| app.id == scope.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let parent = self.tx.parent_by_id(app, scope.parent_id)?;
        Ok(GoingScope {
            noted,
            peer: self.purged_peer(noted.peer_no)?,
            app,
            scope,
            parent: parent.ok_or(lost)?,
        })
    }

    /// Whether a scope is kept that has no kept object. One of an owner elsewhere is, if an
    /// identity of this node takes part. One of the purged peer is only kept for members of third
    /// nodes, who may write in it.
    fn keeps_scope(&self, candidate: &GoingScope<'_>) -> Result<bool, StoreError> {
        let GoingScope { scope, parent, .. } = candidate;
        // Another peer may have sent a later version.
        let is_sent = parent.origin == Some(candidate.noted.peer_no);
        if !is_sent || self.is_local(&parent.owner)? {
            return Ok(true);
        }
        if !self.is_read_here(scope.id)? {
            return Ok(false);
        }
        if !self.lives_at(&parent.owner, &candidate.peer)? {
            return Ok(true);
        }
        let list = self.tx.list_in_force(scope.id)?;
        let list = self.tx.rights(list.id)?;
        self.look_at(1 + list.entries());
        for (identity, _) in list.iter() {
            let home = self.identity(identity)?.map(|known| known.home);
            if home.is_some_and(|home| home != candidate.peer && home != self.this_node) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Closes a scope: its Parent has no values, it has no readers, and nothing is written in it.
    /// One of an owner elsewhere is noted at the peers that may have it.
    fn close_purged(
        &mut self,
        candidate: &GoingScope<'_>,
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        let GoingScope {
            noted,
            app,
            scope,
            parent,
            ..
        } = candidate;
        let change_seq = self.keep_numbers(removed)?;
        match self.lives_at(&parent.owner, &candidate.peer)? {
            true => {
                self.tx
                    .remember_purged(noted.peer_no, &scope.oid, Purged::Scope)?;
                self.tx.drop_pull_again(&scope.oid)?;
            }
            false => {
                self.tx
                    .remember_purged(noted.peer_no, &scope.oid, Purged::Wanted)?;
                self.pull_removed(scope)?;
            }
        }
        let readers = self.tx.readers(scope.id)?;
        self.look_at(readers.len());
        let bytes = self.bytes_of(app, parent)?;
        let granted = AclManager::check_drop(parent.oid, parent.origin.is_some())
            .map_err(|_| StoreError::Inconsistent("an own scope that a purge removes"))?;
        self.parents(app)?.drop_values(parent, &granted)?;
        self.cache.borrow_mut().invalidate_parent(app.id, parent);
        let account = (noted.peer_no, parent.account);
        removed.add(
            account,
            Usage {
                objects: 0,
                bytes: signed(bytes),
            },
        );
        self.tx.end_scope(scope.id, change_seq)?;
        self.note_changed(scope.id, readers.iter(), change_seq)?;
        self.tx.drop_work_in(scope.id)?;
        self.cache.borrow_mut().declined.remove(&scope.id);
        self.tx.put_purged_scope(&PurgedScope {
            is_going: true,
            ..*noted
        })
    }

    /// Notes a scope that is removed at the peers whose identities its lists name.
    fn pull_removed(&self, scope: &ScopeRow) -> Result<(), StoreError> {
        let mut homes = BTreeSet::new();
        let founding = self.tx.founding_list(scope.id)?;
        for list in [self.tx.list_in_force(scope.id)?, founding] {
            let list = self.tx.rights(list.id)?;
            self.look_at(1 + list.entries());
            for (identity, _) in list.iter() {
                homes.extend(self.identity(identity)?.map(|known| known.home));
            }
        }
        for home in homes {
            self.pull_removed_from(&home, scope.app, &scope.oid)?;
        }
        Ok(())
    }

    /// Removes one portion of a closed scope. Returns whether nothing is left of it.
    fn empty_scope(
        &mut self,
        candidate: &GoingScope<'_>,
        removed: &mut RemovedObjects,
    ) -> Result<bool, StoreError> {
        let GoingScope {
            app, scope, parent, ..
        } = candidate;
        let founding = self.tx.founding_list(scope.id)?;
        loop {
            let lists = self.tx.some_lists(scope.id, READ_AT_ONCE)?;
            let lists = lists.into_iter().filter(|list| list.id != founding.id);
            let lists: Vec<_> = lists.collect();
            if lists.is_empty() {
                break;
            }
            for list in lists {
                if self.spent() > PORTION_SPENT_MAX {
                    return Ok(false);
                }
                self.remove_list(app, (list.id, list.parent_id), removed)?;
            }
        }
        loop {
            let rows = self
                .tx
                .in_purged_scope(app, scope.id, parent.id, READ_AT_ONCE)?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                if self.spent() > PORTION_SPENT_MAX {
                    return Ok(false);
                }
                // The list that the object names is removed, and has a name of the same length.
                let named = ParentRow {
                    rights_id: row.rights_id.map(|_| founding.id),
                    ..row.clone()
                };
                let bytes = self.bytes_of(app, &named)?;
                self.remove_charged(app, &row, bytes, removed)?;
            }
        }
        while !self.tx.remove_readers(scope.id)? {
            if self.spent() > PORTION_SPENT_MAX {
                return Ok(false);
            }
        }
        self.tx.remove_list(founding.id)?;
        // Its values were released when it was closed.
        self.remove_charged(
            app,
            &ParentRow {
                rev: 0,
                ..parent.clone()
            },
            0,
            removed,
        )?;
        self.tx.remove_scope(scope.id)?;
        // Sets of scopes in memory may hold it.
        let change_seq = self.keep_numbers(removed)?;
        self.env.memory.raise_all_readers(change_seq);
        Ok(true)
    }

    /// Removes a rights list, and the object that holds it.
    fn remove_list(
        &mut self,
        app: &AppTable,
        (list, parent_id): (i64, Option<i64>),
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        let row = match parent_id {
            Some(id) => self.tx.parent_by_id(app, id)?,
            None => None,
        };
        if let Some(row) = row {
            let bytes = match row.rev {
                // The entries of a list whose values were dropped are still charged.
                0 => ENTRY_CHARGE * self.tx.entries_of(list)?,
                _ => self.bytes_of(app, &row)?,
            };
            self.remove_charged(app, &row, bytes, removed)?;
        }
        self.tx.remove_list(list)
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

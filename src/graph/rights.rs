//! Rights lists, `leave`, `accept`, and the readers that follow from them (docs/DECISIONS.md 4).
//!
//! Invariant: after each write the readers of a scope are those that the list in force names.
//! Those that left under it or a later one are no readers. A scope whose Parent is deleted has
//! none. Tested in `tests/core/rights.rs` against a recomputation from nothing.

use std::collections::BTreeSet;

use keys::protocol::{ACCEPT_TYPE, LEAVE_TYPE, RIGHTS_TYPE};
use keys::{Digest, Oid};

use super::commit::Change;
use super::leaving::LastLeave;
use super::manager::GraphManager;
use super::resolve::{Founding, InScope, ResolveError, Resolved};
use crate::acl::ScopeRight;
use crate::object::{CoreRecord, Object, Rights, RightsFault, ScopeList};
use crate::store::{
    AppTable, Cause, MemberAnswer, NamedLists, NewRights, ParentRow, ScopeId, StoreError,
};

impl GraphManager<'_> {
    /// The rights list that an object in a scope names. `None`: the founding list.
    pub(super) fn named_list(
        &self,
        scope: ScopeId,
        object: &Object,
    ) -> Result<Option<i64>, ResolveError> {
        let Some(digest) = &object.rights else {
            return Ok(None);
        };
        let list = self.tx.rights_list(scope, digest)?;
        let list = list.ok_or(ResolveError::MissingRights(*digest))?;
        self.check_not_founding(scope, digest)?;
        Ok(Some(list))
    }

    /// The founding list has one name only: none.
    fn check_not_founding(&self, scope: ScopeId, named: &Digest) -> Result<(), ResolveError> {
        if self.tx.founding_list(scope)?.digest == *named {
            let fault = RightsFault("the founding list is named by its absence");
            return Err(ResolveError::Rights(fault));
        }
        Ok(())
    }

    /// Resolves the scope of a rights list, a `leave` or an `accept`.
    pub(super) fn resolve_core(
        &self,
        app: &AppTable,
        object: &Object,
        scope: &Oid,
    ) -> Result<InScope, ResolveError> {
        let parent = self.scope_parent(app, scope)?;
        let scope = parent.scope_id;
        if parent.deleted {
            return Ok((scope, None, ScopeRight::Ended));
        }
        let is_owner = object.owner == parent.owner;
        if [LEAVE_TYPE, ACCEPT_TYPE].contains(&object.type_number) {
            let named = self.named_list(scope, object)?;
            let rights = self.rights_of(scope, named, &object.owner)?;
            let may_read = rights.is_some_and(Rights::may_read);
            let right = match (is_owner, may_read) {
                (true, _) => ScopeRight::ScopeOwner,
                (false, true) => ScopeRight::Participant,
                (false, false) => ScopeRight::Outsider,
            };
            return Ok((scope, named, right));
        }
        if let Some(replaced) = &object.rights {
            // The list that it replaces need not be stored.
            self.check_not_founding(scope, replaced)?;
        }
        let right = if is_owner {
            ScopeRight::Participant
        } else {
            ScopeRight::OtherOwner
        };
        Ok((scope, None, right))
    }

    /// Updates lists and readers after the write of an object that decides who reads a scope: its
    /// Parent, a rights list or a `leave`. `is_new_scope`: the write made the scope.
    pub(super) fn note_rights(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        change: Change<'_, '_>,
        is_new_scope: bool,
    ) -> Result<(), StoreError> {
        let Change::Content(resolved, existing) = change else {
            return self.note_key_number(app, row);
        };
        match (&resolved.core, &resolved.founding) {
            (Some(core), _) => self.note_core(row, (core, resolved)).map(drop),
            (None, Some(founding)) if is_new_scope => self.found_scope(row, founding),
            (None, Some(founding)) => {
                let was_live = existing.is_some_and(|row| !row.deleted);
                self.change_scope(row, founding, was_live)
            }
            (None, None) => Ok(()),
        }
    }

    /// Stores the list or `leave` of an object, and what follows from it. Returns whether it was
    /// unknown.
    fn note_core(
        &mut self,
        row: &ParentRow,
        (core, resolved): (&CoreRecord, &Resolved<'_>),
    ) -> Result<bool, StoreError> {
        match core {
            CoreRecord::Rights(list) => self.note_list(row, list, resolved.replaces()),
            CoreRecord::Leave => self.note_leave(row, resolved.rights_id),
            CoreRecord::Accept => self.note_accept(row, resolved.rights_id),
        }
    }

    /// Keeps the list or `leave` of an object that lost against another one with its oid. Other
    /// objects may name the list, and nodes that received it first have it. `stored` is the object
    /// that won, and `key_number` is of the key that signed the other one. Returns whether the list
    /// or `leave` was unknown.
    pub(super) fn keep_forked(
        &mut self,
        stored: &ParentRow,
        key_number: u32,
        resolved: &Resolved<'_>,
    ) -> Result<bool, StoreError> {
        let Some(core) = &resolved.core else {
            return Ok(false);
        };
        self.end_group();
        let row = ParentRow {
            key_id: key_number,
            change_seq: self.stamp(),
            ..stored.clone()
        };
        self.note_core(&row, (core, resolved))
    }

    /// Opens the readers of a scope that this write made. A tombstone has none.
    fn found_scope(&mut self, row: &ParentRow, founding: &Founding) -> Result<(), StoreError> {
        let Some(list) = &founding.list else {
            return self.tx.end_scope(row.scope_id, row.change_seq);
        };
        let stored = self.tx.founding_list(row.scope_id)?;
        self.tx.put_rights(stored.id, list)?;
        for reader in list.readers() {
            self.tx.put_reader(row.scope_id, reader, 0)?;
            self.invite(row, reader, Some(0))?;
        }
        Ok(())
    }

    /// Follows a change of a scope's Parent: a deletion, one that is overruled, or a later key.
    fn change_scope(
        &mut self,
        row: &ParentRow,
        founding: &Founding,
        was_live: bool,
    ) -> Result<(), StoreError> {
        let scope = row.scope_id;
        let Some(list) = &founding.list else {
            self.tx
                .raise_key_number(scope, &founding.digest, row.key_id)?;
            let readers = self.tx.readers(scope)?;
            self.tx.end_scope(scope, row.change_seq)?;
            return self.note_changed(scope, readers.iter(), row.change_seq);
        };
        if was_live {
            return self.raise_founding_list(row, &founding.digest);
        }
        self.tx
            .raise_key_number(scope, &founding.digest, row.key_id)?;
        self.tx.remove_ended_scope(scope)?;
        self.tx.release_lists()?;
        let stored = self.tx.founding_list(scope)?;
        self.tx.put_rights(stored.id, list)?;
        self.cache.borrow_mut().invalidate_rights(scope);
        self.rights_changed(scope, row.change_seq, History::Whole)?;
        self.pull_scope_again(row)
    }

    /// Follows a later key of a live Parent that is a scope. Lists under an earlier key, and each
    /// `leave` that names one, count as absent then.
    fn raise_founding_list(&mut self, row: &ParentRow, digest: &Digest) -> Result<(), StoreError> {
        let scope = row.scope_id;
        let before = self.tx.list_in_force(scope)?.id;
        if !self.tx.raise_key_number(scope, digest, row.key_id)? {
            return Ok(());
        }
        if self.tx.list_in_force(scope)?.id != before || self.tx.has_absent_list(scope)? {
            self.rights_changed(scope, row.change_seq, History::Missed)?;
        }
        Ok(())
    }

    /// Stores a list, and lets the objects that wait for it be tried.
    fn note_list(
        &mut self,
        row: &ParentRow,
        list: &ScopeList,
        replaces: Option<Digest>,
    ) -> Result<bool, StoreError> {
        let new = NewRights {
            scope: row.scope_id,
            digest: list.digest(),
            key_number: row.key_id,
            version: list.version,
            parent_id: row.id,
            list: &list.list,
        };
        let mut is_new = false;
        self.change_list(row, &new.digest, |graph| {
            is_new = graph.tx.put_list(&new)?;
            graph.name_lists(&new, (list, replaces), is_new)?;
            Ok(true)
        })?;
        Ok(is_new)
    }

    /// Stores the lists that a list replaces and merges, in a scope whose owner lives here.
    pub(super) fn name_lists(
        &self,
        new: &NewRights<'_>,
        (list, replaces): (&ScopeList, Option<Digest>),
        is_new: bool,
    ) -> Result<(), StoreError> {
        let scope = new.scope;
        if !self.tx.scope(scope)?.is_some_and(|scope| scope.is_local) {
            return Ok(());
        }
        let founding = self.tx.founding_list(scope)?.digest;
        let named = std::iter::once(replaces.unwrap_or(founding));
        let named = NamedLists {
            scope,
            by: &new.digest,
            key_number: new.key_number,
            digests: &named.chain(list.merges.iter().copied()).collect::<Vec<_>>(),
        };
        self.tx.put_named(&named, is_new)
    }

    fn note_leave(&mut self, row: &ParentRow, named: Option<i64>) -> Result<bool, StoreError> {
        let scope = row.scope_id;
        let is_new = self.put_answer(MemberAnswer::Leave, row, named)?;
        if !self.tx.is_reader(scope, &row.owner)? {
            return Ok(is_new);
        }
        let in_force = self.tx.list_in_force(scope)?;
        match self.last_leave(scope, &in_force, &row.owner)? {
            LastLeave::None => {}
            LastLeave::Earlier => {
                if let Some(parent) = self.live_parent(scope)? {
                    self.note_left(scope, &parent.owner)?;
                }
            }
            LastLeave::Counts => {
                let was_unwanted = self.tx.is_unwanted(scope, &self.this_node)?;
                self.tx.close_reader(scope, &row.owner, row.change_seq)?;
                self.note_changed(scope, [&row.owner].into_iter(), row.change_seq)?;
                self.follow_wanted(scope, was_unwanted)?;
            }
        }
        Ok(is_new)
    }

    /// Follows a later signature of a list, or of a scope's Parent.
    fn note_key_number(&mut self, app: &AppTable, row: &ParentRow) -> Result<(), StoreError> {
        let scope = row.scope_id;
        if row.type_number == RIGHTS_TYPE {
            let (object, _) = self.load(app, row)?;
            let Some(Ok(CoreRecord::Rights(list))) = CoreRecord::read(&object) else {
                return Ok(());
            };
            let digest = list.digest();
            return self.change_list(row, &digest, |graph| {
                graph.tx.raise_key_number(scope, &digest, row.key_id)
            });
        }
        match self.tx.scope(scope)? {
            Some(known) if known.parent_id == row.id => {
                let digest = self.tx.founding_list(scope)?.digest;
                self.raise_founding_list(row, &digest)
            }
            _ => Ok(()),
        }
    }

    /// Writes a list or raises its key number, and follows with the readers. `write` returns
    /// whether it changed something.
    pub(super) fn change_list(
        &mut self,
        row: &ParentRow,
        digest: &Digest,
        write: impl FnOnce(&Self) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let scope = row.scope_id;
        let before = self.tx.list_in_force(scope)?.id;
        let was_absent = self.tx.rights_list(scope, digest)?.is_none();
        if !write(self)? {
            return Ok(());
        }
        self.fulfil(&Cause::Rights(*digest))?;
        // A `leave` counts from when on the list that it names is not absent.
        let is_back = was_absent && self.tx.is_left_by_any(scope, digest)?;
        let is_merged = self.note_heads(scope, row.change_seq)?;
        if self.tx.list_in_force(scope)?.id != before || is_back || is_merged {
            self.rights_changed(scope, row.change_seq, History::Missed)?;
        }
        if is_merged {
            self.open_scope(scope)?;
        }
        Ok(())
    }

    /// Opens and closes readers after another list came in force, or another `leave` counts. An
    /// unchanged row stays as it is. A scope whose Parent is deleted has no readers.
    fn rights_changed(
        &mut self,
        scope: ScopeId,
        change_seq: u64,
        history: History,
    ) -> Result<(), StoreError> {
        let Some(parent) = self.live_parent(scope)? else {
            return Ok(());
        };
        let list = self.tx.list_in_force(scope)?;
        let is_merging = self.tx.is_merging(scope)?;
        let open: BTreeSet<Oid> = self.tx.readers(scope)?.into_iter().collect();
        let rights = self.tx.rights(list.id)?;
        self.look_at(open.len() + rights.entries());
        let was_unwanted = self.tx.is_unwanted(scope, &self.this_node)?;
        let mut changed = Vec::new();
        for identity in &open {
            if rights.of(identity).is_none_or(|it| !it.may_read()) {
                let until_seq = match self.removes(scope, list.version, identity)? {
                    true => change_seq,
                    false => change_seq - 1,
                };
                self.tx.close_reader(scope, identity, until_seq)?;
                changed.push(*identity);
            }
        }
        for identity in rights.readers() {
            let last_leave = self.last_leave(scope, &list, identity)?;
            if last_leave == LastLeave::Earlier {
                self.note_left(scope, &parent.owner)?;
            }
            let reads = last_leave != LastLeave::Counts;
            match (open.contains(identity), reads) {
                (true, false) => self.tx.close_reader(scope, identity, change_seq)?,
                // The list in force may lack a removal.
                (false, true) if is_merging => continue,
                (false, true) => {
                    let from_seq = match history {
                        History::Whole => None,
                        History::Missed => {
                            Some(self.tx.reader_until(scope, identity)?.unwrap_or(0))
                        }
                    };
                    let since_seq = self.reads_since(identity, change_seq)?;
                    self.tx.put_reader(scope, identity, since_seq)?;
                    let is_hidden = self.invite(&parent, identity, from_seq)?;
                    // The feeds of other nodes are not kept here.
                    let is_earlier = parent.created_seq < change_seq;
                    if is_earlier && !is_hidden && self.is_local(identity)? {
                        self.tx
                            .put_opening(scope, identity, (from_seq, change_seq))?;
                    }
                }
                _ => continue,
            }
            changed.push(*identity);
        }
        self.follow_wanted(scope, was_unwanted)?;
        self.note_new_readers(scope, &changed, change_seq)
    }

    /// Whether an identity receives the list by which it lost its right to read. Otherwise an
    /// earlier one removed it, which this node lacks, and later lists name later members. Lists of
    /// an own scope may lack others after a restore.
    fn removes(&self, scope: ScopeId, version: u64, identity: &Oid) -> Result<bool, StoreError> {
        let is_local = self.tx.scope(scope)?.is_some_and(|scope| scope.is_local);
        let before = version.saturating_sub(1);
        Ok(is_local || self.tx.reads_by_version(scope, before, identity)?)
    }

    /// The Parent that is a scope. `None`: it is deleted.
    pub(super) fn live_parent(&self, scope: ScopeId) -> Result<Option<ParentRow>, StoreError> {
        let Some(known) = self.tx.scope(scope)? else {
            return Ok(None);
        };
        let app = self.tx.apps().iter().find(|app| app.id == known.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let parent = self.tx.parent_by_id(app, known.parent_id)?;
        Ok(parent.filter(|parent| !parent.deleted))
    }

    /// From which change on the home of a new reader reads by its cursors alone.
    fn reads_since(&self, identity: &Oid, change_seq: u64) -> Result<u64, StoreError> {
        let Some(known) = self.identity(identity)? else {
            // Its home will be noted with a number of its own.
            return Ok(0);
        };
        let (since_seq, _) = self.home_since(&known.home, change_seq)?;
        Ok(since_seq)
    }

    /// Notes that the readers of a scope changed: the homes of these identities read other scopes
    /// since `change_seq`.
    pub(super) fn note_changed<'i>(
        &mut self,
        scope: ScopeId,
        identities: impl Iterator<Item = &'i Oid>,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let is_other = |(touched, _): &(ScopeId, Option<i64>)| *touched != scope;
        self.cache.borrow_mut().touched.retain(is_other);
        self.cache.borrow_mut().read_here.remove(&scope);
        for identity in identities {
            if let Some(known) = self.identity(identity)? {
                self.touch_readers_of(known.home, change_seq);
            }
        }
        Ok(())
    }
}

/// The objects of a scope that are new to an identity that reads it again.
#[derive(Debug, Clone, Copy)]
enum History {
    /// Those that came while it did not read the scope.
    Missed,
    /// All, because no object was seen while the scope had ended.
    Whole,
}

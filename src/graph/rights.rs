//! Rights lists, `leave`, and the readers that follow from them (docs/DECISIONS.md 4).
//!
//! Invariant: after each write the readers of a scope are those that the list in force names.
//! Those that left under it or a later one are no readers. A scope whose Parent is deleted has
//! none. Tested in `tests/core/rights.rs` against a recomputation from nothing.

use std::collections::{BTreeMap, BTreeSet};

use keys::protocol::{LEAVE_TYPE, RIGHTS_TYPE};
use keys::{Digest, Oid};

use super::commit::Change;
use super::load::load_object;
use super::manager::GraphManager;
use super::resolve::{Founding, InScope, ResolveError, Resolved};
use crate::acl::ScopeRight;
use crate::object::{CoreRecord, Object, Place, RightsFault, RightsList, ScopeList, is_core_type};
use crate::store::{
    AppTable, Cause, NamedLists, NewRights, ParentRow, RightsRow, Rows, ScopeId, StoreError,
};

/// The type whose domains an object travels in: of a core type, that of the scope's Parent.
pub fn travel_type(rows: &Rows<'_>, app: &AppTable, object: &ParentRow) -> Result<u16, StoreError> {
    if !is_core_type(object.type_number) {
        return Ok(object.type_number);
    }
    let parent = parent_of(rows, app, object.scope_id)?;
    Ok(parent.map_or(object.type_number, |parent| parent.type_number))
}

/// The Parent that is a scope. `None`: the scope is local or public.
fn parent_of(
    rows: &Rows<'_>,
    app: &AppTable,
    scope: ScopeId,
) -> Result<Option<ParentRow>, StoreError> {
    match rows.scope(scope)? {
        Some(scope) => rows.parent_by_id(app, scope.parent_id),
        None => Ok(None),
    }
}

impl GraphManager<'_> {
    /// [`travel_type`] of an object that is not stored yet.
    pub(super) fn travel_type(&self, app: &AppTable, object: &Object) -> Result<u16, StoreError> {
        match object.place() {
            Place::In(scope) if is_core_type(object.type_number) => {
                let parent = self.referenced(app, &scope)?;
                Ok(parent.map_or(object.type_number, |parent| parent.type_number))
            }
            _ => Ok(object.type_number),
        }
    }

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

    /// Resolves the scope of a rights list or a `leave`.
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
        if object.type_number == LEAVE_TYPE {
            let named = self.named_list(scope, object)?;
            let list = self.rights(scope, named)?;
            let may_read = list.of(&object.owner).is_some_and(|it| it.may_read());
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
            (Some(core), _) => self.note_core(app, row, (core, resolved)).map(drop),
            (None, Some(founding)) if is_new_scope => self.found_scope(row, founding),
            (None, Some(founding)) => {
                let was_live = existing.is_some_and(|row| !row.deleted);
                self.change_scope(app, row, founding, was_live)
            }
            (None, None) => Ok(()),
        }
    }

    /// Stores the list or `leave` of an object, and what follows from it. Returns whether it was
    /// unknown.
    fn note_core(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        (core, resolved): (&CoreRecord, &Resolved<'_>),
    ) -> Result<bool, StoreError> {
        match core {
            CoreRecord::Rights(list) => self.note_list(app, row, list, resolved.replaces()),
            CoreRecord::Leave => self.note_leave(app, row, resolved.rights_id),
        }
    }

    /// Keeps the list or `leave` of an object that lost against another one with its oid. Other
    /// objects may name the list, and nodes that received it first have it. `stored` is the object
    /// that won, and `key_number` is of the key that signed the other one. Returns whether the list
    /// or `leave` was unknown.
    pub(super) fn keep_forked(
        &mut self,
        app: &AppTable,
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
        self.note_core(app, &row, (core, resolved))
    }

    /// Opens the readers of a scope that this write made. A tombstone has none.
    fn found_scope(&mut self, row: &ParentRow, founding: &Founding) -> Result<(), StoreError> {
        let Some(list) = &founding.list else {
            return self.tx.end_scope(row.scope_id, row.change_seq);
        };
        let stored = self.tx.founding_list(row.scope_id)?;
        self.tx.put_rights(stored.id, list)?;
        list.readers()
            .try_for_each(|reader| self.tx.put_reader(row.scope_id, reader, 0))
    }

    /// Follows a change of a scope's Parent: a deletion, one that is overruled, or a later key.
    fn change_scope(
        &mut self,
        app: &AppTable,
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
            return self.touch_homes(readers.iter(), row.change_seq);
        };
        let before = self.rights_state(scope)?;
        let raised = self
            .tx
            .raise_key_number(scope, &founding.digest, row.key_id)?;
        if was_live {
            return match raised && self.rights_state(scope)? != before {
                true => self.rights_changed(app, scope, row.change_seq),
                false => Ok(()),
            };
        }
        self.tx.remove_ended_scope(scope)?;
        let stored = self.tx.founding_list(scope)?;
        self.tx.put_rights(stored.id, list)?;
        self.cache.borrow_mut().invalidate_parent(app.id, row);
        let (readers, change_seq) = (self.possible_readers(scope)?, row.change_seq);
        self.update_readers(app, scope, readers, (change_seq, History::Whole))?;
        self.pull_scope_again(scope)
    }

    /// Stores a list, and lets the objects that wait for it be tried.
    fn note_list(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        list: &ScopeList,
        replaces: Option<Digest>,
    ) -> Result<bool, StoreError> {
        let scope = row.scope_id;
        let before = self.rights_state(scope)?;
        let digest = list.digest();
        let is_new = self.tx.put_list(&NewRights {
            scope,
            digest,
            key_number: row.key_id,
            version: list.version,
            parent_id: row.id,
            list: &list.list,
        })?;
        if self.tx.scope(scope)?.is_some_and(|scope| scope.is_local) {
            let founding = self.tx.founding_list(scope)?.digest;
            let named = std::iter::once(replaces.unwrap_or(founding));
            let named = NamedLists {
                scope,
                by: &digest,
                key_number: row.key_id,
                digests: &named.chain(list.merges.iter().copied()).collect::<Vec<_>>(),
            };
            self.tx.put_named(&named, is_new)?;
        }
        self.fulfil(&Cause::Rights(digest))?;
        if self.rights_state(scope)? != before {
            self.rights_changed(app, scope, row.change_seq)?;
        }
        Ok(is_new)
    }

    fn note_leave(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        named: Option<i64>,
    ) -> Result<bool, StoreError> {
        let scope = row.scope_id;
        let list = match named {
            Some(list) => list,
            None => self.tx.founding_list(scope)?.id,
        };
        let is_new = self.tx.put_leave(scope, &row.owner, list)?;
        let only = BTreeSet::from([row.owner]);
        self.update_readers(app, scope, only, (row.change_seq, History::Missed))?;
        Ok(is_new)
    }

    /// Follows a later signature of a list, or of a scope's Parent.
    fn note_key_number(&mut self, app: &AppTable, row: &ParentRow) -> Result<(), StoreError> {
        let scope = row.scope_id;
        let digest = if row.type_number == RIGHTS_TYPE {
            let (object, _) = load_object(self.tx, app, row)?;
            match CoreRecord::read(&object) {
                Some(Ok(CoreRecord::Rights(list))) => list.digest(),
                _ => return Ok(()),
            }
        } else {
            match self.tx.scope(scope)? {
                Some(known) if known.parent_id == row.id => self.tx.founding_list(scope)?.digest,
                _ => return Ok(()),
            }
        };
        let before = self.rights_state(scope)?;
        if !self.tx.raise_key_number(scope, &digest, row.key_id)? {
            return Ok(());
        }
        self.fulfil(&Cause::Rights(digest))?;
        if self.rights_state(scope)? != before {
            self.rights_changed(app, scope, row.change_seq)?;
        }
        Ok(())
    }

    /// The list in force and who left: both decide who reads a scope.
    fn rights_state(&self, scope: ScopeId) -> Result<(i64, Vec<(Oid, u64)>), StoreError> {
        Ok((self.tx.list_in_force(scope)?.id, self.tx.left(scope)?))
    }

    /// Opens and closes readers after another list came in force.
    fn rights_changed(
        &mut self,
        app: &AppTable,
        scope: ScopeId,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let readers = self.possible_readers(scope)?;
        self.update_readers(app, scope, readers, (change_seq, History::Missed))
    }

    /// The readers of a scope, and those that the list in force names.
    fn possible_readers(&self, scope: ScopeId) -> Result<BTreeSet<Oid>, StoreError> {
        let list = self.tx.list_in_force(scope)?;
        let mut identities: BTreeSet<Oid> = self.tx.readers(scope)?.into_iter().collect();
        identities.extend(self.tx.rights(list.id)?.readers().copied());
        Ok(identities)
    }

    /// Opens and closes the rows of some identities. An unchanged row stays as it is.
    fn update_readers(
        &mut self,
        app: &AppTable,
        scope: ScopeId,
        identities: BTreeSet<Oid>,
        (change_seq, history): (u64, History),
    ) -> Result<(), StoreError> {
        let Some(parent) = parent_of(self.tx, app, scope)?.filter(|parent| !parent.deleted) else {
            return Ok(());
        };
        let in_force = InForce::load(self.tx, scope)?;
        let mut changed = Vec::new();
        for identity in identities {
            match (
                self.tx.is_reader(scope, &identity)?,
                in_force.reads(&identity),
            ) {
                (true, false) => self.tx.close_reader(scope, &identity, change_seq)?,
                (false, true) => {
                    let from_seq = match history {
                        History::Whole => None,
                        History::Missed => self.tx.reader_until(scope, &identity)?,
                    };
                    if parent.created_seq < change_seq {
                        let seqs = (from_seq.unwrap_or(0), change_seq);
                        self.tx.put_opening(scope, &identity, seqs)?;
                    }
                    let since_seq = self.reads_since(&identity, change_seq)?;
                    self.tx.put_reader(scope, &identity, since_seq)?;
                }
                _ => continue,
            }
            changed.push(identity);
        }
        self.cache.borrow_mut().readers.remove(&scope);
        self.touch_homes(changed.iter(), change_seq)
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

    /// Lets peers read scopes that a recovery closed. Their objects are restamped in portions,
    /// because the cursors of the peers have passed them.
    pub fn open_scopes(&mut self, scopes: impl Iterator<Item = ScopeId>) -> Result<(), StoreError> {
        for scope in scopes {
            let Some(row) = self.tx.scope(scope)? else {
                continue;
            };
            let change_seq = self.stamp();
            self.tx.note_restamp(row.app, scope, change_seq)?;
            let readers = self.tx.readers(scope)?;
            self.touch_homes(readers.iter(), change_seq)?;
        }
        Ok(())
    }

    /// Notes that the homes of these identities read other scopes since `change_seq`.
    fn touch_homes<'i>(
        &mut self,
        readers: impl Iterator<Item = &'i Oid>,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        for reader in readers {
            if let Some(known) = self.identity(reader)? {
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

/// The rights that hold in a scope.
pub(super) struct InForce {
    pub(super) row: RightsRow,
    pub(super) rights: RightsList,
    pub(super) left: BTreeMap<Oid, u64>,
}

impl InForce {
    pub(super) fn load(rows: &Rows<'_>, scope: ScopeId) -> Result<Self, StoreError> {
        let row = rows.list_in_force(scope)?;
        Ok(Self {
            row,
            rights: rows.rights(row.id)?,
            left: rows.left(scope)?.into_iter().collect(),
        })
    }

    /// Whether an identity may read: the list says so, and the identity did not leave under that
    /// list or a later one.
    fn reads(&self, identity: &Oid) -> bool {
        let has_left = self.left.get(identity);
        let has_left = has_left.is_some_and(|version| *version >= self.row.version);
        !has_left && self.rights.of(identity).is_some_and(|it| it.may_read())
    }
}

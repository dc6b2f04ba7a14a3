//! Re-signing after a key rotation: the same objects under the owner's new key (docs/DECISIONS.md
//! 5).
//!
//! Invariants: content and revision of a re-signed object do not change; each gets a new
//! `change_seq`. Tested in `tests/net/rotation.rs`.

use keys::Oid;
use keys::protocol::RIGHTS_TYPE;

use super::commit::Change;
use super::error::SaveError;
use super::load::load_object;
use super::manager::GraphManager;
use crate::acl::{AclManager, Existing, Granted, Precedence};
use crate::op_context::AppId;
use crate::store::{AppTable, ParentRow, ScopeId, SettlingWork, StoreError};

/// Most that a portion of re-signing or restamping spends ([`GraphManager::spent`]), besides its
/// last object.
const RESIGNED_SPENT_MAX: usize = 2048;
/// Most objects that one portion restamps. No local write has as many in one scope.
const RESTAMPED_MAX: usize = 256;

impl GraphManager<'_> {
    /// Re-signs objects that a local owner signed with earlier keys: at most `most`, and fewer if
    /// they are large or change many readers. Returns how many it re-signed; none if none is left.
    /// Each keeps its revision and content, and gets a change group of its own, so that peers that
    /// know of the rotation accept it.
    ///
    /// Rights lists come first, in each scope from the highest version down. Then come all other
    /// objects, by key, oldest first. Another order would let an old list be in force for a while,
    /// here and on every peer.
    pub fn resign_some(&mut self, owner: &Oid, most: usize) -> Result<usize, SaveError> {
        self.may_write(true)?;
        let key_id = self.keys().key_id(*owner)?;
        let apps = self.tx.apps();
        let mut found = 0;
        for app in apps.iter() {
            while found < most {
                let lists = self.tx.lists_before(app, owner, key_id, most - found)?;
                if lists.is_empty() {
                    break;
                }
                for row in lists {
                    if self.spent() > RESIGNED_SPENT_MAX {
                        return Ok(found);
                    }
                    found += 1;
                    self.resign(app, row)?;
                }
            }
        }
        for app in apps.iter() {
            for row in self.tx.signed_before(app, owner, key_id, most - found)? {
                if self.spent() > RESIGNED_SPENT_MAX {
                    return Ok(found);
                }
                found += 1;
                self.resign(app, row)?;
            }
        }
        Ok(found)
    }

    /// Changes key number, signature and `change_seq` of one object. References are not checked
    /// again.
    ///
    /// Objects of other local owners in the object's scope are restamped after it, in later
    /// transactions. A peer that pulls for the first time would otherwise receive them before their
    /// scope, and all of them would wait. Rights lists stay before it, because an earlier list
    /// would come in force at a peer that receives its later key first.
    fn resign(&mut self, app: &AppTable, row: ParentRow) -> Result<(), SaveError> {
        let (object, _) = load_object(self.tx, app, &row)?;
        let signed = self.keys().sign_object(row.owner, object.to_bytes())?;
        let scope_id = row.scope_id;
        let scope = self.tx.scope(scope_id)?;
        let is_scope = scope.is_some_and(|scope| scope.parent_id == row.id);
        let resigned = ParentRow {
            key_id: signed.key_id(),
            signature: *signed.signature(),
            ..row
        };
        self.restamp(app, resigned)?;
        if is_scope {
            let until_seq = self.stamp().saturating_sub(1);
            let work = SettlingWork::Follow(app.id, scope_id);
            self.tx.note_span(&work, until_seq)?;
        }
        Ok(())
    }

    /// Re-signs the list in force of a local owner's scope, before the scope's Parent or another of
    /// its lists is stored under the key `key_id`. An earlier list would otherwise come in force,
    /// here and on every peer. Returns `false` if the vault has no such key: the object must not be
    /// stored then.
    ///
    /// A scope with several heads is closed and adds no reader. Its heads keep their key numbers,
    /// by which the merge knows what a thief may have signed.
    pub(super) fn resign_list_in_force(
        &mut self,
        app: &AppTable,
        scope: ScopeId,
        key_id: u32,
    ) -> Result<bool, StoreError> {
        let heads = self.heads(scope)?;
        let [list] = heads.as_slice() else {
            return Ok(true);
        };
        let Some(holder) = list.parent_id.filter(|_| list.key_number < key_id) else {
            return Ok(true);
        };
        let holder = self.tx.parent_by_id(app, holder)?;
        let holder = holder.ok_or(StoreError::Inconsistent("a rights list without an object"))?;
        if !self.is_local(&holder.owner)? {
            return Ok(true);
        }
        if self.keys().key_id(holder.owner).ok() < Some(key_id) {
            return Ok(false);
        }
        match self.resign(app, holder) {
            Ok(()) => Ok(true),
            Err(SaveError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Restamps one portion of the objects in a scope: those of local owners that are not to be
    /// re-signed themselves. `is_opened`: rights lists and received objects too, because cursors
    /// passed the scope while it was closed. `span` is the last `change_seq` that is done, and
    /// the last that is to be done. Returns how far it got; `None`: all is done.
    pub fn restamp_portion(
        &mut self,
        (app, scope): (AppId, ScopeId),
        span: (i64, i64),
        is_opened: bool,
    ) -> Result<Option<i64>, SaveError> {
        let apps = self.tx.apps();
        let Some(app) = apps.iter().find(|known| known.id == app) else {
            return Ok(None);
        };
        let mut rows = self
            .tx
            .restamped_in_scope(app, scope, span, RESTAMPED_MAX, is_opened)?;
        let last_seq = rows.last().map(|row| row.change_seq);
        let is_all = rows.len() < RESTAMPED_MAX;
        if !is_all && rows.first().map(|row| row.change_seq) != last_seq {
            // The last change group may be cut; the next portion takes it whole.
            rows.retain(|row| Some(row.change_seq) != last_seq);
        }
        let position = rows.last().map(|row| row.change_seq.cast_signed());
        for row in rows {
            if self.spent() > RESIGNED_SPENT_MAX {
                // Restamped rows of its change group lie behind the end of the span now.
                return Ok(Some(row.change_seq.cast_signed() - 1));
            }
            let is_current = self.keys().key_id(row.owner) == Ok(row.key_id);
            let is_meant = is_opened || row.type_number != RIGHTS_TYPE;
            if row.origin.is_some() {
                let granted = AclManager::check_renumber(row.oid);
                self.restamp_granted(app, row, &granted)?;
            } else if is_meant && is_current && self.is_local(&row.owner)? {
                self.restamp(app, row)?;
            }
        }
        Ok(position.filter(|_| !is_all))
    }

    /// Gives an object a new `change_seq` in a change group of its own, with the key number and
    /// signature of `row`.
    fn restamp(&mut self, app: &AppTable, row: ParentRow) -> Result<(), SaveError> {
        let owner_at_home = self.is_local(&row.owner)?;
        let existing = Existing {
            is_local: row.origin.is_none(),
            precedence: Precedence::Same,
        };
        let granted = AclManager::check_resign(row.oid, owner_at_home, &existing)?;
        self.restamp_granted(app, row, &granted)
            .map_err(SaveError::from)
    }

    fn restamp_granted(
        &mut self,
        app: &AppTable,
        row: ParentRow,
        granted: &Granted,
    ) -> Result<(), StoreError> {
        self.end_group();
        self.tx.count_bytes(self.tx.value_bytes(app, row.id)?);
        self.commit_row(granted, app, row, Change::Signature)
            .map(drop)
    }
}

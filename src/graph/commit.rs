//! [`GraphManager::commit_row`]: the only function that writes an object, whether it is local,
//! remote, reclaimed after a restore, or re-signed after a rotation.
//!
//! Invariants: rows of one change group share one `change_seq`. `created_seq` is the `change_seq`
//! of the insert, or of the write that made the object live again. The readers of a scope change in
//! the transaction that writes the scope's Parent, a rights list or a `leave`. Tested in
//! `tests/core`.

use keys::Oid;

use super::manager::GraphManager;
use super::resolve::{Resolved, Scope};
use crate::acl::Granted;
use crate::store::{AppTable, Cause, ParentRow, StoreError};

/// Parts of an object that a commit changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'c, 'o> {
    /// Everything: the object is new, or replaces the stored row.
    Content(&'c Resolved<'o>, Option<&'c ParentRow>),
    /// Key number and signature. The content stays, and the row has its stored id and scope.
    Signature,
}

impl GraphManager<'_> {
    /// Writes an object in the current change group. Fills in `id`, `scope_id`, `rights_id`,
    /// `created_seq` and `change_seq` of `row`, and returns it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the object was taken for new and is stored already. Nothing was
    /// written then.
    pub(super) fn commit_row(
        &mut self,
        granted: &Granted,
        app: &AppTable,
        mut row: ParentRow,
        change: Change<'_, '_>,
    ) -> Result<ParentRow, StoreError> {
        let is_new_scope = matches!(change, Change::Content(resolved, None)
            if resolved.scope == Scope::New);
        // Checked before the scope's own row is written.
        if is_new_scope && self.tx.parent(app, &row.oid)?.is_some() {
            return Err(StoreError::Exists);
        }
        row.change_seq = self.stamp();
        let is_stored = !matches!(change, Change::Content(_, None));
        if is_stored && row.origin.is_none() {
            self.env.memory.raise_restamped(row.change_seq);
        }
        if row.origin.is_none() {
            self.note_own(&row.oid)?;
        }
        match change {
            Change::Signature => {
                // Its number is above those whose bits are still to be set.
                row.sync_flags = self.present_flags(app, &row)?;
                self.parents(app)?.restamp_parent(&row, granted)?;
            }
            Change::Content(resolved, Some(existing)) => {
                (row.id, row.scope_id) = (existing.id, existing.scope_id);
                // A scope that exists again opens the rows of its readers instead.
                let lives_again = existing.deleted && !row.deleted && resolved.founding.is_none();
                row.created_seq = match lives_again {
                    true => row.change_seq,
                    false => existing.created_seq,
                };
                row.rights_id = resolved.rights_id;
                self.parents(app)?
                    .update_parent(&row, &resolved.attrs, granted)?;
            }
            Change::Content(resolved, None) => {
                row.id = self.env.counters.next_id(app);
                (row.created_seq, row.rights_id) = (row.change_seq, resolved.rights_id);
                row.scope_id = match resolved.scope {
                    Scope::Stored(scope) => scope,
                    Scope::New => {
                        let list = resolved.founding.as_ref().and_then(|it| it.list.as_ref());
                        let founders = list.iter().flat_map(|list| list.readers());
                        let founders: Vec<Oid> = founders.copied().collect();
                        let is_local = row.origin.is_none();
                        self.tx
                            .insert_scope(app, row.id, &row.oid, &founders, is_local)?
                    }
                };
                if let Some(founding) = resolved.founding.as_ref().filter(|_| is_new_scope) {
                    let (scope, digest) = (row.scope_id, &founding.digest);
                    self.tx.insert_founding_list(scope, digest, row.key_id)?;
                }
                self.parents(app)?
                    .insert_parent(&row, &resolved.attrs, granted)?;
                self.fulfil(&Cause::Arrived(app.id, row.oid))?;
                if is_new_scope {
                    self.note_scope_back(&row)?;
                    self.tx.wake_scope_again(&row.oid, self.env.now)?;
                }
            }
        }
        self.note_rights(app, &row, change, is_new_scope)?;
        if row.deleted {
            self.note_tombstone(&row)?;
        }
        self.cache.borrow_mut().invalidate_parent(app.id, &row);
        self.touch(app, &row)?;
        Ok(row)
    }
}

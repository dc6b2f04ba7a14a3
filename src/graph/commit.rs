//! [`GraphManager::commit_row`]: the only function that writes an object, whether it is local,
//! remote, reclaimed after a restore, or re-signed after a rotation.
//!
//! Invariants: rows of one change group share one `change_seq`. `created_seq` is the `change_seq`
//! of the insert and never changes. The readers of a scope change in the transaction that writes
//! the scope's Parent. Tested in `tests/core`.

use keys::Oid;

use super::manager::GraphManager;
use super::resolve::{Founding, Resolved, Scope};
use crate::acl::Granted;
use crate::store::{AppTable, Cause, ParentRow, ScopeId, StoreError};

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
        match change {
            Change::Signature => self.parents(app)?.restamp_parent(&row, granted)?,
            Change::Content(resolved, Some(existing)) => {
                (row.id, row.scope_id) = (existing.id, existing.scope_id);
                (row.created_seq, row.rights_id) = (existing.created_seq, resolved.rights_id);
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
                        self.tx.insert_scope(app, row.id, &row.oid, &founders)?
                    }
                };
                if let Some(founding) = resolved.founding.as_ref().filter(|_| is_new_scope) {
                    let (scope, digest) = (row.scope_id, &founding.digest);
                    self.tx.insert_founding_list(scope, digest, row.key_id)?;
                }
                self.parents(app)?
                    .insert_parent(&row, &resolved.attrs, granted)?;
                self.fulfil(&Cause::Arrived(app.id, row.oid))?;
            }
        }
        if let Change::Content(resolved, existing) = change
            && let Some(founding) = &resolved.founding
        {
            self.update_readers(row.scope_id, founding, existing, row.change_seq)?;
        }
        if row.deleted {
            self.note_tombstone(app.id, &row)?;
        }
        self.cache.borrow_mut().invalidate_parent(app.id, &row);
        self.touch(app, &row)?;
        Ok(row)
    }

    /// Opens the readers of a scope whose Parent begins to exist, and closes them when the Parent
    /// is deleted.
    fn update_readers(
        &mut self,
        scope: ScopeId,
        founding: &Founding,
        existing: Option<&ParentRow>,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let was_live = existing.is_some_and(|row| !row.deleted);
        match &founding.list {
            None => {
                let readers = self.tx.readers(scope)?;
                self.tx.end_scope(scope, change_seq)?;
                self.touch_homes(readers.iter(), change_seq)
            }
            Some(_) if was_live => Ok(()),
            Some(list) => {
                self.tx.remove_ended_scope(scope)?;
                let founding = self.tx.founding_list(scope)?;
                self.tx.put_rights(founding.id, list)?;
                list.readers()
                    .try_for_each(|reader| self.tx.put_reader(scope, reader))?;
                if existing.is_some() {
                    self.touch_homes(list.readers(), change_seq)?;
                    self.pull_scope_again(scope)?;
                }
                Ok(())
            }
        }
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

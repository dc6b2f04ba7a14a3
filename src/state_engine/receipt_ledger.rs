//! [`Ledger`]: stores what a receipt of a peer covers (docs/DECISIONS.md 10 "Delivery state").
//!
//! Input is a receipt that counts; output are rows of `receipt`, `unapplied_object` and
//! `unapplied_scope`. Invariant: what an earlier receipt covered stays applied, unless it was named
//! as unapplied and still is. Tested in `tests/core/receipts.rs`.

use std::collections::BTreeSet;

use keys::{Oid, PeerId};

use crate::op_context::Timestamp;
use crate::store::{
    AppTable, ParentRow, ReceiptRow, Rows, StoreError, UNAPPLIED_MAX, UnappliedObject,
    UnappliedScope, WriteTx,
};

/// Most scopes that one [`Delivered`] names.
const SCOPES_MAX: usize = 64;
/// Most objects that are examined for it.
const EXAMINED_MAX: usize = 1024;

/// The change that a receipt made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Oids of the scopes of which the peer applied objects, sorted.
    pub scopes: Vec<Oid>,
    /// Whether there may be others.
    pub more: bool,
}

/// The part of a receipt that counts.
pub(super) struct Covered<'r> {
    /// The cursor.
    pub(super) seq: u64,
    /// This node's last `change_seq`.
    pub(super) head: u64,
    /// Objects that wait at the peer.
    pub(super) waiting: &'r [Oid],
    /// Scopes of which the peer lacks objects.
    pub(super) behind: BTreeSet<Oid>,
}

/// The statements of a peer on a domain, in a write.
pub(super) struct Ledger<'t> {
    pub(super) tx: &'t WriteTx<'t>,
    pub(super) app: &'t AppTable,
    pub(super) key: (&'t PeerId, &'t str),
    /// The number of the receipt before. Objects created up to it are settled.
    pub(super) before: u64,
    pub(super) now: Timestamp,
}

impl Ledger<'_> {
    /// An object of this node that counts as not applied so far, and its scope.
    fn open_object(&self, oid: &Oid) -> Result<Option<(Oid, Oid)>, StoreError> {
        let row = self.tx.parent(self.app, oid)?;
        let row = row.filter(|row| row.origin.is_none() && row.scope_id.has_readers());
        let Some(row) = row else {
            return Ok(None);
        };
        let Some(scope) = self.tx.scope(row.scope_id)? else {
            return Ok(None);
        };
        let is_open = row.created_seq > self.before || self.is_pulled_again(&row, &scope.oid)?;
        Ok(is_open.then_some((row.oid, scope.oid)))
    }

    /// Whether the peer gets an object by pulling its scope again, and not by its cursor.
    fn is_pulled_again(&self, row: &ParentRow, scope: &Oid) -> Result<bool, StoreError> {
        let behind = self.tx.unapplied_scope(self.key, scope)?;
        if behind.is_some_and(|it| it.applied_at.is_none() && row.created_seq > it.after_seq) {
            return Ok(true);
        }
        let rights = self.tx.scope_at(row.scope_id, self.key.0)?.into_iter();
        let open = rights.filter(|right| right.until_seq.is_none());
        let since = open.map(|right| right.since_seq).min();
        Ok(since.is_some_and(|since| row.created_seq <= since))
    }

    /// Notes refused objects. Returns `false` if there are too many: then no receipt counts.
    pub(super) fn note_refused(&self, refused: &[Oid]) -> Result<bool, StoreError> {
        if refused.is_empty() {
            return Ok(true);
        }
        let mut stored = self.tx.unapplied_objects(self.key.0, self.key.1)?;
        stored.retain(|object| object.is_refused);
        let mut count = stored.len();
        for oid in refused {
            let Some((oid, scope)) = self.open_object(oid)? else {
                continue;
            };
            count += 1;
            if count > UNAPPLIED_MAX {
                return Ok(false);
            }
            let object = UnappliedObject {
                oid,
                scope,
                is_refused: true,
                applied_at: None,
            };
            self.tx.put_unapplied_object(self.key, &object)?;
        }
        Ok(count < UNAPPLIED_MAX)
    }

    /// Settles all that a receipt covers.
    pub(super) fn settle(&self, covered: &Covered<'_>) -> Result<Option<Delivered>, StoreError> {
        let Covered {
            seq, head, behind, ..
        } = covered;
        if *seq < self.before {
            return Ok(None);
        }
        let mut scopes = self.settle_objects(covered.waiting, behind)?;
        scopes.extend(self.settle_scopes(behind)?);
        let mut more = false;
        if *seq > self.before {
            let at = self.now;
            let (peer, domain) = self.key;
            let (seq, head) = (*seq, *head);
            let row = ReceiptRow { seq, head, at };
            self.tx.put_receipt(peer, domain, &row)?;
            more = self.add_created(seq, &mut scopes)?;
        }
        let is_news = more || !scopes.is_empty();
        let mut scopes: Vec<Oid> = scopes.into_iter().collect();
        more |= scopes.len() > SCOPES_MAX;
        scopes.truncate(SCOPES_MAX);
        Ok(is_news.then_some(Delivered { scopes, more }))
    }

    /// Notes the objects that wait now, and those that do not wait any more. An object that is
    /// pulled again with its scope is not applied. Returns the scopes of those that are applied.
    fn settle_objects(
        &self,
        waiting: &[Oid],
        behind: &BTreeSet<Oid>,
    ) -> Result<BTreeSet<Oid>, StoreError> {
        let (mut applied, mut kept) = (BTreeSet::new(), Vec::new());
        let waiting: BTreeSet<&Oid> = waiting.iter().collect();
        for object in self.tx.unapplied_objects(self.key.0, self.key.1)? {
            if object.is_refused {
                continue;
            }
            match object.applied_at {
                Some(at) => kept.push((at, object.oid)),
                None if waiting.contains(&object.oid) || behind.contains(&object.scope) => {}
                None => {
                    applied.insert(object.scope);
                    let applied_at = Some(self.now);
                    let object = UnappliedObject {
                        applied_at,
                        ..object
                    };
                    self.tx.put_unapplied_object(self.key, &object)?;
                }
            }
        }
        for oid in waiting {
            if let Some((oid, scope)) = self.open_object(oid)?
                && self.tx.unapplied_object(self.key, &oid)?.is_none()
            {
                let object = UnappliedObject {
                    oid,
                    scope,
                    is_refused: false,
                    applied_at: None,
                };
                self.tx.put_unapplied_object(self.key, &object)?;
            }
        }
        kept.sort_unstable();
        let extra = kept.len().saturating_sub(UNAPPLIED_MAX);
        for (_, oid) in kept.iter().take(extra) {
            self.tx.remove_unapplied_object(self.key, oid)?;
        }
        Ok(applied)
    }

    /// Notes the scopes of which the peer lacks objects now, and those of which it has all. Returns
    /// the latter.
    fn settle_scopes(&self, behind: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>, StoreError> {
        let (mut done, mut kept, mut known) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        for scope in self.tx.unapplied_scopes(self.key.0, self.key.1)? {
            let is_behind = behind.contains(&scope.scope);
            match scope.applied_at {
                None if is_behind => drop(known.insert(scope.scope)),
                None => {
                    done.insert(scope.scope);
                    let applied_at = Some(self.now);
                    let scope = UnappliedScope {
                        applied_at,
                        ..scope
                    };
                    self.tx.put_unapplied_scope(self.key, &scope)?;
                }
                Some(at) if !is_behind => kept.push((at, scope.scope)),
                Some(_) => {}
            }
        }
        for oid in behind.difference(&known) {
            // Only scopes of this app that exist.
            if self.tx.parent(self.app, oid)?.is_none() {
                continue;
            }
            let scope = UnappliedScope {
                scope: *oid,
                after_seq: self.before,
                applied_at: None,
            };
            self.tx.put_unapplied_scope(self.key, &scope)?;
        }
        kept.sort_unstable();
        let extra = kept.len().saturating_sub(UNAPPLIED_MAX);
        for (_, oid) in kept.iter().take(extra) {
            self.tx.remove_unapplied_scope(self.key, oid)?;
        }
        Ok(done)
    }

    /// Adds the scopes that the peer reads of objects of this node that were created up to `seq`.
    /// Returns whether there may be others.
    fn add_created(&self, seq: u64, scopes: &mut BTreeSet<Oid>) -> Result<bool, StoreError> {
        let rows: &Rows<'_> = self.tx;
        let found = rows.created_here(self.app, (self.before, seq), EXAMINED_MAX)?;
        for scope in &found.scopes {
            if !rows.scope_at(*scope, self.key.0)?.is_empty() {
                scopes.extend(rows.scope(*scope)?.map(|scope| scope.oid));
            }
        }
        Ok(found.more)
    }
}

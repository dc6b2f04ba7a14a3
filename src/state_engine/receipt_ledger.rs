//! [`Ledger`]: stores what a receipt of a peer covers (docs/DECISIONS.md 10 "Delivery state").
//!
//! Input is a receipt that counts; output are rows of `receipt`, `unapplied_object` and
//! `unapplied_scope`. Invariant: what an earlier receipt covered stays applied, unless it was named
//! as unapplied and still is. Tested in `tests/core/receipts.rs`.

use std::collections::{BTreeMap, BTreeSet};

use keys::{Oid, PeerId};

use crate::op_context::Timestamp;
use crate::store::{
    AppTable, ParentRow, ReceiptRow, ScopeId, StoreError, UNAPPLIED_MAX, UnappliedObject,
    UnappliedScope, WriteTx,
};

/// Most scopes that one [`Delivered`] names.
pub(super) const SCOPES_MAX: usize = 64;
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
    /// Scopes that the peer had to pull again since the receipt before, because it may read them.
    pub(super) late: &'r [Oid],
}

/// The right of a node to read a scope.
#[derive(Debug, Clone, Copy)]
struct PeerRight {
    /// Whether an identity there may read the scope, or could.
    is_any: bool,
    /// The node pulls again what was created up to this number. `None`: it may not read any more.
    since: Option<u64>,
}

/// The statements of a peer on a domain, in a write.
pub(super) struct Ledger<'t> {
    tx: &'t WriteTx<'t>,
    app: &'t AppTable,
    key: (&'t PeerId, &'t str),
    /// The number of the receipt before. Objects created up to it are settled.
    before: u64,
    now: Timestamp,
    /// Rights of the peer, each read once.
    rights: BTreeMap<ScopeId, PeerRight>,
}

impl<'t> Ledger<'t> {
    pub(super) fn new(
        tx: &'t WriteTx<'t>,
        app: &'t AppTable,
        key: (&'t PeerId, &'t str),
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            before: tx.receipted_seq(key.0, key.1)?,
            rights: BTreeMap::new(),
            tx,
            app,
            key,
            now,
        })
    }

    fn right(&mut self, scope: ScopeId) -> Result<PeerRight, StoreError> {
        if let Some(known) = self.rights.get(&scope) {
            return Ok(*known);
        }
        let rights = self.tx.scope_at(scope, self.key.0)?;
        let open = rights.iter().filter(|right| right.until_seq.is_none());
        let right = PeerRight {
            is_any: !rights.is_empty(),
            since: open.map(|right| right.since_seq).min(),
        };
        self.rights.insert(scope, right);
        Ok(right)
    }

    /// An object of this node that counts as not applied so far, and its scope.
    fn open_object(&mut self, oid: &Oid) -> Result<Option<(Oid, Oid)>, StoreError> {
        let row = self.tx.parent(self.app, oid)?;
        let row = row.filter(|row| row.origin.is_none() && row.scope_id.has_readers());
        let Some(row) = row else {
            return Ok(None);
        };
        let Some(scope) = self.tx.scope(row.scope_id)? else {
            return Ok(None);
        };
        let is_open = row.created_seq > self.before
            || self.is_unapplied(oid)?
            || self.is_pulled_again(&row, &scope.oid)?;
        Ok(is_open.then_some((row.oid, scope.oid)))
    }

    /// Whether an object was named as unapplied, and still is.
    fn is_unapplied(&self, oid: &Oid) -> Result<bool, StoreError> {
        let row = self.tx.unapplied_object(self.key, oid)?;
        Ok(row.is_some_and(|row| row.applied_at.is_none()))
    }

    /// Whether the peer has yet to get an object by pulling its scope again, and not by its cursor.
    fn is_pulled_again(&mut self, row: &ParentRow, scope: &Oid) -> Result<bool, StoreError> {
        let since = self.right(row.scope_id)?.since;
        let is_named =
            |applied: u64| since.is_some_and(|since| row.created_seq <= since && applied < since);
        let behind = self.tx.unapplied_scope(self.key, scope)?;
        let behind = behind.filter(|behind| behind.applied_at.is_none());
        Ok(is_named(self.before)
            || behind.is_some_and(|it| row.created_seq > it.after_seq || is_named(it.after_seq)))
    }

    /// Notes refused objects. Returns `false` if there are as many as are kept: others may be
    /// missing, so that no receipt counts.
    pub(super) fn note_refused(&mut self, refused: &[Oid]) -> Result<bool, StoreError> {
        let mut count = self.tx.refused_count(self.key)?;
        for oid in refused {
            let Some((oid, scope)) = self.open_object(oid)? else {
                continue;
            };
            let known = self.tx.unapplied_object(self.key, &oid)?;
            if known.is_some_and(|object| object.is_refused) {
                continue;
            }
            if count >= UNAPPLIED_MAX {
                return Ok(false);
            }
            count += 1;
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

    /// Settles all that a receipt covers. Of one that names more waiting objects than are kept,
    /// only the objects count that do not wait any more.
    pub(super) fn settle(
        &mut self,
        covered: &Covered<'_>,
    ) -> Result<Option<Delivered>, StoreError> {
        let Covered {
            seq, head, behind, ..
        } = covered;
        let (seq, head) = (*seq, *head);
        if seq < self.before {
            return Ok(None);
        }
        let (mut scopes, open) = self.settle_known(covered.waiting, behind)?;
        let mut more = false;
        if self.note_waiting(covered.waiting, open)? {
            scopes.extend(self.settle_scopes(behind)?);
            scopes.extend(covered.late.iter().filter(|scope| !behind.contains(scope)));
            if seq > self.before {
                let at = self.now;
                let (peer, domain) = self.key;
                let row = ReceiptRow { seq, head, at };
                self.tx.put_receipt(peer, domain, &row)?;
                more = self.add_created(seq, &mut scopes)?;
            }
        }
        let is_news = more || !scopes.is_empty();
        let mut scopes: Vec<Oid> = scopes.into_iter().collect();
        more |= scopes.len() > SCOPES_MAX;
        scopes.truncate(SCOPES_MAX);
        Ok(is_news.then_some(Delivered { scopes, more }))
    }

    /// Notes the objects that do not wait any more. An object that is pulled again with its scope
    /// is not applied. Returns the scopes of those that are applied, and how many are not.
    fn settle_known(
        &self,
        waiting: &[Oid],
        behind: &BTreeSet<Oid>,
    ) -> Result<(BTreeSet<Oid>, usize), StoreError> {
        let (mut applied, mut kept, mut open) = (BTreeSet::new(), Vec::new(), 0);
        let waiting: BTreeSet<&Oid> = waiting.iter().collect();
        for object in self.tx.unapplied_objects(self.key.0, self.key.1)? {
            if object.is_refused {
                continue;
            }
            match object.applied_at {
                Some(at) => kept.push((at, object.oid)),
                None if waiting.contains(&object.oid) || behind.contains(&object.scope) => {
                    open += 1;
                }
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
        kept.sort_unstable();
        let extra = kept.len().saturating_sub(UNAPPLIED_MAX);
        for (_, oid) in kept.iter().take(extra) {
            self.tx.remove_unapplied_object(self.key, oid)?;
        }
        Ok((applied, open))
    }

    /// Notes the objects that wait now, besides `open` that are noted. Returns `false` if they are
    /// too many.
    fn note_waiting(&mut self, waiting: &[Oid], mut open: usize) -> Result<bool, StoreError> {
        for oid in waiting {
            let Some((oid, scope)) = self.open_object(oid)? else {
                continue;
            };
            if self.tx.unapplied_object(self.key, &oid)?.is_some() {
                continue;
            }
            if open >= UNAPPLIED_MAX {
                return Ok(false);
            }
            open += 1;
            let object = UnappliedObject {
                oid,
                scope,
                is_refused: false,
                applied_at: None,
            };
            self.tx.put_unapplied_object(self.key, &object)?;
        }
        Ok(true)
    }

    /// Notes the scopes of which the peer lacks objects now, and those of which it has all. Returns
    /// the latter.
    fn settle_scopes(&mut self, behind: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>, StoreError> {
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
            if !self.is_read(oid)? {
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

    /// Whether an oid is that of a scope of this app which the peer reads, or could.
    fn is_read(&mut self, oid: &Oid) -> Result<bool, StoreError> {
        let Some(row) = self.tx.parent(self.app, oid)? else {
            return Ok(false);
        };
        let scope = self.tx.scope(row.scope_id)?;
        Ok(scope.is_some_and(|scope| scope.oid == *oid) && self.right(row.scope_id)?.is_any)
    }

    /// Adds the scopes that the peer reads of objects of this node that were created up to `seq`.
    /// Returns whether there may be others.
    fn add_created(&mut self, seq: u64, scopes: &mut BTreeSet<Oid>) -> Result<bool, StoreError> {
        let found = self
            .tx
            .created_here(self.app, (self.before, seq), EXAMINED_MAX)?;
        for scope in &found.scopes {
            if self.right(*scope)?.is_any {
                scopes.extend(self.tx.scope(*scope)?.map(|scope| scope.oid));
            }
        }
        Ok(found.more)
    }
}

//! Applying objects inside one transaction: each is written, waits, or is rejected.
//!
//! Used for the parts of packages and for waiting objects. Invariant: the usage that is charged
//! equals what the transaction stored. Tested in `tests/core/packages.rs`, `tests/core/quotas.rs`
//! and `tests/core/waiting.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use keys::{Epoch, Oid, PeerId, SignedObject};

use super::applied::{AppliedPackage, ApplyPackageError};
use super::checked::{CheckedObject, check_objects, known_keys};
use super::limits::CoreLimits;
use super::quota::QuotaLedger;
use super::reclaim::{OwnChains, reclaim_one};
use super::rejects::RejectLog;
use super::source::PackageSource;
use crate::graph::{
    Applied, ApplyError, DecodedObject, Fault, Freed, GraphManager, Trial, VerifiedObject,
    decode_object,
};
use crate::store::{
    Cause, Cursor, Direction, PullAgainCause, PullAgainNote, RejectRow, StoreError, Usage,
    WaitingCount, WaitingRow,
};

/// Most that a part spends ([`GraphManager::spent`]), besides its last object. Takes some 20 ms if
/// all of it are readers.
const PART_SPENT_MAX: usize = 2048;

/// An object that has to wait.
struct Unsettled {
    oid: Oid,
    /// The scope in which it lies, if any.
    scope: Option<Oid>,
    cause: Cause,
    object: SignedObject,
}

/// An object that was refused, as far as it could be read.
struct Refused {
    oid: Option<Oid>,
    type_name: Option<String>,
}

/// The outcome for one object.
enum Judged {
    /// Nothing of it waits. The change of the stored bytes and objects.
    Settled(Usage),
    /// The object has to wait.
    Waits(Unsettled),
}

/// Applies the objects of one transaction one after the other.
pub(super) struct PartIngest<'a, 'g> {
    graph: &'a mut GraphManager<'g>,
    limits: CoreLimits,
    quotas: QuotaLedger,
    done: &'a mut AppliedPackage,
    rejects: &'a mut RejectLog,
    waiting: BTreeMap<PeerId, WaitingCount>,
}

impl<'a, 'g> PartIngest<'a, 'g> {
    pub(super) fn new(
        graph: &'a mut GraphManager<'g>,
        limits: CoreLimits,
        done: &'a mut AppliedPackage,
        rejects: &'a mut RejectLog,
    ) -> Self {
        Self {
            graph,
            limits,
            quotas: QuotaLedger::new(limits.quotas),
            done,
            rejects,
            waiting: BTreeMap::new(),
        }
    }

    /// [`GraphManager::spent`].
    pub(super) fn spent(&self) -> usize {
        self.graph.spent()
    }

    /// Applies objects until the transaction has done enough, and charges the quotas. At least one
    /// is applied.
    pub(super) fn apply_some(
        &mut self,
        source: &PackageSource<'_>,
        objects: &mut std::vec::IntoIter<CheckedObject>,
    ) -> Result<(), ApplyPackageError> {
        for object in objects.take(self.limits.part_objects_max) {
            let stored = match self.judge(source, object)? {
                Judged::Settled(stored) => stored,
                Judged::Waits(unsettled) => self.put_aside(source, unsettled)?,
            };
            self.quotas
                .count(self.graph.tx(), &source.peer, &stored)??;
            if self.spent() >= PART_SPENT_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Tries a waiting object again, whose cause has occurred. No quota prevents it, because it was
    /// charged when it began to wait. The entries of a rights list are charged now, and may exceed
    /// the quota by their number. An object whose sender or app this node does not have any more is
    /// given up: it is pulled again if they come back.
    pub(super) fn retry(&mut self, waiting: WaitingRow) -> Result<(), StoreError> {
        let (id, peer, domain) = (waiting.id, waiting.peer, &waiting.domain);
        let source = PackageSource::find(self.graph, peer, domain, waiting.epoch, waiting.seq)?
            .map(PackageSource::retried);
        let is_enabled = self.graph.schemas().domain(domain).is_some();
        let Some(source) = source.filter(|_| is_enabled) else {
            return self.give_up(&waiting);
        };
        let mut stored = -Usage::one(waiting.object.bytes().len());
        let decoded = decode_object(waiting.object, self.graph.limits());
        let owner = decoded.as_ref().ok().map(DecodedObject::owner);
        let scope = decoded.as_ref().ok().and_then(DecodedObject::scope);
        let known = known_keys(self.graph.tx(), owner.as_slice())?;
        for object in check_objects(vec![decoded], &known) {
            match self.judge(&source, object)? {
                Judged::Settled(written) => stored += written,
                Judged::Waits(Unsettled { cause, .. }) => {
                    return self.graph.tx().put_waiting_cause(id, &cause);
                }
            }
        }
        self.graph.tx().remove_waiting(id)?;
        let _ = self.quotas.count(self.graph.tx(), &peer, &stored)?;
        let now = self.graph.now();
        let (tx, scope) = (self.graph.tx(), scope.as_ref());
        tx.wake_pull_again(&peer, domain, scope, now)
    }

    /// Tries again a waiting object of this node that a peer returned after a restore.
    pub(super) fn retry_reclaimed(
        &mut self,
        waiting: WaitingRow,
        chains: &mut OwnChains,
    ) -> Result<(), StoreError> {
        let from = (&waiting.peer, Trial::Retried);
        let reclaimed = reclaim_one(self.graph, chains, waiting.object, from)?;
        match reclaimed {
            Err((Fault::Waits(cause), _)) => self.graph.tx().put_waiting_cause(waiting.id, &cause),
            Ok(_) | Err(_) => self.graph.tx().remove_waiting(waiting.id),
        }
    }

    /// Deletes an object of a peer that waits no longer, and notes that it is to be pulled again.
    pub(super) fn give_up(&mut self, waiting: &WaitingRow) -> Result<(), StoreError> {
        let tx = self.graph.tx();
        tx.remove_waiting(waiting.id)?;
        let stored = -Usage::one(waiting.object.bytes().len());
        let fits = self.quotas.count(tx, &waiting.peer, &stored)?;
        debug_assert!(fits.is_ok(), "less fits every quota");
        let Some(peer) = tx.peer(&waiting.peer)? else {
            return Ok(());
        };
        let decoded = decode_object(waiting.object.clone(), self.graph.limits());
        let scope = decoded.ok().as_ref().and_then(DecodedObject::scope);
        let cause = PullAgainCause::Expired;
        self.note_again((waiting, scope), cause, peer.epoch, false)
    }

    /// Writes the changed usage, and after the last part the rejects. Logs the frozen identities
    /// then.
    pub(super) fn finish(mut self, is_last: bool) -> Result<(), StoreError> {
        self.done.frozen += self.graph.frozen_elsewhere();
        if is_last {
            log_frozen(self.done.frozen);
            let rows_max = self.limits.aside.rejects_per_peer_max;
            self.rejects
                .write(self.graph.tx(), &mut self.quotas, rows_max)?;
        }
        self.quotas.settle(self.graph.tx())
    }

    /// Writes one object, rejects it, or returns the cause for which it has to wait.
    fn judge(
        &mut self,
        source: &PackageSource<'_>,
        object: CheckedObject,
    ) -> Result<Judged, StoreError> {
        let (refused, scope, fault, signed) = match self.verify_again(object)? {
            CheckedObject::Verified(verified) => {
                let applied = self
                    .graph
                    .apply_message(&source.context, &verified, source.from());
                if let Some(code) = applied.as_ref().ok().and_then(Applied::code) {
                    let refused = self.refused(&verified);
                    self.record(source, refused, code);
                }
                match applied {
                    Ok(Applied::Written { replaced, .. }) => {
                        self.done.written += 1;
                        let mut stored = Usage::one(verified.charged_bytes());
                        match replaced {
                            Some(freed) => stored += self.release(source, &freed)?,
                            None => self.done.added += 1,
                        }
                        return Ok(Judged::Settled(stored));
                    }
                    Ok(Applied::Forked { kept: true }) => {
                        self.done.added += 1;
                        return Ok(Judged::Settled(Usage::one(verified.charged_bytes())));
                    }
                    Ok(Applied::AlreadyStored | Applied::Forked { kept: false }) => {
                        self.done.already_stored += 1;
                        return Ok(Judged::Settled(Usage::default()));
                    }
                    Err(ApplyError::Store(error)) => return Err(error),
                    Err(ApplyError::Fault(fault)) => (
                        self.refused(&verified),
                        verified.object().scope(),
                        fault,
                        Some(verified.into_signed()),
                    ),
                }
            }
            CheckedObject::Failed {
                oid,
                fault,
                decoded,
            } => {
                let refused = Refused {
                    oid,
                    type_name: decoded
                        .as_ref()
                        .and_then(|it| it.type_name(self.graph.schemas())),
                };
                let scope = decoded.as_ref().and_then(DecodedObject::scope);
                let signed = decoded.map(DecodedObject::into_signed);
                (refused, scope, fault, signed)
            }
        };
        Ok(match (fault, refused.oid, signed) {
            // The form under the later key follows, or its owner deleted it.
            (Fault::OldKey, ..) => {
                self.done.already_stored += 1;
                Judged::Settled(Usage::default())
            }
            (Fault::Waits(cause), Some(oid), Some(object)) => Judged::Waits(Unsettled {
                oid,
                scope,
                cause,
                object,
            }),
            (fault, ..) => {
                self.done.rejected += 1;
                self.record(source, refused, fault.code());
                Judged::Settled(Usage::default())
            }
        })
    }

    /// Releases what a replaced revision counted. Returns the part that its new sender had counted,
    /// so that an update of a peer above its quota fits.
    fn release(&mut self, source: &PackageSource<'_>, freed: &Freed) -> Result<Usage, StoreError> {
        let usage = -Usage::one(freed.bytes);
        if freed.origin == source.origin {
            return Ok(usage);
        }
        if let Some(peer) = self.graph.tx().peer_by_number(freed.origin)? {
            let fits = self.quotas.count(self.graph.tx(), &peer, &usage)?;
            debug_assert!(fits.is_ok(), "less fits every quota");
        }
        Ok(Usage::default())
    }

    /// Verifies an object again whose owner or owner's key was missing. The missing one may have
    /// been written since the first verification, and nothing would release an object that waits
    /// for it.
    fn verify_again(&self, object: CheckedObject) -> Result<CheckedObject, StoreError> {
        match object {
            CheckedObject::Failed {
                fault: Fault::Waits(_) | Fault::OldKey,
                decoded: Some(decoded),
                ..
            } => {
                let known = known_keys(self.graph.tx(), &[decoded.owner()])?;
                Ok(CheckedObject::verify(decoded, &known))
            }
            object => Ok(object),
        }
    }

    /// Makes an object wait, or notes that it is to be pulled again if the sender has no room.
    /// Waiting objects count as stored at once, so that no quota can block their release.
    fn put_aside(
        &mut self,
        source: &PackageSource<'_>,
        unsettled: Unsettled,
    ) -> Result<Usage, StoreError> {
        let tx = self.graph.tx();
        let scope = unsettled.scope;
        let waiting = waiting_row(source, unsettled);
        let count = match self.waiting.entry(source.peer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(tx.waiting_count(&source.peer)?),
        };
        let limits = &self.limits.aside;
        let is_unverified = waiting.cause.is_unverified();
        let needs_schema = matches!(waiting.cause, Cause::Schema(..));
        // The other half is for objects that wait for a moment only.
        let has_room = count.all - count.reclaimed < limits.waiting_per_peer_max
            && (!is_unverified || count.unverified < limits.unverified_per_peer_max)
            && (!needs_schema || count.schema < limits.waiting_per_peer_max / 2);
        self.done.waiting += 1;
        if tx.renew_waiting(&waiting)? {
            return Ok(Usage::default());
        }
        if !has_room {
            let (cause, epoch) = (PullAgainCause::NoRoom, waiting.epoch);
            self.note_again((&waiting, scope), cause, epoch, source.is_again)?;
            return Ok(Usage::default());
        }
        if !self.graph.put_waiting(&waiting)? {
            return Ok(Usage::default());
        }
        count.all += 1;
        count.unverified += u64::from(is_unverified);
        count.schema += u64::from(needs_schema);
        Ok(Usage::one(waiting.object.bytes().len()))
    }

    /// Notes that the scope or domain of an object that this node does not keep is to be pulled
    /// again. The note counts in the peer's present epoch, and ends at the cursor. The object may
    /// lie above the number of its package: its sender may have restamped it, and a handshake has
    /// no number. An object above the cursor comes again anyway.
    fn note_again(
        &self,
        (waiting, scope): (&WaitingRow, Option<Oid>),
        cause: PullAgainCause,
        epoch: Epoch,
        is_again: bool,
    ) -> Result<(), StoreError> {
        let (tx, domain) = (self.graph.tx(), &waiting.domain);
        let cursor = tx.sync_state(Cursor {
            peer: &waiting.peer,
            domain,
            direction: Direction::In,
        })?;
        let seqs = cursor.map(|state| (state.epoch, state.last_seq));
        let seqs = seqs.into_iter().chain([(waiting.epoch, waiting.seq)]);
        let until_seq = seqs.filter(|(counted, _)| *counted == epoch);
        let Some((_, until_seq)) = until_seq.max_by_key(|(_, seq)| *seq) else {
            // The domain starts at 0 in this epoch.
            return Ok(());
        };
        let note = PullAgainNote {
            peer: &waiting.peer,
            domain,
            scope,
            epoch,
            until_seq,
            cause,
            is_again,
        };
        tx.note_pull_again(&note, self.graph.now())
    }

    fn refused(&self, object: &VerifiedObject) -> Refused {
        Refused {
            oid: Some(object.object().oid),
            type_name: object.type_name(self.graph.schemas()),
        }
    }

    /// Notes a rejected object, or one that forked.
    fn record(&mut self, source: &PackageSource<'_>, refused: Refused, code: &str) {
        let Refused { oid, type_name } = refused;
        tracing::debug!(
            app_id = source.context.app_id().0,
            trace_id = %source.context.trace_id(),
            domain = source.domain,
            oid = oid.map(|oid| oid.short()),
            code,
            "recorded an object of a package as rejected or forked"
        );
        self.rejects.add(RejectRow {
            peer: source.peer,
            domain: source.domain.to_owned(),
            epoch: source.epoch,
            seq: source.seq,
            oid,
            type_name,
            code: code.to_owned(),
            at: self.graph.now(),
        });
    }
}

/// Logs the frozen identities of a package in one line.
fn log_frozen(identities: usize) {
    if identities > 0 {
        tracing::error!(
            identities,
            "froze identities of other nodes, because two homes were claimed for each"
        );
    }
}

fn waiting_row(source: &PackageSource<'_>, unsettled: Unsettled) -> WaitingRow {
    WaitingRow {
        id: 0,
        peer: source.peer,
        domain: source.domain.to_owned(),
        epoch: source.epoch,
        seq: source.seq,
        oid: unsettled.oid,
        cause: unsettled.cause,
        is_reclaimed: false,
        object: unsettled.object,
    }
}

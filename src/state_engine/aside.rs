//! Objects that are not applied now: those that wait, and those that are pulled again because there
//! is no room for them.
//!
//! Invariant: an object that this node neither keeps nor refuses is noted to be pulled again.
//! Tested in `tests/core/waiting.rs`, `tests/core/pull_again.rs` and
//! `tests/core/relayed_quotas.rs`.

use std::collections::btree_map::Entry;

use keys::{Epoch, Oid};

use super::checked::{check_objects, known_keys};
use super::ingest::{AccountChange, Judged, PartIngest, Unsettled};
use super::reclaim::{OwnChains, reclaim_one};
use super::source::PackageSource;
use crate::graph::{DecodedObject, Fault, Trial, decode_object};
use crate::store::{
    Account, Cause, Cursor, Direction, PullAgainCause, PullAgainNote, StoreError, Usage, WaitingRow,
};

impl PartIngest<'_, '_> {
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
        let freed = -Usage::one(waiting.object.bytes().len());
        let mut stored = AccountChange::NONE;
        let decoded = decode_object(waiting.object, self.graph.limits());
        let owner = decoded.as_ref().ok().map(DecodedObject::owner);
        let scope = decoded.as_ref().ok().and_then(DecodedObject::scope);
        let known = known_keys(self.graph.tx(), owner.as_slice())?;
        for object in check_objects(vec![decoded], &known) {
            match self.judge(&source, object)? {
                Judged::Settled(written) => stored = written,
                Judged::Waits(Unsettled { cause, .. }) => {
                    return self.graph.tx().put_waiting_cause(id, &cause);
                }
                // An object that waited has unlimited room.
                Judged::NoRoom { .. } => {}
            }
        }
        let tx = self.graph.tx();
        tx.remove_waiting(id)?;
        for (account, usage) in [(waiting.account, freed), (stored.account, stored.usage)] {
            let _ = self.quotas.count(tx, &peer, (account, &usage))?;
        }
        let (now, scope) = (self.graph.now(), scope.as_ref());
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
        let change = (waiting.account, &stored);
        let fits = self.quotas.count(tx, &waiting.peer, change)?;
        debug_assert!(fits.is_ok(), "less fits every quota");
        let Some(peer) = tx.peer(&waiting.peer)? else {
            return Ok(());
        };
        let decoded = decode_object(waiting.object.clone(), self.graph.limits());
        let scope = decoded.ok().as_ref().and_then(DecodedObject::scope);
        let note = PullAgainNote {
            peer: &waiting.peer,
            domain: &waiting.domain,
            scope,
            epoch: peer.epoch,
            until_seq: waiting.seq,
            cause: PullAgainCause::Expired,
            is_again: false,
            is_own: waiting.account == Account::Own,
        };
        self.note_again(note, waiting.epoch)
    }

    /// Makes an object wait, or notes that it is to be pulled again if the sender has no room.
    /// Waiting objects count as stored at once, so that no quota can block their release.
    pub(super) fn put_aside(
        &mut self,
        source: &PackageSource<'_>,
        unsettled: Unsettled,
    ) -> Result<AccountChange, StoreError> {
        let (tx, scope) = (self.graph.tx(), unsettled.scope);
        let waiting = waiting_row(source, unsettled);
        self.done.waiting += 1;
        if tx.renew_waiting(&waiting)? {
            return Ok(AccountChange::NONE);
        }
        let charge = AccountChange::one(waiting.account, waiting.object.bytes().len());
        if !self.has_room_aside(&waiting)? || !self.has_room(source, &waiting, &charge)? {
            self.note_no_room(source, scope, waiting.account == Account::Own)?;
            return Ok(AccountChange::NONE);
        }
        if !self.graph.put_waiting(&waiting)? {
            return Ok(AccountChange::NONE);
        }
        if let Some(count) = self.waiting.get_mut(&source.peer) {
            count.all += 1;
            count.relayed += u64::from(is_relayed(&waiting));
            count.unverified += u64::from(waiting.cause.is_unverified());
            count.schema += u64::from(needs_schema(&waiting));
        }
        Ok(charge)
    }

    /// Whether a further object of a peer may wait. Half of the room is left to objects that wait
    /// for a moment only, and half to those that the peer does not relay.
    fn has_room_aside(&mut self, waiting: &WaitingRow) -> Result<bool, StoreError> {
        let count = match self.waiting.entry(waiting.peer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.graph.tx().waiting_count(&waiting.peer)?),
        };
        let limits = &self.limits.aside;
        let half = limits.waiting_per_peer_max / 2;
        Ok(count.all - count.reclaimed < limits.waiting_per_peer_max
            && (!waiting.cause.is_unverified()
                || count.unverified < limits.unverified_per_peer_max)
            && (!needs_schema(waiting) || count.schema < half)
            && (!is_relayed(waiting) || count.relayed < half))
    }

    /// Whether an object that has to wait fits its account. The own account of a peer is checked
    /// when the object is counted, unless the object is passed without room.
    fn has_room(
        &mut self,
        source: &PackageSource<'_>,
        waiting: &WaitingRow,
        charge: &AccountChange,
    ) -> Result<bool, StoreError> {
        let author = match waiting.account {
            Account::Own if !source.passes_without_room() => return Ok(true),
            Account::Author(author) => Some(author),
            Account::Own | Account::Shared | Account::Unmetered => None,
        };
        let room = self.quotas.room(self.graph.tx(), &source.peer, author)?;
        Ok(room.fits(charge.account, charge.usage))
    }

    /// Notes that the scope or domain of an object without room is to be pulled again. `is_own`:
    /// the peer did not relay the object.
    pub(super) fn note_no_room(
        &self,
        source: &PackageSource<'_>,
        scope: Option<Oid>,
        is_own: bool,
    ) -> Result<(), StoreError> {
        if source.is_record() {
            // The objects of the identity wait for it, and find no room.
            return Ok(());
        }
        let note = PullAgainNote {
            peer: &source.peer,
            domain: source.domain,
            scope,
            epoch: source.epoch,
            until_seq: source.seq,
            cause: PullAgainCause::NoRoom,
            is_again: source.is_again,
            is_own,
        };
        self.note_again(note, source.epoch)
    }

    /// Notes that the scope or domain of an object that this node does not keep is to be pulled
    /// again. The note counts in the peer's present epoch, and ends at the cursor. `until_seq` is
    /// the end of the object's window, which counts in `epoch`. The object may lie above it: its
    /// sender may have restamped it, and a handshake has no number. An object above the cursor
    /// comes again anyway.
    pub(super) fn note_again(
        &self,
        mut note: PullAgainNote<'_>,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let tx = self.graph.tx();
        let cursor = tx.sync_state(Cursor {
            peer: note.peer,
            domain: note.domain,
            direction: Direction::In,
        })?;
        let seqs = cursor.map(|state| (state.epoch, state.last_seq));
        let seqs = seqs.into_iter().chain([(epoch, note.until_seq)]);
        let until_seq = seqs.filter(|(counted, _)| *counted == note.epoch);
        let Some((_, until_seq)) = until_seq.max_by_key(|(_, seq)| *seq) else {
            // The domain starts at 0 in this epoch.
            return Ok(());
        };
        note.until_seq = until_seq;
        tx.note_pull_again(&note, self.graph.now())
    }
}

fn needs_schema(waiting: &WaitingRow) -> bool {
    matches!(waiting.cause, Cause::Schema(..))
}

fn is_relayed(waiting: &WaitingRow) -> bool {
    waiting.account != Account::Own
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
        account: unsettled.account,
        object: unsettled.object,
    }
}

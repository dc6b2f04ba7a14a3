//! Homes of identities: which one a record proves, and when it counts (docs/DECISIONS.md 5).
//!
//! The record with the later key decides, then the counter. A home moves under a later key, at most
//! once a day for each identity, or by the operator's confirmation. A later key counts at once,
//! also if the home waits. Homes are compared by peer id, so that the key of a node may change.
//! Invariants: no record under the known key moves an identity away from a node that was admitted
//! here. At most one home of each identity waits. Tested in `tests/core/home_moves.rs`.

use keys::{Oid, PeerId};

use super::commit::Change;
use super::error::{ApplyError, Fault};
use super::local::new_row;
use super::manager::GraphManager;
use super::record::{IdentityRecord, chain_in};
use super::verify::{KnownKeys, VerifiedObject, decode_object};
use crate::acl::AclManager;
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{
    Account, Cause, IdentityRow, PendingHome, PutAside, ScopeId, SettlingWork, StoreError, Usage,
};

/// Milliseconds between two moves of one identity: a day.
const MOVE_PAUSE_MS: u64 = 24 * 60 * 60 * 1000;
/// Most records that wait for the operator and name the same node. An identity of that node makes
/// one; a record has up to 17 KiB.
const ASIDE_PER_HOME_MAX: usize = 64;

/// Why a home was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmHomeError {
    /// No home of the identity waits.
    #[error("no home of this identity waits for a confirmation")]
    NoneWaits,
    /// Another home waits than the one that was shown.
    #[error("another home waits now: look at it again")]
    OtherHome,
    /// The record of the home does not count any more.
    #[error("the identity has a later home or key by now")]
    Obsolete,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl GraphManager<'_> {
    /// The home of an identity for which a second record arrives. The record with the later key
    /// applies; under one key, the one with the higher counter. `None`: the record was put aside
    /// for the operator. Only the node that it names may send such a record.
    ///
    /// Two homes under one key and counter freeze the identity, because a thief signed one of them
    /// or the owner made a mistake. A later record that claims another home for a local identity
    /// freezes it too.
    pub(super) fn home_by_record(
        &self,
        (verified, record): (&VerifiedObject, &IdentityRecord),
        known: &IdentityRow,
        (sender, origin): (&PeerId, i64),
    ) -> Result<Option<PeerId>, ApplyError> {
        if known.home == self.this_node && record.home() == self.this_node {
            return Ok(Some(self.this_node));
        }
        if record.chain().key_id() < known.key_id {
            return Err(Fault::OldKey.into());
        }
        if !self.continues_known(verified, known)? {
            return Err(Fault::ChainForked.into());
        }
        let pending = self.tx.pending_home(&known.oid)?;
        let stored_home = match &pending {
            Some(pending) if pending.is_due_later() => pending.home,
            _ => known.home,
        };
        let (claimed, present) = (record.precedence(), (known.key_id, known.home_counter));
        let contradicts = claimed == present && record.home() != stored_home
            || pending.as_ref().is_some_and(|pending| {
                claimed == pending.precedence() && record.home() != pending.home
            });
        let is_taken = known.home == self.this_node
            && claimed > present
            && !self.leaves_under(known, record.chain().key_id());
        if contradicts || is_taken {
            self.freeze(known)?;
            if is_taken && record.home() == *sender {
                // The operator may have moved the keys by hand.
                self.put_record_aside((verified, record), pending.as_ref(), origin)?;
            }
            return Err(Fault::HomeConflict.into());
        }
        let is_same_key = record.chain().key_id() == known.key_id;
        if known.frozen && is_same_key {
            return Err(Fault::Waits(Cause::Unfrozen(known.oid)).into());
        }
        if claimed < present {
            return Ok(Some(known.home));
        }
        // A home that is known from relayed records only was never met, so that a thief's record
        // may have come first.
        let was_met = self.tx.peer_number(&known.home)?.is_some();
        let is_move = is_same_key && record.home() != stored_home && was_met;
        if !is_move || record.home() != *sender {
            return Ok(Some(record.home()));
        }
        if stored_home != known.home {
            return Err(Fault::Waits(Cause::Home(known.oid, stored_home)).into());
        }
        self.put_record_aside((verified, record), pending.as_ref(), origin)?;
        Ok(None)
    }

    /// Whether an identity of this node moved to another one, and this key with it. The vault signs
    /// nothing for it any more, so that only the file of the move has a later key.
    pub(super) fn leaves_under(&self, known: &IdentityRow, key_id: u32) -> bool {
        key_id > known.key_id && self.keys().identity_chain(known.oid).is_none()
    }

    /// Whether the owner of an object lives here, and does not leave with this record.
    pub(super) fn stays_here(&self, verified: &VerifiedObject) -> Result<bool, StoreError> {
        let Some(known) = self.identity(&verified.object.owner)? else {
            return Ok(false);
        };
        let key_id = verified.signed.key_id();
        let leaves = verified.record.is_some() && self.leaves_under(&known, key_id);
        Ok(known.home == self.this_node && !leaves)
    }

    /// Whether the key chain of a record continues the known one.
    fn continues_known(
        &self,
        verified: &VerifiedObject,
        known: &IdentityRow,
    ) -> Result<bool, StoreError> {
        let chain = verified.object.first(identities::CHAIN);
        let both = self.known_chain(known)?.zip(chain.and_then(chain_in));
        Ok(both.is_some_and(|(known, chain)| chain.continues(&known)))
    }

    /// Keeps a record for the operator, unless a higher one waits already.
    fn put_record_aside(
        &self,
        (verified, record): (&VerifiedObject, &IdentityRecord),
        pending: Option<&PendingHome>,
        origin: i64,
    ) -> Result<(), ApplyError> {
        if pending.is_some_and(|pending| pending.precedence() >= record.precedence()) {
            return Ok(());
        }
        let home = record.home();
        let is_listed = pending.is_some_and(|pending| pending.home == home);
        let most = ASIDE_PER_HOME_MAX;
        if !is_listed && self.tx.homes_to_confirm(&home, most)? == most {
            return Err(Fault::HomeConflict.into());
        }
        let (key_id, counter) = record.precedence();
        self.tx.put_pending_home(&PendingHome {
            identity: verified.object.oid,
            home,
            key_id,
            counter,
            at: self.env.now,
            until: PutAside::Confirmed(origin, verified.signed.clone()),
        })?;
        Ok(())
    }

    /// The home that counts after the record of a known identity was written. If that is not the
    /// one of the record, it is noted as the next one.
    pub(super) fn home_or_wait(
        &self,
        known: &IdentityRow,
        key_id: u32,
        (home, counter): (PeerId, u64),
    ) -> Result<PeerId, StoreError> {
        let pending = self.tx.pending_home(&known.oid)?;
        let due_at = match &pending {
            // A change of the record, such as another name, or a later key.
            Some(PendingHome {
                home: waits,
                until: PutAside::Due(due_at),
                ..
            }) if *waits == home => Some(*due_at),
            _ => self.next_move(known, key_id),
        };
        match due_at.filter(|_| home != known.home && home != self.this_node) {
            Some(due_at) => {
                self.tx.put_pending_home(&PendingHome {
                    identity: known.oid,
                    home,
                    key_id,
                    counter,
                    at: self.env.now,
                    until: PutAside::Due(due_at),
                })?;
                Ok(known.home)
            }
            None => {
                if pending.is_some_and(|pending| pending.precedence() <= (key_id, counter)) {
                    self.tx.remove_pending_home(&known.oid)?;
                }
                Ok(home)
            }
        }
    }

    /// When an identity may move under a later key; `None`: now. An identity of this node moves
    /// because its operator wants that.
    fn next_move(&self, known: &IdentityRow, key_id: u32) -> Option<Timestamp> {
        let moved_at = known.home_moved_at;
        let is_recent =
            moved_at != Timestamp(0) && self.env.now.0.abs_diff(moved_at.0) < MOVE_PAUSE_MS;
        let is_bounded = key_id > known.key_id && known.home != self.this_node;
        let due_at = Timestamp(moved_at.0.saturating_add(MOVE_PAUSE_MS));
        (is_recent && is_bounded).then_some(due_at)
    }

    /// Writes the row of an identity with a home, and what follows if that is another one than
    /// before. `change_seq` is of the write that proved it.
    pub(super) fn put_at_home(
        &mut self,
        mut row: IdentityRow,
        known: Option<&IdentityRow>,
        (home, change_seq): (PeerId, u64),
    ) -> Result<IdentityRow, StoreError> {
        let is_same = known.is_some_and(|known| known.home == home);
        row.home = home;
        if !is_same {
            (row.home_since_seq, row.home_since_scope) = self.home_since(&home, change_seq)?;
        }
        if let Some(known) = known.filter(|_| !is_same)
            && (known.home == self.this_node || self.tx.peer_number(&known.home)?.is_some())
        {
            row.home_moved_at = self.env.now;
        }
        self.tx.put_identity(&row)?;
        self.cache.borrow_mut().invalidate_identity(&row.oid);
        if let Some(known) = known.filter(|_| !is_same) {
            self.fulfil(&Cause::Home(row.oid, row.home))?;
            self.note_moved(known, &row.home)?;
            if known.home == self.this_node {
                self.tx.note_work(&SettlingWork::Depart(row.oid))?;
            } else if row.home == self.this_node {
                self.tx.note_work(&SettlingWork::Arrive(row.oid))?;
            }
        }
        if !is_same {
            for home in known.map(|known| known.home).into_iter().chain([home]) {
                self.touch_readers_of(home, change_seq);
            }
            // The identity may close scopes that any other node reads.
            if self.tx.note_recovery_home(&row.oid, &home)? {
                self.env.memory.raise_all_readers(change_seq);
            }
        }
        Ok(row)
    }

    /// From which change on, and in which scopes, a new home reads by its cursors alone. A node
    /// that was admitted before may have passed earlier changes already.
    pub(super) fn home_since(
        &self,
        home: &PeerId,
        change_seq: u64,
    ) -> Result<(u64, ScopeId), StoreError> {
        let was_admitted = self.tx.peer_number(home)?.is_some();
        if was_admitted && *home != self.this_node {
            Ok((change_seq, self.tx.last_scope()?))
        } else {
            Ok((0, ScopeId::LOCAL))
        }
    }

    /// Lets a home that waited for its day count. Returns `false` if none is due.
    pub fn move_due_home(&mut self) -> Result<bool, StoreError> {
        let Some(pending) = self.tx.next_due_home(self.env.now)? else {
            return Ok(false);
        };
        self.move_to(&pending.identity, &pending.home)?;
        Ok(true)
    }

    /// Lets the home count that the stored record of an identity names. The record gets a new
    /// number, so that the node of the home learns which scopes its identity reads.
    fn move_to(&mut self, identity: &Oid, home: &PeerId) -> Result<(), StoreError> {
        self.tx.remove_pending_home(identity)?;
        let app = self.table(identities::APP)?;
        let known = self.tx.identity(identity)?;
        let Some((known, parent)) = known.zip(self.tx.parent(app, identity)?) else {
            return Ok(());
        };
        let chain = self.known_chain(&known)?.and_then(|it| it.verify().ok());
        let chain = chain.ok_or(StoreError::Inconsistent("an identity without a key chain"))?;
        let granted = AclManager::check_self_certified(&chain);
        self.end_group();
        let parent = self.commit_row(&granted, app, parent, Change::Signature)?;
        self.put_at_home(known, Some(&known), (*home, parent.change_seq))
            .map(drop)
    }

    /// Lets the home of an identity count that waits, because the operator confirmed it. `shown` is
    /// the home that the operator saw. The identity is not frozen any more.
    pub fn confirm_home(&mut self, identity: &Oid, shown: &PeerId) -> Result<(), ConfirmHomeError> {
        let pending = self.tx.pending_home(identity)?;
        let pending = pending.ok_or(ConfirmHomeError::NoneWaits)?;
        if pending.home != *shown {
            return Err(ConfirmHomeError::OtherHome);
        }
        match &pending.until {
            PutAside::Due(_) => self.move_to(identity, shown)?,
            PutAside::Confirmed(origin, record) => {
                self.tx.remove_pending_home(identity)?;
                self.take_confirmed((&pending, *origin), record)?;
            }
        }
        if self
            .tx
            .identity(identity)?
            .is_some_and(|known| known.frozen)
        {
            self.unfreeze(identity)?;
        }
        Ok(())
    }

    /// Writes a record that was put aside. Its home counts at once. The counter decides between two
    /// records under one key, so that the revision may be lower than that of the former home.
    fn take_confirmed(
        &mut self,
        (pending, origin): (&PendingHome, i64),
        record: &keys::SignedObject,
    ) -> Result<(), ConfirmHomeError> {
        let damaged = StoreError::Inconsistent("a record that was put aside is not valid");
        let decoded = decode_object(record.clone(), self.limits()).ok();
        let verified = decoded.and_then(|it| it.verify(&KnownKeys::default()).ok());
        let Some((verified, known)) = verified.zip(self.tx.identity(&pending.identity)?) else {
            return Err(damaged.into());
        };
        let is_present = pending.precedence() > (known.key_id, known.home_counter);
        if !is_present || !self.continues_known(&verified, &known)? {
            return Err(ConfirmHomeError::Obsolete);
        }
        let app = self.table(identities::APP)?;
        let schemas = self.schemas();
        let schema = schemas
            .type_(identities::APP, identities::IDENTITY)
            .ok_or(StoreError::Inconsistent("an app without a schema"))?;
        let existing = self.tx.parent(app, &pending.identity)?;
        let Some((existing, read)) = existing.zip(verified.record.as_ref()) else {
            return Err(damaged.into());
        };
        let resolved = self.resolve(app, schema, &verified.object, Some(&existing));
        let resolved = resolved.map_err(|_| StoreError::Inconsistent("a record in a scope"))?;
        if let Some(freed) = self.freed(app, &existing, false)? {
            let usage = -Usage::one(freed.bytes);
            self.charge(freed.origin, freed.account, &usage)?;
        }
        let usage = Usage::one(verified.charged_bytes());
        self.charge(origin, Account::Own, &usage)?;
        let granted = AclManager::check_self_certified(read.chain());
        self.end_group();
        let row = new_row(&verified.object, &verified.signed, Some(origin), 0);
        let change = Change::Content(&resolved, Some(&existing));
        let row = self.commit_row(&granted, app, row, change)?;
        self.note_identity(&row, read)?;
        Ok(())
    }

    /// Changes what an account of the peer with a local number counts.
    pub fn charge(&self, origin: i64, account: Account, change: &Usage) -> Result<(), StoreError> {
        match self.tx.peer_by_number(origin)? {
            Some(peer) => self.tx.add_usage(&peer, account, change),
            None => Ok(()),
        }
    }
}

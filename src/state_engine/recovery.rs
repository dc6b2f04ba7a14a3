//! After a restore, a rollback or a clone: what this node may write, and until when (docs/DECISIONS.md 2).
//!
//! A node that was restored makes new objects at once, under a new epoch. What exists may have been changed after the
//! backup, so changes wait until every peer was asked for what it holds of this node's. Never lets two copies of a node go
//! on as one: an epoch that is signed with this node's key and was not minted here makes it read-only. Invariant: the
//! write mode in memory is the one in the database.

use std::path::Path;

use keys::{Context, PeerId, PublicKey};

use super::{StateEngine, View, minted};
use crate::graph::Counters;
use crate::op_context::Timestamp;
use crate::store::{EpochReason, PeerEpoch, Reserve, Store, StoreError, WriteMode, WriteModeRow};

/// The reason of a read-only write mode that the operator has resolved: it ends with the next start.
const RESOLVED: &str = "resolved";

/// How a recovery stands, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What is in the way; none: nothing.
    pub write_mode: Option<WriteModeRow>,
    /// Peers that were not asked yet.
    pub waits_for: Vec<PeerId>,
    /// Whether the operator has resolved a read-only write mode, which takes effect with the next start.
    pub is_resolved: bool,
}

/// What an epoch that a peer shows proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochFault {
    /// It is not signed by the node that it is said of.
    #[error("the epoch is not signed by its node")]
    BadSignature,
    /// The peer claimed another epoch when it was admitted.
    #[error("the peer was admitted with another epoch")]
    Another,
}

/// What the operator resolved ends with the next start.
pub(super) fn is_resolved(write_mode: &WriteModeRow) -> bool {
    write_mode.mode == WriteMode::ReadOnly && write_mode.reason == RESOLVED
}

/// Goes on behind what was given out, and tells whether the database fell back behind that.
pub(super) fn reserve(
    path: &Path,
    store: &mut Store,
    counters: &mut Counters,
    now: Timestamp,
) -> Result<(Reserve, bool), StoreError> {
    let file = Reserve::path_beside(path);
    let (head, epoch) = (counters.change_seq, store.epoch());
    let before = Reserve::read(&file)?;
    let fell_back = match &before {
        None => store.rows().has_reserved()?,
        Some(before) if before.epoch() == epoch => head < before.floor(),
        // The database minted an epoch and the file was not written any more; or it is a database from before.
        Some(before) => !store.rows().is_own_epoch(&before.epoch())?,
    };
    if let Some(before) = before.as_ref().filter(|_| fell_back) {
        // This machine's own, from after what the database is: peers will show it.
        store.transaction(|tx| tx.adopt_epoch(&before.epoch(), EpochReason::RolledBack, now))?;
    }
    if let Some(before) = &before {
        counters.change_seq = head.max(before.reserved());
    }
    let reserve = Reserve::create(&file, epoch, head, counters.change_seq)?;
    if !store.rows().has_reserved()? {
        store.transaction(|tx| tx.note_reserved())?;
    }
    Ok((reserve, fell_back))
}

impl StateEngine {
    /// What this node may write at a moment.
    pub fn write_mode_at(&self, now: Timestamp) -> WriteMode {
        WriteMode::of(self.write_mode.as_ref(), now)
    }

    /// Begins a new epoch: all that peers had of the old one they are sent again, and changes wait until they were asked for
    /// what they hold. Not to be called while an engine's handles are about, which know the old epoch.
    pub fn begin_recovery(
        &mut self,
        reason: EpochReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let epoch = minted(&mut *self.rng);
        self.store.transaction(|tx| {
            tx.mint_epoch(&epoch, reason, now)?;
            if let Some(foreign) = tx
                .write_mode()?
                .and_then(|write_mode| write_mode.foreign_epoch)
            {
                tx.adopt_epoch(&foreign, reason, now)?;
            }
            tx.clear_write_mode()?;
            tx.reclaim_from_all_peers()?;
            tx.put_write_mode(&WriteModeRow {
                mode: WriteMode::NewObjectsOnly,
                reason: reason.as_str().to_owned(),
                since: now,
                // Time runs from the first start on: a restored node may lie about for days.
                until: None,
                foreign_epoch: None,
            })
        })?;
        self.ground.epoch = self.store.reload_epoch()?;
        let (head, _) = self.store.rows().heads()?;
        let path = self.reserve.path().to_owned();
        self.reserve = Reserve::create(&path, self.ground.epoch, head, self.counters.change_seq)?;
        self.follow_write_mode()
    }

    /// From now on a recovery waits no longer than its limit. Called as a node starts.
    pub(super) fn begin_waiting(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let waits =
            |row: &WriteModeRow| row.mode == WriteMode::NewObjectsOnly && row.until.is_none();
        let Some(row) = self.write_mode.clone().filter(waits) else {
            return Ok(());
        };
        let until = Some(Timestamp(
            now.0.saturating_add(self.ground.limits.recovery.wait_ms),
        ));
        self.store
            .transaction(|tx| tx.put_write_mode(&WriteModeRow { until, ..row }))?;
        self.follow_write_mode()
    }

    /// A peer gave back all that it holds of this node's. Ends the recovery where it was the last. Says whether it did.
    pub fn peer_was_asked(&mut self, now: Timestamp, peer: &PeerId) -> Result<bool, StoreError> {
        let is_waiting = self.write_mode_at(now) == WriteMode::NewObjectsOnly;
        let is_last = self.store.transaction(|tx| {
            tx.note_reclaimed_from(peer)?;
            Ok::<_, StoreError>(tx.recovery_peers()?.is_empty())
        })?;
        if is_last && is_waiting {
            self.end_recovery(now)?;
        }
        Ok(is_last && is_waiting)
    }

    /// Nobody is waited for any more: by the operator's word, or because time is up. Key events that waited are made good.
    pub fn end_recovery(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.write_mode.as_ref().map(|row| row.mode) != Some(WriteMode::NewObjectsOnly) {
            return Ok(false);
        }
        self.store.transaction(|tx| tx.clear_write_mode())?;
        self.follow_write_mode()?;
        self.settle_keys(now)?;
        Ok(true)
    }

    /// Ends a recovery whose time is up. Says whether it did.
    pub fn end_late_recovery(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let is_late = self.write_mode.is_some() && self.write_mode_at(now) == WriteMode::ReadWrite;
        if is_late {
            self.end_recovery(now)
        } else {
            Ok(false)
        }
    }

    /// The operator says that no other copy of this node runs: with the next start it begins a new epoch and asks its peers.
    pub fn resolve(&mut self) -> Result<bool, StoreError> {
        let Some(row) = self
            .write_mode
            .clone()
            .filter(|row| row.mode == WriteMode::ReadOnly)
        else {
            return Ok(false);
        };
        let resolved = WriteModeRow {
            reason: RESOLVED.to_owned(),
            ..row
        };
        self.store.transaction(|tx| tx.put_write_mode(&resolved))?;
        self.follow_write_mode()?;
        Ok(true)
    }

    /// Notes an epoch that a peer signed as its own, the one with which it was admitted.
    pub fn put_peer_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<(), HearError> {
        let rows = self.store.rows();
        let known = rows.peer(peer)?.ok_or(EpochFault::Another)?;
        if known.epoch != heard.epoch {
            return Err(EpochFault::Another.into());
        }
        let server = rows
            .identity(&known.server_oid)?
            .ok_or(EpochFault::BadSignature)?;
        if server.key_id != heard.key_id || !is_signed(heard, &server.public_key) {
            return Err(EpochFault::BadSignature.into());
        }
        let known = rows
            .peer_epochs(peer)?
            .into_iter()
            .find(|known| known.epoch == heard.epoch);
        // What it once said stays, where it says less now: it is shown that.
        if known.is_some_and(|known| known == *heard || known.head > heard.head) {
            return Ok(());
        }
        Ok(self
            .store
            .transaction(|tx| tx.put_peer_epoch(peer, heard, now))?)
    }

    /// A peer shows an epoch that it heard from this node, or from one with its keys. Where it was not minted here, or counted
    /// further than this database does, this node is a copy or has fallen back, and writes nothing more.
    pub fn hear_own_epoch(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        heard: &PeerEpoch,
    ) -> Result<OwnEpoch, HearError> {
        let rows = self.store.rows();
        let is_known = rows.is_own_epoch(&heard.epoch)?;
        let is_behind = heard.epoch == self.ground.epoch && heard.head > rows.heads()?.0;
        if is_known && !is_behind {
            return Ok(OwnEpoch::Known);
        }
        let chain = self.ground.keys.node_chain();
        let chain = chain.verify();
        let chain = chain.map_err(|_| EpochFault::BadSignature)?;
        let key = chain.key(heard.key_id).ok_or(EpochFault::BadSignature)?;
        if !is_signed(heard, &key) {
            return Err(EpochFault::BadSignature.into());
        }
        if heard.key_id != chain.key_id() {
            // Who stole a key that was rotated away could stop this node again and again.
            return Ok(OwnEpoch::OldKey);
        }
        if self.write_mode_at(now) == WriteMode::ReadOnly {
            // The operator decides on all that was heard until then.
            self.store
                .transaction(|tx| tx.adopt_epoch(&heard.epoch, EpochReason::Foreign, now))?;
            return Ok(OwnEpoch::Known);
        }
        let row = WriteModeRow {
            mode: WriteMode::ReadOnly,
            reason: peer.to_string(),
            since: now,
            until: None,
            foreign_epoch: Some(heard.epoch),
        };
        self.store.transaction(|tx| tx.put_write_mode(&row))?;
        self.follow_write_mode()?;
        Ok(OwnEpoch::Foreign)
    }

    fn follow_write_mode(&mut self) -> Result<(), StoreError> {
        self.write_mode = self.store.rows().write_mode()?;
        Ok(())
    }
}

/// What came of an epoch of this node's that a peer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnEpoch {
    /// It was minted here and counted no further, or is one more that the operator has to decide on.
    Known,
    /// It is signed with a key that was rotated away: somebody has that key.
    OldKey,
    /// This node is a copy, or has fallen back. It is read-only from now on.
    Foreign,
}

/// Whether a node's key signed an epoch and how far it counted.
fn is_signed(heard: &PeerEpoch, key: &PublicKey) -> bool {
    let head = heard.head.to_be_bytes();
    key.verify(
        Context::Epoch,
        &[heard.epoch.as_bytes(), &head],
        &heard.signature,
    )
    .is_ok()
}

/// Why an epoch was not noted.
#[derive(Debug, thiserror::Error)]
pub enum HearError {
    /// The peer's.
    #[error(transparent)]
    Fault(#[from] EpochFault),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl View<'_> {
    /// How a recovery stands.
    pub fn recovery(&self) -> Result<Recovery, StoreError> {
        let write_mode = self.rows.write_mode()?;
        Ok(Recovery {
            is_resolved: write_mode.as_ref().is_some_and(is_resolved),
            waits_for: self.rows.recovery_peers()?,
            write_mode,
        })
    }

    /// Whether that peer is to be asked for what it holds of this node's: once after each new epoch, also where it is not
    /// waited for.
    pub fn is_to_be_asked(&self, peer: &PeerId) -> Result<bool, StoreError> {
        Ok(self.rows.has_later_epoch()? && !self.rows.is_reclaimed_from(peer)?)
    }

    /// What this node may write at a moment.
    pub fn write_mode_at(&self, now: Timestamp) -> Result<WriteMode, StoreError> {
        Ok(WriteMode::of(self.rows.write_mode()?.as_ref(), now))
    }

    /// This node's epoch and how far it counted, signed.
    pub fn own_epoch(&self) -> Result<PeerEpoch, StoreError> {
        let (keys, epoch, head) = (&self.ground.keys, self.ground.epoch, self.head()?);
        let (key_id, signature) =
            keys.sign_as_node_numbered(Context::Epoch, &[epoch.as_bytes(), &head.to_be_bytes()]);
        Ok(PeerEpoch {
            epoch,
            key_id,
            signature,
            head,
        })
    }
}

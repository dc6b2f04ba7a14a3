//! After a restore, a rollback or a clone: what this node may write, and until when (docs/DECISIONS.md 2).
//!
//! A node that was restored makes new objects at once, under a new epoch. What exists may have been changed after the
//! backup, so changes wait until every peer was asked for what it holds of this node's. Never lets two copies of a node go
//! on as one: an epoch that is signed with this node's key and was not minted here makes it read-only. Invariant: the
//! write_mode in memory is the one in the database.

use keys::PeerId;

use super::engine::StateEngine;
use super::epoch::new_epoch;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{EpochReason, Reserve, StoreError, WriteMode, WriteModeRow};

/// The reason of a read-only write_mode that the operator has resolved: it ends with the next start.
const RESOLVED: &str = "resolved";

/// How a recovery stands, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// What is in the way; none: nothing.
    pub write_mode: Option<WriteModeRow>,
    /// Peers that were not asked yet.
    pub waits_for: Vec<PeerId>,
    /// Whether the operator has resolved a read-only write_mode, which takes effect with the next start.
    pub is_resolved: bool,
}

/// What the operator resolved ends with the next start.
pub(super) fn is_resolved(write_mode: &WriteModeRow) -> bool {
    write_mode.mode == WriteMode::ReadOnly && write_mode.reason == RESOLVED
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
        let epoch = new_epoch(&mut *self.rng);
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
        self.context.epoch = self.store.reload_epoch()?;
        let (head, _) = self.store.rows().heads()?;
        let path = self.reserve.path().to_owned();
        self.reserve = Reserve::create(&path, self.context.epoch, head, self.counters.change_seq)?;
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
            now.0.saturating_add(self.context.limits.recovery.wait_ms),
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

    pub(super) fn follow_write_mode(&mut self) -> Result<(), StoreError> {
        self.write_mode = self.store.rows().write_mode()?;
        Ok(())
    }
}

impl View<'_> {
    /// How a recovery stands.
    pub fn recovery(&self) -> Result<RecoveryStatus, StoreError> {
        let write_mode = self.rows.write_mode()?;
        Ok(RecoveryStatus {
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
}

//! Recovery after a restore or a rollback: the node's write mode and its end (docs/DECISIONS.md 2).
//!
//! A restored node creates objects at once, under a new epoch. Its existing objects may have
//! changed after the backup. Changes of them are therefore refused until every peer was asked to
//! return this node's objects, at most for [`RecoveryLimits::wait_ms`](super::RecoveryLimits). A
//! scope of this node stays closed until the homes of its readers were asked, because they may
//! hold a later rights list.
//! Invariant: the write mode in memory equals the one in the database. Tested in
//! `tests/net/restore.rs` and `tests/core/thieves.rs`.

use keys::PeerId;

use super::engine::StateEngine;
use super::epoch::new_epoch;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{
    EpochReason, Reserve, SettlingWork, StoreError, WriteMode, WriteModeRow, WriteTx,
};

/// The reason of a read-only mode that the operator has resolved and that ends at the next start.
const RESOLVED: &str = "resolved";
/// The reason of a recovery that began again because a domain was enabled.
const NEW_DOMAIN: &str = "new_domain";

/// The state of a recovery, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// The restricted write mode; `None` if the node may write everything.
    pub write_mode: Option<WriteModeRow>,
    /// Peers that have not returned this node's objects yet.
    pub waits_for: Vec<PeerId>,
    /// Whether the operator has resolved a read-only mode, which takes effect at the next start.
    pub is_resolved: bool,
}

/// Whether the operator has resolved this read-only mode.
pub(super) fn is_resolved(write_mode: &WriteModeRow) -> bool {
    write_mode.mode == WriteMode::ReadOnly && write_mode.reason == RESOLVED
}

fn is_recovering(write_mode: Option<&WriteModeRow>) -> bool {
    write_mode.is_some_and(|row| row.mode == WriteMode::NewObjectsOnly)
}

/// Ends waiting for a peer, and notes that its scopes are opened.
fn note_asked(tx: &WriteTx<'_>, peer: &PeerId) -> Result<(), StoreError> {
    if tx.note_asked(peer)? {
        tx.note_work(&SettlingWork::Open(*peer))?;
    }
    Ok(())
}

impl StateEngine {
    /// This node's write mode at a time.
    pub fn write_mode_at(&self, now: Timestamp) -> WriteMode {
        WriteMode::of(self.write_mode.as_ref(), now)
    }

    /// Starts a new epoch and a recovery. Peers receive all objects again, and changes of existing
    /// objects wait until every peer was asked to return this node's objects.
    ///
    /// Must not be called while a `CoreHandle` exists, because handles keep the old epoch.
    pub fn start_recovery(
        &mut self,
        reason: EpochReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let epoch = new_epoch(&mut *self.rng);
        self.store
            .transaction(|tx| tx.begin_recovery(&epoch, reason, now))?;
        self.recover_new_domains()?;
        self.context.epoch = self.store.reload_epoch()?;
        let (head, _) = self.store.rows().heads()?;
        let path = self.reserve.path().to_owned();
        self.reserve = Reserve::create(&path, self.context.epoch, head, self.counters.change_seq)?;
        self.reload_write_mode()
    }

    /// Waits for all peers again if a domain is enabled that was not enabled while the recovery
    /// waited. Peers may hold later revisions of its objects. Called at each start.
    pub(super) fn recover_new_domains(&mut self) -> Result<(), StoreError> {
        self.reload_write_mode()?;
        let before = self.write_mode.clone();
        let is_read_only = before.as_ref().map(|row| row.mode) == Some(WriteMode::ReadOnly);
        // The recovery that ends a read-only mode asks for all domains.
        if is_read_only || !self.store.rows().has_recovered()? {
            return Ok(());
        }
        let known = self.store.rows().recovery_domains()?;
        let domains = self.context.schemas.sync_domains().map(|it| &it.name);
        let new: Vec<_> = domains.filter(|name| !known.contains(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if before.is_none() {
            tracing::warn!(
                domains = ?new,
                "domains are enabled that the recovery did not ask for: changes of existing \
                 objects wait again until all peers were asked"
            );
        }
        let row = before.unwrap_or_else(|| WriteModeRow {
            mode: WriteMode::NewObjectsOnly,
            reason: NEW_DOMAIN.to_owned(),
            since: Timestamp(0),
            until: None,
            foreign_epoch: None,
        });
        self.store.transaction(|tx| {
            new.iter()
                .try_for_each(|name| tx.put_recovery_domain(name))?;
            tx.wait_for_all_peers()?;
            tx.put_write_mode(&WriteModeRow { until: None, ..row })
        })?;
        self.reload_write_mode()
    }

    /// Sets the end of a recovery that has none yet, and its begin if that is not known either.
    /// Called at each start.
    pub(super) fn set_recovery_end(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let waits =
            |row: &WriteModeRow| row.mode == WriteMode::NewObjectsOnly && row.until.is_none();
        let Some(row) = self.write_mode.clone().filter(waits) else {
            return Ok(());
        };
        let until = Some(Timestamp(
            now.0.saturating_add(self.context.limits.recovery.wait_ms),
        ));
        let since = if row.since == Timestamp(0) {
            now
        } else {
            row.since
        };
        let row = WriteModeRow {
            since,
            until,
            ..row
        };
        self.store.transaction(|tx| tx.put_write_mode(&row))?;
        self.reload_write_mode()
    }

    /// Notes that a peer has returned all objects of this node in some domains, which are all that
    /// it shares. Ends the recovery after the last peer. Returns whether it ended.
    pub fn note_reclaimed_from(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        domains: &[String],
    ) -> Result<bool, StoreError> {
        let is_waiting = self.write_mode_at(now) == WriteMode::NewObjectsOnly;
        let is_last = self.write(now, |graph| {
            let tx = graph.tx();
            for domain in domains {
                tx.put_reclaimed(peer, domain)?;
            }
            note_asked(tx, peer)?;
            // The peer may have returned objects that an earlier key signed.
            let mut identities = graph.keys().identities().into_iter();
            identities.try_for_each(|identity| tx.note_work(&SettlingWork::Rotate(identity)))?;
            Ok::<_, StoreError>(tx.recovery_peers()?.is_empty())
        })?;
        if is_last && is_waiting {
            self.end_recovery(now)?;
        }
        Ok(is_last && is_waiting)
    }

    /// Ends a recovery. Scopes that are still closed are opened in portions, and key rotations that
    /// waited for the end are completed in portions. Returns whether the node was recovering.
    pub fn end_recovery(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if !is_recovering(self.write_mode.as_ref()) {
            return Ok(false);
        }
        self.write(now, |graph| {
            let tx = graph.tx();
            for peer in tx.recovery_peers()? {
                note_asked(tx, &peer)?;
            }
            tx.clear_write_mode()?;
            let mut identities = graph.keys().identities().into_iter();
            identities.try_for_each(|identity| tx.note_work(&SettlingWork::Rotate(identity)))
        })?;
        self.reload_write_mode()?;
        Ok(true)
    }

    /// Ends a recovery that has reached its time limit. Returns whether it ended.
    pub fn end_overdue_recovery(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let is_late = self.write_mode.is_some() && self.write_mode_at(now) == WriteMode::ReadWrite;
        if is_late {
            self.end_recovery(now)
        } else {
            Ok(false)
        }
    }

    /// Records the operator's statement that no other copy of this node runs. The next start
    /// creates a new epoch and reclaims from all peers. Returns whether the node was read-only.
    pub fn resolve_read_only(&mut self) -> Result<bool, StoreError> {
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
        self.reload_write_mode()?;
        Ok(true)
    }

    /// Reloads the write mode from the database.
    pub(super) fn reload_write_mode(&mut self) -> Result<(), StoreError> {
        self.write_mode = self.store.rows().write_mode()?;
        Ok(())
    }
}

impl View<'_> {
    /// The state of the recovery.
    pub fn recovery(&self) -> Result<RecoveryStatus, StoreError> {
        let write_mode = self.rows.write_mode()?;
        Ok(RecoveryStatus {
            is_resolved: write_mode.as_ref().is_some_and(is_resolved),
            waits_for: self.rows.recovery_peers()?,
            write_mode,
        })
    }

    /// The domains, of those shared with a peer, that this node must still reclaim from it. Each is
    /// reclaimed once after each new epoch, also from a peer that the recovery does not wait for.
    /// `None`: the peer was asked for all, and no recovery waits for it.
    pub fn domains_to_reclaim(
        &self,
        peer: &PeerId,
        shared: &[String],
    ) -> Result<Option<Vec<String>>, StoreError> {
        if !self.rows.has_later_epoch()? {
            return Ok(None);
        }
        let asked = self.rows.reclaimed_domains(peer)?;
        let left = shared.iter().filter(|name| !asked.contains(*name));
        let left: Vec<_> = left.cloned().collect();
        if !left.is_empty() {
            return Ok(Some(left));
        }
        let waits_for = self.rows.recovery_peers()?;
        // A recovery that knows no peer ends with the first one.
        let is_awaited = waits_for.contains(peer)
            || (waits_for.is_empty() && is_recovering(self.rows.write_mode()?.as_ref()));
        Ok(is_awaited.then_some(left))
    }

    /// This node's write mode at a time.
    pub fn write_mode_at(&self, now: Timestamp) -> Result<WriteMode, StoreError> {
        Ok(WriteMode::of(self.rows.write_mode()?.as_ref(), now))
    }
}

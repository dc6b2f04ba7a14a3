//! Rollbacks of the database: detected by the file of reserved sequence numbers, and noted in the
//! database before anything else is written (docs/DECISIONS.md 2).
//!
//! Invariant: a rollback that was detected is never forgotten, because one transaction begins the
//! epoch and the recovery. Tested in `tests/net/rollback.rs` and `migrations/tests.rs`.

use keys::Epoch;
use rusqlite::Connection;

use super::epochs::{EpochReason, read_epoch};
use super::error::{SqlContext as _, StoreError};
use super::reserve::Reserve;
use super::rows::{Rows, WriteTx};
use super::write_mode::{WriteMode, WriteModeRow};
use crate::op_context::Timestamp;

/// Proof that a database was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// The epoch of the reserved sequence numbers. `None`: their file is missing.
    epoch: Option<Epoch>,
}

impl Rollback {
    /// Compares a database of this or an earlier version with the file of reserved sequence
    /// numbers.
    pub(super) fn find(
        connection: &Connection,
        reserve: Option<&Reserve>,
    ) -> Result<Option<Self>, StoreError> {
        let context = "comparing the database with its reserved sequence numbers";
        let exists = |sql: &str| {
            let mut statement = connection.prepare(sql).context(context)?;
            statement.exists([]).context(context)
        };
        let Some(reserve) = reserve else {
            let was_reserved = exists("SELECT 1 FROM meta WHERE name = 'reserved'")?;
            return Ok(was_reserved.then_some(Self { epoch: None }));
        };
        let epoch = reserve.epoch();
        let is_behind = if epoch == read_epoch(connection)? {
            head(connection).context(context)? < reserve.floor()
        } else {
            // An epoch that the database does not know was created after this state of the
            // database. A known one is earlier: the node ended between creating an epoch and
            // writing the file. Versions 1 and 2 had one epoch.
            let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'epoch'";
            let known = format!("SELECT 1 FROM epoch WHERE epoch = x'{}'", epoch.to_hex());
            !(exists(sql)? && exists(&known)?)
        };
        Ok(is_behind.then_some(Self { epoch: Some(epoch) }))
    }
}

/// The highest `change_seq` of all apps, also of rows that were removed.
fn head(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT COALESCE(MAX(value), 0) FROM meta WHERE name = 'head'";
    let removed: u64 = connection.query_row(sql, [], |row| row.get(0))?;
    let mut statement = connection.prepare("SELECT slug FROM app")?;
    let slugs = statement.query_map([], |row| row.get::<_, String>(0))?;
    slugs.into_iter().try_fold(removed, |head, slug| {
        let sql = format!(
            "SELECT COALESCE(MAX(change_seq), 0) FROM app_{}_parent",
            slug?
        );
        let last: u64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(last.max(head))
    })
}

impl Rows<'_> {
    /// Compares the database with the file of reserved sequence numbers.
    pub fn rollback(&self, reserve: Option<&Reserve>) -> Result<Option<Rollback>, StoreError> {
        Rollback::find(self.connection, reserve)
    }
}

impl WriteTx<'_> {
    /// Begins an epoch and a recovery. Peers receive all objects again. Changes of existing objects
    /// wait until every peer was asked to return this node's objects.
    pub fn begin_recovery(
        &self,
        epoch: &Epoch,
        reason: EpochReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.mint_epoch(epoch, reason, now)?;
        self.clear_since_seqs()?;
        let before = self.write_mode()?;
        if let Some(foreign) = before.and_then(|before| before.foreign_epoch) {
            self.adopt_epoch(&foreign, reason, now)?;
        }
        self.clear_write_mode()?;
        self.reclaim_from_all_peers()?;
        self.put_write_mode(&WriteModeRow {
            mode: WriteMode::NewObjectsOnly,
            reason: reason.as_str().to_owned(),
            since: now,
            // Set at the first start, because a restored node may stay offline for days.
            until: None,
            foreign_epoch: None,
        })
    }

    /// Begins an epoch and a recovery after a rollback.
    pub fn recover_from(
        &self,
        rollback: &Rollback,
        epoch: &Epoch,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(later) = &rollback.epoch {
            // Adopted as this node's own, because a peer that sends it later proves no second copy.
            self.adopt_epoch(later, EpochReason::RolledBack, now)?;
        }
        self.begin_recovery(epoch, EpochReason::RolledBack, now)
    }
}

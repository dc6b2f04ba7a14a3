//! The write mode: whether this node may write as usual, and what a recovery after a restore still
//! waits for (docs/DECISIONS.md 2).
//!
//! `state_engine` decides when a mode begins and ends. Invariant: without a row in `write_mode` the
//! mode is [`WriteMode::ReadWrite`], and `recovery_peer` is empty.

use std::collections::BTreeSet;
use std::path::Path;

use keys::{Epoch, Oid, PeerId};
use rusqlite::{OpenFlags, OptionalExtension as _, Row};

use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use super::version::open_unmigrated;
use crate::op_context::Timestamp;

/// Which objects of its own this node may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// All objects.
    ReadWrite,
    /// New objects only, because existing ones may have changed after the backup.
    NewObjectsOnly,
    /// No objects, because another copy of this node signs, or signed, with the same keys.
    ReadOnly,
}

/// A restricted write mode, with its reason and duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteModeRow {
    /// The mode. [`WriteMode::ReadWrite`] has no row.
    pub mode: WriteMode,
    /// Reason of the current epoch, `new_domain`, or the peer that presented the foreign epoch.
    pub reason: String,
    /// Time at which the mode began.
    pub since: Timestamp,
    /// Time at which [`WriteMode::NewObjectsOnly`] ends by itself. `None`: no time is set.
    pub until: Option<Timestamp>,
    /// An epoch that this node's key signed and that this database did not begin.
    pub foreign_epoch: Option<Epoch>,
}

impl WriteMode {
    /// The mode at a time: that of the row, until the row's time ends.
    pub fn of(row: Option<&WriteModeRow>, now: Timestamp) -> Self {
        match row {
            Some(row) if row.until.is_none_or(|until| until > now) => row.mode,
            _ => Self::ReadWrite,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read_write",
            Self::NewObjectsOnly => "new_objects_only",
            Self::ReadOnly => "read_only",
        }
    }
}

const READ: &str = "SELECT mode, reason, since, until, foreign_epoch FROM write_mode";
/// The same columns in the tables of version 3, where the table had another name.
const READ_VERSION_3: &str =
    "SELECT CASE state WHEN 'recovering' THEN 'new_objects_only' ELSE state END,
       reason, since, until, foreign_epoch FROM standing";

fn write_mode(row: &Row<'_>) -> rusqlite::Result<WriteModeRow> {
    let mode: String = row.get(0)?;
    let until: Option<u64> = row.get(3)?;
    let foreign: Option<Vec<u8>> = row.get(4)?;
    Ok(WriteModeRow {
        mode: if mode == WriteMode::NewObjectsOnly.as_str() {
            WriteMode::NewObjectsOnly
        } else {
            WriteMode::ReadOnly
        },
        reason: row.get(1)?,
        since: Timestamp(row.get(2)?),
        until: until.map(Timestamp),
        foreign_epoch: foreign.as_deref().and_then(Epoch::from_slice),
    })
}

/// The restricted write mode of a database that no node has open. `None`: read and write.
///
/// Reads databases of earlier versions too, and does not migrate them.
///
/// # Errors
/// The database cannot be opened or read.
pub fn write_mode_of(database: &Path) -> Result<Option<WriteModeRow>, StoreError> {
    let (connection, version) = open_unmigrated(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = match version {
        // These versions had no restricted mode.
        ..=2 => return Ok(None),
        3 => READ_VERSION_3,
        _ => READ,
    };
    connection
        .query_row(sql, [], write_mode)
        .optional()
        .context("reading the write mode")
}

impl Rows<'_> {
    /// The restricted write mode. `None`: read and write.
    pub fn write_mode(&self) -> Result<Option<WriteModeRow>, StoreError> {
        let mut statement = self.prepare("reading the write mode", READ)?;
        statement.first([], write_mode)
    }

    /// The peers from which a recovery still has to reclaim objects, sorted by id.
    pub fn recovery_peers(&self) -> Result<Vec<PeerId>, StoreError> {
        let mut statement = self.prepare(
            "reading the peers that a recovery waits for",
            "SELECT peer_id FROM recovery_peer ORDER BY peer_id",
        )?;
        statement.all([], |row| fixed(row, 0).map(PeerId::from_bytes))
    }

    /// The domains of which this node has reclaimed its objects from a peer since the last epoch
    /// began.
    pub fn reclaimed_domains(&self, peer: &PeerId) -> Result<BTreeSet<String>, StoreError> {
        let mut statement = self.prepare(
            "reading the domains that were reclaimed from a peer",
            "SELECT domain FROM reclaimed_domain WHERE peer_id = ?1",
        )?;
        statement.all([peer.as_bytes()], |row| row.get(0))
    }

    /// The domains that were enabled while a recovery of the last epoch waited for peers.
    pub fn recovery_domains(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut statement = self.prepare(
            "reading the domains of a recovery",
            "SELECT domain FROM recovery_domain",
        )?;
        statement.all([], |row| row.get(0))
    }

    /// Number of the key that an identity of this node had when the last epoch began. 0 if the
    /// identity did not exist then, or if no epoch followed the first.
    pub fn recovery_key(&self, identity: &Oid) -> Result<u32, StoreError> {
        let mut statement = self.prepare(
            "reading the key number before a recovery",
            "SELECT key_id FROM recovery_key WHERE oid = ?1",
        )?;
        statement
            .first([identity.as_bytes()], |row| row.get(0))
            .map(Option::unwrap_or_default)
    }
}

impl WriteTx<'_> {
    /// Sets a restricted write mode.
    pub fn put_write_mode(&self, row: &WriteModeRow) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing the write mode",
            "INSERT OR REPLACE INTO write_mode (id, mode, reason, since, until, foreign_epoch)
             VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute((
            row.mode.as_str(),
            &row.reason,
            row.since.0,
            row.until.map(|until| until.0),
            row.foreign_epoch.as_ref().map(|epoch| epoch.as_bytes()),
        ))?;
        Ok(())
    }

    /// Returns to [`WriteMode::ReadWrite`], and ends waiting for peers. Scopes that were closed
    /// because of them, and were not noted as asked, open at once.
    pub fn clear_write_mode(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch("DELETE FROM write_mode; DELETE FROM recovery_peer;")
            .context("clearing the write mode")
    }

    /// Begins to reclaim objects from all peers, and waits for them. Stores the current key numbers
    /// of all identities.
    pub fn reclaim_from_all_peers(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch(
                "DELETE FROM recovery_peer; DELETE FROM asked_peer; DELETE FROM recovery_home;
                 DELETE FROM reclaimed_domain; DELETE FROM recovery_domain;
                 DELETE FROM recovery_key;
                 INSERT INTO recovery_key (oid, key_id)
                   SELECT oid, key_id FROM identity WHERE key_id > 0;",
            )
            .context("beginning a recovery")?;
        self.wait_for_all_peers()
    }

    /// Lets the recovery wait for all peers that are neither banned nor forgotten, also for those
    /// that were asked. Stores the identities that live there.
    pub fn wait_for_all_peers(&self) -> Result<(), StoreError> {
        self.connection
            .execute_batch(
                "INSERT INTO recovery_peer (peer_id)
                   SELECT peer_id FROM peers WHERE tier <> 'forgotten'
                     AND peer_id NOT IN (SELECT peer_id FROM verdict WHERE verdict = 'banned')
                   ON CONFLICT DO NOTHING;
                 DELETE FROM asked_peer WHERE peer_id IN (SELECT peer_id FROM recovery_peer);
                 INSERT INTO recovery_home (peer_id, identity_oid)
                   SELECT home_peer, oid FROM identity
                   WHERE home_peer IN (SELECT peer_id FROM recovery_peer)
                   ON CONFLICT DO NOTHING;",
            )
            .context("writing the peers that a recovery waits for")
    }

    /// Stores that a domain is enabled while a recovery waits for peers.
    pub fn put_recovery_domain(&self, domain: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a domain of a recovery",
            "INSERT INTO recovery_domain (domain) VALUES (?1) ON CONFLICT DO NOTHING",
        )?;
        statement.execute([domain]).map(drop)
    }

    /// Stores that this node has reclaimed its objects of a domain from a peer.
    pub fn put_reclaimed(&self, peer: &PeerId, domain: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a domain that was reclaimed from a peer",
            "INSERT INTO reclaimed_domain (peer_id, domain) VALUES (?1, ?2)
             ON CONFLICT DO NOTHING",
        )?;
        statement.execute((peer.as_bytes(), domain)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Folder;

    #[test]
    fn clearing_the_write_mode_deletes_its_row() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        assert_eq!(store.rows().write_mode().unwrap(), None);
        let recovering = WriteModeRow {
            mode: WriteMode::NewObjectsOnly,
            reason: "restored".into(),
            since: Timestamp(1),
            until: Some(Timestamp(9)),
            foreign_epoch: None,
        };
        let read_only = WriteModeRow {
            mode: WriteMode::ReadOnly,
            reason: "a peer".into(),
            until: None,
            foreign_epoch: Some(Epoch::from_bytes([3; 16])),
            ..recovering.clone()
        };
        for row in [&recovering, &read_only] {
            store.transaction(|tx| tx.put_write_mode(row)).unwrap();
            assert_eq!(store.rows().write_mode().unwrap().as_ref(), Some(row));
        }
        store.transaction(|tx| tx.clear_write_mode()).unwrap();
        assert_eq!(store.rows().write_mode().unwrap(), None);
    }
}

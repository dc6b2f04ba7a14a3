//! Epochs: those that this database began, and those that peers signed as their own
//! (docs/DECISIONS.md 2).
//!
//! Signatures are stored, not checked: `state_engine` checked them. Invariants: the epoch in `meta`
//! is the newest row of `epoch`, and no row of `epoch` is ever deleted. Of each peer at most
//! [`PEER_EPOCHS_MAX`] epochs are kept, always the latest.

use keys::{Epoch, PeerId, Signature};
use rusqlite::{Connection, Row};

use super::columns::fixed;
use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

/// Most epochs of one peer that are kept. Restores are rare, so that 4 cover all honest peers.
const PEER_EPOCHS_MAX: u32 = 4;

/// Why an epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochReason {
    /// The database was created.
    New,
    /// The node was restored from a backup.
    Restored,
    /// The database was older than the sequence numbers that were given out.
    RolledBack,
    /// The operator confirmed that no other copy of this node runs.
    Resolved,
    /// Another copy of this node began it, and the operator has confirmed that this is known.
    Foreign,
    /// The tables were migrated, and objects could not be carried over.
    Migrated,
}

impl EpochReason {
    /// The value of the column `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Restored => "restored",
            Self::RolledBack => "rolled_back",
            Self::Resolved => "resolved",
            Self::Foreign => "foreign",
            Self::Migrated => "migrated",
        }
    }
}

/// An epoch that a peer signed as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// Number of the node's key that signed.
    pub key_id: u32,
    /// Signature over the epoch and `head`.
    pub signature: Signature,
    /// The peer's last `change_seq` when it signed.
    pub head: u64,
}

fn peer_epoch(row: &Row<'_>) -> rusqlite::Result<PeerEpoch> {
    Ok(PeerEpoch {
        epoch: Epoch::from_bytes(fixed(row, 0)?),
        key_id: row.get(1)?,
        signature: Signature::from_bytes(fixed(row, 2)?),
        head: row.get(3)?,
    })
}

/// Writes the epoch of a new database.
pub(super) fn insert_first_epoch(connection: &Connection, epoch: &Epoch) -> Result<(), StoreError> {
    let context = "writing the first epoch";
    connection
        .execute(
            "INSERT INTO meta (name, value) VALUES ('epoch', ?1)",
            [epoch.as_bytes()],
        )
        .context(context)?;
    connection
        .execute(
            "INSERT INTO epoch (epoch, reason, at) VALUES (?1, ?2, 0)",
            (epoch.as_bytes(), EpochReason::New.as_str()),
        )
        .map(drop)
        .context(context)
}

/// Reads the epoch in which the database's sequence numbers count.
pub(super) fn read_epoch(connection: &Connection) -> Result<Epoch, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = 'epoch'";
    let bytes: Vec<u8> = connection
        .query_row(sql, [], |row| row.get(0))
        .context("reading the epoch")?;
    Epoch::from_slice(&bytes).ok_or(StoreError::Inconsistent("the epoch in `meta`"))
}

impl Rows<'_> {
    /// Whether this database began that epoch, now or earlier.
    pub fn is_own_epoch(&self, epoch: &Epoch) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking up an epoch",
            "SELECT 1 FROM epoch WHERE epoch = ?1",
        )?;
        statement.exists([epoch.as_bytes()])
    }

    /// Whether an epoch followed the first one. Then peers may hold objects of this node that this
    /// database lacks.
    pub fn has_later_epoch(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for epochs after the first",
            "SELECT 1 FROM epoch WHERE reason <> 'new'",
        )?;
        statement.exists([])
    }

    /// Whether a recovery ever began. Then existing objects may have later revisions at peers.
    pub fn has_recovered(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for epochs of recoveries",
            "SELECT 1 FROM epoch WHERE reason NOT IN ('new', 'migrated')",
        )?;
        statement.exists([])
    }

    /// Whether a file of reserved sequence numbers was ever written beside this database.
    pub fn has_reserved(&self) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for reserved sequence numbers",
            "SELECT 1 FROM meta WHERE name = 'reserved'",
        )?;
        statement.exists([])
    }

    /// The epochs that a peer signed as its own, oldest first.
    pub fn peer_epochs(&self, peer: &PeerId) -> Result<Vec<PeerEpoch>, StoreError> {
        let mut statement = self.prepare(
            "reading a peer's epochs",
            "SELECT epoch, key_id, signature, head FROM peer_epoch
             WHERE peer_id = ?1 ORDER BY at, epoch",
        )?;
        statement.all([peer.as_bytes()], peer_epoch)
    }
}

impl WriteTx<'_> {
    /// Begins an epoch. Sequence numbers and cursors of earlier epochs do not count in it.
    pub fn mint_epoch(
        &self,
        epoch: &Epoch,
        reason: EpochReason,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.adopt_epoch(epoch, reason, at)?;
        self.forget_all_receipts()?;
        self.connection
            .execute(
                "UPDATE meta SET value = ?1 WHERE name = 'epoch'",
                [epoch.as_bytes()],
            )
            .map(drop)
            .context("beginning an epoch")
    }

    /// Stores an epoch as one of this node's, without beginning it.
    pub fn adopt_epoch(
        &self,
        epoch: &Epoch,
        reason: EpochReason,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing an epoch",
            "INSERT INTO epoch (epoch, reason, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?;
        statement
            .execute((epoch.as_bytes(), reason.as_str(), at.0))
            .map(drop)
    }

    /// Stores the fact that a file of reserved sequence numbers exists beside this database.
    pub fn note_reserved(&self) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES ('reserved', 1)",
                [],
            )
            .map(drop)
            .context("recording that sequence numbers are reserved")
    }

    /// Stores an epoch that a peer signed as its own. Deletes its oldest beyond
    /// [`PEER_EPOCHS_MAX`].
    pub fn put_peer_epoch(
        &self,
        peer: &PeerId,
        signed: &PeerEpoch,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let context = "writing a peer's epoch";
        let mut statement = self.prepare(
            context,
            "INSERT INTO peer_epoch (peer_id, epoch, key_id, signature, head, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (peer_id, epoch) DO UPDATE SET
               key_id = excluded.key_id, signature = excluded.signature,
               head = excluded.head, at = excluded.at",
        )?;
        let (epoch, signature) = (signed.epoch.as_bytes(), signed.signature.as_bytes());
        statement.execute((
            peer.as_bytes(),
            epoch,
            signed.key_id,
            signature,
            signed.head,
            at.0,
        ))?;
        let mut statement = self.prepare(
            context,
            "DELETE FROM peer_epoch WHERE peer_id = ?1 AND epoch NOT IN (
               SELECT epoch FROM peer_epoch WHERE peer_id = ?1
               ORDER BY at DESC, epoch LIMIT ?2)",
        )?;
        statement
            .execute((peer.as_bytes(), PEER_EPOCHS_MAX))
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{EPOCH, Folder};

    #[test]
    fn keeps_earlier_epochs_when_the_next_begins() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let next = Epoch::from_bytes([8; 16]);
        assert!(
            store.rows().is_own_epoch(&EPOCH).unwrap()
                && !store.rows().is_own_epoch(&next).unwrap()
        );
        store
            .transaction(|tx| tx.mint_epoch(&next, EpochReason::Restored, Timestamp(5)))
            .unwrap();
        assert_eq!(store.reload_epoch().unwrap(), next);
        assert!(
            store.rows().is_own_epoch(&EPOCH).unwrap() && store.rows().is_own_epoch(&next).unwrap()
        );
        drop(store);
        assert_eq!(folder.open(&["identities"]).unwrap().epoch(), next);
    }

    #[test]
    fn keeps_only_the_latest_epochs_of_a_peer() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let (peer, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let signed = |number: u8| PeerEpoch {
            epoch: Epoch::from_bytes([number; 16]),
            key_id: 0,
            signature: Signature::from_bytes([number; 64]),
            head: 7,
        };
        store
            .transaction(|tx| {
                tx.put_peer_epoch(&other, &signed(1), Timestamp(0))?;
                // Epoch 2 arrives again, which makes it newer than epochs 3 to 5.
                let order = [1, 2, 3, 4, 5, 2, 6];
                let mut epochs = (1u64..).zip(order.map(signed));
                epochs.try_for_each(|(at, epoch)| tx.put_peer_epoch(&peer, &epoch, Timestamp(at)))
            })
            .unwrap();
        let known: Vec<_> = store.rows().peer_epochs(&peer).unwrap();
        assert_eq!(known, [4, 5, 2, 6].map(signed));
        assert_eq!(store.rows().peer_epochs(&other).unwrap(), [signed(1)]);
    }
}

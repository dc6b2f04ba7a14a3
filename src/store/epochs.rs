//! Epochs: those that this database minted, and those that peers said are theirs (docs/DECISIONS.md 2).
//!
//! Never judges a signature: `state_engine` did. Invariants: the epoch in `meta` is the newest of `epoch`, which only
//! grows; of each peer a few heard ones are kept, the latest always.

use keys::{Epoch, PeerId, Signature};
use rusqlite::Row;

use super::{Rows, SqlContext as _, Store, StoreError, WriteTx, fixed, read_epoch};
use crate::op_context::Timestamp;

/// Most epochs of one peer that are kept: a node that is restored more often than that is in other trouble.
const HEARD_PER_PEER_MAX: u32 = 4;

/// Why an epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochReason {
    /// The database was made.
    New,
    /// The node was restored from a backup.
    Restored,
    /// The database was found behind the sequence numbers that were given out.
    FellBack,
    /// The operator said that no other copy of this node runs.
    Resolved,
    /// Begun by another copy of this node; the operator knows of it.
    Foreign,
}

impl EpochReason {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Restored => "restored",
            Self::FellBack => "fell_back",
            Self::Resolved => "resolved",
            Self::Foreign => "foreign",
        }
    }
}

/// An epoch that a peer signed as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// Number of the node's key that signed.
    pub key_id: u32,
    /// The signature.
    pub signature: Signature,
    /// The last `change_seq` of then, signed too.
    pub head: u64,
}

fn heard(row: &Row<'_>) -> rusqlite::Result<HeardEpoch> {
    Ok(HeardEpoch {
        epoch: Epoch::from_bytes(fixed(row, 0)?),
        key_id: row.get(1)?,
        signature: Signature::from_bytes(fixed(row, 2)?),
        head: row.get(3)?,
    })
}

impl Store {
    /// Reads the epoch again, after one was minted.
    pub fn follow_epoch(&mut self) -> Result<Epoch, StoreError> {
        self.epoch = read_epoch(&self.writer)?;
        Ok(self.epoch)
    }
}

impl Rows<'_> {
    /// Whether this database minted that epoch, now or earlier.
    pub fn is_own_epoch(&self, epoch: &Epoch) -> Result<bool, StoreError> {
        let context = "looking up an epoch";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM epoch WHERE epoch = ?1")
            .context(context)?;
        statement.exists([epoch.as_bytes()]).context(context)
    }

    /// Whether any epoch followed the first one: then there may be objects of this node's at peers that are not here.
    pub fn began_anew(&self) -> Result<bool, StoreError> {
        let context = "looking for earlier epochs";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM epoch WHERE reason <> 'new'")
            .context(context)?;
        statement.exists([]).context(context)
    }

    /// Whether there was ever a file of reserved sequence numbers beside this database.
    pub fn has_reserved(&self) -> Result<bool, StoreError> {
        let context = "looking for reserved numbers";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM meta WHERE name = 'reserved'")
            .context(context)?;
        statement.exists([]).context(context)
    }

    /// The epochs that a peer said are its own, oldest first.
    pub fn heard_epochs(&self, peer: &PeerId) -> Result<Vec<HeardEpoch>, StoreError> {
        let context = "reading a peer's epochs";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT epoch, key_id, signature, head FROM heard_epoch WHERE peer_id = ?1 ORDER BY at, epoch",
            )
            .context(context)?;
        let rows = statement
            .query_map([peer.as_bytes()], heard)
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

impl WriteTx<'_> {
    /// Begins an epoch. Earlier sequence numbers and cursors mean nothing in it.
    pub fn mint_epoch(
        &self,
        epoch: &Epoch,
        reason: EpochReason,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let context = "minting of an epoch";
        self.adopt_epoch(epoch, reason, at)?;
        self.connection
            .execute(
                "UPDATE meta SET value = ?1 WHERE name = 'epoch'",
                [epoch.as_bytes()],
            )
            .context(context)?;
        Ok(())
    }

    /// Notes an epoch as one of this node's, without beginning it.
    pub fn adopt_epoch(
        &self,
        epoch: &Epoch,
        reason: EpochReason,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let context = "noting an epoch";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO epoch (epoch, reason, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )
            .context(context)?;
        statement
            .execute((epoch.as_bytes(), reason.as_str(), at.0))
            .context(context)?;
        Ok(())
    }

    /// Notes that there is a file of reserved sequence numbers beside this database from now on.
    pub fn note_reserved(&self) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES ('reserved', 1)",
                [],
            )
            .map(drop)
            .context("noting that numbers are reserved")
    }

    /// Notes an epoch that a peer signed as its own, and forgets its oldest beyond a few.
    pub fn hear_epoch(
        &self,
        peer: &PeerId,
        heard: &HeardEpoch,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let context = "noting a peer's epoch";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO heard_epoch (peer_id, epoch, key_id, signature, head, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (peer_id, epoch) DO UPDATE SET key_id = excluded.key_id, signature = excluded.signature,
                   head = excluded.head, at = excluded.at",
            )
            .context(context)?;
        let (epoch, signature) = (heard.epoch.as_bytes(), heard.signature.as_bytes());
        statement
            .execute((
                peer.as_bytes(),
                epoch,
                heard.key_id,
                signature,
                heard.head,
                at.0,
            ))
            .context(context)?;
        let mut statement = self
            .connection
            .prepare_cached(
                "DELETE FROM heard_epoch WHERE peer_id = ?1 AND epoch NOT IN
                   (SELECT epoch FROM heard_epoch WHERE peer_id = ?1 ORDER BY at DESC, epoch LIMIT ?2)",
            )
            .context(context)?;
        statement
            .execute((peer.as_bytes(), HEARD_PER_PEER_MAX))
            .context(context)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{EPOCH, Folder};

    #[test]
    fn an_epoch_that_was_minted_stays_known_when_the_next_begins() {
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
        assert_eq!(store.follow_epoch().unwrap(), next);
        assert!(
            store.rows().is_own_epoch(&EPOCH).unwrap() && store.rows().is_own_epoch(&next).unwrap()
        );
        drop(store);
        assert_eq!(folder.open(&["identities"]).unwrap().epoch(), next);
    }

    #[test]
    fn of_a_peers_epochs_the_latest_few_are_kept() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let (peer, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let heard = |number: u8| HeardEpoch {
            epoch: Epoch::from_bytes([number; 16]),
            key_id: 0,
            signature: Signature::from_bytes([number; 64]),
            head: 7,
        };
        store
            .transaction(|tx| {
                tx.hear_epoch(&other, &heard(1), Timestamp(0))?;
                // The first one again, late: it is as new as the last.
                let order = [1, 2, 3, 4, 5, 2, 6];
                let mut heard = (1u64..).zip(order.map(heard));
                heard.try_for_each(|(at, heard)| tx.hear_epoch(&peer, &heard, Timestamp(at)))
            })
            .unwrap();
        let known: Vec<_> = store.rows().heard_epochs(&peer).unwrap();
        assert_eq!(known, [4, 5, 2, 6].map(heard));
        assert_eq!(store.rows().heard_epochs(&other).unwrap(), [heard(1)]);
    }
}

//! Table `refused_object`: objects of peers that this node refused, for its next receipt
//! (docs/PROTOCOL.md 4.4).
//!
//! Invariants: a row is written in the transaction that refuses the object, and is deleted when the
//! peer has noted it. A peer has at most [`REFUSED_MAX`] rows. Tested in `tests/core/receipts.rs`.

use keys::{Epoch, Oid, PeerId};

use super::error::StoreError;
use super::pull_again_state::FINISHED;
use super::rows::{Rows, WriteTx};

/// Most rows of one peer. Half of them are left to objects that the peer did not relay.
pub const REFUSED_MAX: usize = 1000;

impl Rows<'_> {
    /// The objects of a domain that were refused and that the peer was not told, sorted.
    pub fn refused_objects(
        &self,
        peer: &PeerId,
        domain: &str,
        epoch: &Epoch,
    ) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare(
            "reading refused objects",
            "SELECT oid FROM refused_object
             WHERE peer_id = ?1 AND domain = ?2 AND epoch = ?3 ORDER BY oid",
        )?;
        let key = (peer.as_bytes(), domain, epoch.as_bytes());
        statement.all(key, |row| {
            super::columns::fixed(row, 0).map(Oid::from_bytes)
        })
    }

    /// The objects of a peer and domain that wait, each once, sorted. Returned objects of this node
    /// are left out.
    pub fn waiting_in(&self, peer: &PeerId, domain: &str) -> Result<Vec<Oid>, StoreError> {
        let mut statement = self.prepare(
            "reading the waiting objects of a domain",
            "SELECT oid FROM waiting
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND domain = ?2 AND is_reclaimed = 0 ORDER BY oid",
        )?;
        let mut oids: Vec<Oid> = statement.all((peer.as_bytes(), domain), |row| {
            super::columns::fixed(row, 0).map(Oid::from_bytes)
        })?;
        oids.dedup();
        Ok(oids)
    }

    /// The scopes of a peer and domain that are still pulled again and of which objects of the peer
    /// itself may be missing, sorted. `None`: the whole domain is.
    pub fn unfinished_again(
        &self,
        peer: &PeerId,
        domain: &str,
    ) -> Result<Option<Vec<Oid>>, StoreError> {
        let mut statement = self.prepare(
            "reading what is still pulled again",
            "SELECT scope_oid FROM pull_again
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND domain = ?2 AND cursor != ?3 AND (lacks_own OR noted_own)
             ORDER BY scope_oid",
        )?;
        let key = (peer.as_bytes(), domain, FINISHED);
        let oids: Vec<Vec<u8>> = statement.all(key, |row| row.get(0))?;
        // An empty oid stands for the whole domain.
        Ok(oids.iter().map(|oid| Oid::from_slice(oid)).collect())
    }
}

impl WriteTx<'_> {
    /// Notes objects that were refused, as long as the peer has fewer than `max` rows. Rows of
    /// another epoch of the peer are replaced. Returns how many of them are noted, from the first.
    pub fn put_refused_objects(
        &self,
        (peer, domain): (&PeerId, &str),
        epoch: &Epoch,
        oids: &[Oid],
        max: usize,
    ) -> Result<usize, StoreError> {
        if oids.is_empty() {
            return Ok(0);
        }
        let context = "writing refused objects";
        let mut statement = self.prepare(
            context,
            "DELETE FROM refused_object WHERE peer_id = ?1 AND domain = ?2 AND epoch != ?3",
        )?;
        statement.execute((peer.as_bytes(), domain, epoch.as_bytes()))?;
        let mut statement = self.prepare(
            context,
            "SELECT COUNT(*) FROM refused_object WHERE peer_id = ?1",
        )?;
        let count: usize = statement.one([peer.as_bytes()], |row| row.get(0))?;
        let mut statement = self.prepare(
            context,
            "INSERT INTO refused_object (peer_id, domain, oid, epoch) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?;
        let room = max.saturating_sub(count).min(oids.len());
        for oid in oids.iter().take(room) {
            statement.execute((peer.as_bytes(), domain, oid.as_bytes(), epoch.as_bytes()))?;
        }
        Ok(room)
    }

    /// Deletes refused objects that the peer has noted.
    pub fn remove_refused_objects(
        &self,
        (peer, domain): (&PeerId, &str),
        oids: &[Oid],
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting refused objects",
            "DELETE FROM refused_object WHERE peer_id = ?1 AND domain = ?2 AND oid = ?3",
        )?;
        for oid in oids {
            statement.execute((peer.as_bytes(), domain, oid.as_bytes()))?;
        }
        Ok(())
    }
}

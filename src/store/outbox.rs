//! Table `sync_outbox`: domains of which a configured peer has to be pushed something
//! (docs/STORY.md 5).
//!
//! Invariant: one row for each peer and domain, so that the configuration bounds the table. Tested
//! in `tests/core/outbox.rs`.

use keys::PeerId;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};

/// A row of `sync_outbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The peer.
    pub peer: PeerId,
    /// Name of the domain.
    pub domain: String,
    /// The highest `change_seq` that the peer may not have.
    pub change_seq: u64,
}

impl Rows<'_> {
    /// All rows, by peer and domain.
    pub fn outbox(&self) -> Result<Vec<OutboxRow>, StoreError> {
        let mut statement = self.prepare(
            "listing sync_outbox",
            "SELECT peer_id, domain, change_seq FROM sync_outbox ORDER BY peer_id, domain",
        )?;
        statement.all([], |row| {
            Ok(OutboxRow {
                peer: PeerId::from_bytes(fixed(row, 0)?),
                domain: row.get(1)?,
                change_seq: row.get(2)?,
            })
        })
    }

    /// The highest `change_seq` of a domain that a peer may not have. `None`: nothing has to be
    /// pushed.
    pub fn outbox_seq(&self, peer: &PeerId, domain: &str) -> Result<Option<u64>, StoreError> {
        let mut statement = self.prepare(
            "reading sync_outbox",
            "SELECT change_seq FROM sync_outbox WHERE peer_id = ?1 AND domain = ?2",
        )?;
        statement.first((peer.as_bytes(), domain), |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Notes that a peer may lack the changes of a domain up to `change_seq`.
    pub fn put_outbox(
        &self,
        peer: &PeerId,
        domain: &str,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing sync_outbox",
            "INSERT INTO sync_outbox (peer_id, domain, change_seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (peer_id, domain) DO UPDATE SET
               change_seq = MAX(change_seq, excluded.change_seq)",
        )?;
        statement
            .execute((peer.as_bytes(), domain, change_seq))
            .map(drop)
    }

    /// Deletes the row of a peer and domain if its `change_seq` is at most `up_to`.
    pub fn remove_outbox(&self, peer: &PeerId, domain: &str, up_to: u64) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting from sync_outbox",
            "DELETE FROM sync_outbox
             WHERE peer_id = ?1 AND domain = ?2 AND change_seq <= ?3",
        )?;
        statement
            .execute((peer.as_bytes(), domain, up_to))
            .map(drop)
    }
}

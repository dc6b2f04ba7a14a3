//! Table `sync_state`: the cursors of each peer in each domain, in both directions
//! (docs/STORY.md 2.1 step 7, docs/DECISIONS.md 7).
//!
//! Invariants: an inbound cursor moves in the transaction that applies the rows. A cursor counts in
//! one epoch, and the caller treats a cursor of another epoch as zero.

use keys::{Epoch, PeerId};
use rusqlite::Row;

use super::columns::fixed;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};

/// The direction in which objects travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to this node.
    In,
    /// From this node to the peer.
    Out,
}

impl Direction {
    /// The value of the column `direction`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The key of one cursor.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    /// The peer.
    pub peer: &'a PeerId,
    /// Name of the domain.
    pub domain: &'a str,
    /// The direction in which objects travel.
    pub direction: Direction,
}

/// The position of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncStateRow {
    /// Epoch in which the numbers count: the peer's for `In`, this node's for `Out`.
    pub epoch: Epoch,
    /// Last `change_seq` that was applied (`In`) or sent (`Out`).
    pub last_seq: u64,
    /// Last `change_seq` that the peer acknowledged (`Out` only).
    pub acked_seq: u64,
}

fn sync_state_row(row: &Row<'_>) -> rusqlite::Result<SyncStateRow> {
    Ok(SyncStateRow {
        epoch: Epoch::from_bytes(fixed(row, 0)?),
        last_seq: row.get(1)?,
        acked_seq: row.get(2)?,
    })
}

impl Rows<'_> {
    /// The position of a cursor. `None` if it never moved.
    pub fn sync_state(&self, cursor: Cursor<'_>) -> Result<Option<SyncStateRow>, StoreError> {
        let mut statement = self.prepare(
            "reading sync_state",
            "SELECT epoch, last_seq, acked_seq FROM sync_state
             WHERE peer_id = ?1 AND domain = ?2 AND direction = ?3",
        )?;
        let key = (
            cursor.peer.as_bytes(),
            cursor.domain,
            cursor.direction.as_str(),
        );
        statement.first(key, sync_state_row)
    }

    /// All cursors of a peer: domain, direction, position.
    pub fn sync_states(
        &self,
        peer: &PeerId,
    ) -> Result<Vec<(String, Direction, SyncStateRow)>, StoreError> {
        let mut statement = self.prepare(
            "listing sync_state",
            "SELECT epoch, last_seq, acked_seq, domain, direction FROM sync_state
             WHERE peer_id = ?1 ORDER BY domain, direction",
        )?;
        statement.all([peer.as_bytes()], |row| {
            let state = sync_state_row(row)?;
            let direction = if row.get::<_, String>(4)? == "in" {
                Direction::In
            } else {
                Direction::Out
            };
            Ok((row.get(3)?, direction, state))
        })
    }
}

impl WriteTx<'_> {
    /// Forgets both cursors of a domain: both sides start again at 0.
    pub fn restart_sync(&self, peer: &PeerId, domain: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "forgetting cursors",
            "DELETE FROM sync_state WHERE peer_id = ?1 AND domain = ?2",
        )?;
        statement.execute((peer.as_bytes(), domain)).map(drop)
    }

    /// Forgets the cursor of what a peer sends in a domain. This node starts again at 0.
    pub fn restart_sync_in(&self, peer: &PeerId, domain: &str) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "forgetting an inbound cursor",
            "DELETE FROM sync_state WHERE peer_id = ?1 AND domain = ?2 AND direction = 'in'",
        )?;
        statement.execute((peer.as_bytes(), domain)).map(drop)
    }

    /// Forgets the cursors of all that a peer sends.
    pub fn restart_all_in(&self, peer: &PeerId) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "forgetting the inbound cursors of a peer",
            "DELETE FROM sync_state WHERE peer_id = ?1 AND direction = 'in'",
        )?;
        statement.execute([peer.as_bytes()]).map(drop)
    }

    /// Moves a cursor.
    pub fn put_sync_state(
        &self,
        cursor: Cursor<'_>,
        state: &SyncStateRow,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "moving a cursor",
            "INSERT OR REPLACE INTO sync_state (
               peer_id, domain, direction, epoch, last_seq, acked_seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        statement.execute((
            cursor.peer.as_bytes(),
            cursor.domain,
            cursor.direction.as_str(),
            state.epoch.as_bytes(),
            state.last_seq,
            state.acked_seq,
        ))?;
        Ok(())
    }
}

//! `sync_state`: where each peer stands in each domain, in both directions (docs/STORY.md 2.1 step 7, docs/DECISIONS.md 7).
//!
//! Never moves an inbound cursor outside the transaction that applies the rows. Invariant: a cursor counts in one
//! epoch, and a cursor of another epoch means nothing (zero).

use keys::{Epoch, PeerId};
use rusqlite::OptionalExtension as _;

use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};

/// Which way rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to us.
    In,
    /// From us to the peer.
    Out,
}

impl Direction {
    /// The word in the table.
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
    /// The other node.
    pub peer: &'a PeerId,
    /// The domain.
    pub domain: &'a str,
    /// Which way.
    pub direction: Direction,
}

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncStateRow {
    /// In which epoch: the peer's for `In`, ours for `Out`.
    pub epoch: Epoch,
    /// Applied (`In`) or sent (`Out`) up to here.
    pub last_seq: u64,
    /// Known to be held by the peer up to here (`Out` only).
    pub acked_seq: u64,
}

impl Rows<'_> {
    /// Where a cursor stands, if it was ever moved.
    pub fn sync_state(&self, cursor: Cursor<'_>) -> Result<Option<SyncStateRow>, StoreError> {
        let context = "reading sync_state";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT epoch, last_seq, acked_seq FROM sync_state
                 WHERE peer_id = ?1 AND domain = ?2 AND direction = ?3 AND scope = x''",
            )
            .context(context)?;
        let key = (
            cursor.peer.as_bytes(),
            cursor.domain,
            cursor.direction.as_str(),
        );
        statement
            .query_row(key, |row| {
                let epoch = Epoch::from_bytes(fixed(row, 0)?);
                Ok(SyncStateRow {
                    epoch,
                    last_seq: row.get(1)?,
                    acked_seq: row.get(2)?,
                })
            })
            .optional()
            .context(context)
    }

    /// All main cursors of a peer: domain, direction, where it stands.
    pub fn sync_states(
        &self,
        peer: &PeerId,
    ) -> Result<Vec<(String, Direction, SyncStateRow)>, StoreError> {
        let context = "listing sync_state";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT epoch, last_seq, acked_seq, domain, direction FROM sync_state
                 WHERE peer_id = ?1 AND scope = x'' ORDER BY domain, direction",
            )
            .context(context)?;
        let rows = statement
            .query_map([peer.as_bytes()], |row| {
                let state = SyncStateRow {
                    epoch: Epoch::from_bytes(fixed(row, 0)?),
                    last_seq: row.get(1)?,
                    acked_seq: row.get(2)?,
                };
                let direction = if row.get::<_, String>(4)? == "in" {
                    Direction::In
                } else {
                    Direction::Out
                };
                Ok((row.get(3)?, direction, state))
            })
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

impl WriteTx<'_> {
    /// Moves a cursor.
    pub fn put_sync_state(
        &self,
        cursor: Cursor<'_>,
        state: &SyncStateRow,
    ) -> Result<(), StoreError> {
        let context = "moving a cursor";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO sync_state (peer_id, domain, direction, scope, epoch, last_seq, acked_seq)
                 VALUES (?1, ?2, ?3, x'', ?4, ?5, ?6)",
            )
            .context(context)?;
        statement
            .execute((
                cursor.peer.as_bytes(),
                cursor.domain,
                cursor.direction.as_str(),
                state.epoch.as_bytes(),
                state.last_seq,
                state.acked_seq,
            ))
            .context(context)?;
        Ok(())
    }
}

//! `sync_state`: where each peer stands in each domain, in both directions (docs/STORY.md 2.1 step 7, docs/DECISIONS.md 7).
//!
//! Never moves an inbound cursor outside the transaction that applies the rows. Invariant: a cursor counts in one
//! epoch, and a cursor of another epoch means nothing (zero).

use keys::{Epoch, Oid, PeerId};
use rusqlite::OptionalExtension as _;

use super::{Doing as _, Rows, StoreError, WriteTx, fixed};

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

/// What a cursor is for. Without a scope it is the domain's main cursor.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    /// The other node.
    pub peer: &'a PeerId,
    /// The domain.
    pub domain: &'a str,
    /// Which way.
    pub direction: Direction,
    /// A scope that is caught up on beside the main cursor.
    pub scope: Option<&'a Oid>,
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

impl Cursor<'_> {
    fn scope_bytes(&self) -> &[u8] {
        self.scope.map_or(&[], |oid| oid.as_bytes())
    }
}

impl Rows<'_> {
    /// Where a cursor stands, if it was ever moved.
    pub fn sync_state(&self, cursor: Cursor<'_>) -> Result<Option<SyncStateRow>, StoreError> {
        let doing = "reading sync_state";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT epoch, last_seq, acked_seq FROM sync_state
                 WHERE peer_id = ?1 AND domain = ?2 AND direction = ?3 AND scope = ?4",
            )
            .doing(doing)?;
        let key = (
            cursor.peer.as_bytes(),
            cursor.domain,
            cursor.direction.as_str(),
            cursor.scope_bytes(),
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
            .doing(doing)
    }

    /// All main cursors of a peer: domain, direction, where it stands.
    pub fn sync_states(
        &self,
        peer: &PeerId,
    ) -> Result<Vec<(String, Direction, SyncStateRow)>, StoreError> {
        let doing = "listing sync_state";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT epoch, last_seq, acked_seq, domain, direction FROM sync_state
                 WHERE peer_id = ?1 AND scope = x'' ORDER BY domain, direction",
            )
            .doing(doing)?;
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
            .doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }
}

impl WriteTx<'_> {
    /// Moves a cursor.
    pub fn put_sync_state(
        &self,
        cursor: Cursor<'_>,
        state: &SyncStateRow,
    ) -> Result<(), StoreError> {
        let doing = "moving a cursor";
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO sync_state (peer_id, domain, direction, scope, epoch, last_seq, acked_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .doing(doing)?;
        statement
            .execute((
                cursor.peer.as_bytes(),
                cursor.domain,
                cursor.direction.as_str(),
                cursor.scope_bytes(),
                state.epoch.as_bytes(),
                state.last_seq,
                state.acked_seq,
            ))
            .doing(doing)?;
        Ok(())
    }
}

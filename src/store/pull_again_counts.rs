//! The number of scopes and domains that are pulled again from a peer, for the operator.

use keys::PeerId;
use rusqlite::Row;

use super::error::StoreError;
use super::pull_again_state::FINISHED;
use super::rows::Rows;

/// The numbers of scopes and domains of one peer that are pulled again, by their causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullAgainCounts {
    /// [`super::PullAgainCause::NoRoom`].
    pub no_room: u64,
    /// [`super::PullAgainCause::Expired`].
    pub expired: u64,
    /// [`super::PullAgainCause::Named`] and [`super::PullAgainCause::Overruled`].
    pub named: u64,
}

impl Rows<'_> {
    /// The numbers of unfinished rows of a peer in all domains, for the operator.
    pub fn pull_again_counts(&self, peer: &PeerId) -> Result<PullAgainCounts, StoreError> {
        let mut statement = self.prepare(
            "counting what is to be pulled again",
            "SELECT COALESCE(SUM(cause = 'no_room'), 0), COALESCE(SUM(cause = 'expired'), 0),
               COALESCE(SUM(cause IN ('named', 'overruled')), 0)
             FROM pull_again
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1) AND cursor != ?2",
        )?;
        let counts = |row: &Row<'_>| {
            Ok(PullAgainCounts {
                no_room: row.get(0)?,
                expired: row.get(1)?,
                named: row.get(2)?,
            })
        };
        statement.one((peer.as_bytes(), FINISHED), counts)
    }
}

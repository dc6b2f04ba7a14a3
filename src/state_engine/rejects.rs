//! Rejects of one package, collected in memory and written in bulk.
//!
//! The rows that stay are few, and each counts as one stored object of the sender. Rejects of
//! relayed objects name no peer and count for none, so that no author uses up what is kept of an
//! honest relay. Invariant: a
//! package adds at most [`ROWS_MAX`] rows for each peer, and no reject makes a package fail. Tested
//! in `tests/core/parts.rs`.

use std::collections::{BTreeMap, VecDeque};

use keys::PeerId;

use super::quota::QuotaLedger;
use crate::store::{RejectRow, StoreError, Usage, WriteTx};

/// Most rejects of one peer that a package stores: the newest, which are enough for a diagnosis.
const ROWS_MAX: usize = 64;

/// Rejects that are not written yet.
#[derive(Debug, Default)]
pub(super) struct RejectLog(BTreeMap<Option<PeerId>, PeerRejects>);

#[derive(Debug, Default)]
struct PeerRejects {
    /// Number of rejects, those without a row included.
    count: u64,
    /// The newest.
    rows: VecDeque<RejectRow>,
}

impl RejectLog {
    /// Adds a reject, and drops the peer's oldest one beyond [`ROWS_MAX`].
    pub(super) fn add(&mut self, row: RejectRow) {
        let of_peer = self.0.entry(row.peer).or_default();
        of_peer.count += 1;
        if of_peer.rows.len() == ROWS_MAX {
            of_peer.rows.pop_front();
        }
        of_peer.rows.push_back(row);
    }

    /// Writes the rows, of each peer and of relayed objects at most `kept_max` in all. Counts those
    /// of a peer as stored objects. A peer without room in its quota gets no further rows.
    pub(super) fn write(
        &mut self,
        tx: &WriteTx<'_>,
        quotas: &mut QuotaLedger,
        kept_max: u64,
    ) -> Result<(), StoreError> {
        for (peer, PeerRejects { count, rows }) in std::mem::take(&mut self.0) {
            let rows = Vec::from(rows);
            let Some(peer) = peer else {
                tracing::info!(count, "refused relayed objects: see `postern rejects`");
                tx.put_rejects(None, &rows, kept_max)?;
                continue;
            };
            tracing::info!(peer = %peer, count, "refused objects: see `postern rejects`");
            let stored = tx.reject_count(Some(&peer))?;
            let after = (stored + rows.len() as u64).min(kept_max);
            let added = Usage {
                objects: after as i64 - stored as i64,
                bytes: 0,
            };
            if quotas.count_if_it_fits(tx, &peer, &added)? {
                tx.put_rejects(Some(&peer), &rows, kept_max)?;
            }
        }
        Ok(())
    }
}

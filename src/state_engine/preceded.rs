//! Waiting versions of deleted objects: a tombstone deletes those that it precedes, because nothing
//! may release them for long.
//!
//! Invariant: the sender of a deleted one is no longer charged for it. Tested in
//! `tests/core/waiting.rs`.

use crate::graph::GraphManager;
use crate::store::{StoreError, Usage};

/// Most waiting versions that one transaction compares with its tombstones. Each may be as long as
/// an object may be. The others lose when they are judged.
const COMPARED_MAX: usize = 64;

/// Deletes the waiting versions that the tombstones of this transaction precede. Called at its end,
/// after it has charged what it stored.
pub(super) fn drop_preceded(graph: &mut GraphManager<'_>) -> Result<(), StoreError> {
    let (tx, mut left) = (graph.tx(), COMPARED_MAX);
    for tombstone in graph.take_tombstones() {
        let versions = tx.waiting_of(&tombstone.oid(), tombstone.key_id(), left)?;
        left -= versions.len();
        for id in versions {
            let Some(waiting) = tx.waiting(id)? else {
                continue;
            };
            if !tombstone.precedes(&waiting.object, graph.limits()) {
                continue;
            }
            tx.remove_waiting(id)?;
            if !waiting.is_reclaimed {
                let usage = -Usage::one(waiting.object.bytes().len());
                tx.add_usage(&waiting.peer, waiting.account, &usage)?;
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

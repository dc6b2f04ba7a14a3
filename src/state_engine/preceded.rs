//! Waiting versions of deleted objects: a tombstone deletes those that it precedes, because nothing
//! may release them for long.
//!
//! Invariant: the sender of a deleted one is no longer charged for it. Tested in
//! `tests/core/waiting.rs`.

use crate::graph::{GraphManager, decode_object};
use crate::store::{StoreError, Usage};

/// Most waiting versions of one object that its tombstone deletes, because each must be decoded.
/// The others lose when they are judged.
const PRECEDED_MAX: usize = 64;

/// Deletes the waiting versions that the tombstones of this transaction precede. Called at its end,
/// after it has charged what it stored.
pub(super) fn drop_preceded(graph: &mut GraphManager<'_>) -> Result<(), StoreError> {
    for tombstone in graph.take_tombstones() {
        let tx = graph.tx();
        for id in tx.waiting_of(&tombstone.oid(), PRECEDED_MAX)? {
            let Some(waiting) = tx.waiting(id)? else {
                continue;
            };
            let usage = -Usage::one(waiting.object.bytes().len());
            let Ok(object) = decode_object(waiting.object, graph.limits()) else {
                continue;
            };
            let app = tx.apps().get(object.app());
            let is_same_app = app.is_some_and(|app| app.id == tombstone.app());
            if !is_same_app || !object.loses_to(&tombstone) {
                continue;
            }
            tx.remove_waiting(id)?;
            if !waiting.is_reclaimed {
                tx.add_usage(&waiting.peer, &usage)?;
            }
        }
    }
    Ok(())
}

//! Table `sync_outbox`: domains of which a configured peer has to be pushed something
//! (docs/STORY.md 5).
//!
//! A row only wakes the push, which is built from the acknowledged number. Invariant: without a
//! configured peer a write costs one branch.

use std::collections::BTreeMap;

use keys::PeerId;
use parking_lot::RwLock;

use crate::graph::GraphManager;
use crate::op_context::AppId;
use crate::store::StoreError;

/// The configured peers that are known, each with the apps and domains of which it is pushed every
/// change.
pub(super) type OutboxPlan = RwLock<BTreeMap<PeerId, Vec<(AppId, String)>>>;

/// Notes for which planned peers a write changed something, in the transaction of the write. No
/// peer is planned yet.
pub(super) fn note_outbox(_graph: &GraphManager<'_>, plan: &OutboxPlan) -> Result<(), StoreError> {
    if plan.read().is_empty() {
        return Ok(());
    }
    Ok(())
}

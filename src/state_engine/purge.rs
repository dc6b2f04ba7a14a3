//! Purges in portions, between other writes (docs/DECISIONS.md 10).

use keys::TraceId;

use super::engine::StateEngine;
use crate::op_context::Timestamp;
use crate::store::StoreError;

impl StateEngine {
    /// Does one portion of the purges that were ordered. Returns `false` if there was none. A purge
    /// waits while the node recovers, because peers may return objects of this node until then.
    pub(super) fn purge_step(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.write_mode.is_some() || !self.store.rows().is_purge_due(now)? {
            return Ok(false);
        }
        self.trace = TraceId(0);
        self.store.check_references(false)?;
        let done = self.write(now, |graph| graph.purge_some());
        self.store.check_references(true)?;
        done
    }
}

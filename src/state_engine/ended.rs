//! Dropping the values of ended scopes, in portions.

use super::engine::StateEngine;
use crate::op_context::Timestamp;
use crate::store::StoreError;

/// Objects whose values one transaction drops. Other writes run between two transactions.
const OBJECTS_PER_STEP: usize = 256;

impl StateEngine {
    /// Drops the values of some objects whose scope ended. Returns whether more steps may be
    /// needed.
    pub fn drop_ended_step(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.view().rows.ended_scope()?.is_none() {
            return Ok(false);
        }
        self.write(now, |graph| graph.drop_ended(OBJECTS_PER_STEP))
    }
}

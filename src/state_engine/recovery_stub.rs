//! STUB, to be replaced when this branch is merged: mints the epoch and notes nothing else.
//!
//! Never in a release. Invariant: `begin_recovery` has the signature of what takes its place.

use keys::Epoch;

use super::StateEngine;
use crate::op_context::Timestamp;
use crate::store::StoreError;

/// Why own data may be older than what peers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryReason {
    /// The database comes out of a backup.
    Restored,
}

impl StateEngine {
    /// STUB: a new epoch. Drop the core and open it again afterwards.
    pub fn begin_recovery(&mut self, _reason: RecoveryReason, _now: Timestamp) -> Result<(), StoreError> {
        let mut epoch = [0; 16];
        self.rng.fill_bytes(&mut epoch);
        self.store.transaction(|tx| tx.stub_put_epoch(Epoch::from_bytes(epoch)))
    }
}

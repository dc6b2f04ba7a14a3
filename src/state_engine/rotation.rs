//! Completing key rotations in the database: records with the new keys, and re-signed objects
//! (docs/DECISIONS.md 5).
//!
//! The vault changes first, so that no key signs that could be lost. The work here resumes from any
//! point. Invariant: after [`StateEngine::resume_rotations`] every local object is signed with the
//! vault's current key. Tested in `tests/net/rotation.rs` and `tests/system/crash.rs`.

use keys::crash::crash_point;
use keys::{Oid, error_chain};

use super::engine::StateEngine;
use crate::graph::{GraphManager, SaveError};
use crate::op_context::Timestamp;
use crate::store::{StoreError, WriteMode};

/// Objects that one transaction re-signs. Other writes run between two transactions.
const OBJECTS_PER_STEP: usize = 128;

impl StateEngine {
    /// Completes rotations that are in the vault but not in the database: made offline, or
    /// interrupted. Does nothing unless the write mode permits changes.
    pub fn resume_rotations(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.write_mode_at(now) != WriteMode::ReadWrite {
            return Ok(());
        }
        for identity in self.context.keys.identities() {
            let done = loop {
                match self.rotation_step(now, identity) {
                    Ok(true) => self.bound_log()?,
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match done {
                Ok(()) => {}
                Err(SaveError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(
                        identity = identity.short(),
                        error = %error_chain(&error),
                        "could not complete a key rotation; the next start tries again"
                    );
                }
            }
        }
        Ok(())
    }

    /// One step for one identity: writes its record, or re-signs some of its objects. Returns
    /// whether more steps are needed.
    pub fn rotation_step(&mut self, now: Timestamp, identity: Oid) -> Result<bool, SaveError> {
        let more = self.write(now, |graph| rotate_some(graph, identity));
        crash_point("rotation: a step settled");
        more
    }
}

/// One step of a rotation within a transaction, as [`StateEngine::rotation_step`].
pub(super) fn rotate_some(graph: &mut GraphManager<'_>, identity: Oid) -> Result<bool, SaveError> {
    // An identity that moves to another node is signed for there.
    if graph.keys().identity_chain(identity).is_none() {
        return Ok(false);
    }
    let Some(profile) = graph.profile(&identity)? else {
        return Ok(false);
    };
    if !graph.is_record_current(&identity)? {
        graph.save_profile(identity, &profile)?;
        return Ok(true);
    }
    Ok(graph.is_local(&identity)? && graph.resign_some(&identity, OBJECTS_PER_STEP)? > 0)
}

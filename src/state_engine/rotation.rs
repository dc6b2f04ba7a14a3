//! Making a rotation good in the database: records of the new keys, live objects signed again (docs/DECISIONS.md 5).
//!
//! The vault is changed first, so that no key is used that could be lost; what is here can be done again from any point.
//! Never changes what an object says. Invariant: when [`StateEngine::settle_keys`] is done, nothing that lives here is
//! signed with an earlier key than the vault's.

use keys::Oid;
use keys::crash::crash_point;

use super::engine::StateEngine;
use crate::graph::SaveError;
use crate::op_context::Timestamp;
use crate::store::{StoreError, WriteMode};

/// Objects that are signed again in one transaction: others write in between.
const AT_ONCE: usize = 256;

impl StateEngine {
    /// Brings the database behind the vault where a rotation was not made good yet: offline, or when the node was killed in
    /// the middle. Waits where changes wait.
    pub fn settle_keys(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.write_mode_at(now) != WriteMode::ReadWrite {
            return Ok(());
        }
        for identity in self.context.keys.identities() {
            let settled = loop {
                match self.settle_identity(now, identity) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match settled {
                Ok(()) => {}
                Err(SaveError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(identity = %identity, %error, "could not make a rotated key known; the next start tries again");
                }
            }
        }
        Ok(())
    }

    /// One step for one identity: its record, or some of its objects. Says whether more is to be done.
    pub fn settle_identity(&mut self, now: Timestamp, identity: Oid) -> Result<bool, SaveError> {
        let more = self.write(now, |graph| {
            let Some(profile) = graph.profile(&identity)? else {
                return Ok(false);
            };
            if !graph.is_record_current(&identity)? {
                graph.save_profile(identity, &profile)?;
                return Ok(true);
            }
            Ok(graph.resign_all(&identity, AT_ONCE)? == AT_ONCE)
        });
        crash_point("rotation: a step settled");
        more
    }
}

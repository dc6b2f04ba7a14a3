//! Rotating a key of the running node: first in the vault, then in what others see (DESIGN 5).
//!
//! Never goes on with an old key once the vault holds the new one. Invariant: whatever ends this in the middle, the next
//! start makes the rotation good (`StateEngine::settle_keys`).

use keys::vault::VaultError;
use keys::{Oid, UnknownIdentity};

use super::control::{NodeControl, refusal};
use super::{DataDir, SystemClock};
use crate::api::{ControlError, Whose};
use crate::engine::{Clock as _, EngineError};
use crate::graph::SaveError;
use crate::store::{Standing, StoreError, standing_of};

/// Whether the keys of a node that is stopped may be rotated: not while it waits for its peers after a restore, which may
/// know of a rotation that the backup does not have.
///
/// # Errors
/// [`SaveError::Recovering`], [`SaveError::ReadOnly`], or a database that cannot be read.
pub fn check_may_rotate(data: &DataDir) -> Result<(), SaveError> {
    let standing = standing_of(&data.database())?.filter(|row| row.until.is_none_or(|until| until > SystemClock.now()));
    match standing.map(|row| row.standing) {
        None | Some(Standing::Open) => Ok(()),
        Some(Standing::Recovering) => Err(SaveError::Recovering),
        Some(Standing::ReadOnly) => Err(SaveError::ReadOnly),
    }
}

impl NodeControl {
    /// Rotates, and returns when everything is signed with the new key.
    pub(super) async fn rotate_key(&self, whose: Whose) -> Result<u32, ControlError> {
        let engine = self.peers.engine();
        let standing = engine
            .write(|core, now| Ok::<_, StoreError>(core.standing_at(now)))
            .await;
        match standing.map_err(|error| refusal("internal", &error.to_string()))? {
            Standing::Open => {}
            Standing::Recovering => return Err(refusal("recovering", &SaveError::Recovering.to_string())),
            Standing::ReadOnly => return Err(refusal("read_only", &SaveError::ReadOnly.to_string())),
        }
        let holder = match whose {
            Whose::Node => self.keys.server_oid(),
            Whose::Identity(identity) => identity,
        };
        let (keys, max) = (self.keys.clone(), engine.ground().limits.graph.key_events_max);
        let rotated = tokio::task::spawn_blocking(move || {
            keys.rotate(holder, max, &mut rand::rng())?;
            Ok(keys.key_id(holder)?)
        });
        let rotated = rotated
            .await
            .map_err(|_| refusal("internal", "the vault was not written"))?;
        let key_id = rotated.map_err(|error: VaultError| vault_refusal(&error))?;
        match whose {
            Whose::Node => self.settle_node().await?,
            Whose::Identity(identity) => self.settle(identity).await?,
        }
        tracing::info!(identity = %holder, key_id, "a key was rotated");
        Ok(key_id)
    }

    async fn settle_node(&self) -> Result<(), ControlError> {
        let settled = self.peers.engine().write(|core, now| core.settle_node(now)).await;
        settled.map_err(|error: EngineError<StoreError>| refusal("internal", &error.to_string()))?;
        for identity in self.keys.identities() {
            self.settle(identity).await?;
        }
        // Peers take packages under the key that a handshake showed them: the next one shows the new chain.
        self.peers.end_all("rotated");
        Ok(())
    }

    /// Some objects at a time: what others write goes on in between.
    async fn settle(&self, identity: Oid) -> Result<(), ControlError> {
        loop {
            let step = self
                .peers
                .engine()
                .write(move |core, now| core.settle_identity(now, identity));
            match step.await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(refusal("internal", &error.to_string())),
            }
        }
    }
}

fn vault_refusal(error: &VaultError) -> ControlError {
    match error {
        VaultError::UnknownIdentity(UnknownIdentity(_)) => refusal("unknown_identity", &error.to_string()),
        VaultError::NextKeyOffline => refusal(
            "next_key_offline",
            "the next key is in a recovery file: stop the node, then `postern keys rotate --recovery-file FILE`",
        ),
        VaultError::ChainFull(_) => refusal("chain_full", &error.to_string()),
        error => refusal("internal", &format!("the vault was not written: {error}")),
    }
}

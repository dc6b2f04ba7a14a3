//! New keys of the running node, and rotated ones: first in the vault, then in what others see (docs/DECISIONS.md 5).
//!
//! Never goes on with an old key once the vault holds the new one. Invariant: whatever ends this in the middle, the next
//! start makes the rotation good (`StateEngine::settle_keys`).

use std::sync::Arc;

use keys::vault::VaultError;
use keys::{KeyManager, Oid, UnknownIdentity, error_chain};

use crate::api::{ControlError, Whose};
use crate::clock::SystemClock;
use crate::data_dir::DataDir;
use crate::engine::{Clock as _, EngineError};
use crate::graph::SaveError;
use crate::peer::Peers;
use crate::services::identities;
use crate::store::{Standing, StoreError, standing_of};

/// Whether the keys of a node that is stopped may be rotated: not while it waits for its peers after a restore, which may
/// know of a rotation that the backup does not have.
///
/// # Errors
/// [`SaveError::Recovering`], [`SaveError::ReadOnly`], or a database that cannot be read.
pub fn check_may_rotate(data: &DataDir) -> Result<(), SaveError> {
    let row = standing_of(&data.database())?;
    match Standing::of(row.as_ref(), SystemClock.now()) {
        Standing::Open => Ok(()),
        Standing::Recovering => Err(SaveError::Recovering),
        Standing::ReadOnly => Err(SaveError::ReadOnly),
    }
}

/// What changes the vault of a running node. Cheap to clone: each piece of work runs in a task of its own, to its end, whoever
/// asked for it has gone meanwhile.
#[derive(Clone)]
pub(super) struct Keyring {
    pub(super) peers: Peers,
    pub(super) keys: Arc<KeyManager>,
}

impl Keyring {
    /// A new identity: in the vault, then in the graph.
    pub(super) async fn add(&self, name: Option<String>) -> Result<Oid, ControlError> {
        let this = self.clone();
        spawn_detached(async move { this.add_identity(name).await }).await
    }

    /// Rotates, and returns when everything is signed with the new key.
    pub(super) async fn rotate(&self, owner: KeyOwner) -> Result<u32, ControlError> {
        let this = self.clone();
        spawn_detached(async move { this.rotate_key(owner).await }).await
    }

    /// Refused before the vault is touched: what is there stays there.
    async fn check_may_write(&self, is_change: bool) -> Result<(), ControlError> {
        let now = self.peers.engine().now();
        let looking = self.peers.engine().read(move |view| view.standing_at(now));
        match looking.await.map_err(internal)? {
            Standing::ReadOnly => Err(ControlError::ReadOnly(SaveError::ReadOnly.to_string())),
            Standing::Recovering if is_change => {
                Err(ControlError::Recovering(SaveError::Recovering.to_string()))
            }
            Standing::Recovering | Standing::Open => Ok(()),
        }
    }

    async fn add_identity(&self, name: Option<String>) -> Result<Oid, ControlError> {
        self.check_may_write(false).await?;
        let schemas = &self.peers.engine().ground().schemas;
        if let Some(name) = &name
            && let Err(error) = identities::check_name(schemas, name)
        {
            return Err(ControlError::Schema(error.to_string()));
        }
        let keys = self.keys.clone();
        let identity = in_vault(move || keys.add_identity(&mut rand::rng())).await?;
        let write = self.peers.engine().write(move |core, now| {
            core.write(now, |graph| {
                identities::publish(graph, identity, name.as_deref())
            })
        });
        match write.await {
            Ok(_) => Ok(identity),
            Err(EngineError::Work(error @ SaveError::Schema(_))) => {
                Err(ControlError::Schema(error.to_string()))
            }
            Err(error) => Err(internal(error)),
        }
    }

    async fn rotate_key(&self, owner: KeyOwner) -> Result<u32, ControlError> {
        self.check_may_write(true).await?;
        let holder = match owner {
            KeyOwner::Node => self.keys.server_oid(),
            KeyOwner::Identity(identity) => identity,
        };
        let limits = &self.peers.engine().ground().limits;
        let (keys, max) = (self.keys.clone(), limits.graph.key_events_max);
        let key_id = in_vault(move || {
            keys.rotate(holder, max, &mut rand::rng())?;
            Ok(keys.key_id(holder)?)
        });
        let key_id = key_id.await?;
        tracing::info!(identity = %holder, key_id, "a key was rotated");
        match owner {
            KeyOwner::Node => self.resume_node_rotation().await?,
            KeyOwner::Identity(identity) => self.resume_rotation(identity).await?,
        }
        Ok(key_id)
    }

    async fn resume_node_rotation(&self) -> Result<(), ControlError> {
        let settled = self
            .peers
            .engine()
            .write(|core, now| core.settle_node(now))
            .await;
        // Peers take packages under the key that a handshake showed them: the next one shows the new chain.
        self.peers.end_all("rotated");
        settled.map_err(|error: EngineError<StoreError>| rotation_incomplete(&error))?;
        for identity in self.keys.identities() {
            self.resume_rotation(identity).await?;
        }
        Ok(())
    }

    /// Some objects at a time: what others write goes on in between.
    async fn resume_rotation(&self, identity: Oid) -> Result<(), ControlError> {
        loop {
            let step = self
                .peers
                .engine()
                .write(move |core, now| core.settle_identity(now, identity));
            match step.await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(rotation_incomplete(&error)),
            }
        }
    }
}

/// Runs to its end even where nobody waits for the answer any more.
async fn spawn_detached<R: Send + 'static>(
    work: impl Future<Output = Result<R, ControlError>> + Send + 'static,
) -> Result<R, ControlError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(ControlError::panicked()))
}

/// Changes the vault on a thread that may wait for the disk.
async fn in_vault<R: Send + 'static>(
    change: impl FnOnce() -> Result<R, VaultError> + Send + 'static,
) -> Result<R, ControlError> {
    match tokio::task::spawn_blocking(change).await {
        Ok(changed) => changed.map_err(|error| vault_error(&error)),
        Err(_) => Err(ControlError::panicked()),
    }
}

/// The vault holds the new key: the caller must not rotate once more because of this error.
fn rotation_incomplete(error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::RotationIncomplete(error_chain(error))
}

fn internal(error: impl std::error::Error + 'static) -> ControlError {
    ControlError::Internal(error_chain(&error))
}

fn vault_error(error: &VaultError) -> ControlError {
    match error {
        VaultError::UnknownIdentity(UnknownIdentity(_)) => {
            ControlError::UnknownIdentity(error.to_string())
        }
        VaultError::NextKeyOffline => ControlError::NextKeyOffline,
        VaultError::ChainFull(_) => ControlError::ChainFull(error.to_string()),
        error => {
            let cause = error_chain(error);
            ControlError::Internal(format!("the vault was not written: {cause}"))
        }
    }
}

//! New identities and key rotations of a running node (docs/DECISIONS.md 5).
//!
//! Each operation changes the vault first and the database after it. Once the vault holds the new
//! key, the old one signs nothing more. Invariant: an interrupted rotation is resumed by the next
//! start (`StateEngine::resume_rotations`). Tested in `tests/net/rotation.rs` and
//! `tests/system/crash.rs`.

use std::sync::Arc;

use keys::vault::VaultError;
use keys::{KeyManager, Oid, TraceId, UnknownIdentity, error_chain};
use tracing::{Instrument as _, Span};

use crate::api::{ControlError, KeyOwner, MoveError};
use crate::clock::SystemClock;
use crate::data_dir::DataDir;
use crate::engine::{Clock as _, CoreHandle, EngineError};
use crate::graph::SaveError;
use crate::peer::{EndCode, SyncService};
use crate::services::contacts::ContactError;
use crate::services::identities::{self, IdentityError};
use crate::store::{StoreError, WriteMode, write_mode_of};

/// Checks that the keys of a stopped node may be rotated. They may not while the node recovers
/// after a restore, because its peers may know of a rotation that the backup does not contain.
///
/// # Errors
/// [`SaveError::Recovering`], [`SaveError::ReadOnly`], or [`SaveError::Store`].
pub fn check_may_rotate(data: &DataDir) -> Result<(), SaveError> {
    let row = write_mode_of(&data.database())?;
    match WriteMode::of(row.as_ref(), SystemClock.now()) {
        WriteMode::ReadWrite => Ok(()),
        WriteMode::NewObjectsOnly => Err(SaveError::Recovering),
        WriteMode::ReadOnly => Err(SaveError::ReadOnly),
    }
}

/// The operations that change the vault of a running node. Each one runs in a task of its own, so
/// that it completes although its request was cancelled.
#[derive(Clone)]
pub(super) struct VaultOperations {
    /// Its writes carry the trace id of `span`.
    pub(super) core: CoreHandle,
    peers: SyncService,
    pub(super) keys: Arc<KeyManager>,
    pub(super) span: Span,
}

impl VaultOperations {
    /// Prepares one operation, with a trace id of its own.
    pub(super) fn new(peers: SyncService, keys: Arc<KeyManager>) -> Self {
        let trace = TraceId(rand::random());
        Self {
            core: peers.engine().traced(trace),
            peers,
            keys,
            span: tracing::info_span!("vault", %trace),
        }
    }

    /// Adds an identity to the vault, then to the graph.
    pub(super) async fn add(&self, name: Option<String>) -> Result<Oid, ControlError> {
        let this = self.clone();
        spawn_detached(async move { this.add_identity(name).await }.instrument(self.span.clone()))
            .await
    }

    /// Rotates a key; returns its new number once every object is re-signed.
    pub(super) async fn rotate(&self, owner: KeyOwner) -> Result<u32, ControlError> {
        let this = self.clone();
        spawn_detached(async move { this.rotate_key(owner).await }.instrument(self.span.clone()))
            .await
    }

    /// Checks the write mode before the vault is changed, because that cannot be undone.
    /// `is_change`: whether existing objects will be re-signed.
    pub(super) async fn check_may_write(&self, is_change: bool) -> Result<(), ControlError> {
        let now = self.core.now();
        let looking = self.core.read(move |view| view.write_mode_at(now));
        match looking.await.map_err(internal)? {
            WriteMode::ReadOnly => Err(ControlError::ReadOnly(SaveError::ReadOnly.to_string())),
            WriteMode::NewObjectsOnly if is_change => {
                Err(ControlError::Recovering(SaveError::Recovering.to_string()))
            }
            WriteMode::NewObjectsOnly | WriteMode::ReadWrite => Ok(()),
        }
    }

    async fn add_identity(&self, name: Option<String>) -> Result<Oid, ControlError> {
        self.check_may_write(false).await?;
        if let Some(name) = name.clone() {
            let check = self
                .core
                .read(move |view| identities::check_new_name(&view, &name));
            check.await.map_err(name_error)?;
        }
        let keys = self.keys.clone();
        let identity = in_vault(move || keys.add_identity(&mut rand::rng())).await?;
        let write = self
            .core
            .graph(move |graph| identities::publish(graph, identity, name.as_deref()));
        write.await.map_err(name_error)?;
        Ok(identity)
    }

    async fn rotate_key(&self, owner: KeyOwner) -> Result<u32, ControlError> {
        self.check_may_write(true).await?;
        let holder = match owner {
            KeyOwner::Node => self.keys.server_oid(),
            KeyOwner::Identity(identity) => identity,
        };
        self.check_no_later_key(holder).await?;
        let keys = self.keys.clone();
        let key_id = in_vault(move || {
            keys.rotate(holder, &mut rand::rng())?;
            Ok(keys.key_id(holder)?)
        });
        let key_id = key_id.await?;
        tracing::info!(identity = holder.short(), key_id, "a key was rotated");
        match owner {
            KeyOwner::Node => self.resume_node_rotation().await?,
            KeyOwner::Identity(identity) => self.resume_rotation(identity).await?,
        }
        Ok(key_id)
    }

    /// Checks that no later key of an identity is known from another node. A rotation would branch
    /// off from it.
    async fn check_no_later_key(&self, identity: Oid) -> Result<(), ControlError> {
        let keys = self.keys.clone();
        let reading = self.core.read(move |view| {
            let pending = view.rows.pending_home(&identity)?;
            let own = keys.key_id(identity).ok();
            Ok::<_, StoreError>(pending.is_some_and(|it| Some(it.key_id) > own))
        });
        match reading.await.map_err(internal)? {
            true => Err(MoveError::LaterKey.into()),
            false => Ok(()),
        }
    }
    async fn resume_node_rotation(&self) -> Result<(), ControlError> {
        let settled = self.core.write(|core, now| core.save_own_server(now)).await;
        // Peers verify packages with the key chain of the handshake. New sessions transfer the new
        // chain.
        self.peers.registry().end_all(EndCode::Rotated);
        settled.map_err(|error: EngineError<StoreError>| rotation_incomplete(&error))?;
        for identity in self.keys.identities() {
            self.resume_rotation(identity).await?;
        }
        Ok(())
    }

    /// Re-signs the objects of an identity, a batch in each write, so that other writes run in
    /// between.
    pub(super) async fn resume_rotation(&self, identity: Oid) -> Result<(), ControlError> {
        loop {
            let step = self
                .core
                .write(move |core, now| core.rotation_step(now, identity));
            match step.await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(rotation_incomplete(&error)),
            }
        }
    }
}

/// Runs `work` in a task of its own, so that it completes although the caller is dropped.
async fn spawn_detached<R: Send + 'static>(
    work: impl Future<Output = Result<R, ControlError>> + Send + 'static,
) -> Result<R, ControlError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(ControlError::panicked()))
}

/// Runs `change` on a blocking thread, because it syncs a file.
pub(super) async fn in_vault<R: Send + 'static>(
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

/// The error of a write that names an identity.
pub(super) fn name_error(error: EngineError<IdentityError>) -> ControlError {
    let EngineError::Work(IdentityError::Name(name)) = &error else {
        return internal(error);
    };
    let text = error_chain(name);
    match name {
        ContactError::NameTaken { .. } => ControlError::NameTaken(text),
        ContactError::Full => ControlError::AddressBookFull(text),
        ContactError::BadName(_) => ControlError::BadName(text),
        _ => internal(error),
    }
}

pub(super) fn internal(error: impl std::error::Error + 'static) -> ControlError {
    ControlError::Internal(error_chain(&error))
}

fn vault_error(error: &VaultError) -> ControlError {
    match error {
        VaultError::UnknownIdentity(UnknownIdentity(_)) => {
            ControlError::UnknownIdentity(error_chain(error))
        }
        VaultError::Moves(_) => MoveError::Moves(error_chain(error)).into(),
        VaultError::NextKeyOffline => ControlError::NextKeyOffline,
        VaultError::ChainFull => ControlError::ChainFull(error_chain(error)),
        error => {
            let cause = error_chain(error);
            ControlError::Internal(format!("the vault was not written: {cause}"))
        }
    }
}

//! The node's side of the API's [`Control`] trait: status, dials, manual syncs, keys, backups,
//! admission.
//!
//! No lock is held across an await. Tested in `tests/system/operating.rs`; `src/api/tests` uses
//! another implementation.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bastion::{Gate, HandshakeError, Progress, RefusalCode, TorStatus, TorWatch};
use futures::future::BoxFuture;
use keys::{KeyManager, MoveFileKey, Oid, OnionAddr, PeerId, error_chain};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::backup_job::BackupJob;
use super::event::NetworkState;
use super::moving::MoveJob;
use super::rotation::VaultOperations;
use crate::admission::ActivePolicy;
use crate::api::{
    AdmissionStatus, BackupRow, Control, ControlError, DialRow, Dialled, KeyOwner, MoveRow,
    NodeStatus, SessionEffect, SessionRow, SyncDirection, SyncReport,
};
use crate::config::{Config, Policy};
use crate::peer::dialler::{Dialler, PeerDialError};
use crate::peer::{EndCode, PullOutcome, PushOutcome, SyncError, SyncService};

/// The running node, as the API sees it.
pub(super) struct NodeControl {
    peers: SyncService,
    gate: Gate,
    keys: Arc<KeyManager>,
    policy: ActivePolicy,
    backups: BackupJob,
    moves: MoveJob,
    dialler: OnceLock<Dialler>,
    network: watch::Receiver<NetworkState>,
    /// The addresses of configured peers.
    configured: Vec<OnionAddr>,
    /// Reports the state of the onion service; none on loopback.
    tor: Mutex<Option<TorWatch>>,
}

impl NodeControl {
    pub(super) fn new(
        config: &Config,
        peers: SyncService,
        gate: Gate,
        keys: Arc<KeyManager>,
        policy: ActivePolicy,
        network: watch::Receiver<NetworkState>,
    ) -> Self {
        Self {
            backups: BackupJob::new(config.clone(), keys.clone()),
            moves: MoveJob::default(),
            peers,
            gate,
            keys,
            policy,
            dialler: OnceLock::new(),
            network,
            configured: config.peers.iter().map(|peer| peer.onion).collect(),
            tor: Mutex::new(None),
        }
    }

    /// Sets the source of the onion service's state.
    #[cfg_attr(
        not(feature = "tor"),
        allow(dead_code, reason = "there is no onion service")
    )]
    pub(super) fn watch_tor(&self, tor: TorWatch) {
        *self.tor.lock() = Some(tor);
    }

    /// Sets the dialler, once the network is joined.
    pub(super) fn set_dialler(&self, dialler: Dialler) {
        // Called once, by `run`, so the cell is empty.
        let _ = self.dialler.set(dialler);
    }

    fn vault(&self) -> VaultOperations {
        VaultOperations::new(self.peers.clone(), self.keys.clone())
    }

    /// Cancels a backup and a move, and waits for them and for the dialler's tasks.
    pub(super) async fn close(&self) {
        self.backups.close().await;
        self.moves.close().await;
        if let Some(dialler) = self.dialler.get() {
            dialler.close().await;
        }
    }

    fn tor_status(&self) -> Option<TorStatus> {
        let watch = self.tor.lock().clone();
        watch.map(|watch| watch())
    }

    async fn dial_once(&self, onion: OnionAddr) -> Result<Dialled, ControlError> {
        let dialler = self.dialler.get().ok_or(ControlError::NotReady)?;
        let reached = dialler.dial(&onion, &log_wait).await.map_err(|error| {
            if is_pending(&error) {
                dialler.keep_later(onion);
            }
            dial_error(&error)
        })?;
        dialler.keep(onion);
        Ok(Dialled {
            peer: reached.peer,
            effort: reached.effort,
            solving_ms: reached.solving.as_millis() as u64,
        })
    }

    async fn sync_now(
        &self,
        peer: PeerId,
        domain: String,
        direction: SyncDirection,
    ) -> Result<Vec<SyncReport>, ControlError> {
        let reports = match direction {
            SyncDirection::Pull => self
                .peers
                .pull(&peer, &domain)
                .await
                .map(|done| done.into_iter().map(pulled).collect()),
            SyncDirection::Push => self
                .peers
                .push(&peer, &domain)
                .await
                .map(|done| done.into_iter().map(pushed).collect()),
        };
        reports.map_err(|error| sync_error(&error))
    }
}

impl Control for NodeControl {
    fn status(&self) -> NodeStatus {
        let sessions = self
            .peers
            .registry()
            .sessions()
            .into_iter()
            .map(|session| SessionRow {
                peer_id: session.peer.to_hex(),
                domains: session.domains,
                we_dialled: session.we_dialled,
                tier: session.tier.as_str(),
            });
        NodeStatus {
            peer_id: self.keys.peer_id(),
            onion: self.keys.onion(),
            network: self.network.borrow().label(),
            gate: self.gate.status(),
            dialled_total: self
                .dialler
                .get()
                .map(Dialler::admitted_total)
                .unwrap_or_default(),
            tor: self.tor_status(),
            sessions: sessions.collect(),
            dials: self.dialler.get().map(dial_rows).unwrap_or_default(),
        }
    }

    fn dial(&self, onion: OnionAddr) -> BoxFuture<'_, Result<Dialled, ControlError>> {
        Box::pin(self.dial_once(onion))
    }

    fn sync(
        &self,
        peer: PeerId,
        domain: String,
        direction: SyncDirection,
    ) -> BoxFuture<'_, Result<Vec<SyncReport>, ControlError>> {
        Box::pin(self.sync_now(peer, domain, direction))
    }

    fn new_identity(&self, name: Option<String>) -> BoxFuture<'_, Result<Oid, ControlError>> {
        Box::pin(async move { self.vault().add(name).await })
    }

    fn rotate(&self, owner: KeyOwner) -> BoxFuture<'_, Result<u32, ControlError>> {
        Box::pin(async move { self.vault().rotate(owner).await })
    }

    fn start_backup(&self, path: PathBuf) -> Result<BackupRow, ControlError> {
        self.backups.start(path)
    }

    fn last_backup(&self) -> Option<BackupRow> {
        self.backups.last()
    }

    fn start_move(
        &self,
        identity: Oid,
        to: OnionAddr,
        path: PathBuf,
    ) -> Result<MoveRow, ControlError> {
        self.moves.leave(self.vault(), identity, to, path)
    }

    fn start_receive(&self, path: PathBuf, key: MoveFileKey) -> Result<MoveRow, ControlError> {
        self.moves.arrive(self.vault(), path, key)
    }

    fn last_move(&self) -> Option<MoveRow> {
        self.moves.last()
    }

    fn finish_move(&self, identity: Oid) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move { self.vault().finish_move(identity).await })
    }

    fn admission(&self) -> AdmissionStatus {
        AdmissionStatus {
            config: self.policy.get(),
            is_overridden: self.policy.is_overridden(),
        }
    }

    fn set_policy(&self, policy: Policy) {
        self.policy.set_policy(policy);
        tracing::info!(
            policy = policy.as_str(),
            "the operator changed the admission policy"
        );
    }

    fn apply_verdict(&self, peer: &PeerId, effect: SessionEffect) -> bool {
        self.gate.forget_replies(peer);
        match effect {
            SessionEffect::Trust => self.peers.registry().trust(peer),
            SessionEffect::Close => return self.peers.registry().end(peer, EndCode::Refused),
            SessionEffect::None => {}
        }
        false
    }

    fn is_configured(&self, onion: &OnionAddr) -> bool {
        self.configured.contains(onion)
    }

    fn stop_dialling(&self, onion: &OnionAddr) {
        if let Some(dialler) = self.dialler.get() {
            dialler.leave(onion);
        }
    }
}

/// Logs that a manual dial waits.
fn log_wait(progress: Progress) {
    if let Progress::Waiting(wait) = progress {
        tracing::info!(
            wait_s = wait.as_secs(),
            "the other node is busy; it will be dialled again"
        );
    }
}

/// Whether the other node's operator has to decide first.
fn is_pending(error: &PeerDialError) -> bool {
    matches!(
        error,
        PeerDialError::Handshake(HandshakeError::Refused {
            code: RefusalCode::Pending,
            ..
        })
    )
}

/// The dials under way, as the API shows them.
fn dial_rows(dialler: &Dialler) -> Vec<DialRow> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let row = |(onion, progress): (OnionAddr, Progress)| {
        let row = DialRow {
            onion: onion.to_onion_string(),
            step: "dialling",
            evaluations: 0,
            effort: 0,
            elapsed_ms: 0,
            expected_ms: None,
        };
        match progress {
            Progress::Dialling => row,
            Progress::Verifying => DialRow {
                step: "verifying",
                ..row
            },
            Progress::Waiting(wait) => DialRow {
                step: "waiting",
                expected_ms: Some(ms(wait)),
                ..row
            },
            Progress::Solving {
                evaluations,
                effort,
                elapsed,
                expected,
            } => DialRow {
                step: "solving",
                evaluations,
                effort,
                elapsed_ms: ms(elapsed),
                expected_ms: expected.map(ms),
                ..row
            },
        }
    };
    dialler.underway().into_iter().map(row).collect()
}

fn dial_error(error: &PeerDialError) -> ControlError {
    match error {
        error if is_pending(error) => ControlError::Pending,
        PeerDialError::Banned => ControlError::Banned,
        PeerDialError::Purging => ControlError::Purging,
        PeerDialError::ChainForked => ControlError::ChainForked,
        PeerDialError::Handshake(HandshakeError::Refused {
            code: RefusalCode::Signature,
            ..
        }) => ControlError::KeysRejected,
        PeerDialError::Handshake(HandshakeError::Refused { code, versions, .. }) => {
            ControlError::Refused(bastion::refusal_text(*code, versions))
        }
        PeerDialError::Handshake(error @ HandshakeError::Dial(_)) => {
            ControlError::Unreachable(error_chain(error))
        }
        PeerDialError::Handshake(error) => ControlError::Handshake(error_chain(error)),
        PeerDialError::Store(error) => ControlError::Internal(error_chain(error)),
        PeerDialError::Stopped => ControlError::Stopping,
    }
}

fn sync_error(error: &SyncError) -> ControlError {
    let text = error_chain(error);
    match error {
        _ if error.quota().is_some() => ControlError::Quota(text),
        SyncError::NoSession => ControlError::NoSession(text),
        SyncError::NotShared(_) => ControlError::NotShared(text),
        SyncError::Session(_) => ControlError::SessionFailed(text),
        SyncError::Refused(_) => ControlError::PeerRefused(text),
        SyncError::Package(_) => ControlError::BadPackage(text),
        SyncError::Apply(_) | SyncError::Engine(_) | SyncError::Build(_) => {
            ControlError::Internal(text)
        }
    }
}

fn pulled(outcome: PullOutcome) -> SyncReport {
    let done = outcome.applied;
    SyncReport {
        domain: outcome.domain,
        direction: SyncDirection::Pull,
        window: outcome
            .window
            .map(|window| (window.from_seq, window.to_seq)),
        objects: done.objects,
        written: done.written,
        already_stored: done.already_stored,
        waiting: done.waiting,
        rejected: done.rejected,
        last_seq: done.last_seq,
    }
}

fn pushed(outcome: PushOutcome) -> SyncReport {
    SyncReport {
        domain: outcome.domain,
        direction: SyncDirection::Push,
        window: outcome
            .window
            .map(|window| (window.from_seq, window.to_seq)),
        objects: outcome.objects,
        written: 0,
        already_stored: 0,
        waiting: 0,
        rejected: 0,
        last_seq: outcome.acked_seq,
    }
}

#[cfg(test)]
mod tests;

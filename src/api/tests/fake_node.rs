//! The operations of a node that a test of the API observes or sets.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bastion::{GateStatus, HandshakeCounts, TorStatus};
use futures::future::BoxFuture;
use keys::{MoveFileKey, Oid, OnionAddr, PeerId};
use parking_lot::Mutex;

use crate::api::{
    AdmissionStatus, BackupRow, Control, ControlError, Dialled, KeyOwner, MoveError, MoveRow,
    NodeStatus, SessionEffect, SessionRow, SyncDirection, SyncReport,
};
use crate::config::{AdmissionConfig, Policy};

/// All numbers differ, so that swapped fields fail a test.
const GATE: GateStatus = GateStatus {
    effort: 1,
    load_permille: 2,
    handshakes: HandshakeCounts {
        awaiting_hello: 3,
        challenged: 4,
        verifying: 5,
        untrusted_ticket: 6,
        trusted_ticket: 7,
    },
    queue: 8,
    verifying: 9,
    failures_per_minute: 10,
    admissions_per_minute: 11,
    cached_replies: 12,
    admitted_total: 13,
    by_ticket_total: 14,
    refused_total: 15,
    busy_total: 16,
};

/// A fake node: its sessions are set by tests, its dials succeed or never end.
pub(in crate::api) struct FakeNode {
    pub(super) peer: PeerId,
    pub(super) onion: OnionAddr,
    pub(super) identity: Oid,
    pub(super) sessions: Mutex<Vec<SessionRow>>,
    /// Peers with which a sync fails.
    pub(super) silent: Mutex<Vec<PeerId>>,
    pub(super) dials_hang: AtomicBool,
    pub(super) tor: Mutex<Option<TorStatus>>,
    pub(super) admission: Mutex<AdmissionStatus>,
    /// Verdicts that were applied.
    pub(super) applied: Mutex<Vec<(PeerId, SessionEffect)>>,
    /// Configured addresses.
    pub(super) configured: Mutex<Vec<OnionAddr>>,
    /// Addresses that are not dialled any more.
    pub(super) left: Mutex<Vec<OnionAddr>>,
    /// The running backup, once started.
    pub(super) backup: Mutex<Option<BackupRow>>,
}

impl Control for FakeNode {
    fn rotate(&self, _: KeyOwner) -> BoxFuture<'_, Result<u32, ControlError>> {
        Box::pin(async { Ok(1) })
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            peer_id: self.peer,
            onion: self.onion,
            network: "reachable".into(),
            gate: GATE,
            dialled_total: 17,
            tor: *self.tor.lock(),
            sessions: self.sessions.lock().clone(),
            dials: Vec::new(),
        }
    }

    fn dial(&self, _: OnionAddr) -> BoxFuture<'_, Result<Dialled, ControlError>> {
        Box::pin(async {
            if self.dials_hang.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let peer = PeerId::from_bytes([0xbb; 32]);
            Ok(Dialled {
                peer,
                effort: 1024,
                solving_ms: 700,
            })
        })
    }

    fn sync(
        &self,
        peer: PeerId,
        domain: String,
        direction: SyncDirection,
    ) -> BoxFuture<'_, Result<Vec<SyncReport>, ControlError>> {
        Box::pin(async move {
            if self.silent.lock().contains(&peer) {
                return Err(ControlError::NoSession("no session with this peer".into()));
            }
            Ok(vec![SyncReport {
                domain,
                direction,
                window: Some((0, 7)),
                objects: 3,
                written: 3,
                already_stored: 0,
                waiting: 0,
                rejected: 0,
                last_seq: 7,
            }])
        })
    }

    fn new_identity(&self, _: Option<String>) -> BoxFuture<'_, Result<Oid, ControlError>> {
        Box::pin(async { Ok(self.identity) })
    }

    fn start_backup(&self, path: PathBuf) -> Result<BackupRow, ControlError> {
        let mut last = self.backup.lock();
        if last.is_some() {
            return Err(ControlError::BackupUnderway);
        }
        let row = BackupRow {
            id: 1,
            path: path.display().to_string(),
            state: "running",
            step: "sealing",
            done_bytes: 3,
            total_bytes: 7,
            bytes: None,
            database_bytes: None,
            created: None,
            error: None,
        };
        *last = Some(row.clone());
        Ok(row)
    }

    fn last_backup(&self) -> Option<BackupRow> {
        self.backup.lock().clone()
    }

    fn start_move(&self, _: Oid, _: OnionAddr, _: PathBuf) -> Result<MoveRow, ControlError> {
        Err(MoveError::UnknownNode.into())
    }

    fn start_receive(&self, _: PathBuf, _: MoveFileKey) -> Result<MoveRow, ControlError> {
        Err(MoveError::Underway.into())
    }

    fn last_move(&self) -> Option<MoveRow> {
        None
    }

    fn finish_move(&self, _: Oid) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async { Ok(true) })
    }

    fn admission(&self) -> AdmissionStatus {
        self.admission.lock().clone()
    }

    fn set_policy(&self, policy: Policy) {
        let mut now = self.admission.lock();
        let config = AdmissionConfig {
            policy,
            ..(*now.config).clone()
        };
        *now = AdmissionStatus {
            config: config.into(),
            is_overridden: true,
        };
    }

    fn is_configured(&self, onion: &OnionAddr) -> bool {
        self.configured.lock().contains(onion)
    }

    fn stop_dialling(&self, onion: &OnionAddr) {
        self.left.lock().push(*onion);
    }

    fn apply_verdict(&self, peer: &PeerId, effect: SessionEffect) -> bool {
        self.applied.lock().push((*peer, effect));
        effect == SessionEffect::Close
            && self
                .sessions
                .lock()
                .iter()
                .any(|row| row.peer_id == peer.to_hex())
    }
}

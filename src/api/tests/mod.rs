//! Tests of the router, over a real database and a fake node.

mod access;
mod admission;
mod conversations;
mod invitations;
mod messages;
mod node;
mod objects;
mod people;
mod rejects;
mod removals;
mod rights;
mod serving;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bastion::{AppClaim, GateStatus, HandshakeCounts, Tier, TorStatus};
use futures::future::BoxFuture;
use keys::{ApiToken, KeyManager, Oid, OnionAddr, PeerId, SchemaDigest};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    AdmissionStatus, ApiState, BackupRow, Control, ControlError, Dialled, NodeStatus,
    SessionEffect, SessionRow, SyncDirection, SyncReport, router,
};
use crate::config::{AdmissionConfig, ApiConfig, Policy};
use crate::engine::{CoreHandle, TestClock};
use crate::graph::SaveError;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::services::identities;
use crate::state_engine::{ApplyPackageError, CoreLimits, StateEngine};
use crate::store::{PeerRow, StoreError};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOST: &str = "127.0.0.1:8470";

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
pub(super) struct FakeNode {
    peer: PeerId,
    onion: OnionAddr,
    identity: Oid,
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
    backup: Mutex<Option<BackupRow>>,
}

impl Control for FakeNode {
    fn rotate(&self, _: super::KeyOwner) -> BoxFuture<'_, Result<u32, ControlError>> {
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

/// A node with the local identities Alice and Carol, and with Bob of another node.
pub(super) struct ApiFixture {
    pub(super) engine: CoreHandle,
    pub(super) node: Arc<FakeNode>,
    pub(super) token: String,
    pub(super) config: ApiConfig,
    pub(super) stop: CancellationToken,
    pub(super) alice: Oid,
    pub(super) carol: Oid,
    pub(super) bob: Oid,
    pub(super) bobs_node: PeerId,
    _folder: tempfile::TempDir,
}

/// A reply of the API.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("")
    }

    pub(super) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or("")
    }

    /// The body of a successful reply.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{}",
            self.body
        );
        assert!(!self.message().is_empty());
        self
    }
}

/// Creates a core with keys from `seed` and an identity for each name.
fn core(
    folder: &std::path::Path,
    seed: u64,
    names: &[&str],
) -> (StateEngine, Arc<KeyManager>, Vec<Oid>) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let keys = Arc::new(KeyManager::generate(&mut rng));
    let oids: Vec<Oid> = names
        .iter()
        .map(|_| keys.add_identity(&mut rng).unwrap())
        .collect();
    let apps = ["identities", "contacts", "messages", "rides", "market"].map(str::to_owned);
    let schemas = Arc::new(Schemas::load(&apps, None).unwrap());
    let path = folder.join(format!("{seed}.db"));
    let mut core = StateEngine::open(
        &path,
        schemas,
        keys.clone(),
        CoreLimits::default(),
        Box::new(rng),
        NOW,
    )
    .unwrap();
    for (oid, name) in oids.iter().zip(names) {
        core.write(NOW, |graph| identities::publish(graph, *oid, Some(name)))
            .unwrap();
    }
    (core, keys, oids)
}

/// Stores a peer and its identities, as an admission does.
async fn meet(engine: &CoreHandle, other: &StateEngine, keys: &KeyManager) {
    let (chain, epoch) = (keys.node_chain(), other.context().epoch);
    let verified = chain.verify().unwrap();
    let (peer, onion) = (keys.peer_id(), keys.onion());
    engine
        .graph::<_, StoreError>(move |graph| {
            graph.save_server(&chain, &verified)?;
            graph.tx().put_peer(&PeerRow {
                peer_id: peer,
                server_oid: verified.oid(),
                peer_apps: ["identities", "messages"]
                    .map(|slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16])))
                    .to_vec(),
                peer_sync_domains: vec!["identities".into(), "messages".into()],
                domains: vec!["identities".into(), "messages".into()],
                onion,
                epoch,
                tier: Tier::Trusted,
                last_contact: graph.now(),
                relays: false,
            })
        })
        .await
        .unwrap();
    let claimed = identities::for_handshake(&other.view(), 8).unwrap();
    let checked = engine.verify_objects(claimed).await.unwrap();
    let apply = move |core: &mut StateEngine, now| core.apply_identities(now, peer, epoch, checked);
    engine.write::<_, ApplyPackageError>(apply).await.unwrap();
}

impl ApiFixture {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (core, keys, oids) = core(folder.path(), 1, &["Alice", "Carol"]);
        Self::over(
            CoreHandle::inline(core, Arc::new(TestClock::at(NOW.0))),
            &keys,
            &oids,
            folder,
        )
        .await
    }

    async fn over(
        engine: CoreHandle,
        keys: &KeyManager,
        oids: &[Oid],
        folder: tempfile::TempDir,
    ) -> Self {
        let (bobs_core, bobs_keys, bobs) = self::core(folder.path(), 2, &["Bob"]);
        meet(&engine, &bobs_core, &bobs_keys).await;
        let token = ApiToken::generate(&mut ChaCha20Rng::seed_from_u64(3));
        let hash = token.hash();
        engine
            .graph(move |graph| {
                Ok::<_, SaveError>(graph.tx().put_token(&hash, "operator", graph.now())?)
            })
            .await
            .unwrap();
        let node = Arc::new(FakeNode {
            peer: keys.peer_id(),
            onion: keys.onion(),
            identity: oids[1],
            sessions: Mutex::default(),
            silent: Mutex::default(),
            dials_hang: AtomicBool::new(false),
            tor: Mutex::new(None),
            admission: Mutex::new(AdmissionStatus {
                config: Arc::default(),
                is_overridden: false,
            }),
            applied: Mutex::default(),
            configured: Mutex::default(),
            left: Mutex::default(),
            backup: Mutex::default(),
        });
        Self {
            engine,
            node,
            token: token.to_text().to_string(),
            config: ApiConfig::default(),
            stop: CancellationToken::new(),
            alice: oids[0],
            carol: oids[1],
            bob: bobs[0],
            bobs_node: bobs_keys.peer_id(),
            _folder: folder,
        }
    }

    pub(super) fn state(&self) -> ApiState {
        ApiState::new(
            self.engine.clone(),
            self.node.clone(),
            self.config.clone(),
            self.stop.clone(),
        )
    }

    /// A request with a valid token and valid headers.
    pub(super) fn request(&self, method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", HOST)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap()
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Reply {
        self.ask_through(router(self.state()), request).await
    }

    /// Asks one of several clones of a router, which share their limits.
    pub(super) async fn ask_through(&self, router: Router, request: Request<Body>) -> Reply {
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        // Text that is not JSON becomes a string, which no test expects.
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Reply { status, body }
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(self.request("GET", path, "")).await
    }

    pub(super) async fn delete(&self, path: &str) -> Reply {
        self.ask(self.request("DELETE", path, "")).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Reply {
        self.ask(self.request("PUT", path, body.to_string())).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(self.request("POST", path, body.to_string())).await
    }

    pub(super) async fn send(&self, from: Oid, to: Oid, body: &str) -> Reply {
        let (from, to) = (from.to_hex(), to.to_hex());
        let message = serde_json::json!({
            "sender_identity_oid": from, "recipient_identity_oid": to, "body": body
        });
        self.post("/api/messages/send", message).await
    }
}

/// The elements of an array in a reply.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v Vec<Value> {
    value[field].as_array().unwrap()
}

//! Tests of the router, over a real database and a fake node.

mod access;
mod admission;
mod conversations;
mod fake_node;
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

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bastion::{AppClaim, Tier};
use keys::{ApiToken, KeyManager, Oid, PeerId, SchemaDigest};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::fake_node::FakeNode;
use super::{AdmissionStatus, ApiState, router};
use crate::config::ApiConfig;
use crate::engine::{CoreHandle, TestClock};
use crate::graph::SaveError;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::services::identities;
use crate::state_engine::{ApplyPackageError, CoreLimits, StateEngine};
use crate::store::{PeerRow, StoreError};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOST: &str = "127.0.0.1:8470";

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

//! Shared parts of the peer tests: a core over a temporary database, and messages.

use std::path::Path;
use std::sync::Arc;

use bastion::{Feature, Features, Tier};
use keys::{Context, Epoch, KeyManager, Oid, PeerId, SignedObject, TraceId};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio_util::sync::CancellationToken;

use super::handle::{SessionHandle, SessionInfo};
use super::message::{EpochNote, IdOnly, Pull, SessionMessage};
use super::outgoing::OutgoingFrames;
use crate::config::SyncConfig;
use crate::engine::{CoreHandle, TestClock, WriterThread};
use crate::graph::load_object;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::services::{identities, messages};
use crate::state_engine::{ApplyPackageError, CoreLimits, PullReply, PullRequest, StateEngine};
use crate::store::{EpochReason, PeerRow, StoreError, Verdict, VerdictRow};

pub(super) const NOW: u64 = 1_700_000_000_000;
/// The domain that the tests synchronise beside identities.
pub(super) const DOMAIN: &str = "messages";

/// A node's core with one identity, over a temporary database. Reads and writes run in the caller.
pub(crate) struct TestCore {
    pub(crate) core: CoreHandle,
    pub(super) keys: Arc<KeyManager>,
    pub(super) identity: Oid,
    pub(super) clock: TestClock,
    limits: CoreLimits,
    folder: tempfile::TempDir,
}

impl TestCore {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_limits(seed, CoreLimits::default())
    }

    pub(super) fn with_limits(seed: u64, limits: CoreLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        let clock = TestClock::at(NOW);
        let mut core = open(folder.path(), &keys, limits, rng);
        core.write(Timestamp(NOW), |graph| {
            identities::publish(graph, identity, Some("Test"))
        })
        .unwrap();
        Self {
            core: CoreHandle::inline(core, Arc::new(clock.clone())),
            keys,
            identity,
            clock,
            limits,
            folder,
        }
    }

    /// The same node after a restore: it has a new epoch and recovers.
    pub(super) fn restored(self) -> Self {
        let Self {
            core,
            keys,
            identity,
            clock,
            limits,
            folder,
        } = self;
        // The database is closed before it is opened again.
        drop(core);
        let open = |seed| {
            let rng = ChaCha20Rng::seed_from_u64(seed);
            open(folder.path(), &keys, limits, rng)
        };
        open(100)
            .start_recovery(EpochReason::Restored, Timestamp(NOW))
            .unwrap();
        Self {
            core: CoreHandle::inline(open(101), Arc::new(clock.clone())),
            keys: keys.clone(),
            identity,
            clock,
            limits,
            folder,
        }
    }

    /// The same node with a writer thread and one connection for reads. Join the thread after the
    /// node is dropped.
    pub(super) fn threaded(self) -> (Self, WriterThread) {
        // The database is closed before it is opened again.
        drop(self.core);
        let rng = ChaCha20Rng::seed_from_u64(102);
        let core = open(self.folder.path(), &self.keys, self.limits, rng);
        let clock = Arc::new(self.clock.clone());
        let (core, thread) = CoreHandle::spawn(core, clock, 8, 1).unwrap();
        (Self { core, ..self }, thread)
    }

    /// The same node after it had met `peer` and was restored.
    pub(super) async fn met_and_restored(self, peer: &Self) -> Self {
        self.meet(peer, Tier::Untrusted).await;
        self.restored()
    }

    pub(super) fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.core.context().epoch
    }

    /// Stores `other` as a peer with shared domains, and its identities, as an admission does.
    pub(super) async fn meet(&self, other: &Self, tier: Tier) {
        let (chain, epoch) = (other.keys.node_chain(), other.epoch());
        let verified = chain.verify().unwrap();
        let row = PeerRow {
            peer_id: other.peer_id(),
            server_oid: verified.oid(),
            peer_apps: Vec::new(),
            peer_sync_domains: vec!["identities".into(), DOMAIN.into()],
            domains: vec!["identities".into(), DOMAIN.into()],
            onion: other.keys.onion(),
            epoch,
            tier,
            last_contact: Timestamp(NOW),
            relays: false,
        };
        self.core
            .write(move |core, now| {
                core.write(now, |graph| {
                    graph.save_server(&chain, &verified)?;
                    graph.tx().put_peer(&row)?;
                    Ok::<_, ApplyPackageError>(())
                })
            })
            .await
            .unwrap();
        let identities = other
            .core
            .read(|view| identities::for_handshake(&view, 8))
            .await
            .unwrap();
        let (peer, checked) = (
            other.peer_id(),
            self.core.verify_objects(identities).await.unwrap(),
        );
        self.core
            .write(move |core, now| core.apply_identities(now, peer, epoch, checked))
            .await
            .unwrap();
    }

    /// Writes a message to an identity of another node.
    pub(super) async fn send_message(&self, to: &Self, body: &'static str) {
        let (sender, recipient) = (self.identity, to.identity);
        self.core
            .write(move |core, now| {
                core.write(now, |graph| messages::send(graph, sender, recipient, body))
            })
            .await
            .unwrap();
    }

    /// Writes a message to an identity of another node, and returns it as signed.
    pub(super) async fn message_object(&self, to: &Self, body: &'static str) -> SignedObject {
        let (sender, recipient) = (self.identity, to.identity);
        let sent = self
            .core
            .write(move |core, now| {
                core.write(now, |graph| messages::send(graph, sender, recipient, body))
            })
            .await
            .unwrap();
        let object = self.core.read(move |view| {
            let app = view.rows.apps().get(messages::APP).unwrap();
            let parent = view.rows.parent(app, &sent.oid)?.unwrap();
            load_object(&view.rows, app, &parent)
        });
        object.await.unwrap().1
    }

    /// The operator decides on a peer; the verdict ends at `until` in milliseconds.
    pub(super) async fn set_verdict(&self, peer: &Self, verdict: Verdict, until: Option<u64>) {
        let row = VerdictRow {
            peer_id: peer.peer_id(),
            verdict,
            reason: String::new(),
            at: Timestamp(0),
            until: until.map(Timestamp),
            tickets_void_until: 0,
        };
        self.core
            .graph::<_, StoreError>(move |graph| graph.tx().put_verdict(&row))
            .await
            .unwrap();
    }

    /// The package that replies to a pull by `to`; something must be new.
    pub(super) async fn package_for(
        &self,
        to: PeerId,
        features: Features,
        domain: &str,
        last_seq: u64,
    ) -> Vec<u8> {
        let request = PullRequest {
            peer: to,
            domain: domain.to_owned(),
            last_seq,
            epoch: Some(self.epoch()),
            again: None,
            features,
            whole_after: None,
        };
        let built = self.core.read(move |view| view.build_package(&request));
        match built.await.unwrap() {
            PullReply::Package { bytes, .. } => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Whether an identity is stored.
    pub(super) async fn knows(&self, identity: &Oid) -> bool {
        let identity = *identity;
        let row = self.core.read(move |view| view.rows.identity(&identity));
        row.await.unwrap().is_some()
    }

    /// The last sequence number.
    pub(super) async fn head(&self) -> u64 {
        self.core.read(|view| view.own_epoch()).await.unwrap().head
    }

    /// This node's signature of an epoch with a head.
    pub(super) fn signed_epoch(&self, id: u64, epoch: Epoch, head: u64) -> EpochNote {
        let parts: [&[u8]; 2] = [epoch.as_bytes(), &head.to_be_bytes()];
        let (key_id, signature) = self.keys.sign_as_node_numbered(Context::Epoch, &parts);
        EpochNote {
            id,
            head,
            epoch,
            key_id,
            signature,
        }
    }
}

fn open(
    folder: &Path,
    keys: &Arc<KeyManager>,
    limits: CoreLimits,
    rng: ChaCha20Rng,
) -> StateEngine {
    let apps = ["identities", "contacts", "messages"].map(str::to_owned);
    let schemas = Arc::new(Schemas::load(&apps, None).unwrap());
    StateEngine::open(
        &folder.join("test.db"),
        schemas,
        keys.clone(),
        limits,
        Box::new(rng),
        Timestamp(NOW),
    )
    .unwrap()
}

/// Intervals and limits in which nothing happens unless a test asks for it.
pub(crate) fn manual() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 0,
        push_interval_s: 0,
        pull_wait_s: 0,
        backoff_s_min: 4,
        backoff_s_max: 16,
        ..SyncConfig::default()
    }
}

pub(super) fn peer_id(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

pub(super) fn info(peer: PeerId, tier: Tier) -> SessionInfo {
    SessionInfo {
        start_seq: 0,
        peer,
        epoch: Epoch::from_bytes([1; 16]),
        features: Features::none(),
        tier,
        trace: TraceId(7),
    }
}

/// A session with an untrusted peer, in which watches may be used.
pub(super) fn watching_info(peer: PeerId) -> SessionInfo {
    SessionInfo {
        features: Features::from_iter([Feature::Watch]),
        ..info(peer, Tier::Untrusted)
    }
}

/// A handle without a running session, and the frames that it queues.
pub(super) fn handle(peer: PeerId, config: &SyncConfig) -> (Arc<SessionHandle>, OutgoingFrames) {
    let stop = CancellationToken::new();
    let (handle, frames) = SessionHandle::new(info(peer, Tier::Untrusted), config, &stop);
    (Arc::new(handle), frames)
}

pub(super) fn ping(id: u64) -> SessionMessage {
    SessionMessage::Ping(IdOnly { id })
}

pub(super) fn pong(id: u64) -> SessionMessage {
    SessionMessage::Pong(IdOnly { id })
}

/// A pull of a domain by `peer`.
pub(super) fn pull(id: u64, peer_id: PeerId, domain: &str, wait_s: u32) -> SessionMessage {
    SessionMessage::Pull(Pull {
        again: None,
        id,
        epoch: None,
        domain: domain.into(),
        wait_s,
        peer_id,
        last_seq: 0,
    })
}

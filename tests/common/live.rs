//! Nodes that live in one process and meet over memory pipes of 64 bytes: everything but Tor, the terminal and the API.
//!
//! Keys come from a seed and the clock is set by hand, so that a story reads the same at every telling.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; helpers may fail like the tests themselves"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bastion::transport::memory::MemoryNet;
use bastion::{Connector, Gate, GateConfig};
use keys::TraceId;
use keys::vault::VaultError;
use keys::{BootId, KeyManager, Oid, OnionAddr, PeerId};
use postern::admission::{ActivePolicy, NodeGatekeeper};
use postern::config::{AdmissionConfig, SyncConfig};
use postern::engine::{Clock, Engine};
use postern::graph::{Draft, SaveError, Saved};
use postern::object::Attrs;
use postern::op_context::{OpContext, Timestamp};
use postern::peer::dialler::Dialler;
use postern::peer::{Peers, PullOutcome};
use postern::schema::Schemas;
use postern::services::messages::{self, Sent};
use postern::state_engine::{CoreLimits, StateEngine, View};
use postern::store::{EpochReason, StoreError, WriteMode};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio_util::sync::CancellationToken;

/// All apps that a node can have.
pub const ALL_APPS: [&str; 5] = ["identities", "contacts", "messages", "rides", "market"];
/// Node B of the story has no market.
pub const WITHOUT_MARKET: [&str; 4] = ["identities", "contacts", "messages", "rides"];

/// A clock that only moves when told to.
#[derive(Clone)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub fn at(unix_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(unix_ms)))
    }

    pub fn advance_s(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    pub fn advance_days(&self, days: u64) {
        self.0
            .fetch_add(days * 24 * 60 * 60 * 1000, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

impl bastion::SecondsClock for HandClock {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1000
    }
}

/// A node and the person on it.
pub struct LiveNode {
    pub engine: Engine,
    pub keys: Arc<KeyManager>,
    pub peers: Peers,
    pub dialler: Dialler,
    pub identity: Oid,
    pub admission: ActivePolicy,
    pub gate: Gate,
    pub connector: Connector,
    pub clock: HandClock,
    life: Life,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

/// What outlives a restart.
struct Life {
    seed: u64,
    apps: Vec<String>,
    setup: Setup,
}

/// How a node is started, beyond its name.
pub struct Setup {
    pub sync: SyncConfig,
    pub limits: CoreLimits,
    /// Which start of this node it is.
    pub start: u8,
    /// What an earlier start left.
    pub folder: tempfile::TempDir,
    pub admission: AdmissionConfig,
}

impl Setup {
    pub fn new(sync: SyncConfig) -> Self {
        Self {
            sync,
            limits: CoreLimits::default(),
            start: 0,
            folder: tempfile::tempdir().unwrap(),
            admission: AdmissionConfig::default(),
        }
    }
}

/// The boot id of a node's start.
pub fn boot_id(seed: u64, start: u8) -> BootId {
    BootId::from_bytes([seed as u8 ^ (start << 4); 16])
}

/// Sync that goes on only when a test says so.
pub fn by_hand() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 0,
        pull_wait_s: 0,
        push_interval_s: 0,
        backoff_s_min: 1,
        backoff_s_max: 2,
        ..SyncConfig::default()
    }
}

impl LiveNode {
    /// A node called `name` with keys from `seed`, on a net of memory pipes.
    pub async fn start(
        net: &MemoryNet,
        name: &str,
        seed: u64,
        apps: &[&str],
        sync: SyncConfig,
    ) -> Self {
        Self::set_up(net, name, seed, apps, Setup::new(sync))
    }

    /// The same, under another policy.
    pub async fn start_under(
        net: &MemoryNet,
        name: &str,
        seed: u64,
        apps: &[&str],
        sync: SyncConfig,
        admission: AdmissionConfig,
    ) -> Self {
        let setup = Setup {
            admission,
            ..Setup::new(sync)
        };
        Self::set_up(net, name, seed, apps, setup)
    }

    /// As [`LiveNode::start`], with more to choose.
    pub fn set_up(net: &MemoryNet, name: &str, seed: u64, apps: &[&str], setup: Setup) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        let clock = HandClock::at(1_700_000_000_000);
        let life = Life {
            seed,
            apps: apps.iter().map(ToString::to_string).collect(),
            setup,
        };
        let mut core = open(&life, &keys, &clock);
        core.write(Clock::now(&clock), |graph| {
            graph.save_identity(identity, Some(name))
        })
        .unwrap();
        let admission = ActivePolicy::new(life.setup.admission.clone());
        Self::run(net, life, keys, (identity, clock, admission), core)
    }

    /// A node over what a folder holds, with keys and a clock that were there before. With a reason it begins an epoch first,
    /// as `postern restore` does.
    pub fn over(
        net: &MemoryNet,
        (seed, keys, identity): (u64, Arc<KeyManager>, Oid),
        apps: &[&str],
        (setup, clock): (Setup, HandClock),
        begins: Option<EpochReason>,
    ) -> Self {
        let life = Life {
            seed,
            apps: apps.iter().map(ToString::to_string).collect(),
            setup,
        };
        let mut core = open(&life, &keys, &clock);
        if let Some(reason) = begins {
            core.begin_recovery(reason, Clock::now(&clock)).unwrap();
            // As after `postern restore`: the node is started later.
            drop(core);
            core = open(&life, &keys, &clock);
        }
        let admission = ActivePolicy::new(life.setup.admission.clone());
        Self::run(net, life, keys, (identity, clock, admission), core)
    }

    /// Ends all sessions and starts again over the same folder and keys.
    pub async fn restart(self, net: &MemoryNet) -> Self {
        self.stop.cancel();
        self.peers.close().await;
        self.dialler.close().await;
        let Self {
            keys,
            identity,
            admission,
            clock,
            mut life,
            serving,
            engine,
            peers,
            dialler,
            gate,
            connector,
            stop: _,
        } = self;
        serving.await.unwrap();
        // The database is closed before it is opened again.
        drop((engine, peers, dialler, gate, connector));
        life.setup.start += 1;
        let core = open(&life, &keys, &clock);
        let admission = ActivePolicy::new((*admission.get()).clone());
        Self::run(net, life, keys, (identity, clock, admission), core)
    }

    fn run(
        net: &MemoryNet,
        life: Life,
        keys: Arc<KeyManager>,
        (identity, clock, admission): (Oid, HandClock, ActivePolicy),
        core: StateEngine,
    ) -> Self {
        let engine = Engine::inline(core, Arc::new(clock.clone()));
        let stop = CancellationToken::new();
        let peers = Peers::new(engine.clone(), life.setup.sync.clone(), stop.clone());
        let gatekeeper = Arc::new(NodeGatekeeper {
            peers: peers.clone(),
            policy: admission.clone(),
            boot_id: boot_id(life.seed, life.setup.start),
        });
        let config = GateConfig {
            effort_idle: 4,
            effort_base: 4,
            inner_bits: 2,
            ..GateConfig::default()
        };
        let connector = Connector::new(config.clone(), keys.clone(), gatekeeper.clone());
        let gate = Gate::new(
            config,
            keys.clone(),
            gatekeeper.clone(),
            gatekeeper,
            Arc::new(clock.clone()),
        );
        let listener = net.listen(keys.onion());
        let dialler = Dialler::new(
            connector.clone(),
            Arc::new(net.transport()),
            peers.clone(),
            stop.clone(),
        );
        let (admitting, ending, serving) = (peers.clone(), stop.clone(), gate.clone());
        let serving = tokio::spawn(async move {
            let admitted =
                move |session, admitted| admitting.admit_in_background(session, admitted);
            serving.serve(Box::new(listener), admitted, ending).await;
        });
        Self {
            engine,
            keys,
            peers,
            dialler,
            identity,
            admission,
            gate,
            connector,
            clock,
            life,
            stop,
            serving,
        }
    }

    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    pub fn onion(&self) -> OnionAddr {
        self.keys.onion()
    }

    /// Where its database is.
    pub fn database(&self) -> PathBuf {
        self.life.setup.folder.path().join("postern.db")
    }

    /// What it may write now.
    pub async fn write_mode(&self) -> WriteMode {
        self.write(|core, now| Ok(core.write_mode_at(now)))
            .await
            .unwrap()
    }

    /// Waits until it may write no more and no less than that.
    pub async fn wait_for(&self, write_mode: WriteMode) {
        while self.write_mode().await != write_mode {
            tokio::task::yield_now().await;
        }
    }

    /// Saves something of its person's: new without an oid, a deletion without values.
    pub async fn save(
        &self,
        (app, type_number): (&'static str, u16),
        oid: Option<Oid>,
        attrs: Option<Attrs>,
    ) -> Result<Saved, SaveError> {
        let owner = self.identity;
        self.write(move |core, now| {
            let view = core.view();
            let requester = view.rows.identity(&owner)?.unwrap();
            let context = OpContext::Local {
                requester_pubkey_attr_id: requester.pubkey_attr_id,
                app_id: view.rows.apps().get(app).unwrap().id,
                trace_id: TraceId(1),
            };
            let draft = Draft {
                app: app.into(),
                type_number,
                oid,
                owner,
                attrs,
            };
            core.write(now, |graph| graph.save_with_sync(&context, draft))
        })
        .await
    }

    /// Rotates a key of the node or of its person, as the node does when it is asked to.
    pub async fn rotate(&self, holder: Oid) -> Result<u32, VaultError> {
        self.keys
            .rotate(holder, &mut ChaCha20Rng::seed_from_u64(5000))?;
        let is_node = holder == self.keys.server_oid();
        if is_node {
            self.write(|core, now| Ok(core.settle_node(now)?))
                .await
                .unwrap();
        }
        let identity = self.identity;
        while self
            .write(move |core, now| core.settle_identity(now, identity))
            .await
            .unwrap()
        {}
        if is_node {
            self.peers.end_all("rotated");
        }
        Ok(self.keys.key_id(holder)?)
    }

    /// Pulls every domain that both have.
    pub async fn pull_everything(&self, from: &LiveNode) {
        let peer = from.peer_id();
        let known = self.read(move |view| view.rows.peer(&peer)).await.unwrap();
        for domain in known.domains {
            self.pull(from, &domain).await;
        }
    }

    /// Knocks at another node and waits until both have a session.
    pub async fn meet(&self, other: &LiveNode) {
        self.dialler.dial(&other.onion(), &|_| {}).await.unwrap();
        other.wait_for_session(&self.peer_id()).await;
    }

    /// Waits until a session with that peer is open.
    pub async fn wait_for_session(&self, peer: &PeerId) {
        while !self
            .peers
            .sessions()
            .iter()
            .any(|session| session.peer == *peer)
        {
            tokio::task::yield_now().await;
        }
    }

    /// Sends a message and says where it stands.
    pub async fn send(&self, recipient: Oid, body: &str) -> Sent {
        let (sender, body) = (self.identity, body.to_owned());
        let sent = self.engine.write(move |core, now| {
            core.write(now, |graph| messages::send(graph, sender, recipient, &body))
        });
        sent.await.unwrap()
    }

    /// Pulls a domain from a peer to the end.
    pub async fn pull(&self, from: &LiveNode, domain: &str) -> Vec<PullOutcome> {
        self.peers.pull(&from.peer_id(), domain).await.unwrap()
    }

    /// What this node's person can read.
    pub async fn inbox(&self) -> Vec<messages::Message> {
        let reader = self.identity;
        self.engine
            .read(move |view| messages::inbox(&view, &reader, 0, 100_000))
            .await
            .unwrap()
            .messages
    }

    /// Reads anything.
    pub async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> R {
        self.engine.read(work).await.unwrap()
    }

    /// Writes anything.
    pub async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateEngine, Timestamp) -> Result<R, SaveError> + Send + 'static,
    ) -> Result<R, SaveError> {
        self.engine.write(work).await.map_err(|error| match error {
            postern::engine::EngineError::Work(error) => error,
            postern::engine::EngineError::Stopped(_) => panic!("the engine has stopped"),
        })
    }

    /// Ends all sessions.
    pub async fn stop(self) {
        self.stop_and_keep().await;
    }

    /// Ends all sessions, and gives what is on the disk.
    pub async fn stop_and_keep(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.peers.close().await;
        self.dialler.close().await;
        self.serving.await.unwrap();
        self.life.setup.folder
    }
}

fn open(life: &Life, keys: &Arc<KeyManager>, clock: &HandClock) -> StateEngine {
    // Another start mints other oids.
    let mut rng = ChaCha20Rng::seed_from_u64(life.seed + 1000);
    rng.set_stream(u64::from(life.setup.start));
    StateEngine::open(
        &life.setup.folder.path().join("postern.db"),
        Arc::new(Schemas::load(&life.apps, None).unwrap()),
        keys.clone(),
        life.setup.limits,
        Box::new(rng),
        Clock::now(clock),
    )
    .unwrap()
}

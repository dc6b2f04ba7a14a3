//! A node that meets others over memory pipes of 64 bytes: everything but Tor, the terminal and the
//! API.

use std::ops::Deref;
use std::sync::Arc;

use bastion::transport::Transport;
use bastion::transport::memory::MemoryNet;
use bastion::{Connector, Gate, GateConfig};
use keys::vault::VaultError;
use keys::{Oid, PeerId};
use postern::admission::{ActivePolicy, NodeGatekeeper};
use postern::peer::dialler::Dialler;
use postern::peer::{EndCode, PullOutcome, SyncService};
use postern::store::WriteMode;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::node::TestNode;
use crate::setup::{Setup, boot_id};

/// A [`TestNode`] with sessions and a gate.
///
/// There are two types rather than one with a mode. A test of the core must not be able to wait for
/// a session that nothing opens. `meet`, `pull` and `pull_everything` do over sessions what the
/// methods of [`TestNode`] do by hand.
pub struct LiveNode {
    core: TestNode,
    /// The node's sessions.
    pub peers: SyncService,
    /// Performs the handshakes of the dialler.
    pub connector: Connector,
    /// Opens sessions with other nodes.
    pub dialler: Dialler,
    /// The admission policy.
    pub admission: ActivePolicy,
    /// Admits other nodes.
    pub gate: Gate,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Deref for LiveNode {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.core
    }
}

/// How a live node reaches others, and how it admits them.
pub struct Wiring {
    /// The network on which the node listens.
    pub net: MemoryNet,
    /// The node's way to other nodes.
    pub transport: Arc<dyn Transport>,
    /// Puzzle, slots and deadlines of handshakes.
    pub gate: GateConfig,
}

impl Wiring {
    /// The plain way over memory pipes, with easy puzzles.
    pub fn plain(net: &MemoryNet) -> Self {
        Self {
            net: net.clone(),
            transport: Arc::new(net.transport()),
            gate: GateConfig {
                effort_idle: 4,
                effort_base: 4,
                inner_bits: 2,
                ..GateConfig::default()
            },
        }
    }
}

impl Setup {
    /// Starts the core, its sessions and its gate on a network of memory pipes. Call it within a
    /// tokio runtime.
    pub fn live(self, net: &MemoryNet) -> LiveNode {
        self.live_over(Wiring::plain(net))
    }

    /// [`Setup::live`] with another way to other nodes.
    pub fn live_over(self, wiring: Wiring) -> LiveNode {
        LiveNode::run(self, wiring)
    }
}

impl LiveNode {
    /// A node with all apps and without timers, whose keys come from a seed.
    pub fn start(net: &MemoryNet, name: &str, seed: u64) -> Self {
        Setup::seeded(name, seed).live(net)
    }

    fn run(setup: Setup, wiring: Wiring) -> Self {
        let core = TestNode::start(setup);
        let (setup, stop) = (&core.setup, CancellationToken::new());
        let peers = SyncService::new(core.engine.clone(), setup.sync.clone(), stop.clone());
        let admission = ActivePolicy::new(setup.admission.clone());
        let gatekeeper = Arc::new(NodeGatekeeper {
            peers: peers.clone(),
            policy: admission.clone(),
            boot_id: boot_id(setup.seed, setup.start),
        });
        let config = wiring.gate;
        let connector = Connector::new(config.clone(), core.keys.clone(), gatekeeper.clone());
        let gate = Gate::new(
            config,
            core.keys.clone(),
            gatekeeper.clone(),
            gatekeeper,
            Arc::new(core.clock.clone()),
        );
        let listener = wiring.net.listen(core.onion());
        let dialler = Dialler::new(
            connector.clone(),
            wiring.transport,
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
            core,
            peers,
            connector,
            dialler,
            admission,
            gate,
            stop,
            serving,
        }
    }

    /// Ends all sessions and closes the database. The result starts the same node again.
    pub async fn stop(self) -> Setup {
        self.stop.cancel();
        self.peers.close().await;
        self.dialler.close().await;
        self.serving.await.unwrap();
        drop((self.peers, self.dialler, self.connector, self.gate));
        let mut setup = self.core.into_setup();
        setup.admission = (*self.admission.get()).clone();
        setup
    }

    /// Stops the node and starts it again over the same database.
    pub async fn restart(self, net: &MemoryNet) -> Self {
        self.stop().await.live(net)
    }

    /// Starts the maintenance that a running node does at intervals.
    pub fn keep_maintaining(&self) {
        let admission = self.admission.clone();
        self.peers
            .keep_forgetting(move || admission.get().untrusted_idle_days);
        self.peers.keep_watching_recovery();
        self.peers.keep_dropping_ended();
        self.peers.keep_expiring();
    }

    /// Does once what [`LiveNode::keep_maintaining`] does at intervals.
    pub async fn maintain(&self) {
        let idle_days = self.admission.get().untrusted_idle_days;
        self.peers.forget_idle(idle_days).await.unwrap();
        self.write(|core, now| core.end_overdue_recovery(now))
            .unwrap();
        while self.write(|core, now| core.drop_ended_step(now)).unwrap() {}
        while self.write(|core, now| core.expire_step(now)).unwrap() {}
        self.write(|core, now| core.retry_lists(now)).unwrap();
    }

    /// Dials another node and waits until both have a session.
    pub async fn meet(&self, other: &LiveNode) {
        self.dialler.dial(&other.onion(), &|_| {}).await.unwrap();
        other.wait_for_session(&self.peer_id()).await;
    }

    /// Whether a session with a peer is open.
    pub fn has_session(&self, peer: &PeerId) -> bool {
        let sessions = self.peers.registry().sessions();
        sessions.iter().any(|session| session.peer == *peer)
    }

    /// Waits until a session with a peer is open.
    pub async fn wait_for_session(&self, peer: &PeerId) {
        while !self.has_session(peer) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the session with a peer has ended.
    pub async fn wait_for_session_end(&self, peer: &PeerId) {
        while self.has_session(peer) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the node may write exactly this.
    pub async fn wait_for(&self, mode: WriteMode) {
        while self.write_mode() != mode {
            tokio::task::yield_now().await;
        }
        self.settle();
    }

    /// Pulls a domain from a peer to the end.
    pub async fn pull(&self, from: &LiveNode, domain: &str) -> Vec<PullOutcome> {
        from.settle();
        let outcomes = self.peers.pull(&from.peer_id(), domain).await.unwrap();
        self.settle();
        outcomes
    }

    /// Pulls every domain that both nodes have.
    pub async fn pull_everything(&self, from: &LiveNode) {
        for domain in self.stored_peer(from).unwrap().domains {
            self.pull(from, &domain).await;
        }
    }

    /// Rotates a key of the node or of its identity, as the running node does on request.
    pub fn rotate(&self, holder: Oid) -> Result<u32, VaultError> {
        self.rotate_with(holder, &mut ChaCha20Rng::seed_from_u64(5000))
    }

    /// [`LiveNode::rotate`] with keys from `rng`.
    pub fn rotate_with(&self, holder: Oid, rng: &mut ChaCha20Rng) -> Result<u32, VaultError> {
        self.keys.rotate(holder, rng)?;
        let is_node = holder == self.keys.server_oid();
        if is_node {
            self.write(|core, now| core.save_own_server(now)).unwrap();
        }
        for identity in self.keys.identities() {
            while self
                .write(move |core, now| core.rotation_step(now, identity))
                .unwrap()
            {}
        }
        if is_node {
            self.peers.registry().end_all(EndCode::Rotated);
        }
        Ok(self.keys.key_id(holder)?)
    }
}

//! `postern run`: a node from start to stop.
//!
//! Order of starting: lock, keys, core, API, network, so that the API works before and without Tor.
//! Order of stopping: the listener, backups and dials, the API, sessions at a frame boundary, the
//! writer. Invariant: the writer thread is joined before [`run`] returns. Tested in
//! `tests/system/operating.rs`.

use std::sync::Arc;

use bastion::{Connector, Gate, Tier};
use keys::{BootId, KeyManager, MemoryLock, Passphrase, TraceId, error_chain};
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::control::NodeControl;
use super::error::RunError;
use super::event::{self, Event, Events, NetworkState};
use super::local_api::LocalApi;
use super::network::Network;
use super::reload::{self, Reloads};
use crate::admission::{ActivePolicy, NodeGatekeeper};
use crate::api::ApiState;
use crate::backup;
use crate::clock::SystemClock;
use crate::config::{Config, Policy};
use crate::core_limits::core_limits;
use crate::data_dir::DataDir;
use crate::engine::{Clock as _, CoreHandle, WriterThread};
use crate::peer::{SyncService, dialler::Dialler};
use crate::schema::Schemas;
use crate::services::contacts;
use crate::state_engine::StateEngine;

/// Longest queue of writes. Each is a closure of a few hundred bytes.
const WRITE_QUEUE_MAX: usize = 256;
/// Reading connections: the number of reads that run at the same time.
const READERS_MAX: usize = 4;

/// Runs a node until `stop` completes, or until it cannot go on. `reloads` yields the configuration
/// each time that the operator asks to read it again.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    config: Config,
    passphrase: Passphrase,
    events: Events,
    reloads: Reloads,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let data = DataDir::of(&config);
    let _lock = data.lock()?;
    if let Err(error) = backup::remove_stale_files(&data) {
        tracing::warn!(
            error = %error_chain(&error),
            "cannot remove the files of an interrupted backup"
        );
    }
    let keys = open_keys(&data, &passphrase)?;
    drop(passphrase);
    let (engine, writer) = open_core(&config, &data, keys.clone(), &events)?;
    let (peer_id, onion) = (keys.peer_id(), keys.onion());
    event::send(&events, Event::Opened { peer_id, onion });
    let node = RunningNode::new(&config, engine, keys);
    let result = node.serve(&config, &data, &events, reloads, stop).await;
    node.close().await;
    join(writer).await?;
    result
}

fn open_keys(data: &DataDir, passphrase: &Passphrase) -> Result<Arc<KeyManager>, RunError> {
    let keys = KeyManager::open(&data.keys(), passphrase)?;
    match keys.memory() {
        MemoryLock::Locked => tracing::info!("the keys are locked in memory"),
        MemoryLock::NotLocked(reason) => {
            tracing::warn!(
                %reason,
                "the keys are not locked in memory: they may be written to swap"
            );
        }
    }
    Ok(Arc::new(keys))
}

fn open_core(
    config: &Config,
    data: &DataDir,
    keys: Arc<KeyManager>,
    events: &Events,
) -> Result<(CoreHandle, WriterThread), RunError> {
    let schemas = Schemas::load(&config.node.apps, config.schema_dir().as_deref())?;
    let mut core = StateEngine::open(
        &data.database(),
        Arc::new(schemas),
        keys,
        core_limits(config),
        Box::new(rand::rngs::StdRng::from_rng(&mut rand::rng())),
        SystemClock.now(),
    )?;
    core.write(SystemClock.now(), |graph| contacts::adopt_own_names(graph))?;
    core.plan_outbox(SystemClock.now(), &config.sync_config().outbox)?;
    if let Some(migration) = core.migration() {
        event::send(events, Event::Migrated(migration.clone()));
    }
    let clock = Arc::new(SystemClock);
    let (core, writer) = CoreHandle::spawn(core, clock, WRITE_QUEUE_MAX, READERS_MAX)?;
    // The trace id of the node's own jobs. Requests and sessions have others.
    let trace = TraceId(rand::random());
    tracing::info!(%trace, "the core is open");
    Ok((core.traced(trace), writer))
}

/// Waits for the writer, which ends once every handle to the core is dropped: it finishes its queue
/// and closes the database.
async fn join(writer: WriterThread) -> Result<(), RunError> {
    let joining = tokio::task::spawn_blocking(move || writer.join());
    joining.await.map_err(|_| RunError::WriterLost)
}

/// The parts of a running node.
struct RunningNode {
    engine: CoreHandle,
    keys: Arc<KeyManager>,
    peers: SyncService,
    policy: ActivePolicy,
    gate: Gate,
    connector: Connector,
    /// Cancelled when the node stops: it ends every task.
    stop: CancellationToken,
}

impl RunningNode {
    fn new(config: &Config, engine: CoreHandle, keys: Arc<KeyManager>) -> Self {
        let stop = CancellationToken::new();
        let peers = SyncService::new(engine.clone(), config.sync_config(), stop.clone());
        let mut boot_id = [0; 16];
        rand::rng().fill_bytes(&mut boot_id);
        let policy = ActivePolicy::new(config.admission_config());
        let gatekeeper = Arc::new(NodeGatekeeper {
            peers: peers.clone(),
            policy: policy.clone(),
            boot_id: BootId::from_bytes(boot_id),
        });
        let connector = Connector::new(config.gate_config(), keys.clone(), gatekeeper.clone());
        let gate = Gate::new(
            config.gate_config(),
            keys.clone(),
            gatekeeper.clone(),
            gatekeeper,
            Arc::new(SystemClock),
        );
        Self {
            engine,
            keys,
            peers,
            policy,
            gate,
            connector,
            stop,
        }
    }

    /// Serves the API and the network until `stop` completes or one of them cannot go on.
    async fn serve(
        &self,
        config: &Config,
        data: &DataDir,
        events: &Events,
        reloads: Reloads,
        stop: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let (network, state) = watch::channel(NetworkState::Starting);
        let control = Arc::new(NodeControl::new(
            config,
            self.peers.clone(),
            self.gate.clone(),
            self.keys.clone(),
            self.policy.clone(),
            state.clone(),
        ));
        let api_state = ApiState::new(
            self.engine.clone(),
            control.clone(),
            config.api_config(),
            self.stop.clone(),
        );
        let api = LocalApi::start(config.api.listen, data, api_state).await?;
        event::send(events, Event::ApiReady(api.address));
        let result = tokio::select! {
            biased;
            () = stop => Ok(()),
            never = reload::follow(config, &self.policy, reloads) => match never {},
            never = event::forward(state, events) => match never {},
            result = self.serve_network(config, data, &control, &network) => result,
        };
        event::send(events, Event::Stopping);
        self.stop.cancel();
        control.close().await;
        api.close().await;
        result
    }

    /// Joins the network, admits peers and dials those that the node knows. Returns when the
    /// listener ends.
    async fn serve_network(
        &self,
        config: &Config,
        data: &DataDir,
        control: &NodeControl,
        state: &watch::Sender<NetworkState>,
    ) -> Result<(), RunError> {
        let network = Network::join(config, data, &self.keys, control, state).await?;
        let dialler = Dialler::new(
            self.connector.clone(),
            network.transport.clone(),
            self.peers.clone(),
            self.stop.clone(),
        );
        control.set_dialler(dialler.clone());
        let policy = self.policy.clone();
        self.peers
            .keep_forgetting(move || policy.get().untrusted_idle_days);
        self.peers.keep_watching_recovery();
        self.peers.keep_dropping_ended();
        self.peers.keep_expiring();
        for peer in &config.peers {
            dialler.keep(peer.onion);
        }
        if self.peers.config().introduces {
            let policy = self.policy.clone();
            dialler.keep_introducing(move || policy.get().policy == Policy::Open);
        }
        let known = self.engine.read(|view| view.rows.peers()).await?;
        for peer in known.into_iter().filter(|peer| peer.tier == Tier::Trusted) {
            dialler.keep(peer.onion);
        }
        let admitted = {
            let peers = self.peers.clone();
            move |session, admitted| peers.admit_in_background(session, admitted)
        };
        let serving = self
            .gate
            .serve(network.listener, admitted, self.stop.clone());
        tokio::join!(serving, network.reachable);
        match self.stop.is_cancelled() {
            true => Ok(()),
            false => Err(RunError::ListenerEnded),
        }
    }

    /// Ends the sessions, each at a frame boundary, and drops the handles to the core.
    async fn close(self) {
        self.stop.cancel();
        self.peers.close().await;
    }
}

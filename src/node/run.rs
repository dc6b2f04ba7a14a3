//! `postern run`: a node from start to stop.
//!
//! Order of starting: lock, keys, database, API, then the network, so that people can read and write before and
//! without Tor. Order of stopping: nobody new, sessions at a frame boundary, API, writer last. Never dials or listens
//! anywhere but through the configured transport. Invariant: the writer thread is joined before [`run`] returns.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use bastion::Gate;
use keys::{BootId, KeyManager, MemoryLock, Passphrase};
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::control::NodeControl;
use super::error::{RunError, files};
use super::event::Event;
use super::network::Network;
use super::reload::{self, Reloads};
use crate::admission::{ActivePolicy, NodeGatekeeper};
use crate::backup;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::core_limits::core_limits;
use crate::data_dir::DataDir;
use crate::engine::{Clock as _, Engine};
use crate::peer::{Peers, dialler::Dialler};
use crate::schema::Schemas;
use crate::state_engine::StateEngine;
use crate::store::Tier;

/// Writes that wait for the writer. Each is a closure of a few hundred bytes.
const WRITE_QUEUE_MAX: usize = 256;
/// Reading connections: as many reads go on at once.
const READERS_MAX: usize = 4;

/// Runs a node until `stop` completes. `reloads` brings the config each time that it is to be read again.
pub async fn run(
    config: Config,
    passphrase: Passphrase,
    tell: impl Fn(Event) + Send + Sync + 'static,
    reloads: Reloads,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let data = DataDir::of(&config);
    let _lock = data.lock()?;
    if let Err(error) = backup::remove_stale_files(&data) {
        tracing::warn!(%error, "what a backup has left behind stays");
    }
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase)?);
    drop(passphrase);
    match keys.memory() {
        MemoryLock::Locked => tracing::info!("the keys are locked in memory"),
        MemoryLock::NotLocked(why) => {
            tracing::warn!(%why, "the keys are not locked in memory: they may come into the swap space");
        }
    }
    let (engine, writer) = open_engine(&config, &data, keys.clone())?;
    let tell: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(tell);
    tell(Event::Opened {
        peer_id: keys.peer_id(),
        onion: keys.onion(),
    });
    let token = CancellationToken::new();
    let node = Running::new(&config, engine, keys, token.clone());
    let result = node.run(&config, &data, tell.clone(), reloads, stop).await;
    tell(Event::Stopping);
    token.cancel();
    node.peers.close().await;
    drop(node);
    // Nothing holds the engine any more: the writer finishes its queue, closes the database and ends.
    let joined = tokio::task::spawn_blocking(move || writer.join()).await;
    joined.map_err(|_| RunError::Network("the writer did not end cleanly".into()))?;
    result
}

fn open_engine(
    config: &Config,
    data: &DataDir,
    keys: Arc<KeyManager>,
) -> Result<(Engine, crate::engine::WriterThread), RunError> {
    let schemas = Arc::new(Schemas::load(
        &config.node.apps,
        config.schema_dir().as_deref(),
    )?);
    let limits = core_limits(config);
    let rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    let core = StateEngine::open(
        &data.database(),
        schemas,
        keys,
        limits,
        Box::new(rng),
        SystemClock.now(),
    )?;
    Ok(Engine::spawn(
        core,
        Arc::new(SystemClock),
        WRITE_QUEUE_MAX,
        READERS_MAX,
    )?)
}

/// The parts of a running node.
struct Running {
    engine: Engine,
    keys: Arc<KeyManager>,
    peers: Peers,
    policy: ActivePolicy,
    gate: Gate,
    token: CancellationToken,
}

impl Running {
    fn new(
        config: &Config,
        engine: Engine,
        keys: Arc<KeyManager>,
        token: CancellationToken,
    ) -> Self {
        let peers = Peers::new(engine.clone(), config.sync.clone(), token.clone());
        let mut boot_id = [0; 16];
        rand::rng().fill_bytes(&mut boot_id);
        let policy = ActivePolicy::new(config.admission.clone());
        let gatekeeper = NodeGatekeeper {
            peers: peers.clone(),
            policy: policy.clone(),
            boot_id: BootId::from_bytes(boot_id),
            identities_max: config.bastion.identities_max,
        };
        let gate = Gate::new(
            config.bastion.clone(),
            keys.clone(),
            Arc::new(gatekeeper),
            Arc::new(SystemClock),
        );
        Self {
            engine,
            keys,
            peers,
            policy,
            gate,
            token,
        }
    }

    async fn run(
        &self,
        config: &Config,
        data: &DataDir,
        tell: Arc<dyn Fn(Event) + Send + Sync>,
        reloads: Reloads,
        stop: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let control = Arc::new(NodeControl::new(
            config,
            self.peers.clone(),
            self.gate.clone(),
            self.keys.clone(),
            self.policy.clone(),
        ));
        let tell = control.listening_to(tell);
        let api = self.start_api(config, data, control.clone(), &tell).await?;
        let network = self.network(config, data, &control, &tell);
        let result = tokio::select! {
            biased;
            () = stop => Ok(()),
            never = reload::follow(config, &self.policy, reloads) => match never {},
            result = network => result,
        };
        self.token.cancel();
        control.close().await;
        // The API ends with the token; that it failed before was logged there.
        let _ = api.await;
        // A stale address would send clients to nobody; that it is gone already is as good.
        let _ = fs::remove_file(data.api_address());
        result
    }

    async fn start_api(
        &self,
        config: &Config,
        data: &DataDir,
        control: Arc<NodeControl>,
        tell: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<tokio::task::JoinHandle<()>, RunError> {
        let wanted = config.api.listen;
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|error| RunError::Api(wanted, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| RunError::Api(wanted, error))?;
        let path = data.api_address();
        write_whole(&path, &format!("{address}\n")).map_err(files("write", &path))?;
        let state = crate::api::ApiState::new(
            self.engine.clone(),
            control,
            config.api.clone(),
            self.token.clone(),
        );
        let serving = tokio::spawn(async move {
            if let Err(error) = crate::api::serve(listener, state).await {
                tracing::error!(%error, "the local API ended");
            }
        });
        tell(Event::ApiReady(address));
        Ok(serving)
    }

    /// Joins the network, serves strangers and keeps in touch with peers; returns only where that cannot go on.
    async fn network(
        &self,
        config: &Config,
        data: &DataDir,
        control: &NodeControl,
        tell: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<(), RunError> {
        let network = Network::join(config, data, &self.keys, control, tell).await?;
        let dialler = Dialler::new(
            self.gate.clone(),
            network.transport.clone(),
            self.peers.clone(),
            self.token.clone(),
        );
        control.connected(dialler.clone());
        let policy = self.policy.clone();
        self.peers
            .keep_forgetting(move || policy.get().untrusted_idle_days);
        self.peers.keep_watching_recovery();
        for peer in &config.peers {
            dialler.keep(peer.onion);
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
            .serve(network.listener, admitted, self.token.clone());
        tokio::join!(serving, network.watch);
        if self.token.is_cancelled() {
            Ok(())
        } else {
            Err(RunError::Network("the onion service has ended".into()))
        }
    }
}

/// Writes a small file so that a reader sees all of it or none.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}

//! Tor, embedded: one arti client that dials onion services and runs our own.
//!
//! It must never write a secret key to disk (the keystore lives in memory), never dial anything but an onion service,
//! and never put an onion address in full into an error. Everything ends when the [`TorNode`], its transports and its
//! listeners are dropped.
//!
//! - `config`: from the node's `[tor]` table to arti's configuration
//! - `listener`: the accept loop over rendezvous requests; `book`: which of them, and who makes room
//! - `dial`: the transport
//! - here: bootstrap and launching services

mod book;
mod config;
mod dial;
mod listener;

use std::{
    collections::BTreeMap, error::Error as StdError, fmt, path::PathBuf, sync::Arc, time::Duration,
};

use arti_client::{
    BootstrapBehavior, TorClient,
    status::{BlockageKind, BootstrapStatus},
};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use keys::{OnionAddr, PublicKey};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tor_hscrypto::pk::HsIdKeypair;
use tor_hsservice::{
    HsNickname, OnionServiceConfig, RendRequest, RunningOnionService,
    config::{OnionServiceConfigBuilder, TokenBucketConfig},
};
use tor_llcrypto::pk::ed25519;
use tor_rtcompat::PreferredRuntime;

use super::{DialError, TorStatus, redact_onions};

pub use config::{TorConfig, TorLimits};
pub use dial::TorTransport;
pub use listener::TorListener;

type Client = Arc<TorClient<PreferredRuntime>>;

/// How far the bootstrap is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapProgress {
    /// 0 to 100.
    pub percent: u8,
    /// What stands in the way, in words, when arti believes that something does.
    pub blocked: Option<String>,
}

impl fmt::Display for BootstrapProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tor: {} %", self.percent)?;
        match &self.blocked {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// Why Tor does not run, or a service does not.
#[derive(Debug, thiserror::Error)]
pub enum TorError {
    /// The `[tor]` table has a key that arti does not know; it would be ignored.
    #[error("[tor] has an unknown key: {0}")]
    UnknownKey(String),
    /// The `[tor]` table sets what the node sets itself.
    #[error("[tor] may not set {0}: the node sets it")]
    OwnKey(String),
    /// The `[tor]` table has a value that arti does not take.
    #[error("[tor]: {0}")]
    BadConfig(String),
    /// The `[tor]` table says otherwise than what the node was told elsewhere.
    #[error("[tor] {key} contradicts {ours:?}, which the node is set to")]
    Contradiction {
        /// The key in the table.
        key: &'static str,
        /// What the node was told.
        ours: &'static str,
    },
    /// This build lacks what is asked for; it comes with the feature named.
    #[error("this build is without the feature `{0}`")]
    NotBuiltIn(&'static str),
    /// A folder of Tor's could not be made.
    #[error("create {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What an earlier process left could not be removed.
    #[error("remove {}: {source}", path.display())]
    StaleState {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The network could not be joined: the chain of causes.
    #[error("could not join the Tor network: {0}")]
    Bootstrap(String),
    /// The network was not joined in time.
    #[error("could not join the Tor network within {} s", .0.as_secs())]
    BootstrapDeadline(Duration),
    /// An onion service could not be started: the chain of causes, without onion addresses.
    #[error("could not start the onion service {nickname:?}: {why}")]
    Launch {
        /// Its nickname.
        nickname: String,
        /// Why.
        why: String,
    },
    /// The service could not be dialled in time.
    #[error("the onion service could not be reached within {} s: {last}", waited.as_secs())]
    NotReachable {
        /// How long was tried.
        waited: Duration,
        /// How the last dial failed.
        last: DialError,
    },
}

/// One Tor client for the whole process.
pub struct TorNode {
    client: Client,
    limits: TorLimits,
    /// Where arti keeps what it knows of services.
    state_dir: PathBuf,
    /// What its services show before they run.
    status: TorStatus,
    /// The services that were launched here; arti does not take a nickname's key twice.
    launched: Mutex<BTreeMap<String, OnionAddr>>,
    _progress: AbortOnDropHandle<()>,
}

impl fmt::Debug for TorNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TorNode")
    }
}

impl TorNode {
    /// Joins the Tor network. `progress` is told whenever there is some, also later, should the network be lost.
    ///
    /// # Errors
    /// A faulty configuration, folders that arti does not trust, or a network that cannot be joined in time.
    pub async fn bootstrap(
        config: TorConfig,
        progress: impl Fn(BootstrapProgress) + Send + Sync + 'static,
    ) -> Result<Self, TorError> {
        // arti's TLS takes the process's provider and panics without one; an error means that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let arti_config = config.to_arti()?;
        let status = config.status();
        config.create_folders()?;
        let client = TorClient::builder()
            .config(arti_config)
            .bootstrap_behavior(BootstrapBehavior::Manual)
            .create_unbootstrapped_async()
            .await
            .map_err(|error| TorError::Bootstrap(chain(&error)))?;
        let mut events = client.bootstrap_events();
        let reporting = tokio::spawn(async move {
            let mut told = None;
            while let Some(status) = events.next().await {
                let now = BootstrapProgress::from(&status);
                if told.as_ref() != Some(&now) {
                    progress(now.clone());
                    told = Some(now);
                }
            }
        });
        let reporting = AbortOnDropHandle::new(reporting);
        let deadline = config.limits.bootstrap_deadline;
        timeout(deadline, client.bootstrap())
            .await
            .map_err(|_| TorError::BootstrapDeadline(deadline))?
            .map_err(|error| TorError::Bootstrap(chain(&error)))?;
        Ok(Self {
            client,
            limits: config.limits,
            state_dir: config.state_dir,
            status,
            launched: Mutex::default(),
            _progress: reporting,
        })
    }

    /// A transport that dials onion services at [`ONION_PORT`](super::ONION_PORT).
    pub fn transport(&self) -> TorTransport {
        TorTransport::new(self.client.clone(), self.limits.dial_deadline)
    }

    /// The same, but on circuits and with descriptors that no other transport shares: as somebody else would dial.
    pub fn isolated_transport(&self) -> TorTransport {
        TorTransport::new(self.client.isolated_client(), self.limits.dial_deadline)
    }

    /// Starts an onion service whose identity key is this one: 64 bytes, the clamped scalar and the prefix (RFC 8032,
    /// section 5.1.5). It ends when the listener is dropped; open streams live on.
    ///
    /// The nickname names its state in the state directory: letters, digits, `-` and `_`. One that was used in this
    /// process can be used again for the same key only. (With the feature `tor-pow` not at all:
    /// arti's threads for the work keep the state.) `port` is the virtual port, usually [`ONION_PORT`](super::ONION_PORT).
    ///
    /// # Errors
    /// [`TorError::Launch`].
    pub fn listen(
        &self,
        nickname: &str,
        secret: &[u8; 64],
        port: u16,
    ) -> Result<TorListener, TorError> {
        let fail = |why: String| TorError::Launch {
            nickname: nickname.to_owned(),
            why,
        };
        let hs_nickname =
            HsNickname::new(nickname.to_owned()).map_err(|error| fail(chain(&error)))?;
        let config = self
            .service_config(hs_nickname)
            .map_err(|error| fail(chain(&error)))?;
        let keypair = ed25519::ExpandedKeypair::from_secret_key_bytes(*secret)
            .ok_or_else(|| fail("its key is not an Ed25519 key".into()))?;
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes(keypair.public().to_bytes()));

        let mut launched = self.launched.lock();
        let known = launched.get(nickname).copied();
        if known.is_some_and(|known| known != onion) {
            return Err(fail("the nickname was used for another key".into()));
        }
        if known.is_none() {
            self.forget_stale_points(nickname)?;
        }
        let (service, requests) = launch(&self.client, config, known.is_none().then_some(keypair))
            .map_err(|error| fail(chain(&error)))?
            .ok_or_else(|| fail("it is not enabled".into()))?;
        launched.insert(nickname.to_owned(), onion);
        Ok(TorListener::new(
            onion,
            port,
            service,
            requests,
            &self.limits,
            self.status,
        ))
    }

    /// Removes what an earlier process left of a service's introduction points. Their keys were in that process's memory
    /// only, so that arti would find points without keys, call that a bug of its own, and make new keys for them. The
    /// folder belongs to this process alone.
    fn forget_stale_points(&self, nickname: &str) -> Result<(), TorError> {
        let path = self.state_dir.join("hss").join(nickname);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(TorError::StaleState { path, source })
            }
            _ => Ok(()),
        }
    }

    fn service_config(
        &self,
        nickname: HsNickname,
    ) -> Result<OnionServiceConfig, impl StdError + use<>> {
        let asked = self.status.hardening;
        let rate = (asked.intro_rate_per_s > 0)
            .then(|| TokenBucketConfig::new(asked.intro_rate_per_s, asked.intro_burst));
        let mut builder = OnionServiceConfigBuilder::default();
        builder
            .nickname(nickname)
            .num_intro_points(asked.intro_points)
            .rate_limit_at_intro(rate)
            // One more than the accept loop allows: what it sees it can count, and Tor stands behind it.
            .max_concurrent_streams_per_circuit(
                self.limits.streams_per_circuit_max.saturating_add(1),
            );
        if let Some(most) = asked.pow_queue_max {
            builder.enable_pow(true).pow_rend_queue_depth(most);
        }
        builder.build()
    }

    /// Waits until a dial of this address succeeds: the only sign that a service of ours was published. Each dial is
    /// on circuits of its own, as a stranger's would be.
    ///
    /// # Errors
    /// [`TorError::NotReachable`] after `deadline`.
    pub async fn wait_reachable(
        &self,
        onion: &OnionAddr,
        deadline: Duration,
    ) -> Result<(), TorError> {
        let begun = Instant::now();
        let mut pause = DIAL_AGAIN;
        // A dial that met the descriptor of before a restart may wait for minutes: the first ones are given up early.
        let mut patience = FIRST_DIAL;
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            let transport = TorTransport::new(self.client.clone(), patience.min(left));
            let Err(last) = transport.dial_as_stranger(onion).await else {
                return Ok(());
            };
            if begun.elapsed() + pause >= deadline {
                return Err(TorError::NotReachable {
                    waited: begun.elapsed(),
                    last,
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(DIAL_AGAIN_MAX);
            patience = (patience * 2).min(self.limits.dial_deadline);
        }
    }
}

impl From<&BootstrapStatus> for BootstrapProgress {
    fn from(status: &BootstrapStatus) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=100 first"
        )]
        let percent = (status.as_frac() * 100.0).clamp(0.0, 100.0) as u8;
        let blocked = status
            .blocked()
            // That the client was not told to bootstrap is true for a moment only: we are about to tell it.
            .filter(|blockage| !matches!(blockage.kind(), BlockageKind::Disabled))
            .map(|blockage| redact_onions(&blockage.message().to_string()));
        Self { percent, blocked }
    }
}

type Launched = (Arc<RunningOnionService>, BoxStream<'static, RendRequest>);

/// Launches with a key, or again with the one that arti keeps since the first launch.
fn launch(
    client: &Client,
    config: OnionServiceConfig,
    keypair: Option<ed25519::ExpandedKeypair>,
) -> arti_client::Result<Option<Launched>> {
    fn boxed(
        (service, requests): (
            Arc<RunningOnionService>,
            impl Stream<Item = RendRequest> + Send + 'static,
        ),
    ) -> Launched {
        (service, requests.boxed())
    }
    Ok(match keypair {
        Some(keypair) => client
            .launch_onion_service_with_hsid(config, HsIdKeypair::from(keypair))?
            .map(boxed),
        None => client.launch_onion_service(config)?.map(boxed),
    })
}

/// An error and all its causes in one line, without onion addresses.
fn chain(error: &(dyn StdError + 'static)) -> String {
    redact_onions(&keys::error_chain(error))
}

/// How long the first dial of our own address may take; then twice as long each time, up to the deadline of a dial.
const FIRST_DIAL: Duration = Duration::from_secs(10);

/// Between the first two dials of our own address; then twice as long each time, for the directories' sake.
const DIAL_AGAIN: Duration = Duration::from_millis(250);

/// The longest pause between two dials of our own address.
const DIAL_AGAIN_MAX: Duration = Duration::from_secs(15);

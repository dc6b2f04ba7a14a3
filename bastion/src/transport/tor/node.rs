//! Bootstrap of the Tor client, and launch of onion services.
//!
//! Everything ends when the [`TorNode`], its transports and its listeners are dropped. Tested by
//! the echo tests over Tor.

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

use super::config::TorConfig;
use super::dial::{Client, TorTransport};
use super::error::{TorError, chain};
use super::limits::TorLimits;
use super::listener::TorListener;
use crate::transport::{TorStatus, redact_onions};

/// The progress of the bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapProgress {
    /// Percentage, 0 to 100.
    pub percent: u8,
    /// The obstacle that arti reports, if any.
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
            // "Disabled" is true only until the bootstrap starts.
            .filter(|blockage| !matches!(blockage.kind(), BlockageKind::Disabled))
            .map(|blockage| redact_onions(&blockage.message().to_string()));
        Self { percent, blocked }
    }
}

/// One Tor client for the whole process.
pub struct TorNode {
    client: Client,
    limits: TorLimits,
    /// The folder of arti's state.
    state_dir: PathBuf,
    /// The initial status of services.
    status: TorStatus,
    /// Services launched by this process. arti accepts a nickname's key only once.
    launched: Mutex<BTreeMap<String, OnionAddr>>,
    _progress: AbortOnDropHandle<()>,
}

impl fmt::Debug for TorNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TorNode")
    }
}

impl TorNode {
    /// Joins the Tor network. Calls `progress` on every change, also later if the network is lost.
    ///
    /// # Errors
    /// An invalid configuration, folders that arti does not trust, or a failed or late bootstrap.
    pub async fn bootstrap(
        config: TorConfig,
        progress: impl Fn(BootstrapProgress) + Send + Sync + 'static,
    ) -> Result<Self, TorError> {
        // arti's TLS uses the process's provider and panics without one. An error means that one is
        // installed already.
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
            let mut reported = None;
            while let Some(status) = events.next().await {
                let now = BootstrapProgress::from(&status);
                if reported.as_ref() != Some(&now) {
                    progress(now.clone());
                    reported = Some(now);
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

    /// A transport that dials onion services at [`ONION_PORT`](keys::protocol::ONION_PORT).
    pub fn transport(&self) -> TorTransport {
        TorTransport::new(self.client.clone(), self.limits.dial_deadline)
    }

    /// Like [`Self::transport`], but on circuits and with descriptors that no other transport
    /// shares.
    pub fn isolated_transport(&self) -> TorTransport {
        TorTransport::new(self.client.isolated_client(), self.limits.dial_deadline)
    }

    /// Starts an onion service with this identity key.
    ///
    /// - `nickname` names its state in the state folder: letters, digits, `-` and `_`. Within
    ///   one process a nickname can be used again for the same key only. With the feature `tor-pow`
    ///   a nickname cannot be used again, because arti's threads keep the state.
    /// - `secret` has 64 bytes: the clamped scalar and the prefix (RFC 8032, section 5.1.5).
    /// - `port` is the virtual port, usually [`ONION_PORT`](keys::protocol::ONION_PORT).
    ///
    /// The service ends when the listener is dropped; open streams stay open.
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
            .ok_or_else(|| fail("the key is not an Ed25519 key".into()))?;
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes(keypair.public().to_bytes()));

        let mut launched = self.launched.lock();
        let known = launched.get(nickname).copied();
        if known.is_some_and(|known| known != onion) {
            return Err(fail("the nickname was used for another key".into()));
        }
        if known.is_none() {
            self.remove_stale_state(nickname)?;
        }
        let (service, requests) = launch(&self.client, config, known.is_none().then_some(keypair))
            .map_err(|error| fail(chain(&error)))?
            .ok_or_else(|| fail("the service is not enabled".into()))?;
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

    /// Removes an earlier process's introduction points of a service.
    ///
    /// Their keys were in that process's memory only. arti would find points without keys, report
    /// an internal error, and make new keys.
    fn remove_stale_state(&self, nickname: &str) -> Result<(), TorError> {
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
        let hardening = self.status.hardening;
        let rate = (hardening.intro_rate_per_s > 0)
            .then(|| TokenBucketConfig::new(hardening.intro_rate_per_s, hardening.intro_burst));
        let mut builder = OnionServiceConfigBuilder::default();
        builder
            .nickname(nickname)
            .num_intro_points(hardening.intro_points)
            .rate_limit_at_intro(rate)
            // One more than the accept loop allows, so that the loop sees and counts the excess
            // stream.
            .max_concurrent_streams_per_circuit(
                self.limits.streams_per_circuit_max.saturating_add(1),
            );
        if let Some(most) = hardening.pow_queue_max {
            builder.enable_pow(true).pow_rend_queue_depth(most);
        }
        builder.build()
    }

    /// Waits until a dial of this address succeeds, which is the only sign that the service was
    /// published. Each dial uses isolated circuits.
    ///
    /// # Errors
    /// [`TorError::NotReachable`] after `deadline`.
    pub async fn wait_reachable(
        &self,
        onion: &OnionAddr,
        deadline: Duration,
    ) -> Result<(), TorError> {
        let started = Instant::now();
        let mut pause = RETRY_PAUSE;
        // A dial with a descriptor from before a restart may wait for minutes, so the first
        // deadlines are short.
        let mut dial_deadline = FIRST_DIAL_DEADLINE;
        loop {
            let left = deadline.saturating_sub(started.elapsed());
            let transport = TorTransport::new(self.client.clone(), dial_deadline.min(left));
            let Err(last) = transport.dial_isolated(onion).await else {
                return Ok(());
            };
            if started.elapsed() + pause >= deadline {
                return Err(TorError::NotReachable {
                    waited: started.elapsed(),
                    last,
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            dial_deadline = (dial_deadline * 2).min(self.limits.dial_deadline);
        }
    }
}

type Launched = (Arc<RunningOnionService>, BoxStream<'static, RendRequest>);

/// Launches a service with a key, or again with the key that arti keeps from the first launch.
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

/// Deadline of the first dial of this node's own address. Doubles up to the deadline of a dial.
const FIRST_DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Pause after the first dial of this node's own address. Doubles, to spare Tor's directories.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause between two dials of this node's own address.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(15);

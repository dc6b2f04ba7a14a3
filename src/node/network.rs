//! The network of a running node: the configured transport, its listener, and the wait until it is
//! reachable.
//!
//! Input: the configuration and the onion key. Output: a [`Network`], and changes of the
//! [`NetworkState`]. A bootstrap that does not finish in time is repeated, because the API works
//! meanwhile and the network may come back. Tested in `tests/system/operating.rs` (loopback) and
//! `tests/tor/`.

use std::sync::Arc;
#[cfg(feature = "tor")]
use std::time::Duration;

use bastion::transport::loopback::{LoopbackAddr, LoopbackDirectory, LoopbackListener};
use bastion::{Listener, Transport};
use futures::future::BoxFuture;
use keys::KeyManager;
use tokio::sync::watch;

use super::control::NodeControl;
use super::error::RunError;
use super::event::{NetworkState, set_state};
use crate::config::{Config, TransportKind};
use crate::data_dir::DataDir;

/// Longest wait for a dial of the own address, after which [`NetworkState::NotReachable`] is
/// reported: publishing a descriptor takes a minute or two.
#[cfg(feature = "tor")]
const REACHABLE_DEADLINE: Duration = Duration::from_secs(300);

/// The two directions of the network.
pub(super) struct Network {
    /// Dials peers.
    pub(super) transport: Arc<dyn Transport>,
    /// Accepts streams of peers.
    pub(super) listener: Box<dyn Listener>,
    /// Completes once this node is reachable.
    pub(super) reachable: BoxFuture<'static, ()>,
}

impl Network {
    pub(super) async fn join(
        config: &Config,
        data: &DataDir,
        keys: &KeyManager,
        control: &NodeControl,
        state: &watch::Sender<NetworkState>,
    ) -> Result<Self, RunError> {
        match config.transport.kind {
            TransportKind::Loopback => Self::loopback(config, state).await,
            TransportKind::Tor => Self::tor(config, data, keys, control, state).await,
        }
    }

    async fn loopback(
        config: &Config,
        state: &watch::Sender<NetworkState>,
    ) -> Result<Self, RunError> {
        let directory = LoopbackDirectory::default();
        for (onion, address) in &config.transport.loopback_directory {
            directory.register(*onion, LoopbackAddr::try_from(*address)?);
        }
        let listen = config.transport.loopback_listen;
        let listener = LoopbackListener::bind(LoopbackAddr::try_from(listen)?)
            .await
            .map_err(|error| RunError::LoopbackListen(listen, error))?;
        set_state(state, NetworkState::Reachable);
        Ok(Self {
            transport: Arc::new(directory.transport()),
            listener: Box::new(listener),
            reachable: Box::pin(async {}),
        })
    }

    #[cfg(not(feature = "tor"))]
    async fn tor(
        _: &Config,
        _: &DataDir,
        _: &KeyManager,
        _: &NodeControl,
        _: &watch::Sender<NetworkState>,
    ) -> Result<Self, RunError> {
        Err(RunError::WithoutTor)
    }

    #[cfg(feature = "tor")]
    async fn tor(
        config: &Config,
        data: &DataDir,
        keys: &KeyManager,
        control: &NodeControl,
        state: &watch::Sender<NetworkState>,
    ) -> Result<Self, RunError> {
        use bastion::transport::tor::{BootstrapProgress, TorError, TorNode};
        use keys::protocol::ONION_PORT;
        let tor_config = config.tor_config(&data.tor());
        let before_bootstrap = tor_config.status();
        control.watch_tor(Arc::new(move || before_bootstrap));
        let joined = loop {
            let bootstrapping = state.clone();
            let progress = move |at: BootstrapProgress| {
                let (percent, blocked) = (at.percent, at.blocked);
                let now = NetworkState::Bootstrapping { percent, blocked };
                set_state(&bootstrapping, now);
            };
            match TorNode::bootstrap(tor_config.clone(), progress).await {
                Err(error @ TorError::BootstrapDeadline(_)) => {
                    tracing::warn!(
                        error = %keys::error_chain(&error),
                        "the Tor bootstrap is repeated"
                    );
                }
                joined => break joined?,
            }
        };
        set_state(state, NetworkState::Publishing);
        let listener =
            keys.with_onion_secret(|secret| joined.listen("postern", secret, ONION_PORT))?;
        control.watch_tor(listener.watch());
        let transport = Arc::new(joined.transport());
        let (onion, state) = (keys.onion(), state.clone());
        let reachable = Box::pin(async move {
            while let Err(error) = joined.wait_reachable(&onion, REACHABLE_DEADLINE).await {
                set_state(
                    &state,
                    NetworkState::NotReachable(keys::error_chain(&error)),
                );
            }
            set_state(&state, NetworkState::Reachable);
        });
        Ok(Self {
            transport,
            listener: Box::new(listener),
            reachable,
        })
    }
}

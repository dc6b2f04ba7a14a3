//! The network of a running node: the configured transport, its listener, and the watch on reachability.

use std::sync::Arc;
#[cfg(feature = "tor")]
use std::time::Duration;

use bastion::{Listener, Transport};
use keys::KeyManager;

use super::control::NodeControl;
use super::error::RunError;
use super::event::Event;
use crate::config::{Config, TransportKind};
use crate::data_dir::DataDir;

/// How long a service may take to become reachable before that is said.
#[cfg(feature = "tor")]
const REACHABLE_DEADLINE: Duration = Duration::from_secs(300);

/// How peers are reached, and how they reach us.
pub(super) struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) listener: Box<dyn Listener>,
    /// Tells when the service can be reached; pending for ever otherwise is wrong, so it ends then.
    pub(super) watch: futures::future::BoxFuture<'static, ()>,
}

impl Network {
    pub(super) async fn join(
        config: &Config,
        data: &DataDir,
        keys: &KeyManager,
        control: &NodeControl,
        tell: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Self, RunError> {
        match config.transport.kind {
            TransportKind::Loopback => Self::loopback(config, keys, tell).await,
            TransportKind::Tor => Self::tor(config, data, keys, control, tell).await,
        }
    }

    async fn loopback(
        config: &Config,
        _keys: &KeyManager,
        tell: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Self, RunError> {
        use bastion::transport::loopback::{LoopbackAddr, LoopbackDirectory, LoopbackListener};
        let fail = |error: &dyn std::fmt::Display| {
            RunError::Network(format!("loopback transport: {error}"))
        };
        let entries = config.transport.loopback_directory.iter();
        let entries = entries.map(|(onion, address)| {
            LoopbackAddr::try_from(*address).map(|address| (*onion, address))
        });
        let entries: Vec<_> = entries
            .collect::<Result<_, _>>()
            .map_err(|error| fail(&error))?;
        let address = LoopbackAddr::try_from(config.transport.loopback_listen)
            .map_err(|error| fail(&error))?;
        let listener = LoopbackListener::bind(address)
            .await
            .map_err(|error| fail(&error))?;
        tell(Event::Reachable);
        Ok(Self {
            transport: Arc::new(LoopbackDirectory::new(entries).transport()),
            listener: Box::new(listener),
            watch: Box::pin(async {}),
        })
    }

    #[cfg(not(feature = "tor"))]
    async fn tor(
        _: &Config,
        _: &DataDir,
        _: &KeyManager,
        _: &NodeControl,
        _: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Self, RunError> {
        Err(RunError::Network(
            "this build is without Tor: set transport.kind = \"loopback\" or build with the feature `tor`".into(),
        ))
    }

    #[cfg(feature = "tor")]
    async fn tor(
        config: &Config,
        data: &DataDir,
        keys: &KeyManager,
        control: &NodeControl,
        tell: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Result<Self, RunError> {
        use bastion::transport::ONION_PORT;
        use bastion::transport::tor::{TorError, TorNode};
        let tor_config = config.tor_config(&data.tor());
        let not_yet = tor_config.status();
        control.watching(Arc::new(move || not_yet));
        let joined = loop {
            let told = tell.clone();
            let progress = move |at: bastion::transport::tor::BootstrapProgress| {
                told(Event::Bootstrapping {
                    percent: at.percent,
                    blocked: at.blocked,
                });
            };
            match TorNode::bootstrap(tor_config.clone(), progress).await {
                Ok(node) => break node,
                // The network may come back; the API works meanwhile.
                Err(error @ TorError::BootstrapDeadline(_)) => {
                    tracing::warn!(%error, "trying again")
                }
                Err(error) => return Err(RunError::Network(error.to_string())),
            }
        };
        tell(Event::Publishing);
        let listener = keys
            .with_onion_secret(|secret| joined.listen("postern", secret, ONION_PORT))
            .map_err(|error| RunError::Network(error.to_string()))?;
        control.watching(listener.watch());
        let transport = Arc::new(joined.transport());
        let (onion, tell) = (keys.onion(), tell.clone());
        let watch = Box::pin(async move {
            while let Err(error) = joined.wait_reachable(&onion, REACHABLE_DEADLINE).await {
                tell(Event::NotReachable(error.to_string()));
            }
            tell(Event::Reachable);
        });
        Ok(Self {
            transport,
            listener: Box::new(listener),
            watch,
        })
    }
}

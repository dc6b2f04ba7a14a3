//! Network access of the roles: TCP on loopback, or onion services in a private Tor network.
//!
//! Only the victim and the sink are dialled. Invariant: two diallers share no circuit and no
//! descriptor.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bastion::transport::TorWatch;
use bastion::transport::loopback::{LoopbackAddr, LoopbackDirectory};
use bastion::{Listener, Transport};
use keys::{KeyManager, OnionAddr};
use serde_json::{Value, json};

use super::role::port;
use super::sink::SINK;
use super::victim::VICTIM;
use crate::nodes::Node;

/// The network of a role.
pub(super) enum NetworkAccess {
    /// TCP ports of 127.0.0.1.
    Loopback(LoopbackDirectory),
    /// The arti client of this process.
    #[cfg(feature = "tor")]
    Tor(Box<bastion::transport::tor::TorNode>),
}

/// A listening service.
pub(super) struct Service {
    pub(super) listener: Box<dyn Listener>,
    /// The loopback port; 0 over Tor, where diallers use only the onion address.
    pub(super) port: u16,
    /// Circuit counters; `None` on loopback.
    pub(super) watch: Option<TorWatch>,
}

/// Returns the victim's address.
pub(super) fn victim() -> Result<OnionAddr> {
    Ok(Node::new(VICTIM)?.keys.onion())
}

/// Returns the sink's address.
pub(super) fn sink() -> Result<OnionAddr> {
    Ok(Node::new(SINK)?.keys.onion())
}

impl NetworkAccess {
    /// Joins the Tor network of the setting, or registers the loopback ports in it.
    pub(super) async fn join(setting: &Value) -> Result<Self> {
        if let Some(network) = setting.get("network") {
            return Self::join_tor(network).await;
        }
        let directory = LoopbackDirectory::default();
        if let Some(ports) = setting.get("ports") {
            for (onion, name) in [(victim()?, "victim"), (sink()?, "sink")] {
                let addr = format!("127.0.0.1:{}", port(ports, name)?).parse::<LoopbackAddr>()?;
                directory.register(onion, addr);
            }
        }
        Ok(Self::Loopback(directory))
    }

    #[cfg(feature = "tor")]
    async fn join_tor(network: &Value) -> Result<Self> {
        use anyhow::Context as _;
        use bastion::transport::tor::{TorConfig, TorNode};

        let text = |name| {
            network
                .get(name)
                .and_then(Value::as_str)
                .context("no network")
        };
        let folder = std::path::Path::new(text("folder")?).join(std::process::id().to_string());
        let mut config = TorConfig::new(folder.join("state"), folder.join("cache"));
        config.arti = text("table")?.parse()?;
        // All other values are a node's defaults. This limit applies at the introduction points;
        // with it the flood would not reach the victim.
        config.hardening.intro_rate_per_s = 0;
        Ok(Self::Tor(Box::new(
            TorNode::bootstrap(config, |_| {}).await?,
        )))
    }

    #[cfg(not(feature = "tor"))]
    async fn join_tor(_: &Value) -> Result<Self> {
        bail!("this build has no Tor; build with `--features tor`")
    }

    /// Returns a new dialler that shares nothing with other diallers.
    pub(super) fn dialler(&self) -> Arc<dyn Transport> {
        match self {
            Self::Loopback(directory) => Arc::new(directory.transport()),
            #[cfg(feature = "tor")]
            Self::Tor(node) => Arc::new(node.isolated_transport()),
        }
    }

    /// Returns the time limit of an attack.
    pub(super) fn attack_timeout(&self) -> Duration {
        match self {
            Self::Loopback(_) => Duration::from_secs(5),
            // The default `dial_deadline` of the node's transport.
            #[cfg(feature = "tor")]
            Self::Tor(_) => Duration::from_secs(60),
        }
    }

    /// Listens at the onion address of the keys.
    pub(super) async fn listen(&self, keys: &KeyManager) -> Result<Service> {
        match self {
            Self::Loopback(directory) => {
                let listener = directory.listen(keys.onion()).await?;
                Ok(Service {
                    port: listener.addr().socket_addr().port(),
                    listener: Box::new(listener),
                    watch: None,
                })
            }
            #[cfg(feature = "tor")]
            Self::Tor(node) => {
                let port = keys::protocol::ONION_PORT;
                let listener =
                    keys.with_onion_secret(|secret| node.listen("flooded", secret, port))?;
                Ok(Service {
                    port: 0,
                    watch: Some(listener.watch()),
                    listener: Box::new(listener),
                })
            }
        }
    }

    /// Waits until other processes can dial the address.
    pub(super) async fn reachable(&self, onion: &OnionAddr) -> Result<()> {
        match self {
            Self::Loopback(directory) => match directory.find(onion) {
                Some(_) => Ok(()),
                None => bail!("no listener at this address"),
            },
            #[cfg(feature = "tor")]
            Self::Tor(node) => Ok(node.wait_reachable(onion, REACHABLE).await?),
        }
    }
}

/// Time limit for a service to become reachable; a private network needs seconds.
#[cfg(feature = "tor")]
const REACHABLE: Duration = Duration::from_secs(120);

/// Returns the circuit counters as JSON; `null` on loopback.
pub(super) fn circuits(watch: Option<&TorWatch>) -> Value {
    let Some(watch) = watch else {
        return Value::Null;
    };
    let circuits = watch().circuits;
    json!({
        "open": circuits.open,
        "building": circuits.building,
        "waiting": circuits.waiting,
        "built": circuits.built_total,
        "failed": circuits.failed_total,
        "evicted": circuits.evicted_total,
        "refused": circuits.refused_total,
        "abused": circuits.abused_total,
    })
}

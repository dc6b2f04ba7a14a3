//! How the roles reach each other: TCP on loopback, or onion services in a private Tor network.
//!
//! Never dials anything but the victim and the sink. Invariant: who asks for a dialler of its own shares no circuit, and no
//! descriptor, with any other.

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

/// Where the roles are.
pub(super) enum Ground {
    /// Ports of 127.0.0.1.
    Loopback(LoopbackDirectory),
    /// Onion services, by an arti client of this process.
    #[cfg(feature = "tor")]
    Tor(Box<bastion::transport::tor::TorNode>),
}

/// An address that is listened at.
pub(super) struct Served {
    pub(super) listener: Box<dyn Listener>,
    /// What the others must know to find it on loopback; 0 in Tor, where the address is enough.
    pub(super) port: u16,
    /// Circuits; none on loopback.
    pub(super) watch: Option<TorWatch>,
}

/// The victim's address.
pub(super) fn victim() -> Result<OnionAddr> {
    Ok(Node::new(VICTIM)?.keys.onion())
}

/// The sink's address.
pub(super) fn sink() -> Result<OnionAddr> {
    Ok(Node::new(SINK)?.keys.onion())
}

impl Ground {
    /// Joins what the setting names: a Tor network, or the ports of those who listen already.
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
        // Everything else is as a node has it by default. This limit holds at relays that are not ours: with it the flood
        // would not arrive, and there would be nothing to measure.
        config.hardening.intro_rate_per_s = 0;
        Ok(Self::Tor(Box::new(
            TorNode::bootstrap(config, |_| {}).await?,
        )))
    }

    #[cfg(not(feature = "tor"))]
    async fn join_tor(_: &Value) -> Result<Self> {
        bail!("this build is without Tor: build it with `--features tor`")
    }

    /// A dialler that shares nothing with the others.
    pub(super) fn dialler(&self) -> Arc<dyn Transport> {
        match self {
            Self::Loopback(directory) => Arc::new(directory.transport()),
            #[cfg(feature = "tor")]
            Self::Tor(node) => Arc::new(node.isolated_transport()),
        }
    }

    /// How long an attacker waits for anything.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Loopback(_) => Duration::from_secs(5),
            // As long as our client itself would wait for one stream.
            #[cfg(feature = "tor")]
            Self::Tor(_) => Duration::from_secs(60),
        }
    }

    /// Listens at the address of these keys.
    pub(super) async fn listen(&self, keys: &KeyManager) -> Result<Served> {
        match self {
            Self::Loopback(directory) => {
                let listener = directory.listen(keys.onion()).await?;
                Ok(Served {
                    port: listener.addr().socket_addr().port(),
                    listener: Box::new(listener),
                    watch: None,
                })
            }
            #[cfg(feature = "tor")]
            Self::Tor(node) => {
                let port = bastion::transport::ONION_PORT;
                let listener =
                    keys.with_onion_secret(|secret| node.listen("flooded", secret, port))?;
                Ok(Served {
                    port: 0,
                    watch: Some(listener.watch()),
                    listener: Box::new(listener),
                })
            }
        }
    }

    /// Waits until others can dial what is listened at here.
    pub(super) async fn reachable(&self, onion: &OnionAddr) -> Result<()> {
        match self {
            Self::Loopback(directory) => match directory.find(onion) {
                Some(_) => Ok(()),
                None => bail!("nobody listens"),
            },
            #[cfg(feature = "tor")]
            Self::Tor(node) => Ok(node.wait_reachable(onion, REACHABLE).await?),
        }
    }
}

/// A service in a private network is found within seconds.
#[cfg(feature = "tor")]
const REACHABLE: Duration = Duration::from_secs(120);

/// What there is to see of circuits.
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
        "shed": circuits.evicted_total,
        "refused": circuits.refused_total,
        "abused": circuits.abused_total,
    })
}

//! The private Tor network of `bench flood --tor`.
//!
//! Contacts 127.0.0.1 only. Invariant: the relays' processes end with the [`Network`].

use anyhow::Result;
use serde_json::Value;

/// A running network, and a directory for its clients.
pub(super) struct Network {
    #[cfg(feature = "tor")]
    folder: tempfile::TempDir,
    #[cfg(feature = "tor")]
    testnet: testnet::Testnet,
    #[cfg(feature = "tor")]
    _runtime: tokio::runtime::Runtime,
}

#[cfg(feature = "tor")]
impl Network {
    /// Starts authorities and relays without a bandwidth limit.
    pub(super) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        let starting = testnet::Testnet::start_reporting(testnet::Options::default(), |line| {
            eprintln!("{line}")
        });
        Ok(Self {
            folder: tempfile::TempDir::new()?,
            testnet: runtime.block_on(starting)?,
            _runtime: runtime,
        })
    }

    /// Returns the setting with which a role joins the network.
    pub(super) fn setting(&self) -> Value {
        serde_json::json!({ "table": self.testnet.client_toml(), "folder": self.folder.path() })
    }

    /// Returns the number of its processes.
    pub(super) fn relays(&self) -> usize {
        self.testnet.process_ids().len()
    }

    /// Returns the processor time of all its processes in seconds.
    pub(super) fn spent(&self) -> f64 {
        self.testnet
            .process_ids()
            .into_iter()
            .map(super::child::spent_by)
            .sum()
    }
}

#[cfg(not(feature = "tor"))]
impl Network {
    /// Returns an error, because this build has no Tor.
    pub(super) fn start() -> Result<Self> {
        anyhow::bail!(
            "this build is without Tor; use \
             `cargo run --release -p bench --features tor -- flood --tor`"
        )
    }

    pub(super) fn setting(&self) -> Value {
        Value::Null
    }

    pub(super) fn relays(&self) -> usize {
        0
    }

    pub(super) fn spent(&self) -> f64 {
        0.0
    }
}

//! The private Tor network that the flood goes over, where it is asked for.
//!
//! Never contacts anything but 127.0.0.1. Invariant: the relays' processes end with the [`Network`].

use anyhow::Result;
use serde_json::Value;

/// A running network, and folders for its clients.
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
    /// Starts authorities and relays, without a limit on what they carry.
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

    /// What a role must be told to join.
    pub(super) fn setting(&self) -> Value {
        serde_json::json!({ "table": self.testnet.client_toml(), "folder": self.folder.path() })
    }

    /// How many processes it has.
    pub(super) fn relays(&self) -> usize {
        self.testnet.process_ids().len()
    }

    /// Processor time of all of them so far, in seconds.
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
    /// There is none in this build.
    pub(super) fn start() -> Result<Self> {
        anyhow::bail!(
            "this build is without Tor: `cargo run --release -p bench --features tor -- flood --tor`"
        )
    }

    /// Nothing.
    pub(super) fn setting(&self) -> Value {
        Value::Null
    }

    /// None.
    pub(super) fn relays(&self) -> usize {
        0
    }

    /// None.
    pub(super) fn spent(&self) -> f64 {
        0.0
    }
}

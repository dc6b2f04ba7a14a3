//! The tables of the configuration file as they are written there.
//!
//! Plain values, one field for each key; `keys.rs` holds their documentation. `settings.rs` turns
//! them into the limits that the node runs with. Invariant: fields and defaults equal those of
//! `keys.rs`, and an unknown key is an error in every table (tested in `tests.rs`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bastion::GateConfig;
use keys::{OnionAddr, PeerId};
use serde::{Deserialize, Deserializer, Serialize};

use super::settings::{
    AdmissionConfig, ApiConfig, IntroducePolicy, InvitationPolicy, Policy, SyncConfig,
};
use super::transport::TransportConfig;
use crate::toml_file::Problem;

/// The configuration file: one field for each table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name, files and apps of this node.
    pub node: NodeConfig,
    /// The local HTTP API.
    pub api: ApiTable,
    /// Which peers are admitted after the puzzle.
    pub admission: AdmissionTable,
    /// The puzzle and the handshake.
    pub bastion: GateTable,
    /// When and with how many peers data is exchanged.
    pub sync: SyncTable,
    /// Quota of each tier of peers.
    pub quota: QuotaTables,
    /// How peers are reached.
    pub transport: TransportConfig,
    /// The log on standard error.
    pub log: LogConfig,
    /// Peers that this node dials.
    #[serde(rename = "peer")]
    pub peers: Vec<PeerConfig>,
    /// Settings for arti, in arti's own words.
    pub tor: toml::Table,
    /// Path of the file; relative paths in the file start at its folder.
    #[serde(skip)]
    pub(super) file: PathBuf,
    /// Keys of earlier versions in the file.
    #[serde(skip)]
    pub(super) warnings: Vec<Problem>,
}

/// Table `[node]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name of the node for its operator.
    pub name: String,
    /// Folder of vault, database and Tor's state, as written; see [`Config::data_dir`].
    pub data_dir: PathBuf,
    /// Slugs of the apps that are turned on.
    pub apps: Vec<String>,
    /// Folder of further schema files, as written; see [`Config::schema_dir`].
    pub schema_dir: Option<PathBuf>,
    /// Passphrase file, as written; see [`Config::passphrase_file`].
    pub passphrase_file: Option<PathBuf>,
    /// Hours after a restore in which existing objects are not changed.
    pub recovery_hours: u64,
}

/// Table `[api]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiTable {
    /// Loopback address and port.
    pub listen: SocketAddr,
}

/// Table `[admission]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionTable {
    /// Which peers are admitted.
    pub policy: Policy,
    /// Peers that are admitted under every policy, and trusted.
    #[serde(with = "peer_ids")]
    pub allow: Vec<PeerId>,
    /// Days after which an absent untrusted peer is forgotten; 0 is never.
    pub untrusted_idle_days: u64,
}

/// Table `[bastion]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateTable {
    /// Highest effort of a challenge, in evaluations.
    pub effort_max: u64,
    /// Highest effort that this node solves, in evaluations.
    pub effort_accept_max: u64,
    /// Handshake slots for clients without a ticket.
    pub open_handshakes_max: usize,
    /// Threads that verify solutions.
    pub verify_workers: usize,
    /// Threads that solve puzzles; 0 uses all cores.
    pub solver_threads: usize,
}

/// Table `[sync]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncTable {
    /// Seconds between two pulls of one domain from one peer; 0 is off.
    pub pull_interval_s: u64,
    /// Seconds between two pushes of one domain to one peer; 0 is off.
    pub push_interval_s: u64,
    /// Seconds that a pull asks the peer to wait for changes; 0 is off.
    pub pull_wait_s: u64,
    /// Which invitations are accepted without asking.
    pub accept: InvitationPolicy,
    /// Whether the nodes of other members become known.
    pub introduce: IntroducePolicy,
    /// Sessions at the same time.
    pub sessions_max: usize,
    /// Dials at the same time.
    pub dials_max: usize,
}

/// Tables `[quota.untrusted]` and `[quota.trusted]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaTables {
    /// Peers that were admitted by proof of work only.
    pub untrusted: UntrustedQuotaTable,
    /// Peers that the operator approved, listed or dials.
    pub trusted: TrustedQuotaTable,
}

/// Table `[quota.untrusted]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UntrustedQuotaTable {
    /// Bytes that one peer may store.
    pub stored_bytes_max: u64,
    /// Bytes that all untrusted peers may store together.
    pub total_bytes_max: u64,
}

/// Table `[quota.trusted]`: the same keys as for untrusted peers, with other defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustedQuotaTable {
    /// Bytes that one peer may store.
    pub stored_bytes_max: u64,
    /// Bytes that all trusted peers may store together.
    pub total_bytes_max: u64,
}

/// A peer that this node dials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its onion address.
    #[serde(deserialize_with = "onion")]
    pub onion: OnionAddr,
    /// Name of the peer for the operator.
    #[serde(default)]
    pub name: String,
    /// Domains of which a change is pushed to this peer at once.
    #[serde(default)]
    pub push_domains: Vec<String>,
}

/// Table `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Form of the lines.
    pub format: LogFormat,
    /// Events to log, as directives of `tracing-subscriber`.
    pub filter: String,
}

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// The file that the configuration was read from; empty if it was not read from a file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Removed and renamed keys in the file, by line. They have no effect on the node's start.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Folder of vault, database and Tor's state.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join(&self.node.data_dir)
    }

    /// Folder of further schema files, if one is set.
    pub fn schema_dir(&self) -> Option<PathBuf> {
        let dir = self.node.schema_dir.as_ref();
        dir.map(|path| self.folder().join(path))
    }

    /// File of the vault's passphrase, if one is set.
    pub fn passphrase_file(&self) -> Option<PathBuf> {
        let file = self.node.passphrase_file.as_ref();
        file.map(|path| self.folder().join(path))
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: ".".into(),
            apps: ["identities", "contacts", "messages", "rides", "market"]
                .map(str::to_owned)
                .into(),
            schema_dir: None,
            passphrase_file: None,
            recovery_hours: 72,
        }
    }
}

impl Default for ApiTable {
    fn default() -> Self {
        Self {
            listen: ApiConfig::DEFAULT.listen,
        }
    }
}

impl Default for AdmissionTable {
    fn default() -> Self {
        let AdmissionConfig {
            policy,
            allow,
            untrusted_idle_days,
            ..
        } = AdmissionConfig::DEFAULT;
        Self {
            policy,
            allow,
            untrusted_idle_days,
        }
    }
}

impl Default for GateTable {
    fn default() -> Self {
        let gate = GateConfig::DEFAULT;
        Self {
            effort_max: gate.effort_max,
            effort_accept_max: gate.effort_accept_max,
            open_handshakes_max: gate.open_handshakes_max,
            verify_workers: gate.verify_workers,
            solver_threads: gate.solver_threads,
        }
    }
}

impl Default for SyncTable {
    fn default() -> Self {
        let sync = SyncConfig::DEFAULT;
        Self {
            pull_interval_s: sync.pull_interval_s,
            push_interval_s: sync.push_interval_s,
            pull_wait_s: sync.pull_wait_s,
            accept: InvitationPolicy::Contacts,
            introduce: IntroducePolicy::Members,
            sessions_max: sync.sessions_max,
            dials_max: sync.dials_max,
        }
    }
}

impl Default for UntrustedQuotaTable {
    fn default() -> Self {
        Self {
            stored_bytes_max: 16 << 20,
            total_bytes_max: 512 << 20,
        }
    }
}

impl Default for TrustedQuotaTable {
    fn default() -> Self {
        Self {
            stored_bytes_max: 16 << 30,
            total_bytes_max: 64 << 30,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".into(),
        }
    }
}

/// Reads an onion address as text; on the wire it is bytes.
fn onion<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OnionAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Peer ids as text, in full, because the file is the operator's own.
mod peer_ids {
    use keys::PeerId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        ids: &[PeerId],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = ids.iter().map(PeerId::to_hex).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PeerId>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parsed = texts.iter().map(|text| text.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

//! The node's one config file, `postern.toml`: every limit and switch, each with unit, default and reason.
//!
//! A wrong file never starts a node: unknown keys, wrong types and values that make no sense are all named at once,
//! with file, line and the nearest right word. Never read again while running, except on SIGHUP, where a wrong file
//! leaves the old config in force. Invariant: a [`Config`] that was loaded is checked, alone and in its combinations.

mod changes;
mod check;
mod quota;
mod sections;
mod transport;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bastion::GateConfig;
use serde::Deserialize;

pub use quota::{QuotaConfig, TrustedQuota, UntrustedQuota};
pub use sections::{
    AdmissionConfig, ApiConfig, LimitsConfig, LogConfig, LogFormat, NodeConfig, PeerConfig, Policy,
    SyncConfig,
};
pub use transport::{TransportConfig, TransportKind};

use crate::object::ObjectLimits;
pub use crate::toml_file::{Problem, Problems};
use crate::toml_file::{ReadTextError, TomlFile, read_text};

/// Longest config file. One with every key and a hundred peers is below 64 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The file's name in a node's folder.
pub const FILE_NAME: &str = "postern.toml";

/// Everything that an operator may set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node.
    pub node: NodeConfig,
    /// The local HTTP API.
    pub api: ApiConfig,
    /// Who is let in after the puzzle.
    pub admission: AdmissionConfig,
    /// The gate: puzzle, deadlines and slots for strangers.
    pub bastion: GateConfig,
    /// When and how much is exchanged with peers.
    pub sync: SyncConfig,
    /// What may be stored.
    pub limits: LimitsConfig,
    /// What peers of each tier may store and ask for.
    pub quota: QuotaConfig,
    /// How peers are reached.
    pub transport: TransportConfig,
    /// What the node writes about itself.
    pub log: LogConfig,
    /// Peers that this node dials by itself.
    #[serde(rename = "peer")]
    pub peers: Vec<PeerConfig>,
    /// Handed to arti as it is; arti's documentation names the keys.
    pub tor: toml::Table,
    /// The file. Relative paths in it begin at its folder.
    #[serde(skip)]
    file: PathBuf,
}

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file is too long to be a config.
    #[error("{0}: longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// The file is wrong: one line of text for each problem.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path, FILE_BYTES_MAX).map_err(|error| match error {
            ReadTextError::TooLong => ConfigError::TooLong(path.into()),
            ReadTextError::Unreadable(source) => ConfigError::Unreadable {
                path: path.into(),
                source,
            },
        })?;
        Ok(Self::parse(path, &text)?)
    }

    /// Checks a file's text. The path is for messages and for the paths in the file that are relative.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        let mut file = TomlFile::parse(path, text);
        let mut config: Option<Self> = file.read();
        if let Some(config) = &mut config {
            config.file = path.into();
            config.check(&mut |key, why| file.note_key(key, why));
        }
        file.finish(config)
    }

    /// The text that `init` writes: every key with its documentation, commented out with its default.
    pub fn default_toml() -> &'static str {
        include_str!("default.toml")
    }

    /// The file that it was read from; empty for a config that was not.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Folder of the database and of Tor's state.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join(&self.node.data_dir)
    }

    /// Folder of own apps, if there is one.
    pub fn schema_dir(&self) -> Option<PathBuf> {
        self.node
            .schema_dir
            .as_ref()
            .map(|path| self.folder().join(path))
    }

    /// File of the vault's passphrase, if there is one.
    pub fn passphrase_file(&self) -> Option<PathBuf> {
        self.node
            .passphrase_file
            .as_ref()
            .map(|path| self.folder().join(path))
    }
}

impl SyncConfig {
    /// Time between two pulls; `None` is off.
    pub fn pull_interval(&self) -> Option<Duration> {
        on(self.pull_interval_s)
    }

    /// Time between two pushes; `None` is off.
    pub fn push_interval(&self) -> Option<Duration> {
        on(self.push_interval_s)
    }
}

fn on(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl LimitsConfig {
    /// What one object may hold.
    pub fn object(&self) -> ObjectLimits {
        ObjectLimits {
            bytes_max: self.object_bytes_max,
            attrs_max: self.object_attrs_max,
        }
    }
}

#[cfg(test)]
mod tests;

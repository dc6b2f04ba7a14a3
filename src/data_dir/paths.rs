//! The files of a node's data folder, by name.
//!
//! Computes paths only: reads and writes nothing.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// The sealed keys.
const KEYS_FILE: &str = "keys.vault";
/// The SQLite database.
const DATABASE_FILE: &str = "postern.db";
/// The operator's API token.
const TOKEN_FILE: &str = "api.token";
/// The address of the local API, written by a running node.
const API_ADDRESS_FILE: &str = "api.addr";
/// A copy of the database, which exists while a backup is made.
const SNAPSHOT_FILE: &str = "postern.db.backup";
/// Locked by the process that runs on the folder.
const LOCK_FILE: &str = "postern.lock";

/// Label, in the database, of the operator's API token.
pub(crate) const OPERATOR_LABEL: &str = "operator";

/// A node's data folder.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data folder that a configuration names.
    pub fn of(config: &Config) -> Self {
        Self(config.data_dir())
    }

    /// The data folder at `path`.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The vault: the sealed keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join(KEYS_FILE)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join(DATABASE_FILE)
    }

    /// The operator's API token.
    pub fn token(&self) -> PathBuf {
        self.0.join(TOKEN_FILE)
    }

    /// The file that holds the API's address while the node runs.
    pub fn api_address(&self) -> PathBuf {
        self.0.join(API_ADDRESS_FILE)
    }

    /// The copy of the database that a backup makes and removes.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.0.join(SNAPSHOT_FILE)
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.0.join(LOCK_FILE)
    }

    /// Folder of Tor's state and cache.
    #[cfg(feature = "tor")]
    pub(crate) fn tor(&self) -> PathBuf {
        self.0.join("tor")
    }
}

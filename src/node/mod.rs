//! The node: where everything is put together. `init` makes one, `run` is one.
//!
//! The only place that knows all rooms. Never holds logic of its own beyond order: what starts before what, and what
//! stops first. Invariant: when [`run()`] returns, every task is over, all that was acknowledged is on disk, and no
//! second process ran on the same folder.

mod admission;
mod archive;
mod backup;
mod backups;
mod calibrate;

mod control;
mod draft;
mod gatekeeper;
mod hold;
mod init;
mod layout;
mod progress;
mod reload;
mod restore;
mod rotation;
mod run;

use std::path::{Path, PathBuf};

pub use admission::Admission;
pub use backup::{BackedUp, BackupError, backup};
pub use calibrate::calibrated;
pub use draft::{DraftError, check_free};
pub use gatekeeper::Doorkeeper;
pub use hold::{Hold, HoldError};
pub use init::{InitError, Initialised, init};
pub use progress::{Hear, Progress, Step, Stopped};
pub use reload::Reloads;
pub use restore::{RestoreError, Restored, restore};
pub use rotation::check_may_rotate;
pub use run::{Event, RunError, run};

use crate::config::Config;
use crate::graph::GraphLimits;
use crate::state_engine::{AsideLimits, CoreLimits, PackageLimits, RecoveryLimits};

/// The vault's file in a node's folder.
const KEYS_FILE: &str = "keys.vault";
/// The database's file.
const DATABASE_FILE: &str = "postern.db";
/// The operator's API token.
pub const TOKEN_FILE: &str = "api.token";
/// Where a running node says at which address its API listens.
pub const API_ADDRESS_FILE: &str = "api.addr";
/// A copy of the database, while a backup is made.
const SNAPSHOT_FILE: &str = "postern.db.backup";
/// Held by the process that runs on the folder.
const LOCK_FILE: &str = "postern.lock";

/// The limits of the core that a config sets.
fn core_limits(config: &Config) -> CoreLimits {
    CoreLimits {
        graph: GraphLimits {
            object: config.limits.object(),
            key_events_max: config.limits.key_events_max,
        },
        package: PackageLimits {
            bytes_max: config.sync.package_bytes_max,
            objects_max: config.sync.package_objects_max,
        },
        aside: AsideLimits {
            parked_per_peer_max: config.limits.parked_per_peer_max,
            rejects_per_peer_max: config.limits.rejects_per_peer_max,
        },
        quotas: config.quota.quotas(),
        recovery: RecoveryLimits {
            wait_ms: config.node.recovery_hours.saturating_mul(3_600_000),
        },
    }
}

/// The files of a node's data folder.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The folder that a config names.
    pub fn of(config: &Config) -> Self {
        Self(config.data_dir())
    }

    /// A data folder by its path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The vault.
    pub fn keys(&self) -> PathBuf {
        self.0.join(KEYS_FILE)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join(DATABASE_FILE)
    }

    /// The operator's token.
    pub fn token(&self) -> PathBuf {
        self.0.join(TOKEN_FILE)
    }

    /// The API's address, while the node runs.
    pub fn api_address(&self) -> PathBuf {
        self.0.join(API_ADDRESS_FILE)
    }

    /// Where a backup puts its copy of the database while it lasts.
    fn snapshot(&self) -> PathBuf {
        self.0.join(SNAPSHOT_FILE)
    }

    fn lock(&self) -> PathBuf {
        self.0.join(LOCK_FILE)
    }

    #[cfg(feature = "tor")]
    fn tor(&self) -> PathBuf {
        self.0.join("tor")
    }
}

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
mod gatekeeper;
mod init;
mod layout;
mod progress;
mod reload;
mod restore;
mod rotation;
mod run;

pub use admission::Admission;
pub use backup::{BackedUp, BackupError, backup};
pub use calibrate::calibrated;
pub use gatekeeper::Doorkeeper;
pub use init::{InitError, Initialised, init};
pub use progress::{Hear, Progress, Step, Stopped};
pub use reload::Reloads;
pub use restore::{RestoreError, Restored, restore};
pub use rotation::check_may_rotate;
pub use run::{Event, RunError, run};

use crate::config::Config;
use crate::graph::GraphLimits;
use crate::state_engine::{AsideLimits, CoreLimits, PackageLimits, RecoveryLimits};

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

//! The limits of the core, as a config sets them.
//!
//! A pure mapping. It is a module of its own because both `node` (start) and `backup` (restore)
//! open the core, and neither `config` nor the core names the other.

use crate::config::Config;
use crate::graph::GraphLimits;
use crate::state_engine::{AsideLimits, CoreLimits, PackageLimits, RecoveryLimits};

/// The limits of the core that a config sets.
pub(crate) fn core_limits(config: &Config) -> CoreLimits {
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

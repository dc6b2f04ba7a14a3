//! From a configuration to the limits of the core.
//!
//! A pure mapping. This module exists because both `node` (start) and `backup` (restore)
//! open the core, and neither `config` nor the core imports the other.

use crate::config::{Config, InvitationPolicy};
use crate::graph::{AcceptPolicy, GraphLimits};
use crate::state_engine::{CoreLimits, Quotas, RecoveryLimits, TierQuota};

/// The limits of the core: quotas and recovery from the configuration, and the defaults.
pub(crate) fn core_limits(config: &Config) -> CoreLimits {
    let (untrusted, trusted) = (&config.quota.untrusted, &config.quota.trusted);
    CoreLimits {
        graph: GraphLimits {
            accept: match config.sync.accept {
                InvitationPolicy::Contacts => AcceptPolicy::Contacts,
                InvitationPolicy::Ask => AcceptPolicy::Ask,
                InvitationPolicy::All => AcceptPolicy::All,
            },
            ..GraphLimits::default()
        },
        quotas: Quotas {
            untrusted: TierQuota::untrusted(untrusted.stored_bytes_max, untrusted.total_bytes_max),
            trusted: TierQuota::trusted(trusted.stored_bytes_max, trusted.total_bytes_max),
        },
        recovery: RecoveryLimits {
            wait_ms: config.node.recovery_hours.saturating_mul(3_600_000),
        },
        ..CoreLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn limits_of_an_empty_file_equal_the_defaults() {
        let limits = core_limits(&Config::default());
        let mut expected = CoreLimits::default();
        // Tests of the core accept all.
        expected.graph.accept = AcceptPolicy::Contacts;
        assert_eq!(format!("{limits:?}"), format!("{expected:?}"));
    }

    #[test]
    fn warnings_of_removed_keys_name_the_limits_of_the_core() {
        let limits = CoreLimits::default();
        let (untrusted, trusted) = (limits.quotas.untrusted, limits.quotas.trusted);
        for (key, number) in [
            (
                "quota.untrusted.requests_per_minute_max",
                untrusted.requests_per_minute_max.into(),
            ),
            (
                "quota.trusted.requests_per_minute_max",
                trusted.requests_per_minute_max.into(),
            ),
            (
                "limits.parked_per_peer_max",
                limits.aside.waiting_per_peer_max,
            ),
            (
                "limits.rejects_per_peer_max",
                limits.aside.rejects_per_peer_max,
            ),
        ] {
            let config = Config::parse(Path::new("p"), &format!("{key} = 1\n")).unwrap();
            let warning = config.warnings()[0].to_string();
            assert!(
                warning.ends_with(&format!("fixed at {number}")),
                "{warning}"
            );
        }
    }

    #[test]
    fn quota_of_objects_holds_one_package_for_every_quota_of_bytes() {
        let quota = TierQuota::untrusted(983_040, 983_040);
        assert_eq!(
            (quota.stored_objects_max, quota.total_objects_max),
            (4096, 4096)
        );
        let quota = TierQuota::untrusted(16 << 20, 512 << 20);
        assert_eq!(
            (quota.stored_objects_max, quota.total_objects_max),
            (10_242, 327_760)
        );
    }
}

//! The admission policy in force: the configuration file's, or the operator's until the file is
//! read again.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::{AdmissionConfig, Policy};

/// The policy in force, which can change while the node runs. Clones share one value.
#[derive(Debug, Clone)]
pub struct ActivePolicy(Arc<RwLock<Active>>);

#[derive(Debug)]
struct Active {
    config: Arc<AdmissionConfig>,
    overridden: bool,
}

impl ActivePolicy {
    /// Starts with the configuration file's policy.
    pub fn new(config: AdmissionConfig) -> Self {
        let config = Arc::new(config);
        Self(Arc::new(RwLock::new(Active {
            config,
            overridden: false,
        })))
    }

    /// Returns the policy in force.
    pub fn get(&self) -> Arc<AdmissionConfig> {
        self.0.read().config.clone()
    }

    /// Whether the operator has replaced the file's policy since the file was read.
    pub fn is_overridden(&self) -> bool {
        self.0.read().overridden
    }

    /// Sets the operator's policy, which is in force until the file is read again.
    pub fn set_policy(&self, policy: Policy) {
        let mut now = self.0.write();
        now.config = Arc::new(AdmissionConfig {
            policy,
            ..(*now.config).clone()
        });
        now.overridden = true;
    }

    /// Puts the policy of a file that was read again in force.
    pub fn replace(&self, config: AdmissionConfig) {
        let config = Arc::new(config);
        *self.0.write() = Active {
            config,
            overridden: false,
        };
    }
}

#[cfg(test)]
mod tests {
    use keys::PeerId;

    use super::*;

    #[test]
    fn operator_policy_is_in_force_until_the_file_is_read_again() {
        let active = ActivePolicy::new(AdmissionConfig::default());
        let other = active.clone();
        other.set_policy(Policy::Approve);
        assert_eq!(
            (active.get().policy, active.is_overridden()),
            (Policy::Approve, true)
        );
        let allow = vec![PeerId::from_bytes([1; 32])];
        active.replace(AdmissionConfig {
            allow: allow.clone(),
            ..AdmissionConfig::default()
        });
        assert_eq!(
            (other.get().policy, other.is_overridden()),
            (Policy::Open, false)
        );
        assert_eq!(other.get().allow, allow);
    }
}

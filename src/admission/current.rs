//! The admission policy in force: the config file's, or the operator's until the file is read again.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::{AdmissionConfig, Policy};

/// Whom to let in, changeable while the node runs. Clones are the same value.
#[derive(Debug, Clone)]
pub struct ActivePolicy(Arc<RwLock<Active>>);

#[derive(Debug)]
struct Active {
    config: Arc<AdmissionConfig>,
    overridden: bool,
}

impl ActivePolicy {
    /// What the file says.
    pub fn new(config: AdmissionConfig) -> Self {
        let config = Arc::new(config);
        Self(Arc::new(RwLock::new(Active {
            config,
            overridden: false,
        })))
    }

    /// What holds now.
    pub fn get(&self) -> Arc<AdmissionConfig> {
        self.0.read().config.clone()
    }

    /// Whether the policy is another than the file's: the operator changed it since that was read.
    pub fn is_overridden(&self) -> bool {
        self.0.read().overridden
    }

    /// Another policy, until the file is read again.
    pub fn set_policy(&self, policy: Policy) {
        let mut now = self.0.write();
        now.config = Arc::new(AdmissionConfig {
            policy,
            ..(*now.config).clone()
        });
        now.overridden = true;
    }

    /// The file was read again: its word holds.
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
    fn a_change_by_hand_holds_until_the_file_is_read_again() {
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

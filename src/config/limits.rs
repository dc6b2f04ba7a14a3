//! From the tables of the file to the limits that the node runs with.
//!
//! Input: a checked [`Config`]. Output: the structs of `settings.rs`, `bastion::GateConfig` and, in
//! builds with Tor, `TorConfig`; values that are no keys are their defaults or derived from keys.

use bastion::{Feature, Features, GateConfig};

use super::settings::{AdmissionConfig, ApiConfig, IntroducePolicy, SyncConfig};
use super::tables::Config;

impl Config {
    /// Limits of the local API.
    pub fn api_config(&self) -> ApiConfig {
        ApiConfig {
            listen: self.api.listen,
            ..ApiConfig::DEFAULT
        }
    }

    /// Which peers are admitted.
    pub fn admission_config(&self) -> AdmissionConfig {
        AdmissionConfig {
            policy: self.admission.policy,
            allow: self.admission.allow.clone(),
            untrusted_idle_days: self.admission.untrusted_idle_days,
            ..AdmissionConfig::DEFAULT
        }
    }

    /// Limits of the gate.
    pub fn gate_config(&self) -> GateConfig {
        let table = &self.bastion;
        let gate = GateConfig {
            effort_accept_max: table.effort_accept_max,
            verify_workers: table.verify_workers,
            solver_threads: table.solver_threads,
            features: self.features(),
            ..GateConfig::DEFAULT
        };
        gate.with_effort_max(table.effort_max)
            .with_open_handshakes_max(table.open_handshakes_max)
    }

    /// The features that the node offers. One that does not pull relays nothing, because a push
    /// ends before a received object.
    fn features(&self) -> Features {
        let is_offered = |feature: &Feature| match feature {
            Feature::Introduce => self.introduces(),
            Feature::Relay => self.sync.pull_interval_s > 0,
            Feature::Receipts | Feature::Watch => true,
        };
        Feature::ALL.into_iter().filter(is_offered).collect()
    }

    fn introduces(&self) -> bool {
        self.sync.introduce == IntroducePolicy::Members
    }

    /// Limits of sessions and sync.
    pub fn sync_config(&self) -> SyncConfig {
        let table = &self.sync;
        let sync = SyncConfig {
            pull_interval_s: table.pull_interval_s,
            push_interval_s: table.push_interval_s,
            pull_wait_s: table.pull_wait_s,
            dials_max: table.dials_max,
            introduces: self.introduces(),
            outbox: self
                .peers
                .iter()
                .filter(|peer| !peer.push_domains.is_empty())
                .map(|peer| (peer.onion, peer.push_domains.clone()))
                .collect(),
            ..SyncConfig::DEFAULT
        };
        sync.with_sessions_max(table.sessions_max)
    }
}

#[cfg(feature = "tor")]
mod tor {
    use std::path::Path;

    use bastion::transport::tor::{TorConfig, TorLimits};

    use super::Config;

    /// Circuits beyond those of sessions and handshakes: streams that wait for the gate, and
    /// circuits that a peer keeps open between two dials.
    const SPARE_CIRCUITS: usize = 128;
    /// Fewest introduction requests that may arrive at once, because all peers may reconnect in
    /// the same second.
    const INTRO_BURST_MIN: u32 = 100;
    /// Requests that may wait under Tor's own proof of work: at about 4 KiB each, 8 MiB.
    const POW_QUEUE_MAX: usize = 2048;

    impl Config {
        /// Settings of the Tor client and the onion service, with its directories in `folder`.
        pub fn tor_config(&self, folder: &Path) -> TorConfig {
            let (gate, table) = (self.gate_config(), &self.transport);
            let mut tor = TorConfig::new(folder.join("state"), folder.join("cache"));
            tor.arti = self.tor.clone();
            tor.limits = TorLimits {
                dial_deadline: std::time::Duration::from_secs(gate.dial_deadline_s),
                circuits_max: self.sync.sessions_max + gate.handshakes_max() + SPARE_CIRCUITS,
                ..TorLimits::DEFAULT
            };
            tor.hardening.intro_points = table.intro_points;
            tor.hardening.intro_rate_per_s = table.intro_rate_per_s;
            // Relays ignore both numbers where the burst is below the rate.
            tor.hardening.intro_burst = table.intro_rate_per_s.max(INTRO_BURST_MIN);
            tor.hardening.vanguards = table.vanguards;
            tor.hardening.pow_queue_max = table.tor_pow.then_some(POW_QUEUE_MAX);
            tor
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_an_empty_file_equal_the_defaults() {
        let config = Config::default();
        assert_eq!(config.api_config(), ApiConfig::DEFAULT);
        assert_eq!(config.admission_config(), AdmissionConfig::DEFAULT);
        let gate = GateConfig {
            features: Features::from_iter(Feature::ALL),
            ..GateConfig::DEFAULT
        };
        assert_eq!(config.gate_config(), gate);
        assert_eq!(config.sync_config(), SyncConfig::DEFAULT);
    }

    #[test]
    fn node_that_does_not_pull_does_not_relay() {
        let mut config = Config::default();
        config.sync.pull_interval_s = 0;
        let features = config.gate_config().features;
        let left = [Feature::Introduce, Feature::Receipts, Feature::Watch];
        assert_eq!(features, Features::from_iter(left));
    }

    #[test]
    fn node_that_is_never_introduced_does_not_offer_the_feature() {
        let mut config = Config::default();
        config.sync.introduce = IntroducePolicy::Never;
        assert!(!config.gate_config().features.has(Feature::Introduce));
        assert!(!config.sync_config().introduces);
    }

    #[cfg(feature = "tor")]
    #[test]
    fn tor_limits_of_an_empty_file_equal_the_defaults() {
        use bastion::transport::tor::TorConfig;

        let tor = Config::default().tor_config(std::path::Path::new("t"));
        let defaults = TorConfig::new("t/state", "t/cache");
        assert_eq!(
            (tor.limits, tor.hardening),
            (defaults.limits, defaults.hardening)
        );
    }

    #[cfg(feature = "tor")]
    #[test]
    fn every_transport_key_reaches_tor() {
        let mut config = Config::default();
        config.sync.sessions_max = 10;
        config.bastion.open_handshakes_max = 16;
        config.transport.intro_points = 4;
        config.transport.intro_rate_per_s = 200;
        config.transport.vanguards = bastion::Vanguards::Full;
        config.transport.tor_pow = true;
        let tor = config.tor_config(std::path::Path::new("t"));
        assert_eq!(tor.limits.circuits_max, 10 + 16 + 2 + 2 + 128);
        let expected = bastion::Hardening {
            intro_points: 4,
            intro_rate_per_s: 200,
            intro_burst: 200,
            vanguards: bastion::Vanguards::Full,
            pow_queue_max: Some(2048),
        };
        assert_eq!(tor.hardening, expected);
    }

    #[cfg(feature = "tor")]
    #[test]
    fn warnings_of_removed_transport_keys_name_the_limits_of_tor() {
        use bastion::transport::tor::TorLimits;

        let tor = TorLimits::DEFAULT;
        for (key, number) in [
            ("bootstrap_deadline_s", tor.bootstrap_deadline.as_secs()),
            ("accepts_max", tor.accepts_max as u64),
            ("accept_deadline_s", tor.accept_deadline.as_secs()),
            (
                "accept_deadline_pressed_s",
                tor.accept_deadline_pressed.as_secs(),
            ),
            ("requests_waiting_max", tor.requests_waiting_max as u64),
            ("request_wait_s", tor.request_wait.as_secs()),
            ("circuit_idle_s", tor.circuit_idle.as_secs()),
            (
                "streams_per_circuit_max",
                tor.streams_per_circuit_max.into(),
            ),
            ("streams_per_minute_max", tor.streams_per_minute_max.into()),
            ("arrivals_max", tor.arrivals_max as u64),
        ] {
            let text = format!("[transport]\n{key} = 1\n");
            let config = Config::parse(std::path::Path::new("p"), &text).unwrap();
            let warning = config.warnings()[0].to_string();
            assert!(
                warning.ends_with(&format!("fixed at {number}")),
                "{warning}"
            );
        }
    }
}

//! From load to effort: how much work a stranger must do, and how long we wait for one.
//!
//! Pure: load and time are arguments. Rises in seconds, decays in minutes. Never above `effort_max`, which a default
//! client accepts. Invariant: more load never means less effort.

use std::time::Duration;

use crate::config::GateConfig;

/// What weighs on the gate at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Strangers in a handshake.
    pub open_handshakes: usize,
    /// Solutions waiting to be verified.
    pub queue: usize,
    /// Solutions that failed, counted over about a minute.
    pub failures: u64,
}

/// The whole of a pressure.
const FULL: u64 = 1000;

impl Load {
    /// The tightest of the three, in thousandths of what there is room for; 1000 is full.
    pub fn pressure(&self, config: &GateConfig) -> u64 {
        let share = |used: u64, of: u64| (used.saturating_mul(FULL) / of.max(1)).min(FULL);
        share(self.open_handshakes as u64, config.open_handshakes_max as u64)
            .max(share(self.queue as u64, config.verify_queue_max as u64))
            .max(share(self.failures, config.failures_per_minute_max))
    }
}

/// The effort that a pressure calls for in the long run: the base while calm, then doubling in even steps to the cap.
pub fn target_effort(pressure: u64, config: &GateConfig) -> u64 {
    let calm = u64::from(config.effort_calm_percent) * FULL / 100;
    let Some(above) = pressure.min(FULL).checked_sub(calm) else {
        return config.effort_base;
    };
    let doublings = u64::from((config.effort_max / config.effort_base.max(1)).max(1).ilog2());
    let room = (FULL - calm.min(FULL - 1)).max(1);
    match above {
        0 => config.effort_base,
        above if above >= room => config.effort_max,
        above => (config.effort_base << (doublings * above / room)).min(config.effort_max),
    }
}

/// The effort asked now. Follows the load's target with inertia.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    value: u64,
    since: u64,
}

impl Effort {
    /// Calm.
    pub fn base(config: &GateConfig, now: u64) -> Self {
        Self {
            value: config.effort_base,
            since: now,
        }
    }

    /// Expected evaluations.
    pub fn value(self) -> u64 {
        self.value
    }

    /// The effort at `now` (unix seconds) under `load`.
    pub fn follow(self, load: &Load, config: &GateConfig, now: u64) -> Self {
        let target = target_effort(load.pressure(config), config);
        let elapsed = now.saturating_sub(self.since);
        if target > self.value {
            let doublings = (elapsed / config.effort_doubling_s.max(1)).min(63) as u32;
            match doublings {
                0 => self,
                _ => Self {
                    value: self.value.saturating_mul(1 << doublings).min(target),
                    since: now,
                },
            }
        } else if target < self.value {
            let halvings = elapsed / config.effort_halving_s.max(1);
            Self {
                value: (self.value >> halvings.min(63)).max(target),
                since: self.since + halvings * config.effort_halving_s,
            }
        } else {
            Self { since: now, ..self }
        }
    }
}

/// Counts failed solutions over about a minute: the count halves every half minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    count: u64,
    since: u64,
}

const HALVING_S: u64 = 30;

impl Failures {
    /// The count at `now`, in unix seconds.
    pub fn at(self, now: u64) -> Self {
        let halvings = now.saturating_sub(self.since) / HALVING_S;
        Self {
            count: self.count >> halvings.min(63),
            since: self.since + halvings * HALVING_S,
        }
    }

    /// One more.
    pub fn and_one(self, now: u64) -> Self {
        let now = self.at(now);
        Self {
            count: now.count.saturating_add(1),
            ..now
        }
    }

    /// How many.
    pub fn count(self) -> u64 {
        self.count
    }
}

/// How long to wait for a stranger under pressure: the whole time while calm, a quarter when full.
pub fn patience(whole: Duration, pressure: u64) -> Duration {
    let quarters = FULL - pressure.min(FULL) * 3 / 4;
    whole * quarters as u32 / FULL as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> GateConfig {
        GateConfig {
            effort_base: 4,
            effort_max: 4096,
            open_handshakes_max: 100,
            verify_queue_max: 10,
            ..GateConfig::default()
        }
    }

    fn open(open_handshakes: usize) -> Load {
        Load {
            open_handshakes,
            ..Load::default()
        }
    }

    #[test]
    fn calm_asks_the_base_and_full_asks_the_cap() {
        let target = |load: Load| target_effort(load.pressure(&config()), &config());
        assert_eq!(target(open(0)), 4);
        assert_eq!(target(open(20)), 4);
        assert_eq!(target(open(60)), 128);
        assert_eq!(target(open(100)), 4096);
        assert_eq!(target(open(1000)), 4096);
        assert_eq!(target(Load { queue: 10, ..open(0) }), 4096);
        assert_eq!(
            target(Load {
                failures: 600,
                ..open(0)
            }),
            4096
        );
    }

    #[test]
    fn effort_rises_in_seconds_and_decays_in_minutes() {
        let config = config();
        let mut effort = Effort::base(&config, 1000);
        effort = effort.follow(&open(100), &config, 1000);
        assert_eq!(effort.value(), 4);
        for second in 1001..=1010 {
            effort = effort.follow(&open(100), &config, second);
        }
        assert_eq!(effort.value(), 4096);
        effort = effort.follow(&open(0), &config, 1059);
        assert_eq!(effort.value(), 4096);
        for second in 1060..=1130 {
            effort = effort.follow(&open(0), &config, second);
        }
        assert_eq!(effort.value(), 1024);
        assert_eq!(effort.follow(&open(0), &config, 9000).value(), 4);
    }

    #[test]
    fn failures_fade() {
        let failures = (0..8).fold(Failures::default(), |sum, _| sum.and_one(1000));
        assert_eq!(failures.at(1001).count(), 8);
        assert_eq!(failures.at(1030).at(1060).count(), 2);
        assert_eq!(failures.at(9000).count(), 0);
    }

    #[test]
    fn patience_shrinks_to_a_quarter() {
        let whole = Duration::from_secs(20);
        assert_eq!(patience(whole, 0), whole);
        assert_eq!(patience(whole, 1000), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn more_load_never_means_less_effort(base in 1u64..5000, factor in 1u64..10_000, calm in 0u8..100, less in 0u64..1001, more in 0u64..1001) {
            let config = GateConfig { effort_base: base, effort_max: base * factor, effort_calm_percent: calm, ..GateConfig::default() };
            let (less, more) = (less.min(more), less.max(more));
            let (low, high) = (target_effort(less, &config), target_effort(more, &config));
            prop_assert!(base <= low && low <= high && high <= config.effort_max);
        }
    }
}

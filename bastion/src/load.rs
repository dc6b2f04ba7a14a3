//! From load to effort: how much work a client must do, and how long the server waits for one.
//!
//! Load and time are arguments. The effort rises in seconds and decays in minutes, and stays within
//! `effort_max`, which a default client accepts. Invariant: more load never means less effort.
//! Tested below, also by properties.

use std::time::Duration;

use crate::config::GateConfig;

/// The load of the gate at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Open handshakes without a ticket.
    pub open_handshakes: usize,
    /// Solutions waiting to be verified.
    pub queue: usize,
    /// Invalid solutions, counted over about a minute.
    pub failures: u64,
    /// Verified solutions, admitted or not, counted over about a minute.
    pub admissions: u64,
}

/// Full load, in thousandths.
pub const FULL: u64 = 1000;

/// Largest share of open handshakes, failures and queue in the load, in thousandths. A higher
/// effort deters none of them: stalling and guessing cost no work, and a place in the queue costs
/// the inner condition only. So they raise the effort, but only verified work can raise it to the
/// cap.
const UNPAID_MAX: u64 = FULL / 2;

impl Load {
    /// Returns the largest of the four shares, in thousandths; 1000 is full.
    pub fn load_permille(&self, config: &GateConfig) -> u64 {
        let share = |used: u64, of: u64| (used.saturating_mul(FULL) / of.max(1)).min(FULL);
        let open = share(
            self.open_handshakes as u64,
            config.open_handshakes_max as u64,
        );
        let failed = share(self.failures, config.failures_per_minute_max);
        let queued = share(self.queue as u64, config.verify_queue_max as u64);
        let paid = share(self.admissions, config.admissions_per_minute_max);
        paid.max(open.max(failed).max(queued) * UNPAID_MAX / FULL)
    }

    /// Returns the share of the slots without a ticket that are taken, in thousandths.
    pub fn slot_utilisation(&self, config: &GateConfig) -> u64 {
        (self.open_handshakes as u64 * FULL / (config.open_handshakes_max as u64).max(1)).min(FULL)
    }
}

/// Returns the effort that a constant load leads to: `effort_idle` while idle, then `effort_base`
/// at once, then doubling in even steps up to `effort_max`.
pub fn target_effort(load_permille: u64, config: &GateConfig) -> u64 {
    let idle = u64::from(config.idle_load_percent) * FULL / 100;
    let above_idle = match load_permille.min(FULL).checked_sub(idle) {
        None | Some(0) => return config.effort_idle,
        Some(above_idle) => above_idle,
    };
    let doublings = u64::from(
        (config.effort_max / config.effort_base.max(1))
            .max(1)
            .ilog2(),
    );
    let range = (FULL - idle.min(FULL - 1)).max(1);
    if above_idle >= range {
        config.effort_max
    } else {
        (config.effort_base << (doublings * above_idle / range)).min(config.effort_max)
    }
}

/// The current effort, which follows the target with inertia.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    value: u64,
    /// Unix seconds from which the time to the next doubling counts.
    rising_since: u64,
    /// Unix seconds from which the time to the next halving counts.
    falling_since: u64,
}

impl Effort {
    /// Returns the effort of an idle gate. `now` is in Unix seconds.
    pub fn idle(config: &GateConfig, now: u64) -> Self {
        Self {
            value: config.effort_idle,
            rising_since: now,
            falling_since: now,
        }
    }

    /// Returns the expected evaluations.
    pub fn value(self) -> u64 {
        self.value
    }

    /// Returns the effort at `now` (Unix seconds) under `load`.
    ///
    /// Under load the effort goes from idle to the base at once, then doubles at most once in
    /// `effort_doubling_s`. Without load it halves at most once in `effort_halving_s`, and goes
    /// from the base to idle at once.
    pub fn follow(self, load: &Load, config: &GateConfig, now: u64) -> Self {
        // When the clock was set back, time counts from now. Otherwise the effort would not change
        // until the clock reaches the old time.
        let clamped = Self {
            rising_since: self.rising_since.min(now),
            falling_since: self.falling_since.min(now),
            ..self
        };
        let target = target_effort(load.load_permille(config), config);
        if target > clamped.value {
            clamped.rise(target, config, now)
        } else {
            clamped.fall(target, config, now)
        }
    }

    fn rise(self, target: u64, config: &GateConfig, now: u64) -> Self {
        let doubling_s = config.effort_doubling_s.max(1);
        let doublings = now.saturating_sub(self.rising_since) / doubling_s;
        let value = if self.value < config.effort_base {
            config.effort_base
        } else if doublings == 0 {
            return Self {
                falling_since: now,
                ..self
            };
        } else {
            self.value.saturating_mul(1 << doublings.min(63))
        };
        Self {
            value: value.min(target),
            rising_since: now,
            falling_since: now,
        }
    }

    fn fall(self, target: u64, config: &GateConfig, now: u64) -> Self {
        let halving_s = config.effort_halving_s.max(1);
        let halvings = now.saturating_sub(self.falling_since) / halving_s;
        let is_at_target = target == self.value;
        let mut value = (self.value >> halvings.min(63)).max(target);
        if halvings > 0 && value < config.effort_base {
            value = target;
        }
        Self {
            value,
            rising_since: now,
            falling_since: if is_at_target {
                now
            } else {
                self.falling_since + halvings * halving_s
            },
        }
    }
}

/// A count over about a minute: it halves every half minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerMinute {
    count: u64,
    /// Unix seconds of the last halving.
    since: u64,
}

const HALVING_S: u64 = 30;

impl PerMinute {
    /// Returns the count decayed to `now`, in Unix seconds.
    pub fn at(self, now: u64) -> Self {
        // When the clock was set back, the count decays from now on.
        let since = self.since.min(now);
        let halvings = (now - since) / HALVING_S;
        Self {
            count: self.count >> halvings.min(63),
            since: since + halvings * HALVING_S,
        }
    }

    /// Adds one, up to `max`. A count above the full load would only delay the decay.
    pub fn and_one(self, now: u64, max: u64) -> Self {
        let decayed = self.at(now);
        Self {
            count: decayed.count.saturating_add(1).min(max),
            ..decayed
        }
    }

    /// Returns the count.
    pub fn count(self) -> u64 {
        self.count
    }
}

/// Returns the seconds after which a client that received `busy` should retry: 1 when idle, 5 at
/// full load. The cause of `busy` lasts less than that; the delay spreads the retries.
pub fn retry_s(load_permille: u64) -> u32 {
    1 + (load_permille.min(FULL) * 4 / FULL) as u32
}

/// Shortens a deadline by the slot utilisation (thousandths): the whole time when no slot is taken,
/// a quarter when all are.
pub fn scaled_deadline(deadline: Duration, slot_utilisation: u64) -> Duration {
    let share = FULL - slot_utilisation.min(FULL) * 3 / 4;
    deadline * share as u32 / FULL as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> GateConfig {
        GateConfig {
            effort_idle: 1,
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

    fn target(load: Load) -> u64 {
        target_effort(load.load_permille(&config()), &config())
    }

    #[test]
    fn effort_goes_from_idle_to_cap_with_verified_work() {
        let admissions = |admissions| {
            target(Load {
                admissions,
                ..open(0)
            })
        };
        assert_eq!((admissions(0), admissions(24)), (1, 1));
        // Base 4 and cap 4096: ten doublings over the remaining eight tenths.
        assert_eq!(
            (
                admissions(36),
                admissions(72),
                admissions(120),
                admissions(999)
            ),
            (8, 128, 4096, 4096)
        );
    }

    #[test]
    fn unpaid_load_raises_the_effort_below_the_cap() {
        assert_eq!((target(open(0)), target(open(40))), (1, 1));
        assert_eq!(
            (target(open(60)), target(open(100)), target(open(1000))),
            (8, 32, 32)
        );
        let failures = |failures| {
            target(Load {
                failures,
                ..open(0)
            })
        };
        assert_eq!(
            (failures(0), failures(600), failures(1_000_000)),
            (1, 32, 32)
        );
        let queue = |queue| target(Load { queue, ..open(0) });
        assert_eq!(
            (queue(0), queue(4), queue(6), queue(10), queue(99)),
            (1, 1, 8, 32, 32)
        );
    }

    #[test]
    fn effort_rises_in_seconds_and_decays_in_minutes() {
        let config = config();
        let full = Load {
            admissions: 120,
            ..open(0)
        };
        let mut effort = Effort::idle(&config, 1000);
        assert_eq!(effort.value(), 1);
        // To the base at once, then one doubling per second.
        effort = effort.follow(&full, &config, 1000);
        assert_eq!(effort.value(), 4);
        assert_eq!(effort.follow(&full, &config, 1000).value(), 4);
        for (second, expected) in
            (1001..=1010).zip([8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
        {
            effort = effort.follow(&full, &config, second);
            assert_eq!(effort.value(), expected);
        }
        effort = effort.follow(&open(0), &config, 1059);
        assert_eq!(effort.value(), 4096);
        for second in 1060..=1130 {
            effort = effort.follow(&open(0), &config, second);
        }
        assert_eq!(effort.value(), 1024);
        assert_eq!(effort.follow(&open(0), &config, 9000).value(), 1);
        // The effort decays within minutes: by halvings to the base, then to idle at once.
        let base = Effort {
            value: config.effort_base * 2,
            ..effort
        };
        let (one, two) = (
            base.follow(&open(0), &config, 1190),
            base.follow(&open(0), &config, 1310),
        );
        assert_eq!((one.value(), two.value()), (4, 1));
        // A pause between two attacks does not lower the effort.
        let paused = effort
            .follow(&open(0), &config, 1150)
            .follow(&full, &config, 1151);
        assert!(paused.value() >= 1024, "{}", paused.value());
    }

    #[test]
    fn per_minute_counts_decay() {
        let failures = (0..8).fold(PerMinute::default(), |sum, _| sum.and_one(1000, 600));
        assert_eq!(failures.at(1001).count(), 8);
        assert_eq!(failures.at(1030).at(1060).count(), 2);
        assert_eq!(failures.at(9000).count(), 0);
        let most = (0..1000).fold(PerMinute::default(), |sum, _| sum.and_one(1000, 600));
        assert_eq!(most.at(1001).count(), 600);
    }

    #[test]
    fn effort_and_counts_decay_after_the_clock_was_set_back() {
        let config = config();
        let full = Load {
            admissions: 120,
            ..open(0)
        };
        let mut effort = Effort::idle(&config, 1_000_000);
        for second in 1_000_000..1_000_011 {
            effort = effort.follow(&full, &config, second);
        }
        // The clock is set back by two weeks. The effort rises and falls as before.
        for (second, expected) in [(0, 4096), (60, 2048), (120, 1024)] {
            effort = effort.follow(&open(0), &config, second);
            assert_eq!(effort.value(), expected);
        }
        effort = effort.follow(&full, &config, 1).follow(&full, &config, 2);
        assert_eq!(effort.value(), 2048);
        let failures = PerMinute::default()
            .and_one(1_000_000, 600)
            .and_one(1_000_000, 600);
        assert_eq!(failures.at(0).count(), 2);
        assert_eq!(failures.at(0).at(30).count(), 1);
    }

    #[test]
    fn busy_retry_delay_is_seconds() {
        assert_eq!(
            (retry_s(0), retry_s(500), retry_s(1000), retry_s(9999)),
            (1, 3, 5, 5)
        );
    }

    #[test]
    fn deadline_shrinks_to_a_quarter() {
        let whole = Duration::from_secs(20);
        assert_eq!(scaled_deadline(whole, 0), whole);
        assert_eq!(scaled_deadline(whole, 1000), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn more_load_never_means_less_effort(
            (idle_effort, base, factor) in (1u64..50, 50u64..5000, 1u64..10_000),
            (idle_percent, less, more) in (0u8..100, 0u64..1001, 0u64..1001),
        ) {
            let config = GateConfig {
                effort_idle: idle_effort,
                effort_base: base,
                effort_max: base * factor,
                idle_load_percent: idle_percent,
                ..GateConfig::default()
            };
            let (less, more) = (less.min(more), less.max(more));
            let (low, high) = (target_effort(less, &config), target_effort(more, &config));
            prop_assert!(idle_effort <= low && low <= high && high <= config.effort_max);
        }

        /// For any load over an hour the effort stays between idle and the cap. Above the base it
        /// doubles at most once a second, and in the end it is idle again.
        #[test]
        fn effort_stays_in_its_bounds_over_time(
            loads in proptest::collection::vec(
                (0usize..200, 0usize..20, 0u64..2000, 0u64..400, 1u64..120),
                1..60,
            ),
        ) {
            let config = config();
            let (mut effort, mut now) = (Effort::idle(&config, 1000), 1000);
            for (open_handshakes, queue, failures, admissions, pause) in loads {
                now += pause;
                let load = Load { open_handshakes, queue, failures, admissions };
                let next = effort.follow(&load, &config, now);
                prop_assert!((config.effort_idle..=config.effort_max).contains(&next.value()));
                let most = effort.value().max(config.effort_base);
                prop_assert!(next.value() <= most.saturating_mul(1 << pause.min(30)));
                effort = next;
            }
            let later = effort.follow(&Load::default(), &config, now + 3600);
            prop_assert_eq!(later.value(), config.effort_idle);
        }
    }
}

//! From load to effort: how much work a stranger must do, and how long we wait for one.
//!
//! Pure: load and time are arguments. Rises in seconds, decays in minutes. Never above `effort_max`, which a default
//! client accepts. Invariant: more load never means less effort, and the same load at the same times the same effort.

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
    /// Strangers judged for work that held, admitted or not, counted over about a minute.
    pub admissions: u64,
}

/// The whole of a pressure.
pub const FULL: u64 = 1000;

/// What holding places, failing and queueing can weigh at most. More effort drives away none of them: whoever stalls or
/// guesses does not work, and a place in the queue costs the inner condition only. So they raise the price, but cannot
/// raise it to the cap for everybody else: only work that held can.
const UNPAID_MAX: u64 = FULL / 2;

impl Load {
    /// The tightest of the four, in thousandths of what there is room for; 1000 is full.
    pub fn pressure(&self, config: &GateConfig) -> u64 {
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

    /// How much of the room for strangers is taken, in thousandths.
    pub fn crowding(&self, config: &GateConfig) -> u64 {
        (self.open_handshakes as u64 * FULL / (config.open_handshakes_max as u64).max(1)).min(FULL)
    }
}

/// The effort that a pressure calls for in the long run: nearly nothing while calm, then the base at once, then doubling
/// in even steps to the cap.
pub fn target_effort(pressure: u64, config: &GateConfig) -> u64 {
    let calm = u64::from(config.idle_load_percent) * FULL / 100;
    let above = match pressure.min(FULL).checked_sub(calm) {
        None | Some(0) => return config.effort_idle,
        Some(above) => above,
    };
    let doublings = u64::from(
        (config.effort_max / config.effort_base.max(1))
            .max(1)
            .ilog2(),
    );
    let room = (FULL - calm.min(FULL - 1)).max(1);
    if above >= room {
        config.effort_max
    } else {
        (config.effort_base << (doublings * above / room)).min(config.effort_max)
    }
}

/// The effort asked now. Follows the load's target with inertia.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    value: u64,
    /// From when on the time counts for the next doubling.
    rising: u64,
    /// From when on the time counts for the next halving.
    falling: u64,
}

impl Effort {
    /// Calm.
    pub fn calm(config: &GateConfig, now: u64) -> Self {
        Self {
            value: config.effort_idle,
            rising: now,
            falling: now,
        }
    }

    /// Expected evaluations.
    pub fn value(self) -> u64 {
        self.value
    }

    /// The effort at `now` (unix seconds) under `load`: from calm to the base at once, from there on doubling once in
    /// `effort_doubling_s`; halving once in `effort_halving_s` where the load is gone, and from the base back to calm.
    pub fn follow(self, load: &Load, config: &GateConfig, now: u64) -> Self {
        // After a clock was set back, time counts from now on; else nothing would move until it is as late again.
        let since = Self {
            rising: self.rising.min(now),
            falling: self.falling.min(now),
            ..self
        };
        since.follow_on(load, config, now)
    }

    fn follow_on(self, load: &Load, config: &GateConfig, now: u64) -> Self {
        let target = target_effort(load.pressure(config), config);
        if target > self.value {
            let doubling_s = config.effort_doubling_s.max(1);
            let doublings = now.saturating_sub(self.rising) / doubling_s;
            let value = if self.value < config.effort_base {
                config.effort_base
            } else if doublings == 0 {
                return Self {
                    falling: now,
                    ..self
                };
            } else {
                self.value.saturating_mul(1 << doublings.min(63))
            };
            Self {
                value: value.min(target),
                rising: now,
                falling: now,
            }
        } else {
            let halving_s = config.effort_halving_s.max(1);
            let halvings = now.saturating_sub(self.falling) / halving_s;
            let is_there = target == self.value;
            let mut value = (self.value >> halvings.min(63)).max(target);
            if halvings > 0 && value < config.effort_base {
                value = target;
            }
            Self {
                value,
                rising: now,
                falling: if is_there {
                    now
                } else {
                    self.falling + halvings * halving_s
                },
            }
        }
    }
}

/// Counts over about a minute: the count halves every half minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerMinute {
    count: u64,
    since: u64,
}

const HALVING_S: u64 = 30;

impl PerMinute {
    /// The count at `now`, in unix seconds.
    pub fn at(self, now: u64) -> Self {
        // A clock may be set back: what was counted then fades from now on.
        let since = self.since.min(now);
        let halvings = (now - since) / HALVING_S;
        Self {
            count: self.count >> halvings.min(63),
            since: since + halvings * HALVING_S,
        }
    }

    /// One more, up to `most`: beyond what weighs anything, more would only make it fade later.
    pub fn and_one(self, now: u64, most: u64) -> Self {
        let now = self.at(now);
        Self {
            count: now.count.saturating_add(1).min(most),
            ..now
        }
    }

    /// How many.
    pub fn count(self) -> u64 {
        self.count
    }
}

/// Seconds after which somebody who is told `busy` should come again: one while calm, five when full. What makes us
/// busy is over in less; the hint only spreads those who come back.
pub fn retry_s(pressure: u64) -> u32 {
    1 + (pressure.min(FULL) * 4 / FULL) as u32
}

/// How long to wait for a stranger in a crowd (in thousandths): the whole time while calm, a quarter when full.
pub fn patience(whole: Duration, crowding: u64) -> Duration {
    let quarters = FULL - crowding.min(FULL) * 3 / 4;
    whole * quarters as u32 / FULL as u32
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
        target_effort(load.pressure(&config()), &config())
    }

    #[test]
    fn calm_asks_nearly_nothing_and_work_that_held_asks_up_to_the_cap() {
        let admissions = |admissions| {
            target(Load {
                admissions,
                ..open(0)
            })
        };
        assert_eq!((admissions(0), admissions(24)), (1, 1));
        // Base 4, cap 4096: ten doublings over the eight tenths that are left.
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
    fn stalling_guessing_and_queueing_raise_the_price_but_never_to_the_cap() {
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
        let mut effort = Effort::calm(&config, 1000);
        assert_eq!(effort.value(), 1);
        // To the base at once, then a doubling a second.
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
        // Half an hour of attack is forgotten within a few minutes: to the base in halvings, then calm at once.
        let base = Effort {
            value: config.effort_base * 2,
            ..effort
        };
        let (one, two) = (
            base.follow(&open(0), &config, 1190),
            base.follow(&open(0), &config, 1310),
        );
        assert_eq!((one.value(), two.value()), (4, 1));
        // A pause between two waves does not bring the price down.
        let paused = effort
            .follow(&open(0), &config, 1150)
            .follow(&full, &config, 1151);
        assert!(paused.value() >= 1024, "{}", paused.value());
    }

    #[test]
    fn counts_fade() {
        let failures = (0..8).fold(PerMinute::default(), |sum, _| sum.and_one(1000, 600));
        assert_eq!(failures.at(1001).count(), 8);
        assert_eq!(failures.at(1030).at(1060).count(), 2);
        assert_eq!(failures.at(9000).count(), 0);
        let most = (0..1000).fold(PerMinute::default(), |sum, _| sum.and_one(1000, 600));
        assert_eq!(most.at(1001).count(), 600);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_for_longer() {
        let config = config();
        let full = Load {
            admissions: 120,
            ..open(0)
        };
        let mut effort = Effort::calm(&config, 1_000_000);
        for second in 1_000_000..1_000_011 {
            effort = effort.follow(&full, &config, second);
        }
        // Two weeks back: it rises and falls as ever.
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
    fn who_is_told_busy_comes_again_within_seconds() {
        assert_eq!(
            (retry_s(0), retry_s(500), retry_s(1000), retry_s(9999)),
            (1, 3, 5, 5)
        );
    }

    #[test]
    fn patience_shrinks_to_a_quarter() {
        let whole = Duration::from_secs(20);
        assert_eq!(patience(whole, 0), whole);
        assert_eq!(patience(whole, 1000), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn more_load_never_means_less_effort(calm_effort in 1u64..50, base in 50u64..5000, factor in 1u64..10_000, calm in 0u8..100, less in 0u64..1001, more in 0u64..1001) {
            let config = GateConfig {
                effort_idle: calm_effort, effort_base: base, effort_max: base * factor, idle_load_percent: calm, ..GateConfig::default()
            };
            let (less, more) = (less.min(more), less.max(more));
            let (low, high) = (target_effort(less, &config), target_effort(more, &config));
            prop_assert!(calm_effort <= low && low <= high && high <= config.effort_max);
        }

        /// Whatever the load does over an hour: never below calm nor above the cap, never more than a doubling a second
        /// once the base is reached, and calm again in the end.
        #[test]
        fn effort_stays_in_its_bounds_over_time(loads in proptest::collection::vec((0usize..200, 0usize..20, 0u64..2000, 0u64..400, 1u64..120), 1..60)) {
            let config = config();
            let (mut effort, mut now) = (Effort::calm(&config, 1000), 1000);
            for (open_handshakes, queue, failures, admissions, pause) in loads {
                now += pause;
                let load = Load { open_handshakes, queue, failures, admissions };
                let next = effort.follow(&load, &config, now);
                prop_assert!((config.effort_idle..=config.effort_max).contains(&next.value()));
                prop_assert!(next.value() <= effort.value().max(config.effort_base).saturating_mul(1 << pause.min(30)));
                effort = next;
            }
            prop_assert_eq!(effort.follow(&Load::default(), &config, now + 3600).value(), config.effort_idle);
        }
    }
}

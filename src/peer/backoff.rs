//! Backoff: how long to wait after a failure.
//!
//! Pure except for the jitter, which the caller may draw itself. Invariant: every wait is between
//! three quarters of `backoff_s_min` and `backoff_s_max`.

use std::time::Duration;

use crate::config::SyncConfig;

/// Least share of the delay that jitter leaves, so that peers that failed together do not retry
/// together.
const JITTER_MIN: f64 = 0.75;

/// A delay that doubles with each failure, between two bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    next_s: u64,
    min_s: u64,
    max_s: u64,
    has_jitter: bool,
}

impl Backoff {
    /// Starts at the shortest delay.
    pub(super) fn new(config: &SyncConfig) -> Self {
        Self {
            next_s: config.backoff_s_min,
            min_s: config.backoff_s_min,
            max_s: config.backoff_s_max,
            has_jitter: config.has_jitter,
        }
    }

    /// Returns to the shortest delay, after a success.
    pub(super) fn reset(&mut self) {
        self.next_s = self.min_s;
    }

    /// Returns the delay after a failure, with jitter if the configuration has it, and doubles the
    /// next one.
    pub(super) fn next(&mut self) -> Duration {
        let jitter = if self.has_jitter {
            rand::random_range(0.0..=1.0)
        } else {
            1.0
        };
        self.next_with(jitter)
    }

    /// [`Backoff::next`] with the jitter given, from 0 (the shortest delay) to 1 (the longest).
    fn next_with(&mut self, jitter: f64) -> Duration {
        let delay = Duration::from_secs(self.next_s);
        self.next_s = self.next_s.saturating_mul(2).min(self.max_s);
        delay.mul_f64(JITTER_MIN + (1.0 - JITTER_MIN) * jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(min_s: u64, max_s: u64) -> Backoff {
        Backoff::new(&SyncConfig {
            backoff_s_min: min_s,
            backoff_s_max: max_s,
            ..SyncConfig::default()
        })
    }

    fn delays(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| backoff.next_with(1.0).as_secs())
            .collect()
    }

    #[test]
    fn doubles_with_each_failure_up_to_the_longest_delay() {
        assert_eq!(delays(&mut backoff(5, 60), 6), [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn starts_again_at_the_shortest_delay_after_a_success() {
        let mut backoff = backoff(5, 60);
        delays(&mut backoff, 3);
        backoff.reset();
        assert_eq!(delays(&mut backoff, 2), [5, 10]);
    }

    #[test]
    fn jitter_takes_at_most_a_quarter_of_the_delay() {
        assert_eq!(backoff(8, 60).next_with(0.0), Duration::from_secs(6));
        assert_eq!(backoff(8, 60).next_with(0.5), Duration::from_secs(7));
        for _ in 0..100 {
            let delay = backoff(8, 60).next();
            assert!((6.0..=8.0).contains(&delay.as_secs_f64()), "{delay:?}");
        }
    }
}

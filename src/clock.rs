//! The system's clock: the one place where the time of day is read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::Clock;
use crate::op_context::Timestamp;

/// Reads the system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl bastion::SecondsClock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        Clock::now(self).seconds()
    }
}

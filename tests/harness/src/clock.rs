//! The clock of the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postern::engine::Clock;
use postern::op_context::Timestamp;

/// Initial time of every [`ManualClock`], in Unix milliseconds: 14 November 2023, 22:13:20 UTC.
pub const START: u64 = 1_700_000_000_000;

/// A clock that only tests move. Clones share one time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }
}

impl ManualClock {
    /// Sets the time, in Unix milliseconds.
    pub fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, Ordering::SeqCst);
    }

    /// Moves the time forward, in milliseconds.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Moves the time forward, in seconds.
    pub fn advance_s(&self, seconds: u64) {
        self.advance_ms(seconds * 1000);
    }

    /// Moves the time forward, in days of 24 hours.
    pub fn advance_days(&self, days: u64) {
        self.advance_s(days * 24 * 60 * 60);
    }

    /// The current time.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.timestamp()
    }
}

impl bastion::SecondsClock for ManualClock {
    fn unix_seconds(&self) -> u64 {
        self.timestamp().0 / 1000
    }
}

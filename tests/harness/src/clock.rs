//! The clock of the tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postern::engine::Clock;
use postern::op_context::Timestamp;
use tokio::time::Instant;

/// Initial time of every [`ManualClock`], in Unix milliseconds: 14 November 2023, 22:13:20 UTC.
pub const START: u64 = 1_700_000_000_000;

/// A clock that only tests move. Clones share one time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    moved_to: Arc<AtomicU64>,
    /// The start of the virtual time that is added.
    follows: Option<Instant>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self {
            moved_to: Arc::new(AtomicU64::new(START)),
            follows: None,
        }
    }
}

impl ManualClock {
    /// A clock that also moves with the virtual time of the present tokio runtime.
    pub fn following() -> Self {
        Self {
            follows: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Sets the time, in Unix milliseconds.
    pub fn set(&self, unix_ms: u64) {
        self.moved_to.store(unix_ms, Ordering::SeqCst);
    }

    /// Moves the time forward, in milliseconds.
    pub fn advance_ms(&self, ms: u64) {
        self.moved_to.fetch_add(ms, Ordering::SeqCst);
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
        let passed = self.follows.map_or(0, |start| start.elapsed().as_millis());
        Timestamp(self.moved_to.load(Ordering::SeqCst) + u64::try_from(passed).unwrap())
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

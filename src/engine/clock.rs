//! The clock of the core. Modules below `engine` take the time as an argument.

use crate::op_context::Timestamp;

/// The source of time, in milliseconds since 1970. Tests use clocks that stand still.
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The clock of unit tests: they move it, in Unix milliseconds. Clones share one time.
/// `tests/harness` has the clock of all other tests.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct TestClock(std::sync::Arc<std::sync::atomic::AtomicU64>);

#[cfg(test)]
impl TestClock {
    pub(crate) fn at(unix_ms: u64) -> Self {
        Self(std::sync::Arc::new(unix_ms.into()))
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[cfg(test)]
impl bastion::SecondsClock for TestClock {
    fn unix_seconds(&self) -> u64 {
        self.now().0 / 1000
    }
}

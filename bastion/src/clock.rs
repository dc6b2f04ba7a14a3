//! [`SecondsClock`]: the time of day as the handshake uses it.
//!
//! Cookies and tickets carry their expiry in whole seconds, so the Bastion reads seconds. Deadlines
//! use tokio's clock instead. The node and the tests implement the trait.

/// Gives the current time in seconds since the Unix epoch.
pub trait SecondsClock: Send + Sync + 'static {
    /// Returns the current Unix time in seconds.
    fn unix_seconds(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync + 'static> SecondsClock for F {
    fn unix_seconds(&self) -> u64 {
        self()
    }
}

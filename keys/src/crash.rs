//! Where tests end the process, to see that what is on the disk is whole at every instant.
//!
//! Only for tests: builds without debug assertions (every release build) contain nothing of it. Never changes what a
//! process does unless the environment variable `POSTERN_CRASH_AT` is set. Invariant: of `n` processes that do the same
//! with `POSTERN_CRASH_AT` from 1 to `n`, each ends one crash point later than the one before.

/// The environment variable: at which call of [`crash_point`] the process ends, counted from 1 over all threads.
pub const CRASH_AT: &str = "POSTERN_CRASH_AT";

/// Ends the process at once, as a power failure or SIGKILL would, if it is the call that `POSTERN_CRASH_AT` asks for.
/// `name` says in the source, and on the standard error output, what has just been done.
#[cfg(debug_assertions)]
pub fn crash_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: OnceLock<Option<u64>> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let Some(at) = *AT.get_or_init(|| std::env::var(CRASH_AT).ok()?.parse().ok()) else {
        return;
    };
    if CALLS.fetch_add(1, Ordering::Relaxed) + 1 == at {
        eprintln!("{CRASH_AT}={at}: {name}");
        // Not an exit: no destructor runs, no buffer is flushed.
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

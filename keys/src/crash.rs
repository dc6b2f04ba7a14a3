//! Crash points: places where a test ends the process, to check that the disk is consistent there.
//!
//! For tests only: builds without debug assertions (every release build) contain no crash points. A
//! process is not affected unless the environment variable `POSTERN_CRASH_AT` is set. Invariant: if
//! several processes do the same with `POSTERN_CRASH_AT` set to 1, 2, 3 and so on, each ends one
//! crash point later. Used by `tests/all/crash.rs` and postern's `tests/system/`.

/// Environment variable: the [`crash_point`] call that ends the process, by its number or name.
///
/// Calls are counted from 1, over all threads. A name stands for the first call with it.
pub const CRASH_AT: &str = "POSTERN_CRASH_AT";

/// Ends the process if this is the call that `POSTERN_CRASH_AT` names.
///
/// The process ends as after a power failure or SIGKILL. `name` describes the step that was just
/// done; it is printed on standard error.
#[cfg(debug_assertions)]
pub fn crash_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: OnceLock<Option<String>> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let Some(at) = AT.get_or_init(|| std::env::var(CRASH_AT).ok()) else {
        return;
    };
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    if at == name || at.parse() == Ok(call) {
        eprintln!("{CRASH_AT}={at}: {name}");
        // `abort` instead of `exit`: no destructor runs and no buffer is flushed.
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn crash_point(_name: &'static str) {}

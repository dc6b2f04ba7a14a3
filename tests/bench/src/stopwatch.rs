//! Time, processor time and memory of this process, and medians of rounds.
//!
//! Only this module and the async code of the flood read a clock. Invariant: a stopwatch counts
//! only the closures that `run` executes.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Sums the time of the closures that it runs.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    total: Duration,
    processor: f64,
}

impl Stopwatch {
    /// Runs the closure and adds its time.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    pub(crate) fn run<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let processor = seconds_of(ClockId::ThreadCPUTime);
        let start = Instant::now();
        let result = work();
        self.total += start.elapsed();
        self.processor += seconds_of(ClockId::ThreadCPUTime) - processor;
        result
    }

    /// Returns the elapsed time in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.total.as_secs_f64()
    }

    /// Returns the processor time of this thread in seconds. Other programs affect it little.
    pub(crate) fn processor(&self) -> f64 {
        self.processor
    }
}

/// Runs the closure and returns its result and the elapsed seconds.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let mut watch = Stopwatch::default();
    let result = watch.run(work);
    (result, watch.seconds())
}

/// Sleeps while other processes run.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Returns the median; NaN for no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (
        values.len() % 2,
        values.get(middle),
        values.get(middle.wrapping_sub(1)),
    ) {
        (1, Some(one), _) => *one,
        (0, Some(above), Some(below)) => (above + below) / 2.0,
        _ => f64::NAN,
    }
}

/// Returns the processor time of all threads of this process in seconds.
pub(crate) fn process_seconds() -> f64 {
    seconds_of(ClockId::ProcessCPUTime)
}

fn seconds_of(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resets `VmHWM`, the peak resident size. Returns `false` if the system does not allow it.
pub(crate) fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Returns a size of this process in bytes, by its name in `/proc/self/status`: `VmRSS` is the
/// current resident size, `VmHWM` its peak.
pub(crate) fn resident(name: &str) -> Option<f64> {
    size_in(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// Parses a size in bytes, by its name, from the text of `/proc/<id>/status`.
pub(crate) fn size_in(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line
        .trim_start_matches(':')
        .trim()
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_count_is_the_mean_of_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}

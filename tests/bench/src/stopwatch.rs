//! Time, processor time and memory of this process, and medians of rounds.
//!
//! The only place of the benchmarks that reads a clock. Invariant: a stopwatch counts only between `run` and its end.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Adds up the time of the pieces of work that it is given.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    total: Duration,
    processor: f64,
}

impl Stopwatch {
    /// Does the work and counts its time.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    pub(crate) fn run<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let processor = seconds_of(ClockId::ThreadCPUTime);
        let begun = Instant::now();
        let result = work();
        self.total += begun.elapsed();
        self.processor += seconds_of(ClockId::ThreadCPUTime) - processor;
        result
    }

    /// What was counted, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.total.as_secs_f64()
    }

    /// What the processor worked for this thread meanwhile, in seconds: other programs on the machine change it little.
    pub(crate) fn processor(&self) -> f64 {
        self.processor
    }
}

/// Does the work and says how many seconds it took.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let mut watch = Stopwatch::default();
    let result = watch.run(work);
    (result, watch.seconds())
}

/// Lets time pass while other processes work.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The middle one, or the mean of the two in the middle. Of nothing: not a number.
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

/// Processor time of all threads of this process so far, in seconds.
pub(crate) fn process_seconds() -> f64 {
    seconds_of(ClockId::ProcessCPUTime)
}

fn seconds_of(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Forgets the highest resident size so far; `false` where the system does not allow it.
pub(crate) fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A size of this process in bytes, by its name in `/proc/self/status`: `VmRSS` now, `VmHWM` at its highest.
pub(crate) fn resident(name: &str) -> Option<f64> {
    size_in(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// A size in bytes, by its name in the status of a process.
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
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}

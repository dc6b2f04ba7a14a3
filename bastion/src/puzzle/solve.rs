//! The search for a nonce on one or more threads.
//!
//! On one thread the search is deterministic. The search ends at most one evaluation after its
//! [`Attempt`] is cancelled. Invariant: a returned nonce solves the puzzle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::instance::{Nonce, Puzzle};

/// A handle on a running search: counts evaluations and cancels.
#[derive(Debug, Default)]
pub struct Attempt {
    cancelled: AtomicBool,
    evaluations: AtomicU64,
}

impl Attempt {
    /// Ends the search, which then returns `None`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns the evaluations of the work function so far, over all threads.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }
}

/// Searches upwards from `start`, which the caller draws at random. Uses `threads` threads
/// including the calling one. Returns `None` when cancelled.
pub fn solve(puzzle: &Puzzle, start: Nonce, threads: usize, attempt: &Attempt) -> Option<Nonce> {
    let found = OnceLock::new();
    let step = threads.max(1) as u128;
    let search = |number: u128| {
        let mut memory = puzzle.algorithm.memory();
        let mut candidate = u128::from_be_bytes(start).wrapping_add(number);
        while found.get().is_none() && !attempt.cancelled.load(Ordering::Relaxed) {
            let nonce = candidate.to_be_bytes();
            if puzzle.inner_holds(&nonce) {
                attempt.evaluations.fetch_add(1, Ordering::Relaxed);
                if puzzle.work_holds(&nonce, &mut memory) {
                    let _ = found.set(nonce);
                }
            }
            candidate = candidate.wrapping_add(step);
        }
    };
    std::thread::scope(|scope| {
        for number in 1..step {
            // Without this thread its share of the nonces stays untried; the others suffice.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || search(number));
        }
        search(0);
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::Algorithm;
    use crate::puzzle::testing::puzzle;

    #[test]
    fn one_thread_is_deterministic_and_three_threads_solve() {
        let puzzle = puzzle(16, 4, 1, 2);
        let attempt = Attempt::default();
        let first = solve(&puzzle, [0; 16], 1, &attempt).unwrap();
        assert_eq!(solve(&puzzle, [0; 16], 1, &Attempt::default()), Some(first));
        assert!(attempt.evaluations() >= 1);
        let nonce = solve(&puzzle, [0xff; 16], 3, &Attempt::default()).unwrap();
        assert_eq!(
            puzzle.verify(&nonce, &mut Algorithm::Argon2id1m.memory()),
            Ok(())
        );
    }

    #[test]
    fn cancelled_search_returns_none() {
        let hopeless = puzzle(u64::MAX, 8, 1, 2);
        let attempt = Attempt::default();
        std::thread::scope(|scope| {
            let search = scope.spawn(|| solve(&hopeless, [0; 16], 2, &attempt));
            while attempt.evaluations() == 0 {
                std::thread::yield_now();
            }
            attempt.cancel();
            assert_eq!(search.join().unwrap(), None);
        });
    }

    #[test]
    fn expected_evaluations_equal_the_effort() {
        // 40 puzzles of effort 8: about 320 in all. The standard deviation is about 50.
        let total: u64 = (0..40)
            .map(|solver| {
                let attempt = Attempt::default();
                solve(&puzzle(8, 0, 1, solver), [0; 16], 1, &attempt).unwrap();
                attempt.evaluations()
            })
            .sum();
        assert!((160..640).contains(&total), "{total}");
    }
}

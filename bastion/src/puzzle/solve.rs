//! The search for a nonce, on as many threads as wanted.
//!
//! Deterministic on one thread: time and chance are arguments. Never outlives its [`Attempt`]'s cancellation by more
//! than one evaluation. Invariant: what it returns solves the puzzle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Nonce, Puzzle};

/// A running search as seen from outside: how far it is, and the way to end it.
#[derive(Debug, Default)]
pub struct Attempt {
    cancelled: AtomicBool,
    evaluations: AtomicU64,
}

impl Attempt {
    /// Ends the search; it returns `None`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Evaluations of the work function so far, all threads together.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }
}

/// Searches upwards from `start` (drawn at random by the caller) on `threads` threads, the calling one included.
/// `None` when cancelled.
pub fn solve(puzzle: &Puzzle, start: Nonce, threads: usize, attempt: &Attempt) -> Option<Nonce> {
    let found = OnceLock::new();
    let step = threads.max(1) as u128;
    let search = |number: u128| {
        let mut memory = puzzle.algorithm.memory();
        let mut place = u128::from_be_bytes(start).wrapping_add(number);
        while found.get().is_none() && !attempt.cancelled.load(Ordering::Relaxed) {
            let nonce = place.to_be_bytes();
            if puzzle.inner_holds(&nonce) {
                attempt.evaluations.fetch_add(1, Ordering::Relaxed);
                if puzzle.work_holds(&nonce, &mut memory) {
                    let _ = found.set(nonce);
                }
            }
            place = place.wrapping_add(step);
        }
    };
    std::thread::scope(|scope| {
        for number in 1..step {
            // A thread that the system will not give leaves its share of nonces untried: there are enough.
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
    use crate::puzzle::tests::puzzle;

    #[test]
    fn one_thread_finds_the_same_nonce_always_and_many_find_one() {
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
    fn a_cancelled_search_ends() {
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
    fn the_number_of_evaluations_follows_the_effort() {
        // 40 puzzles of effort 8: the sum is about 320; a factor of two either way is five standard deviations.
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

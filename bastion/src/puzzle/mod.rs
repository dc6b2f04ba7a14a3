//! The puzzle: work that a client does before the server spends more than microseconds on it
//! (docs/DECISIONS.md 6).
//!
//! A nonce solves a puzzle when it passes a cheap inner condition and then the work function. Both
//! depend on the challenge and on the server's onion service; the work also depends on the solver.
//! So work can be neither sold nor relayed.
//!
//! - `instance`: the conditions. `work`: the work function. `solve`: the search for a nonce.
//! - `sealer`: challenges that the server does not store. `serials`: which of them are used.
//!
//! Time and randomness are arguments.

mod instance;
mod sealer;
mod serials;
mod solve;
mod work;

pub use instance::{ChallengeBytes, Difficulty, Nonce, Puzzle};
pub use sealer::{ChallengeSealer, Serial};
pub use solve::{Attempt, solve};
pub use work::{Algorithm, Memory};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod vector_tests;

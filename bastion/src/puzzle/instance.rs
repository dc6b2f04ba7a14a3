//! [`Puzzle`]: everything that decides whether a nonce is a solution (docs/PROTOCOL.md 3.3).
//!
//! Invariant: verification costs one evaluation of the work function at most, and the inner
//! condition is checked first. Tested here and against the vectors of another implementation
//! (`vector_tests`).

use keys::protocol::{EXTRA_DOUBLINGS_MAX, NONCE_BYTES};
use keys::signing::signing_input;
use keys::{Context, Digest, OnionAddr, PeerId};
use sha2::{Digest as _, Sha256};

use super::work::{Algorithm, Memory};
use crate::error::Misbehaviour;
use crate::messages::Cookie;

/// The bytes that a solver searches for.
pub type Nonce = [u8; NONCE_BYTES];

/// How much work a puzzle demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difficulty {
    /// The work function.
    pub algorithm: Algorithm,
    /// Expected evaluations of the work function.
    pub effort: u64,
    /// Leading zero bits of the inner condition.
    pub inner_bits: u8,
}

impl Difficulty {
    /// Returns the difficulty that a cookie demands; none when the work function is unknown.
    pub fn of_cookie(cookie: &Cookie) -> Option<Self> {
        Some(Self {
            algorithm: Algorithm::from_name(&cookie.algorithm)?,
            effort: cookie.effort,
            inner_bits: cookie.inner_bits,
        })
    }

    /// Doubles the effort `extra_doublings` times (at most [`EXTRA_DOUBLINGS_MAX`]) and adds as
    /// many inner bits. The inner bits make the claim cost something, because a solution with a
    /// higher claimed effort is verified earlier.
    #[must_use]
    pub fn with_extra_doublings(self, extra_doublings: u8) -> Self {
        let doublings = extra_doublings.min(EXTRA_DOUBLINGS_MAX);
        Self {
            effort: self.effort.saturating_mul(1 << doublings),
            inner_bits: self.inner_bits.saturating_add(extra_doublings),
            ..self
        }
    }
}

/// The two parts of a challenge, as they were received.
#[derive(Debug, Clone, Copy)]
pub struct ChallengeBytes<'a> {
    /// The encoded cookie.
    pub cookie: &'a [u8],
    /// The sealed part, which only the server can open.
    pub sealed: &'a [u8],
}

/// A puzzle for one challenge, one onion service and one solver.
#[derive(Debug, Clone)]
pub struct Puzzle {
    pub(super) algorithm: Algorithm,
    effort: u64,
    inner_bits: u8,
    pub(super) salt: [u8; 32],
    /// SHA-256 state after everything but the nonce, which comes last.
    inner: Sha256,
    /// Largest work result that is a solution, big-endian.
    pub(super) target: [u8; 32],
}

impl Puzzle {
    /// Returns the puzzle of a challenge for the node `solver`, set by the onion service `onion`.
    /// An effort of 0 counts as 1.
    pub fn new(
        difficulty: Difficulty,
        challenge: ChallengeBytes<'_>,
        onion: &OnionAddr,
        solver: &PeerId,
    ) -> Self {
        let parts: [&[u8]; 4] = [
            challenge.cookie,
            challenge.sealed,
            onion.public_key().as_bytes(),
            solver.as_bytes(),
        ];
        let salt = *Digest::of(&signing_input(Context::Work, &parts)).as_bytes();
        let effort = difficulty.effort.max(1);
        Self {
            algorithm: difficulty.algorithm,
            effort,
            inner_bits: difficulty.inner_bits,
            salt,
            inner: hash_before_nonce(challenge),
            target: target(effort),
        }
    }

    /// Returns the expected evaluations of the work function.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// Checks the inner condition: leading zero bits of a digest.
    pub fn inner_holds(&self, nonce: &Nonce) -> bool {
        inner_holds(self.inner.clone(), nonce, self.inner_bits)
    }

    /// Checks the inner condition without a puzzle, because it does not depend on the solver.
    pub fn inner_condition(inner_bits: u8, challenge: ChallengeBytes<'_>, nonce: &Nonce) -> bool {
        inner_holds(hash_before_nonce(challenge), nonce, inner_bits)
    }

    /// Checks the work function's condition by one evaluation.
    pub fn work_holds(&self, nonce: &Nonce, memory: &mut Memory) -> bool {
        self.algorithm.evaluate(nonce, &self.salt, memory) <= self.target
    }

    /// Checks both conditions, the inner one first.
    pub fn verify(&self, nonce: &Nonce, memory: &mut Memory) -> Result<(), Misbehaviour> {
        if !self.inner_holds(nonce) {
            return Err(Misbehaviour::InnerCondition);
        }
        if !self.work_holds(nonce, memory) {
            return Err(Misbehaviour::Work);
        }
        Ok(())
    }
}

/// Hashes everything before the nonce once. The canonical array ends with the nonce's bytes.
fn hash_before_nonce(challenge: ChallengeBytes<'_>) -> Sha256 {
    let parts: [&[u8]; 3] = [challenge.cookie, challenge.sealed, &[0; NONCE_BYTES]];
    let input = signing_input(Context::InnerWork, &parts);
    let (before, _) = input.split_at(input.len() - NONCE_BYTES);
    Sha256::new().chain_update(before)
}

fn inner_holds(before_nonce: Sha256, nonce: &Nonce, inner_bits: u8) -> bool {
    let digest: [u8; 32] = before_nonce.chain_update(nonce).finalize().into();
    leading_zero_bits(&digest) >= u32::from(inner_bits)
}

fn leading_zero_bits(digest: &[u8; 32]) -> u32 {
    let zero_bytes = digest.iter().take_while(|byte| **byte == 0).count();
    zero_bytes as u32 * 8
        + digest
            .get(zero_bytes)
            .map_or(0, |byte| byte.leading_zeros())
}

/// Returns (2^256 - 1) / effort as big-endian bytes, by long division with 64-bit digits.
pub(super) fn target(effort: u64) -> [u8; 32] {
    let mut out = [0; 32];
    let mut remainder = 0u128;
    for chunk in out.chunks_exact_mut(8) {
        let dividend = (remainder << 64) | u128::from(u64::MAX);
        let digit = (dividend / u128::from(effort)) as u64;
        remainder = dividend % u128::from(effort);
        chunk.copy_from_slice(&digit.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Cookie;
    use crate::puzzle::testing::{onion, puzzle};
    use crate::puzzle::{Attempt, solve};

    fn verify(puzzle: &Puzzle, nonce: &Nonce) -> Result<(), Misbehaviour> {
        puzzle.verify(nonce, &mut Algorithm::Argon2id1m.memory())
    }

    fn solution(puzzle: &Puzzle) -> Nonce {
        solve(puzzle, [0; 16], 1, &Attempt::default()).unwrap()
    }

    #[test]
    fn solves_the_puzzle_of_the_protocol_document() {
        // The values of docs/PROTOCOL.md 3.3, computed with Python's hashlib and argon2-cffi
        // 25.1.0. The smallest nonce that solves it is the twelfth that passes the inner condition.
        let cookie = Cookie {
            onion: onion(1),
            effort: 16,
            expiry: 1_700_000_600,
            algorithm: "argon2id-1m".into(),
            inner_bits: 6,
        }
        .encode();
        let puzzle = Puzzle::new(
            Difficulty {
                algorithm: Algorithm::Argon2id1m,
                effort: 16,
                inner_bits: 6,
            },
            ChallengeBytes {
                cookie: &cookie,
                sealed: &[3; 44],
            },
            &onion(1),
            &PeerId::from_bytes([2; 32]),
        );
        assert_eq!(
            Digest::from_bytes(puzzle.salt).to_hex(),
            "f0ab7efeda44ab14dd0a9970f9e75e2b0b587ba883c29f4b80ec464b5494c1e8"
        );
        let attempt = Attempt::default();
        let nonce = solve(&puzzle, [0; 16], 1, &attempt).unwrap();
        assert_eq!(
            (u128::from_be_bytes(nonce), attempt.evaluations()),
            (0x2fb, 12)
        );
        let work = Algorithm::Argon2id1m.evaluate(
            &nonce,
            &puzzle.salt,
            &mut Algorithm::Argon2id1m.memory(),
        );
        assert_eq!(
            Digest::from_bytes(work).to_hex(),
            "026cf0fb537cd1589c79ec74b9cea953e5d2372aa5084161157a507d975d57bd"
        );
    }

    #[test]
    fn target_is_the_quotient() {
        assert_eq!(target(1), [0xff; 32]);
        let mut half = [0xff; 32];
        half[0] = 0x7f;
        assert_eq!(target(2), half);
        assert_eq!(target(3), [0x55; 32]);
        let mut shifted = [0xff; 32];
        shifted[..8].fill(0);
        shifted[7] = 1;
        assert_eq!(target(1 << 63), shifted);
    }

    #[test]
    fn inner_condition_hashes_context_cookie_sealed_and_nonce() {
        let puzzle = puzzle(1, 8, 1, 2);
        let by_hand = |nonce: &Nonce| {
            let input = signing_input(Context::InnerWork, &[b"cookie", b"sealed", nonce]);
            Digest::of(&input).as_bytes()[0] == 0
        };
        let mut passed = 0;
        for number in 0..2000u128 {
            let nonce = number.to_be_bytes();
            assert_eq!(puzzle.inner_holds(&nonce), by_hand(&nonce));
            passed += u32::from(by_hand(&nonce));
        }
        assert!(passed > 0);
    }

    #[test]
    fn solution_holds_for_its_solver_and_onion_only() {
        let effort = 64;
        let nonce = solution(&puzzle(effort, 2, 1, 2));
        assert_eq!(verify(&puzzle(effort, 2, 1, 2), &nonce), Ok(()));
        // With these fixed inputs the nonce does not solve the other puzzles by chance.
        assert_eq!(
            verify(&puzzle(effort, 2, 9, 2), &nonce),
            Err(Misbehaviour::Work)
        );
        assert_eq!(
            verify(&puzzle(effort, 2, 1, 9), &nonce),
            Err(Misbehaviour::Work)
        );
        assert_eq!(
            verify(&puzzle(effort, 32, 1, 2), &nonce),
            Err(Misbehaviour::InnerCondition)
        );
    }

    #[test]
    fn leading_zero_bits_counts_from_the_msb() {
        let mut digest = [0; 32];
        assert_eq!(leading_zero_bits(&digest), 256);
        digest[1] = 0x10;
        assert_eq!(leading_zero_bits(&digest), 11);
        digest[0] = 0x80;
        assert_eq!(leading_zero_bits(&digest), 0);
    }
}

//! The puzzle: work that a stranger does before we spend anything worth stealing on it (docs/DECISIONS.md 6).
//!
//! A nonce solves a puzzle when it passes a cheap inner condition and then the work function. Both are bound to the
//! challenge, to the onion service that asks and to the node that solves, so that work can be neither sold nor relayed.
//! Never on a clock or a source address. Invariant: verifying costs one evaluation at most, and the cheap part first.

mod cookie;
mod serials;
mod solve;
mod work;

pub use cookie::{CookieJar, Serial};
pub use solve::{Attempt, solve};
pub use work::{Algorithm, Memory};

use keys::signing::signing_input;
use keys::{Context, Digest, OnionAddr, PeerId};
use sha2::{Digest as _, Sha256};

use crate::error::Misbehaviour;
use crate::messages::NONCE_BYTES;

/// A nonce: what is searched for.
pub type Nonce = [u8; NONCE_BYTES];

/// Everything that decides whether a nonce is a solution.
#[derive(Debug, Clone)]
pub struct Puzzle {
    algorithm: Algorithm,
    effort: u64,
    inner_bits: u8,
    salt: [u8; 32],
    /// SHA-256 that has taken in all but the nonce, which comes last.
    inner: Sha256,
    /// Largest work result that is a solution.
    target: [u8; 32],
}

impl Puzzle {
    /// The puzzle of a challenge, for the node `solver`, set by the onion service `onion`. An effort of 0 counts as 1.
    pub fn new(
        (algorithm, effort, inner_bits): (Algorithm, u64, u8),
        (cookie, sealed): (&[u8], &[u8]),
        onion: &OnionAddr,
        solver: &PeerId,
    ) -> Self {
        let parts: [&[u8]; 4] = [
            cookie,
            sealed,
            onion.public_key().as_bytes(),
            solver.as_bytes(),
        ];
        let salt = *Digest::of(&signing_input(Context::Work, &parts)).as_bytes();
        Self {
            algorithm,
            effort: effort.max(1),
            inner_bits,
            salt,
            inner: before_nonce(cookie, sealed),
            target: target(effort.max(1)),
        }
    }

    /// Expected evaluations of the work function.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// The cheap condition: leading zero bits of a digest.
    pub fn inner_holds(&self, nonce: &Nonce) -> bool {
        inner_holds(self.inner.clone(), nonce, self.inner_bits)
    }

    /// The cheap condition alone: it does not depend on the solver.
    pub fn inner_condition(
        inner_bits: u8,
        (cookie, sealed): (&[u8], &[u8]),
        nonce: &Nonce,
    ) -> bool {
        inner_holds(before_nonce(cookie, sealed), nonce, inner_bits)
    }

    /// The work function's condition: one evaluation.
    pub fn work_holds(&self, nonce: &Nonce, memory: &mut Memory) -> bool {
        self.algorithm.evaluate(nonce, &self.salt, memory) <= self.target
    }

    /// Both conditions, cheapest first.
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

/// The canonical array ends with the nonce's bytes: all before it is hashed once.
fn before_nonce(cookie: &[u8], sealed: &[u8]) -> Sha256 {
    let whole = signing_input(Context::InnerWork, &[cookie, sealed, &[0; NONCE_BYTES]]);
    let (before, _) = whole.split_at(whole.len() - NONCE_BYTES);
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

/// (2^256 - 1) / effort, big-endian: long division by 64-bit digits.
fn target(effort: u64) -> [u8; 32] {
    let mut out = [0; 32];
    let mut remainder = 0u128;
    for place in out.chunks_exact_mut(8) {
        let dividend = (remainder << 64) | u128::from(u64::MAX);
        let digit = (dividend / u128::from(effort)) as u64;
        remainder = dividend % u128::from(effort);
        place.copy_from_slice(&digit.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod vector_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Cookie;
    use keys::PublicKey;

    pub(super) fn onion(number: u8) -> OnionAddr {
        OnionAddr::from_public_key(PublicKey::from_bytes([number; 32]))
    }

    pub(super) fn puzzle(effort: u64, inner_bits: u8, onion_number: u8, solver: u8) -> Puzzle {
        Puzzle::new(
            (Algorithm::Argon2id1m, effort, inner_bits),
            (b"cookie", b"sealed"),
            &onion(onion_number),
            &PeerId::from_bytes([solver; 32]),
        )
    }

    fn verify(puzzle: &Puzzle, nonce: &Nonce) -> Result<(), Misbehaviour> {
        puzzle.verify(nonce, &mut Algorithm::Argon2id1m.memory())
    }

    fn solution(puzzle: &Puzzle) -> Nonce {
        solve(puzzle, [0; 16], 1, &Attempt::default()).unwrap()
    }

    #[test]
    fn a_whole_puzzle_is_solved_as_another_implementation_solves_it() {
        // Computed with Python's hashlib and argon2-cffi 25.1.0 from the definitions in docs/PROTOCOL.md, CBOR by hand;
        // the same values stand there. The smallest nonce that solves it is the twelfth to pass the inner condition.
        let cookie = Cookie {
            onion: onion(1),
            effort: 16,
            expiry: 1_700_000_600,
            algorithm: "argon2id-1m".into(),
            inner_bits: 6,
        }
        .encode();
        let puzzle = Puzzle::new(
            (Algorithm::Argon2id1m, 16, 6),
            (&cookie, &[3; 44]),
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
    fn the_target_is_the_quotient() {
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
    fn the_inner_condition_is_a_digest_of_context_cookie_sealed_and_nonce() {
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
    fn a_solution_holds_for_its_solver_and_its_onion_only() {
        let effort = 64;
        let nonce = solution(&puzzle(effort, 2, 1, 2));
        assert_eq!(verify(&puzzle(effort, 2, 1, 2), &nonce), Ok(()));
        // Fixed inputs: these were tried once and stay so.
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
    fn bits_are_counted_from_the_left() {
        let mut digest = [0; 32];
        assert_eq!(leading_zero_bits(&digest), 256);
        digest[1] = 0x10;
        assert_eq!(leading_zero_bits(&digest), 11);
        digest[0] = 0x80;
        assert_eq!(leading_zero_bits(&digest), 0);
    }
}

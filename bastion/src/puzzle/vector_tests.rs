//! Reproduces the vectors of `tests/vectors/puzzle.json`, which another implementation made. Any
//! change of the puzzle's bytes fails here.

use std::fs;
use std::path::Path;

use keys::signing::signing_input;
use keys::{Context, Digest, OnionAddr, PeerId, PublicKey};
use serde_json::Value;

use super::instance::target;
use super::{Algorithm, Attempt, ChallengeBytes, Difficulty, Nonce, Puzzle, solve};
use crate::error::Misbehaviour;
use crate::messages::Cookie;

fn vectors(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/puzzle.json");
    let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let list = all[name].as_array().unwrap().clone();
    assert!(!list.is_empty());
    list
}

fn number(vector: &Value, name: &str) -> u64 {
    vector[name].as_u64().unwrap()
}

fn bytes(vector: &Value, name: &str) -> Vec<u8> {
    let digits = vector[name].as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(vector: &Value, name: &str) -> [u8; N] {
    bytes(vector, name).try_into().unwrap()
}

#[test]
fn puzzles_match_the_vectors() {
    for vector in vectors("puzzles") {
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes(array(&vector, "onion")));
        let cookie = Cookie {
            onion,
            effort: number(&vector, "effort"),
            expiry: number(&vector, "expiry"),
            algorithm: "argon2id-1m".into(),
            inner_bits: number(&vector, "inner_bits") as u8,
        };
        let (encoded, sealed) = (bytes(&vector, "cookie"), bytes(&vector, "sealed"));
        assert_eq!(cookie.encode(), encoded);
        let doublings = number(&vector, "extra_doublings") as u8;
        let difficulty = Difficulty::of_cookie(&cookie)
            .unwrap()
            .with_extra_doublings(doublings);
        let challenge = ChallengeBytes {
            cookie: &encoded,
            sealed: &sealed,
        };
        let peer = PeerId::from_bytes(array(&vector, "peer"));
        let puzzle = Puzzle::new(difficulty, challenge, &onion, &peer);
        assert_eq!(puzzle.salt, array(&vector, "salt"));
        assert_eq!(puzzle.target, array(&vector, "target"));

        // The search goes upwards from 0, so every lower nonce fails.
        let attempt = Attempt::default();
        let nonce = solve(&puzzle, [0; 16], 1, &attempt).unwrap();
        assert_eq!(nonce, array(&vector, "nonce"));
        assert_eq!(attempt.evaluations(), number(&vector, "evaluations"));
        let mut memory = Algorithm::Argon2id1m.memory();
        assert_eq!(puzzle.verify(&nonce, &mut memory), Ok(()));
        let work = Algorithm::Argon2id1m.evaluate(&nonce, &puzzle.salt, &mut memory);
        assert_eq!(work, array(&vector, "work"));
        let inner = Digest::of(&signing_input(
            Context::InnerWork,
            &[&encoded, &sealed, &nonce],
        ));
        assert_eq!(*inner.as_bytes(), array(&vector, "inner"));
        assert!(Puzzle::inner_condition(
            difficulty.inner_bits,
            challenge,
            &nonce
        ));

        if let Some(lower) = u128::from_be_bytes(nonce).checked_sub(1) {
            let failed = puzzle.verify(&lower.to_be_bytes(), &mut memory);
            assert!(matches!(
                failed,
                Err(Misbehaviour::InnerCondition | Misbehaviour::Work)
            ));
        }
    }
}

#[test]
fn work_function_and_targets_match_the_vectors() {
    let mut memory = Algorithm::Argon2id1m.memory();
    for vector in vectors("works") {
        let (nonce, salt): (Nonce, _) = (array(&vector, "nonce"), array(&vector, "salt"));
        let work = Algorithm::Argon2id1m.evaluate(&nonce, &salt, &mut memory);
        assert_eq!(work, array(&vector, "work"));
    }
    for vector in vectors("targets") {
        assert_eq!(target(number(&vector, "effort")), array(&vector, "target"));
    }
}

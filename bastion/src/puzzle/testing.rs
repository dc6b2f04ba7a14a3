//! Fixed inputs for the tests of this module.

use keys::{OnionAddr, PeerId, PublicKey};

use super::{Algorithm, ChallengeBytes, Difficulty, Puzzle};

pub(super) fn onion(number: u8) -> OnionAddr {
    OnionAddr::from_public_key(PublicKey::from_bytes([number; 32]))
}

pub(super) fn puzzle(effort: u64, inner_bits: u8, onion_number: u8, solver: u8) -> Puzzle {
    Puzzle::new(
        Difficulty {
            algorithm: Algorithm::Argon2id1m,
            effort,
            inner_bits,
        },
        ChallengeBytes {
            cookie: b"cookie",
            sealed: b"sealed",
        },
        &onion(onion_number),
        &PeerId::from_bytes([solver; 32]),
    )
}

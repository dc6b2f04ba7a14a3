//! Work functions: nonce and salt in, 32 bytes out.
//!
//! A cookie names its work function. The meaning of a name never changes; a new function gets a new
//! name. Invariant: the result is the same on every machine. Tested against a vector of another
//! implementation.

use argon2::{Argon2, Block, Params, Version};

/// A work function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Argon2id (RFC 9106), version 0x13, 1 MiB, 1 pass, 1 lane, 32 bytes of output. Takes 0.3 ms,
    /// and more memory than a core of a graphics card has cache.
    Argon2id1m,
}

/// Working memory of an evaluation. Reused, because its allocation costs time.
pub struct Memory(Vec<Block>);

/// KiB of memory of [`Algorithm::Argon2id1m`]; one Argon2 block is one KiB.
const ARGON2ID_1M_KIB: u32 = 1024;

impl Algorithm {
    /// Returns the name that a cookie carries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Argon2id1m => "argon2id-1m",
        }
    }

    /// Returns the work function with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        (name == Self::Argon2id1m.name()).then_some(Self::Argon2id1m)
    }

    /// Allocates working memory.
    pub fn memory(self) -> Memory {
        match self {
            Self::Argon2id1m => Memory(vec![Block::default(); ARGON2ID_1M_KIB as usize]),
        }
    }

    /// Evaluates the work function once.
    pub fn evaluate(self, nonce: &[u8], salt: &[u8; 32], memory: &mut Memory) -> [u8; 32] {
        match self {
            Self::Argon2id1m => argon2id(nonce, salt, memory),
        }
    }
}

fn argon2id(nonce: &[u8], salt: &[u8; 32], memory: &mut Memory) -> [u8; 32] {
    let mut out = [0; 32];
    #[expect(
        clippy::expect_used,
        reason = "the parameters are constants, proved valid by the vector below"
    )]
    Params::new(ARGON2ID_1M_KIB, 1, 1, Some(32))
        .and_then(|params| {
            let function = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
            function.hash_password_into_with_memory(nonce, salt, &mut out, &mut memory.0)
        })
        .expect("constant parameters, a nonce of 16 bytes and a salt of 32");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::Digest;

    #[test]
    fn argon2id_1m_matches_the_reference_implementation() {
        // With argon2-cffi 25.1.0, which wraps the reference C implementation:
        // python3 -c 'from argon2.low_level import *; print(hash_secret_raw(
        //   secret=bytes(range(16)), salt=bytes(range(32)), time_cost=1, memory_cost=1024,
        //   parallelism=1, hash_len=32, type=Type.ID).hex())'
        let nonce: Vec<u8> = (0..16).collect();
        let salt: [u8; 32] = std::array::from_fn(|index| index as u8);
        let mut memory = Algorithm::Argon2id1m.memory();
        for _ in 0..2 {
            // Twice, because the content of the reused memory must make no difference.
            let out = Algorithm::Argon2id1m.evaluate(&nonce, &salt, &mut memory);
            assert_eq!(
                Digest::from_bytes(out).to_hex(),
                "c7a5c62794f9f69741ff87f70f313393b9f0a6c976a2c01ce628d2ecd192f71e"
            );
        }
    }

    #[test]
    fn from_name_accepts_the_exact_name_only() {
        assert_eq!(
            Algorithm::from_name("argon2id-1m"),
            Some(Algorithm::Argon2id1m)
        );
        assert_eq!(Algorithm::from_name("argon2id-1M"), None);
    }
}

//! Sealing of data that a node sends out and later receives back unchanged: cookies and tickets.
//!
//! The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with a random nonce of 24 bytes
//! for each message, long enough that repeats are negligible. Only the node that sealed can open.
//! Invariant: the key cannot be read or printed. Tested below.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::CryptoRng;

/// Bytes that sealing adds to a plaintext: nonce and tag.
pub const OVERHEAD_BYTES: usize = 24 + 16;

/// A symmetric key that only this node has. `Debug` prints fixed text.
pub struct SealingKey(XChaCha20Poly1305);

/// The bytes were not sealed by this key together with this associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sealed by this node")]
pub struct NotSealedHere;

impl SealingKey {
    /// Generates a key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = zeroize::Zeroizing::new([0u8; 32]);
        rng.fill_bytes(key.as_mut());
        Self::from_bytes(&key)
    }

    /// Wraps a key derived from secret bytes.
    pub(crate) fn from_bytes(key: &zeroize::Zeroizing<[u8; 32]>) -> Self {
        Self(XChaCha20Poly1305::new((&**key).into()))
    }

    /// Encrypts `plain` and authenticates `readable` with it. Returns nonce, ciphertext and tag.
    pub fn seal(&self, readable: &[u8], plain: &[u8], rng: &mut dyn CryptoRng) -> Vec<u8> {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        #[expect(clippy::expect_used, reason = "fails only for plaintexts of 256 GiB")]
        let sealed = self
            .0
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: plain,
                    aad: readable,
                },
            )
            .expect("short plaintext");
        [&nonce[..], &sealed].concat()
    }

    /// Returns the plaintext if this key sealed it together with `readable`.
    ///
    /// # Errors
    /// [`NotSealedHere`].
    pub fn open(&self, readable: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotSealedHere> {
        let (nonce, rest) = sealed.split_first_chunk::<24>().ok_or(NotSealedHere)?;
        self.0
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: rest,
                    aad: readable,
                },
            )
            .map_err(|_| NotSealedHere)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- sealing key ---")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn open_refuses_another_key_associated_data_or_length() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let (key, other) = (
            SealingKey::generate(&mut rng),
            SealingKey::generate(&mut rng),
        );
        let sealed = key.seal(b"readable", b"serial", &mut rng);
        assert_eq!(sealed.len(), 6 + OVERHEAD_BYTES);
        assert_eq!(key.open(b"readable", &sealed).unwrap(), b"serial");
        assert_eq!(key.open(b"Readable", &sealed), Err(NotSealedHere));
        assert_eq!(other.open(b"readable", &sealed), Err(NotSealedHere));
        assert_eq!(key.open(b"readable", &sealed[..20]), Err(NotSealedHere));
    }
}

//! The vault file, version 2, byte by byte. All numbers are big-endian.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 14 | magic, `postern-vault` and a newline |
//! | 14 | 2 | version, 2 |
//! | 16 | 12 | Argon2id: memory in KiB, passes, lanes |
//! | 28 | 16 | salt |
//! | 44 | 16 | key check: see `key_check` in `kdf.rs` |
//! | 60 | 24 | nonce |
//! | 84 | 4 | length of the ciphertext and tag |
//! | 88 | n | XChaCha20-Poly1305 ciphertext and tag; associated data: the 88 bytes before |
//! | 88+n | 32 | SHA-256 of all bytes before |
//!
//! The checksum needs no key, so it gives no protection. The checksum distinguishes a damaged file
//! from a wrong passphrase, before Argon2id takes memory. The key check distinguishes a wrong
//! passphrase from a file that was changed on purpose. Invariant: only an authenticated plaintext
//! is returned. Tested below.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::file_header::KeyParams;
use crate::ids::Digest;

const MAGIC: &[u8; 14] = b"postern-vault\n";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = MAGIC.len() + 2 + KeyParams::BYTES + 24 + 4;
const TAG_BYTES: usize = 16;

/// Longest vault, in bytes: a thousand identities with full key chains fit. Bounds the read into
/// memory.
pub(super) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The unencrypted start of a vault, without the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VaultHeader {
    pub(super) params: KeyParams,
    pub(super) nonce: [u8; 24],
}

/// The parts of a vault file whose checksum matched. Not authenticated.
#[derive(Debug)]
pub(super) struct ParsedVault<'a> {
    pub(super) header: VaultHeader,
    /// The encoded header, which is the associated data.
    associated: &'a [u8],
    sealed: &'a [u8],
}

impl VaultHeader {
    fn encode(&self, sealed_bytes: u32) -> Vec<u8> {
        let mut out = self.params.start_file(MAGIC, VERSION);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&sealed_bytes.to_be_bytes());
        out
    }

    /// Returns the whole file for a plaintext, which is encrypted in place.
    pub(super) fn seal(
        &self,
        key: &[u8; 32],
        mut plain: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, VaultError> {
        let sealed_bytes = plain.len() + TAG_BYTES;
        if HEADER_BYTES + sealed_bytes + Digest::LEN > FILE_BYTES_MAX {
            return Err(VaultError::Full);
        }
        let mut file = self.encode(sealed_bytes as u32);
        let tag = XChaCha20Poly1305::new(key.into())
            .encrypt_inout_detached(
                &XNonce::from(self.nonce),
                &file,
                plain.as_mut_slice().into(),
            )
            .map_err(|_| VaultError::Full)?;
        file.extend_from_slice(&plain);
        file.extend_from_slice(&tag);
        let checksum = Digest::of(&file);
        file.extend_from_slice(checksum.as_bytes());
        Ok(file)
    }
}

/// Parses a file and checks its checksum.
///
/// # Errors
/// [`VaultError::NotAVault`], [`VaultError::UnknownVersion`], [`VaultError::Truncated`],
/// [`VaultError::Damaged`].
pub(super) fn parse(file: &[u8]) -> Result<ParsedVault<'_>, VaultError> {
    let (params, mut reader) = KeyParams::parse(file, MAGIC, VERSION)?;
    let nonce = reader.take()?;
    let sealed_bytes = reader.number()? as usize;
    let Some((sealed, rest)) = reader.rest().split_at_checked(sealed_bytes) else {
        return Err(VaultError::Truncated);
    };
    let (checksum, rest) = rest
        .split_first_chunk::<32>()
        .ok_or(VaultError::Truncated)?;
    let (checked, _) = file.split_at(HEADER_BYTES + sealed_bytes);
    if !rest.is_empty() || Digest::of(checked).as_bytes() != checksum {
        return Err(VaultError::Damaged);
    }
    let (associated, _) = file.split_at(HEADER_BYTES);
    Ok(ParsedVault {
        header: VaultHeader { params, nonce },
        associated,
        sealed,
    })
}

impl ParsedVault<'_> {
    /// Decrypts the plaintext.
    ///
    /// # Errors
    /// [`VaultError::WrongPassphrase`] if the key check is not that of `key`;
    /// [`VaultError::Tampered`] if the cipher rejects the file.
    pub(super) fn open(&self, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if !self.header.params.is_of(key) {
            return Err(VaultError::WrongPassphrase);
        }
        let (sealed, tag) = self
            .sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(VaultError::Damaged)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        XChaCha20Poly1305::new(key.into())
            .decrypt_inout_detached(
                &XNonce::from(self.header.nonce),
                self.associated,
                plain.as_mut_slice().into(),
                tag.into(),
            )
            .map_err(|_| VaultError::Tampered)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kdf::{KdfCost, KdfError};
    use crate::locked::Locked;
    use crate::passphrase::Passphrase;
    use data_encoding::HEXLOWER;

    fn word() -> Passphrase {
        Passphrase::from_string("word".into())
    }

    fn params_and_key() -> (KeyParams, Locked<32>) {
        KeyParams::derive(&word(), [1; 16], KdfCost::TEST).unwrap()
    }

    fn file() -> Vec<u8> {
        let (params, key) = params_and_key();
        let nonce = [2; 24];
        VaultHeader { params, nonce }
            .seal(&key, Zeroizing::new(b"plain".to_vec()))
            .unwrap()
    }

    fn open(file: &[u8]) -> Result<Vec<u8>, VaultError> {
        let parsed = parse(file)?;
        let key = parsed.header.params.derive_again(&word())?;
        parsed.open(&key).map(|plain| plain.to_vec())
    }

    #[test]
    fn version_2_encodes_to_the_recorded_bytes() {
        let expected = "706f737465726e2d7661756c740a000200000008000000010000000101010101\
                        0101010101010101010101018d8a83a51593865edcb550cdc4cb272b02020202\
                        02020202020202020202020202020202020202020000001522beb099717f75f2\
                        114eb9fb430aed930bd58396af23c3584195bc0140a2d53a5ef96e21c42daf56\
                        bb6a241f5345cc64845bc115e9";
        assert_eq!(HEXLOWER.encode(&file()), expected);
        assert_eq!(open(&file()).unwrap(), b"plain");
    }

    #[test]
    fn parse_refuses_every_flipped_bit() {
        for place in 0..file().len() {
            for bit in 0..8 {
                let mut bent = file();
                bent[place] ^= 1 << bit;
                let error = open(&bent).unwrap_err();
                let expected = match place {
                    0..14 => matches!(error, VaultError::NotAVault),
                    14..16 => matches!(error, VaultError::UnknownVersion(_)),
                    84..88 => matches!(error, VaultError::Truncated | VaultError::Damaged),
                    _ => matches!(error, VaultError::Damaged),
                };
                assert!(expected, "byte {place}, bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn open_refuses_every_changed_byte_under_a_recomputed_checksum() {
        for place in 16..file().len() - 32 {
            let mut bent = file();
            // The lowest bit keeps the altered costs cheap.
            bent[place] ^= 1;
            let body = bent.len() - 32;
            let checksum = Digest::of(&bent[..body]);
            bent[body..].copy_from_slice(checksum.as_bytes());
            let error = open(&bent).unwrap_err();
            let expected = match place {
                16..28 => matches!(
                    error,
                    VaultError::Kdf(KdfError::CostOutOfBounds(_)) | VaultError::WrongPassphrase
                ),
                // Salt and key check: the same as a wrong passphrase.
                28..60 => matches!(error, VaultError::WrongPassphrase),
                84..88 => matches!(error, VaultError::Truncated | VaultError::Damaged),
                _ => matches!(error, VaultError::Tampered),
            };
            assert!(expected, "byte {place}: {error}");
        }
    }

    #[test]
    fn unknown_version_error_names_its_origin() {
        for (version, maker) in [
            (1, "unreleased earlier"),
            (3, "later version"),
            (0x0102, "later version"),
        ] {
            let mut other = file();
            other[14..16].copy_from_slice(&u16::to_be_bytes(version));
            let error = parse(&other).unwrap_err();
            assert!(matches!(error, VaultError::UnknownVersion(it) if it == version));
            assert!(error.to_string().contains(maker), "{error}");
        }
    }

    #[test]
    fn open_refuses_any_other_key() {
        let file = file();
        let parsed = parse(&file).unwrap();
        assert!(matches!(
            parsed.open(&[9; 32]),
            Err(VaultError::WrongPassphrase)
        ));
    }

    #[test]
    fn parse_reports_every_truncation_and_extension() {
        for length in 0..file().len() {
            assert!(
                matches!(open(&file()[..length]), Err(VaultError::Truncated)),
                "{length}"
            );
        }
        let mut long = file();
        long.push(0);
        assert!(matches!(open(&long), Err(VaultError::Damaged)));
        assert!(matches!(
            open(b"SQLite format 3\0"),
            Err(VaultError::NotAVault)
        ));
    }
}

//! The vault file, version 2, byte by byte. All numbers are big-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 14 | magic, `postern-vault` and a newline |
//! | 14 | 2 | version, 2 |
//! | 16 | 12 | Argon2id: memory in KiB, passes, lanes |
//! | 28 | 16 | salt |
//! | 44 | 16 | key check: see [`key_check`] |
//! | 60 | 24 | nonce |
//! | 84 | 4 | length of what follows up to the checksum |
//! | 88 | n | XChaCha20-Poly1305 ciphertext and tag; the 88 bytes before are its associated data |
//! | 88+n | 32 | SHA-256 of all before |
//!
//! The checksum is no protection (anybody can compute it): it tells a file that was damaged from a wrong passphrase,
//! and does so before memory is spent on Argon2id. The key check tells a wrong passphrase from a file that somebody changed
//! on purpose. Never hands out a plaintext that the cipher did not authenticate.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::VaultError;
use crate::ids::Digest;
use crate::passphrase::KdfCost;
use crate::signing::{Context, signing_input};

const MAGIC: &[u8; 14] = b"postern-vault\n";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 88;
/// Length of a [`key_check`].
pub(crate) const KEY_CHECK_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// Longest vault: a thousand identities with long key chains stay below. Bounds what is read into memory.
pub(super) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// What a file shows of the key that it was sealed with: 16 bytes of SHA-256 over context and key.
///
/// It helps a guesser no more than the cipher's tag does: either way a guess is tested by one Argon2id and a little more.
/// Going back from it to the key means inverting SHA-256 of 256 bits that Argon2id made. It binds the file to one key,
/// which the cipher's tag alone would not.
pub(crate) fn key_check(key: &[u8; 32]) -> [u8; KEY_CHECK_BYTES] {
    let input = Zeroizing::new(signing_input(Context::KeyCheck, &[key]));
    let mut check = [0; KEY_CHECK_BYTES];
    for (place, byte) in check.iter_mut().zip(Digest::of(&input).as_bytes()) {
        *place = *byte;
    }
    check
}

/// The readable part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cost: KdfCost,
    pub(super) salt: [u8; 16],
    pub(super) check: [u8; KEY_CHECK_BYTES],
    pub(super) nonce: [u8; 24],
}

/// A file in its parts, undamaged but not authenticated.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) header: Header,
    readable: &'a [u8],
    sealed: &'a [u8],
}

impl Header {
    fn encode(&self, sealed_bytes: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.check);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&sealed_bytes.to_be_bytes());
        out
    }

    /// The whole file for a plaintext, which is sealed where it lies.
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

/// Takes bytes off the front of a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], VaultError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(VaultError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, VaultError> {
        Ok(u32::from_be_bytes(*self.take()?))
    }
}

/// Tells the parts of a file: another kind of file, a version that is not known here, truncation and damage apart.
pub(super) fn parse(file: &[u8]) -> Result<Parsed<'_>, VaultError> {
    let magic = file.get(..MAGIC.len()).unwrap_or(file);
    if !MAGIC.starts_with(magic) {
        return Err(VaultError::NotAVault);
    }
    let mut reader = Reader(file);
    reader.take::<14>()?;
    let version = u16::from_be_bytes(*reader.take()?);
    if version != VERSION {
        return Err(VaultError::UnknownVersion(version));
    }
    let header = Header {
        cost: KdfCost {
            memory_kib: reader.number()?,
            passes: reader.number()?,
            lanes: reader.number()?,
        },
        salt: *reader.take()?,
        check: *reader.take()?,
        nonce: *reader.take()?,
    };
    let sealed_bytes = reader.number()? as usize;
    let Some((sealed, rest)) = reader.0.split_at_checked(sealed_bytes) else {
        return Err(VaultError::Truncated);
    };
    let (checksum, rest) = rest
        .split_first_chunk::<32>()
        .ok_or(VaultError::Truncated)?;
    let (checked, _) = file.split_at(HEADER_BYTES + sealed_bytes);
    if !rest.is_empty() || Digest::of(checked).as_bytes() != checksum {
        return Err(VaultError::Damaged);
    }
    let (readable, _) = file.split_at(HEADER_BYTES);
    Ok(Parsed {
        header,
        readable,
        sealed,
    })
}

impl Parsed<'_> {
    /// The plaintext, if this key sealed it under this header.
    pub(super) fn open(&self, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if !bool::from(key_check(key).ct_eq(&self.header.check)) {
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
                self.readable,
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
    use crate::locked::Locked;
    use crate::passphrase::Passphrase;
    use data_encoding::HEXLOWER;

    fn header() -> Header {
        Header {
            cost: KdfCost::TEST,
            salt: [1; 16],
            check: key_check(&key()),
            nonce: [2; 24],
        }
    }

    fn key() -> Locked<32> {
        KdfCost::TEST
            .derive(&Passphrase::from_string("word".into()), &[1; 16])
            .unwrap()
    }

    fn file() -> Vec<u8> {
        header()
            .seal(&key(), Zeroizing::new(b"plain".to_vec()))
            .unwrap()
    }

    fn open(file: &[u8]) -> Result<Vec<u8>, VaultError> {
        let parsed = parse(file)?;
        let cost = parsed.header.cost;
        let key = cost.derive(&Passphrase::from_string("word".into()), &parsed.header.salt)?;
        parsed.open(&key).map(|plain| plain.to_vec())
    }

    #[test]
    fn the_bytes_of_version_2_stay_what_they_are() {
        let expected = "706f737465726e2d7661756c740a0002000000080000000100000001010101010101010101010101010101018d8a83a5\
             1593865edcb550cdc4cb272b0202020202020202020202020202020202020202020202020000001522beb099717f75f2\
             114eb9fb430aed930bd58396af23c3584195bc0140a2d53a5ef96e21c42daf56bb6a241f5345cc64845bc115e9";
        assert_eq!(HEXLOWER.encode(&file()), expected);
        assert_eq!(open(&file()).unwrap(), b"plain");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
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
    fn every_changed_byte_is_refused_when_the_checksum_was_made_to_fit() {
        for place in 16..file().len() - 32 {
            let mut bent = file();
            // The lowest bit, so that altered costs stay cheap to try.
            bent[place] ^= 1;
            let body = bent.len() - 32;
            let checksum = Digest::of(&bent[..body]);
            bent[body..].copy_from_slice(checksum.as_bytes());
            let error = open(&bent).unwrap_err();
            let expected = match place {
                16..28 => matches!(
                    error,
                    VaultError::CostOutOfBounds(_) | VaultError::WrongPassphrase
                ),
                // Salt and key check: nobody can tell this from a wrong passphrase.
                28..60 => matches!(error, VaultError::WrongPassphrase),
                84..88 => matches!(error, VaultError::Truncated | VaultError::Damaged),
                _ => matches!(error, VaultError::Tampered),
            };
            assert!(expected, "byte {place}: {error}");
        }
    }

    #[test]
    fn who_made_another_version_is_said() {
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
    fn a_file_is_bound_to_one_key() {
        let file = file();
        let parsed = parse(&file).unwrap();
        assert!(matches!(
            parsed.open(&[9; 32]),
            Err(VaultError::WrongPassphrase)
        ));
        assert_ne!(key_check(&[8; 32]), key_check(&[9; 32]));
    }

    #[test]
    fn every_truncation_and_extension_is_told() {
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

//! The common start of sealed files (vault and backup): magic, version, and the parameters of the
//! key.
//!
//! | bytes | content |
//! |---|---|
//! | m | magic, different for each kind of file |
//! | 2 | version |
//! | 12 | Argon2id cost: memory in KiB, passes, lanes (4 bytes each) |
//! | 16 | salt |
//! | 16 | key check: see [`key_check`] |
//!
//! All numbers are big-endian. Output: [`KeyParams`] and a [`ByteReader`] after them, or a
//! [`HeaderFault`], which `vault` and `backup` turn into errors of their own. The parsed parameters
//! are not authenticated. Tested by the tests of `vault/format.rs` and `backup`, which flip every
//! byte.

use subtle::ConstantTimeEq as _;

use crate::kdf::{KEY_CHECK_BYTES, KdfCost, KdfError, SALT_BYTES, derive, key_check};
use crate::locked::Locked;
use crate::passphrase::Passphrase;

/// The parameters of the key that seals a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyParams {
    pub(crate) cost: KdfCost,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) check: [u8; KEY_CHECK_BYTES],
}

/// Why a file's header was not read.
pub(crate) enum HeaderFault {
    /// The magic belongs to another kind of file.
    OtherKind,
    /// The version is not the expected one.
    UnknownVersion(u16),
    /// The file ends inside the header.
    Truncated,
}

impl KeyParams {
    /// Encoded length, in bytes.
    pub(crate) const BYTES: usize = 12 + SALT_BYTES + KEY_CHECK_BYTES;

    /// Derives the key of a passphrase under `cost` and `salt`, with its parameters.
    pub(crate) fn derive(
        passphrase: &Passphrase,
        salt: [u8; SALT_BYTES],
        cost: KdfCost,
    ) -> Result<(Self, Locked<32>), KdfError> {
        let key = derive(passphrase.as_bytes(), &salt, &cost)?;
        let check = key_check(&key);
        Ok((Self { cost, salt, check }, key))
    }

    /// Derives the key of a passphrase under these parameters. [`is_of`](Self::is_of) checks it.
    pub(crate) fn derive_again(&self, passphrase: &Passphrase) -> Result<Locked<32>, KdfError> {
        derive(passphrase.as_bytes(), &self.salt, &self.cost)
    }

    /// Returns whether the key check is that of `key`, in constant time.
    pub(crate) fn is_of(&self, key: &[u8; 32]) -> bool {
        key_check(key).ct_eq(&self.check).into()
    }

    /// Returns the start of a file: magic, version and these parameters.
    pub(crate) fn start_file(&self, magic: &[u8], version: u16) -> Vec<u8> {
        let mut out = magic.to_vec();
        out.extend_from_slice(&version.to_be_bytes());
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.check);
        out
    }

    /// Parses the start of a file. The reader continues after the parameters.
    pub(crate) fn parse<'a>(
        file: &'a [u8],
        magic: &[u8],
        version: u16,
    ) -> Result<(Self, ByteReader<'a>), HeaderFault> {
        let (start, rest) = file.split_at_checked(magic.len()).unwrap_or((file, &[]));
        // A shorter file that starts like this kind is reported as truncated, below.
        if !magic.starts_with(start) {
            return Err(HeaderFault::OtherKind);
        }
        let mut reader = ByteReader(rest);
        let found = u16::from_be_bytes(reader.take()?);
        if found != version {
            return Err(HeaderFault::UnknownVersion(found));
        }
        let cost = KdfCost {
            memory_kib: reader.number()?,
            passes: reader.number()?,
            lanes: reader.number()?,
        };
        let (salt, check) = (reader.take()?, reader.take()?);
        Ok((Self { cost, salt, check }, reader))
    }
}

/// Reads fields off the front of a byte slice.
pub(crate) struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    /// Returns the next `N` bytes.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], HeaderFault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(HeaderFault::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Returns the next 4 bytes as a big-endian number.
    pub(crate) fn number(&mut self) -> Result<u32, HeaderFault> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    /// Returns the bytes that were not read.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

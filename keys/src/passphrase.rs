//! The passphrase that opens the vault, and what guessing one costs.
//!
//! Never comes from an environment variable or an argument (both are readable by others): a prompt's text, a file, or
//! a systemd credential, which is a file too. Never printed. Invariant: zeroised when dropped.

use std::fmt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::private_file::{self, FileError};
use crate::vault::VaultError;

/// Longest passphrase file, in bytes: room for any sentence and for 64 random bytes in any encoding.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// A passphrase.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes what was typed at a prompt.
    pub fn from_string(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }

    /// Reads a file of at most 1,024 bytes that only its owner may access; one newline at its end is cut off.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        let mut bytes = private_file::read(path, PASSPHRASE_BYTES_MAX)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Self(bytes))
    }

    /// Whether there is nothing in it. Such a passphrase opens and makes no vault.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- passphrase ---")
    }
}

/// What one guess at a passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB, 8 per lane at least, 1,048,576 (1 GiB) at most.
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 16.
    pub lanes: u32,
}

impl KdfCost {
    /// RFC 9106's second recommendation with one lane for one core: 64 MiB, 3 passes; a fraction of a second.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// As cheap as Argon2id gets. For tests only: protects nothing.
    pub const TEST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    /// Whether the parameters are within bounds. They are read from a file before its authenticity is known, so a
    /// changed file must not be able to take all memory or hours.
    fn is_bounded(&self) -> bool {
        (1..=16).contains(&self.lanes)
            && (1..=16).contains(&self.passes)
            && (8 * self.lanes..=1024 * 1024).contains(&self.memory_kib)
    }

    /// The 32-byte key of a passphrase and salt. All memory used for it is zeroised.
    pub(crate) fn derive(&self, passphrase: &Passphrase, salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        if passphrase.is_empty() {
            return Err(VaultError::EmptyPassphrase);
        }
        if !self.is_bounded() {
            return Err(VaultError::CostOutOfBounds(*self));
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| VaultError::CostOutOfBounds(*self))?;
        let mut blocks = Vec::new();
        blocks
            .try_reserve_exact(params.block_count())
            .map_err(|_| VaultError::OutOfMemory(self.memory_kib))?;
        blocks.resize(params.block_count(), Block::default());
        let mut blocks = Zeroizing::new(blocks);
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(&passphrase.0, salt, key.as_mut(), blocks.as_mut_slice())
            .map_err(|_| VaultError::CostOutOfBounds(*self))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_newline_is_cut_off_a_file_and_loose_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (content, expected) in [
            ("word", "word"),
            ("word\n", "word"),
            ("word \n\n", "word \n"),
            ("\n", ""),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap().0.as_slice(), expected.as_bytes());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(FileError::LoosePermissions { mode: 0o640, .. })
        ));
    }

    #[test]
    fn costs_out_of_bounds_and_empty_passphrases_are_refused_before_any_work() {
        let word = Passphrase::from_string("word".into());
        let default = KdfCost::DEFAULT;
        let bad = [
            KdfCost {
                memory_kib: u32::MAX,
                ..default
            },
            KdfCost {
                memory_kib: 7,
                ..default
            },
            KdfCost { passes: 0, ..default },
            KdfCost {
                passes: u32::MAX,
                ..default
            },
            KdfCost { lanes: 0, ..default },
            KdfCost {
                lanes: u32::MAX,
                ..default
            },
        ];
        for cost in bad {
            assert!(matches!(
                cost.derive(&word, &[0; 16]),
                Err(VaultError::CostOutOfBounds(it)) if it == cost
            ));
        }
        let empty = Passphrase::from_string(String::new());
        assert!(matches!(
            KdfCost::TEST.derive(&empty, &[0; 16]),
            Err(VaultError::EmptyPassphrase)
        ));
        assert!(default.is_bounded());
    }

    #[test]
    fn does_not_print() {
        let word = Passphrase::from_string("word".into());
        assert_eq!(format!("{word:?}"), "--- passphrase ---");
    }
}

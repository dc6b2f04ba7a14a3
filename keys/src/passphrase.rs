//! The passphrase that opens the vault, and what guessing one costs.
//!
//! Never comes from an environment variable or an argument (both are readable by others): a prompt's text, a file, or
//! a systemd credential, which is a file too. Never printed. Invariant: zeroised when dropped.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::locked::Locked;
use crate::private_file::{self, FileError};
use crate::vault::VaultError;

/// Longest passphrase file, in bytes: room for any sentence and for 64 random bytes in any encoding.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// Most memory of one derivation: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Most passes.
const PASSES_MAX: u32 = 16;

/// A passphrase.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes what was typed at a prompt.
    pub fn from_string(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }

    /// Reads a file of at most 1,024 bytes that only its owner may access; one newline at its end is cut off.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        private_file::read(path, PASSPHRASE_BYTES_MAX).map(Self::without_newline)
    }

    /// Reads a systemd credential (systemd.exec(5), `LoadCredential=`) as [`from_file`](Self::from_file) reads a file. The
    /// group's bit for reading may be set: systemd lets the service's user in by an access control list, which shows as
    /// mode 0440, in a folder of that user's alone. So `path` must lie in `$CREDENTIALS_DIRECTORY`.
    pub fn from_credential(path: &Path) -> Result<Self, FileError> {
        private_file::read_credential(path, PASSPHRASE_BYTES_MAX).map(Self::without_newline)
    }

    fn without_newline(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Self(bytes)
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
    /// The least that a real vault costs: RFC 9106's second recommendation with one lane for one core: 64 MiB, 3 passes; a
    /// fraction of a second. [`calibrated`](Self::calibrated) finds what a machine can bear beyond it.
    pub const FLOOR: Self = Self {
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

    /// The cost at which one derivation takes about `target` on this machine, never below the [`FLOOR`](Self::FLOOR).
    ///
    /// Memory comes first, since it is what a guesser's hardware lacks: it is doubled, up to `memory_kib_max` (256 MiB is
    /// sensible for a node that shares its machine) while the time stays at or below half the target; then passes are
    /// added in proportion, up to 16. `time` tells how long a derivation of that cost takes: it calls
    /// [`try_out`](Self::try_out) between two looks at its clock, which this crate has none of. It is called once, and once
    /// more for each doubling; no call takes longer than about the target, unless the floor does.
    ///
    /// # Errors
    /// What `time` fails with, but for [`VaultError::OutOfMemory`] beyond the floor: then what worked last is the cost.
    pub fn calibrated(
        target: Duration,
        memory_kib_max: u32,
        time: &mut dyn FnMut(&Self) -> Result<Duration, VaultError>,
    ) -> Result<Self, VaultError> {
        let mut cost = Self::FLOOR;
        let mut taken = time(&cost)?;
        while taken <= target / 2 && cost.memory_kib * 2 <= memory_kib_max.min(MEMORY_KIB_MAX) {
            let grown = Self {
                memory_kib: cost.memory_kib * 2,
                ..cost
            };
            match time(&grown) {
                Ok(longer) => (cost, taken) = (grown, longer),
                Err(VaultError::OutOfMemory(_)) => break,
                Err(error) => return Err(error),
            }
        }
        // One pass takes a like time each. A clock too coarse to see them gives the most.
        let each = (taken / cost.passes).as_nanos();
        let passes = target.as_nanos().checked_div(each).unwrap_or(u128::MAX);
        cost.passes = u32::try_from(passes)
            .unwrap_or(u32::MAX)
            .clamp(cost.passes, PASSES_MAX);
        Ok(cost)
    }

    /// Derives a key and throws it away, for the caller to see how long it takes.
    ///
    /// # Errors
    /// [`VaultError::OutOfMemory`], [`VaultError::CostOutOfBounds`].
    pub fn try_out(&self) -> Result<(), VaultError> {
        let nobodys = Passphrase::from_string("measured".to_owned());
        self.derive(&nobodys, &[0; 16]).map(drop)
    }

    /// Whether the parameters are within bounds. They are read from a file before its authenticity is known, so a
    /// changed file must not be able to take all memory or hours.
    fn is_bounded(&self) -> bool {
        (1..=16).contains(&self.lanes)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (8 * self.lanes..=MEMORY_KIB_MAX).contains(&self.memory_kib)
    }

    /// The 32-byte key of a passphrase and salt. All memory used for it is zeroised.
    pub(crate) fn derive(
        &self,
        passphrase: &Passphrase,
        salt: &[u8; 16],
    ) -> Result<Locked<32>, VaultError> {
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
        let function = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut derived = Ok(());
        let key = Locked::filled(|key| {
            derived = function.hash_password_into_with_memory(
                &passphrase.0,
                salt,
                key,
                blocks.as_mut_slice(),
            );
        });
        derived.map_err(|_| VaultError::CostOutOfBounds(*self))?;
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
            assert_eq!(
                Passphrase::from_file(&path).unwrap().0.as_slice(),
                expected.as_bytes()
            );
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        assert!(matches!(
            Passphrase::from_file(&path),
            Err(FileError::LoosePermissions { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_credential_may_seem_readable_for_the_group_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        fs::write(&path, "word\n").unwrap();
        for (mode, is_taken) in [(0o400, true), (0o440, true), (0o600, true), (0o640, true)]
            .into_iter()
            .chain(
                (0..6)
                    .filter(|bit| *bit != 5)
                    .map(|bit| (0o440 | (1 << bit), false)),
            )
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Passphrase::from_credential(&path) {
                Ok(word) => assert!(is_taken && word.0.as_slice() == b"word", "{mode:o}"),
                Err(error) => assert!(
                    !is_taken && matches!(error, FileError::LoosePermissions { .. }),
                    "{mode:o}: {error}"
                ),
            }
        }
    }

    /// What a machine that takes `nanos_per_kib` for each KiB and pass, and has `memory_kib`, is calibrated to, how long
    /// that takes, and how often was measured.
    fn calibrate(
        nanos_per_kib: u64,
        memory_kib: u32,
        target: Duration,
    ) -> (KdfCost, Duration, usize) {
        let takes = |cost: &KdfCost| {
            Duration::from_nanos(
                nanos_per_kib * u64::from(cost.memory_kib) * u64::from(cost.passes),
            )
        };
        let mut measured = 0;
        let cost = KdfCost::calibrated(target, 256 * 1024, &mut |cost| {
            measured += 1;
            if cost.memory_kib > memory_kib {
                return Err(VaultError::OutOfMemory(cost.memory_kib));
            }
            Ok(takes(cost))
        });
        let cost = cost.unwrap();
        (cost, takes(&cost), measured)
    }

    #[test]
    fn a_slow_machine_gets_the_floor_and_a_fast_one_memory_first() {
        let target = Duration::from_secs(1);
        assert_eq!(calibrate(1_000_000, u32::MAX, target).0, KdfCost::FLOOR);
        // The floor takes 0.2 s: doubled once it takes 0.4 s, twice 0.8 s, and there is no room for a fourth pass.
        let (cost, _, measured) = calibrate(1017, u32::MAX, target);
        assert_eq!((cost.memory_kib, cost.passes, measured), (256 * 1024, 3, 3));
        // Too little memory to double it: passes instead.
        let (cost, _, measured) = calibrate(1017, 100 * 1024, target);
        assert_eq!((cost.memory_kib, cost.passes, measured), (64 * 1024, 15, 2));
        let (cost, ..) = calibrate(0, u32::MAX, target);
        assert_eq!((cost.memory_kib, cost.passes), (256 * 1024, 16));
        // Without memory for the floor there is no vault.
        let too_small = KdfCost::calibrated(target, 0, &mut |cost| {
            Err(VaultError::OutOfMemory(cost.memory_kib))
        });
        assert!(matches!(too_small, Err(VaultError::OutOfMemory(65536))));
        let alone = KdfCost::calibrated(target, 0, &mut |_| Ok(target)).unwrap();
        assert_eq!(alone, KdfCost::FLOOR);
    }

    proptest::proptest! {
        #[test]
        fn no_machine_gets_less_than_the_floor_nor_more_than_the_bounds(
            nanos_per_kib in 1u64..100_000,
            memory_kib in 64 * 1024u32..2 * 1024 * 1024,
            target_ms in 1u64..5_000,
        ) {
            let target = Duration::from_millis(target_ms);
            let (cost, takes, measured) = calibrate(nanos_per_kib, memory_kib, target);
            let (floor, most) = (KdfCost::FLOOR, 256 * 1024);
            proptest::prop_assert!(cost.is_bounded() && measured <= 3);
            proptest::prop_assert!((floor.memory_kib..=most.min(memory_kib)).contains(&cost.memory_kib));
            proptest::prop_assert!((floor.passes..=16).contains(&cost.passes) && cost.lanes == 1);
            // Above the target only where the floor is; far below it only where there is no room to grow.
            proptest::prop_assert!(takes <= target || cost == floor);
            proptest::prop_assert!(takes * 4 >= target * 3 - target / 4 || cost.passes == 16);
        }
    }

    #[test]
    fn trying_out_derives_a_key() {
        KdfCost::TEST.try_out().unwrap();
        let none = KdfCost {
            lanes: 0,
            ..KdfCost::TEST
        };
        assert!(matches!(
            none.try_out(),
            Err(VaultError::CostOutOfBounds(_))
        ));
    }

    #[test]
    fn costs_out_of_bounds_and_empty_passphrases_are_refused_before_any_work() {
        let word = Passphrase::from_string("word".into());
        let default = KdfCost::FLOOR;
        let bad = [
            KdfCost {
                memory_kib: u32::MAX,
                ..default
            },
            KdfCost {
                memory_kib: 7,
                ..default
            },
            KdfCost {
                passes: 0,
                ..default
            },
            KdfCost {
                passes: u32::MAX,
                ..default
            },
            KdfCost {
                lanes: 0,
                ..default
            },
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

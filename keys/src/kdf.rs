//! Key derivation from a passphrase: Argon2id (RFC 9106), its cost, and the key check of sealed
//! files.
//!
//! Input: a passphrase's bytes, a salt and a [`KdfCost`]. Output: a 32-byte key in locked memory.
//! Invariant: a cost out of bounds is refused before any memory is reserved. A cost is read from a
//! file before that file is authenticated. Tested below; used by `vault` and `backup`.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::ids::Digest;
use crate::locked::Locked;
use crate::signing::{Context, signing_input};

/// Most memory of one derivation, in KiB: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Most passes over the memory.
const PASSES_MAX: u32 = 16;
/// Most lanes.
const LANES_MAX: u32 = 16;

/// Length of a salt, in bytes.
pub(crate) const SALT_BYTES: usize = 16;
/// Length of a [`key_check`], in bytes.
pub(crate) const KEY_CHECK_BYTES: usize = 16;

/// Why no key was derived.
#[derive(Debug, thiserror::Error)]
pub enum KdfError {
    /// The passphrase has no character.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// A parameter of Argon2id is outside the bounds of [`KdfCost`]. In a file, this may be
    /// tampering.
    #[error(
        "the key derivation cost is out of bounds: {} KiB, {} passes, {} lanes",
        .0.memory_kib, .0.passes, .0.lanes
    )]
    CostOutOfBounds(KdfCost),
    /// The system did not provide this much memory, in KiB.
    #[error("not enough memory to derive the key: {0} KiB needed")]
    OutOfMemory(u32),
}

/// The cost of one passphrase guess: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB: at least 8 per lane, at most 1,048,576 (1 GiB).
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 16.
    pub lanes: u32,
}

impl KdfCost {
    /// The lowest cost of a real vault: 64 MiB and 3 passes, a fraction of a second.
    ///
    /// RFC 9106's second recommendation, with one lane because one core derives the key.
    /// [`calibrated`](Self::calibrated) finds a higher cost that the machine can afford.
    pub const FLOOR: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// The lowest cost that Argon2id allows. For tests only: it protects nothing.
    pub const TEST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    /// Returns the cost at which one derivation takes about `target`, at least
    /// [`FLOOR`](Self::FLOOR).
    ///
    /// `time` returns how long a derivation of a given cost takes, by a call of
    /// [`try_out`](Self::try_out) between two readings of a clock. This crate has no clock. Memory
    /// grows first, because memory is what a guesser's hardware lacks. Memory doubles while a
    /// derivation takes at most half the target, up to `memory_kib_max` (256 MiB suits a node that
    /// shares its machine). Passes are then added in proportion, up to 16.
    ///
    /// `time` is called once, and once more for each doubling. No call takes longer than about the
    /// target, unless the floor does.
    ///
    /// # Errors
    /// Every error of `time`, except [`KdfError::OutOfMemory`] above the floor: the last cost that
    /// worked is then returned.
    pub fn calibrated(
        target: Duration,
        memory_kib_max: u32,
        time: &mut dyn FnMut(&Self) -> Result<Duration, KdfError>,
    ) -> Result<Self, KdfError> {
        let mut cost = Self::FLOOR;
        let mut taken = time(&cost)?;
        while taken <= target / 2 && cost.memory_kib * 2 <= memory_kib_max.min(MEMORY_KIB_MAX) {
            let grown = Self {
                memory_kib: cost.memory_kib * 2,
                ..cost
            };
            match time(&grown) {
                Ok(longer) => (cost, taken) = (grown, longer),
                Err(KdfError::OutOfMemory(_)) => break,
                Err(error) => return Err(error),
            }
        }
        // All passes take about the same time. A clock too coarse to measure them gives the
        // maximum.
        let each = (taken / cost.passes).as_nanos();
        let passes = target.as_nanos().checked_div(each).unwrap_or(u128::MAX);
        cost.passes = u32::try_from(passes)
            .unwrap_or(u32::MAX)
            .clamp(cost.passes, PASSES_MAX);
        Ok(cost)
    }

    /// Derives a key from a fixed passphrase and discards it, so that the caller can measure the
    /// time.
    ///
    /// # Errors
    /// [`KdfError::OutOfMemory`], [`KdfError::CostOutOfBounds`].
    pub fn try_out(&self) -> Result<(), KdfError> {
        derive(b"measured", &[0; SALT_BYTES], self).map(drop)
    }

    fn is_bounded(&self) -> bool {
        (1..=LANES_MAX).contains(&self.lanes)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (8 * self.lanes..=MEMORY_KIB_MAX).contains(&self.memory_kib)
    }
}

/// Derives the 32-byte key of a passphrase and a salt. All memory used for it is zeroised.
///
/// # Errors
/// [`KdfError`].
pub(crate) fn derive(
    passphrase: &[u8],
    salt: &[u8; SALT_BYTES],
    cost: &KdfCost,
) -> Result<Locked<32>, KdfError> {
    if passphrase.is_empty() {
        return Err(KdfError::EmptyPassphrase);
    }
    if !cost.is_bounded() {
        return Err(KdfError::CostOutOfBounds(*cost));
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| KdfError::CostOutOfBounds(*cost))?;
    let mut blocks = Vec::new();
    blocks
        .try_reserve_exact(params.block_count())
        .map_err(|_| KdfError::OutOfMemory(cost.memory_kib))?;
    blocks.resize(params.block_count(), Block::default());
    let mut blocks = Zeroizing::new(blocks);
    let function = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut derived = Ok(());
    let key = Locked::filled(|key| {
        derived =
            function.hash_password_into_with_memory(passphrase, salt, key, blocks.as_mut_slice());
    });
    derived.map_err(|_| KdfError::CostOutOfBounds(*cost))?;
    Ok(key)
}

/// Returns the key check of a sealed file: the first 16 bytes of SHA-256 over context and key.
///
/// The key check distinguishes a wrong passphrase from a changed file. The check also binds the
/// file to one key, which the cipher's tag alone would not. A guesser gains nothing beyond that
/// tag: either tests a guess at the cost of one Argon2id. Deriving the key from its check means
/// inverting SHA-256 of 256 bits that Argon2id produced.
pub(crate) fn key_check(key: &[u8; 32]) -> [u8; KEY_CHECK_BYTES] {
    let input = Zeroizing::new(signing_input(Context::KeyCheck, &[key]));
    let mut check = [0; KEY_CHECK_BYTES];
    for (place, byte) in check.iter_mut().zip(Digest::of(&input).as_bytes()) {
        *place = *byte;
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calibrates on a machine that takes `nanos_per_kib` per KiB and pass and has `memory_kib`.
    ///
    /// Returns the cost, the time that a derivation at that cost takes, and the number of
    /// measurements.
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
                return Err(KdfError::OutOfMemory(cost.memory_kib));
            }
            Ok(takes(cost))
        });
        let cost = cost.unwrap();
        (cost, takes(&cost), measured)
    }

    #[test]
    fn calibration_keeps_the_floor_on_slow_machines_and_grows_memory_first_on_fast_ones() {
        let target = Duration::from_secs(1);
        assert_eq!(calibrate(1_000_000, u32::MAX, target).0, KdfCost::FLOOR);
        // The floor takes 0.2 s, doubled once 0.4 s, twice 0.8 s. A fourth pass would exceed 1 s.
        let (cost, _, measured) = calibrate(1017, u32::MAX, target);
        assert_eq!((cost.memory_kib, cost.passes, measured), (256 * 1024, 3, 3));
        // Memory cannot double, so passes grow instead.
        let (cost, _, measured) = calibrate(1017, 100 * 1024, target);
        assert_eq!((cost.memory_kib, cost.passes, measured), (64 * 1024, 15, 2));
        let (cost, ..) = calibrate(0, u32::MAX, target);
        assert_eq!((cost.memory_kib, cost.passes), (256 * 1024, 16));
        // Without memory for the floor, calibration fails.
        let too_small = KdfCost::calibrated(target, 0, &mut |cost| {
            Err(KdfError::OutOfMemory(cost.memory_kib))
        });
        assert!(matches!(too_small, Err(KdfError::OutOfMemory(65536))));
        let alone = KdfCost::calibrated(target, 0, &mut |_| Ok(target)).unwrap();
        assert_eq!(alone, KdfCost::FLOOR);
    }

    proptest::proptest! {
        #[test]
        fn calibration_stays_between_the_floor_and_the_bounds(
            nanos_per_kib in 1u64..100_000,
            memory_kib in 64 * 1024u32..2 * 1024 * 1024,
            target_ms in 1u64..5_000,
        ) {
            let target = Duration::from_millis(target_ms);
            let (cost, takes, measured) = calibrate(nanos_per_kib, memory_kib, target);
            let (floor, memory_kib_max) = (KdfCost::FLOOR, 256 * 1024);
            proptest::prop_assert!(cost.is_bounded() && measured <= 3);
            let memory_range = floor.memory_kib..=memory_kib_max.min(memory_kib);
            proptest::prop_assert!(memory_range.contains(&cost.memory_kib));
            proptest::prop_assert!((floor.passes..=16).contains(&cost.passes) && cost.lanes == 1);
            // Only the floor may exceed the target. Only 16 passes may stay far below it.
            proptest::prop_assert!(takes <= target || cost == floor);
            proptest::prop_assert!(takes * 4 >= target * 3 - target / 4 || cost.passes == 16);
        }
    }

    #[test]
    fn try_out_derives_a_key() {
        KdfCost::TEST.try_out().unwrap();
        let none = KdfCost {
            lanes: 0,
            ..KdfCost::TEST
        };
        assert!(matches!(none.try_out(), Err(KdfError::CostOutOfBounds(_))));
    }

    #[test]
    fn derive_refuses_costs_out_of_bounds_and_empty_passphrases() {
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
                derive(b"word", &[0; 16], &cost),
                Err(KdfError::CostOutOfBounds(it)) if it == cost
            ));
        }
        assert!(matches!(
            derive(b"", &[0; 16], &KdfCost::TEST),
            Err(KdfError::EmptyPassphrase)
        ));
        assert!(default.is_bounded());
    }

    #[test]
    fn key_checks_of_two_keys_differ() {
        assert_ne!(key_check(&[8; 32]), key_check(&[9; 32]));
    }
}

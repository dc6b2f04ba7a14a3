//! [`Serials`]: a bitmap of the used serial numbers of one sealing key.
//!
//! Grows with the highest used serial, up to the number of issued serials. Invariant:
//! [`Serials::mark_used`] succeeds once per serial, and once more after each effective
//! [`Serials::release`]. Releases are bounded.

use std::collections::BTreeMap;

/// How often one serial is released. With the first use that allows one presentation more than a
/// default client makes, and bounds the verifications that one solution costs.
const RELEASES_MAX: u8 = 8;
/// Most released serials of one key. Each was paid for by work. Further serials stay used.
const RELEASED_SERIALS_MAX: usize = 4096;

/// A bitmap of used serials.
#[derive(Debug, Default)]
pub(super) struct Serials {
    used: Vec<u64>,
    /// Number of releases by serial.
    released: BTreeMap<u32, u8>,
}

fn bit_of(serial: u32) -> (usize, u64) {
    ((serial / 64) as usize, 1 << (serial % 64))
}

impl Serials {
    pub(super) fn is_used(&self, serial: u32) -> bool {
        let (word, bit) = bit_of(serial);
        self.used.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Marks a serial used. Returns `false` when it was used already.
    pub(super) fn mark_used(&mut self, serial: u32) -> bool {
        let (word, bit) = bit_of(serial);
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        match self.used.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    /// Returns whether a serial was released.
    pub(super) fn was_released(&self, serial: u32) -> bool {
        self.released.contains_key(&serial)
    }

    /// Marks a serial unused, within the limits above.
    pub(super) fn release(&mut self, serial: u32) {
        let is_full = self.released.len() >= RELEASED_SERIALS_MAX;
        match self.released.get_mut(&serial) {
            Some(count) if *count >= RELEASES_MAX => return,
            Some(count) => *count += 1,
            None if is_full => return,
            None => drop(self.released.insert(serial, 1)),
        }
        let (word, bit) = bit_of(serial);
        if let Some(bits) = self.used.get_mut(word) {
            *bits &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_used_succeeds_once_per_release() {
        let mut serials = Serials::default();
        for serial in [0, 63, 64, 4_194_303] {
            assert!(!serials.is_used(serial));
            assert!(serials.mark_used(serial));
            assert!(serials.is_used(serial));
            assert!(!serials.mark_used(serial));
            serials.release(serial);
            assert!(serials.mark_used(serial) && !serials.mark_used(serial));
        }
        assert!(!serials.is_used(1));
        assert_eq!(serials.used.len(), 65536);
    }

    #[test]
    fn releases_are_bounded_per_serial_and_in_all() {
        let mut serials = Serials::default();
        for _ in 0..RELEASES_MAX {
            assert!(serials.mark_used(7));
            serials.release(7);
        }
        assert!(serials.mark_used(7));
        serials.release(7);
        assert!(!serials.mark_used(7));
        for serial in 100..2 * RELEASED_SERIALS_MAX as u32 {
            assert!(serials.mark_used(serial));
            serials.release(serial);
        }
        assert_eq!(serials.released.len(), RELEASED_SERIALS_MAX);
        assert!(serials.mark_used(100) && !serials.mark_used(2 * RELEASED_SERIALS_MAX as u32 - 1));
    }
}

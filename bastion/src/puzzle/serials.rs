//! Which serials of one sealing key have been used: one bit each.
//!
//! Grows with the serials that were used, up to the number that may be issued. Never forgets while its key lives.
//! Invariant: [`Serials::take`] succeeds once per serial, and once more after each [`Serials::give_back`], which has an end.

use std::collections::BTreeMap;

/// How often one serial is given back. With the first time that is one presentation more than a default client makes:
/// whoever comes again and again does not have us verify one piece of work for ever.
const RETURNS_MAX: u8 = 8;
/// Serials that may have been given back, of one key. Each was paid for with work; more, and they stay used.
const RETURNED_MAX: usize = 4096;

/// A bitmap of used serials.
#[derive(Debug, Default)]
pub(super) struct Serials {
    used: Vec<u64>,
    /// How often a serial was given back.
    returned: BTreeMap<u32, u8>,
}

fn place(serial: u32) -> (usize, u64) {
    ((serial / 64) as usize, 1 << (serial % 64))
}

impl Serials {
    pub(super) fn is_used(&self, serial: u32) -> bool {
        let (word, bit) = place(serial);
        self.used.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Marks a serial used; `false` when it was already.
    pub(super) fn take(&mut self, serial: u32) -> bool {
        let (word, bit) = place(serial);
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

    /// Whether a serial was given back.
    pub(super) fn was_given_back(&self, serial: u32) -> bool {
        self.returned.contains_key(&serial)
    }

    /// Marks a serial unused again, unless that was done too often.
    pub(super) fn give_back(&mut self, serial: u32) {
        let is_full = self.returned.len() >= RETURNED_MAX;
        match self.returned.get_mut(&serial) {
            Some(count) if *count >= RETURNS_MAX => return,
            Some(count) => *count += 1,
            None if is_full => return,
            None => drop(self.returned.insert(serial, 1)),
        }
        let (word, bit) = place(serial);
        if let Some(bits) = self.used.get_mut(word) {
            *bits &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_serial_is_taken_once() {
        let mut serials = Serials::default();
        for serial in [0, 63, 64, 4_194_303] {
            assert!(!serials.is_used(serial));
            assert!(serials.take(serial));
            assert!(serials.is_used(serial));
            assert!(!serials.take(serial));
            serials.give_back(serial);
            assert!(serials.take(serial) && !serials.take(serial));
        }
        assert!(!serials.is_used(1));
        assert_eq!(serials.used.len(), 65536);
    }

    #[test]
    fn a_serial_is_given_back_so_often_and_so_many_are() {
        let mut serials = Serials::default();
        for _ in 0..RETURNS_MAX {
            assert!(serials.take(7));
            serials.give_back(7);
        }
        assert!(serials.take(7));
        serials.give_back(7);
        assert!(!serials.take(7));
        for serial in 100..2 * RETURNED_MAX as u32 {
            assert!(serials.take(serial));
            serials.give_back(serial);
        }
        assert_eq!(serials.returned.len(), RETURNED_MAX);
        assert!(serials.take(100) && !serials.take(2 * RETURNED_MAX as u32 - 1));
    }
}

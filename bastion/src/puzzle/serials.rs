//! Which serials of one sealing key have been used: one bit each.
//!
//! Grows with the serials that were used, up to the number that may be issued. Never forgets while its key lives.
//! Invariant: [`Serials::take`] succeeds once per serial, and once more after [`Serials::give_back`].

/// A bitmap of used serials.
#[derive(Debug, Default)]
pub(super) struct Serials(Vec<u64>);

fn place(serial: u32) -> (usize, u64) {
    ((serial / 64) as usize, 1 << (serial % 64))
}

impl Serials {
    pub(super) fn is_used(&self, serial: u32) -> bool {
        let (word, bit) = place(serial);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Marks a serial used; `false` when it was already.
    pub(super) fn take(&mut self, serial: u32) -> bool {
        let (word, bit) = place(serial);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        match self.0.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    /// Marks a serial unused again.
    pub(super) fn give_back(&mut self, serial: u32) {
        let (word, bit) = place(serial);
        if let Some(bits) = self.0.get_mut(word) {
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
        assert_eq!(serials.0.len(), 65536);
    }
}

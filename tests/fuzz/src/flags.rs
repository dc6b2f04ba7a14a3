//! The flags in the first byte of an input. Each target defines its own bits.

/// The first byte of an input. Its bits insert values that mutation cannot find: a seal, a
/// signature, a solved puzzle.
#[derive(Clone, Copy)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    /// Splits the input into the flags and the remaining bytes.
    pub(crate) fn split(data: &[u8]) -> Option<(Self, &[u8])> {
        data.split_first().map(|(flags, rest)| (Self(*flags), rest))
    }

    pub(crate) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

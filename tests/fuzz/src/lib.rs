//! Fuzz targets: one function for each decoder of bytes that come before admission, on either side of the handshake; and
//! for what an admitted peer says, and for what an operator types back from paper.
//!
//! A target takes any bytes and panics where a rule is broken; it says whether they got all the way through. Never on a
//! clock, chance or a thread: the same bytes do the same again, so that the corpus is a regression test.
//! Called by `src/bin/`, which libFuzzer drives, and by `tests/corpus.rs`, which replays what is committed.
//! Invariant: what a target accepts was checked a second time here, by another way than the code under test went.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target says what it found by panicking, and what it sets up itself holds"
)]

mod called;
mod calling;
mod claims;
mod items;
mod names;
mod proofs;
mod seeds;
mod session;
mod stage;
mod wire;

pub use called::called;
pub use calling::calling;
pub use claims::claims;
pub use names::names;
pub use proofs::{chain, ticket};
pub use seeds::{Seed, seeds};
pub use session::{recovery, session};
pub use wire::{cookie, frames, message, scan};

/// Takes any bytes; says whether they were accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is also its binary's and its corpus folder's.
pub const TARGETS: [(&str, Target); 12] = [
    ("called", called),
    ("calling", calling),
    ("chain", chain),
    ("claims", claims),
    ("cookie", cookie),
    ("frames", frames),
    ("message", message),
    ("names", names),
    ("recovery", recovery),
    ("scan", scan),
    ("session", session),
    ("ticket", ticket),
];

/// One byte of the input that asks the target for what no mutation finds: a seal, a signature, a solved puzzle.
#[derive(Clone, Copy)]
struct Orders(u8);

impl Orders {
    /// The first byte, and what it is about.
    fn split(data: &[u8]) -> Option<(Self, &[u8])> {
        data.split_first()
            .map(|(orders, rest)| (Self(*orders), rest))
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

//! Fuzz targets, one function each. They cover the decoders that run before admission on both sides
//! of the handshake. They also cover the messages of an admitted peer, and the text of a recovery
//! file.
//!
//! A target takes any bytes, panics when a rule is broken, and returns whether the input was
//! accepted. Targets use no clock, no randomness and no threads, so that an input always has the
//! same result. Called by `src/bin/` under libFuzzer, and by `tests/corpus.rs`, which replays the
//! committed corpus. Invariant: a target checks every accepted input a second time, independently
//! of the code under test.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target reports a finding by panicking, and its own fixtures are valid"
)]

mod claims;
mod client;
mod fixture;
mod flags;
mod handshake_seeds;
mod items;
mod names;
mod proofs;
mod seed_list;
mod seeds;
mod server;
mod session;
mod wire;

pub use claims::claims;
pub use client::client;
pub use names::names;
pub use proofs::{chain, ticket};
pub use seed_list::Seed;
pub use seeds::seeds;
pub use server::server;
pub use session::{recovery, session};
pub use wire::{cookie, frames, message, scan};

/// Takes any bytes and returns whether they were accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is also the name of its binary and of its corpus folder.
pub const TARGETS: [(&str, Target); 12] = [
    ("chain", chain),
    ("claims", claims),
    ("client", client),
    ("cookie", cookie),
    ("frames", frames),
    ("message", message),
    ("names", names),
    ("recovery", recovery),
    ("scan", scan),
    ("server", server),
    ("session", session),
    ("ticket", ticket),
];

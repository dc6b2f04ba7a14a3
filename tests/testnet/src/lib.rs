//! A private Tor network on 127.0.0.1, for tests and demonstrations: three directory authorities and six relays.
//!
//! Each is one `tor` process on its own free ports, with its folder in one directory. It must never contact another
//! address than 127.0.0.1, and never end a process that it did not start.
//! Invariant: the processes live no longer than their [`Testnet`]: it ends them by handle when dropped, and each one
//! watches the process that started it and ends by itself (within about 15 s) when that one was killed.
//!
//! - `network`: the whole network, from nothing to a usable consensus
//! - `authority`: the keys and fingerprints that an authority has before it runs
//! - `node`: one process: its `torrc`, its start and its end
//! - `consensus`: reading what the authorities agreed on
//! - `ports`: free ports, reserved until they are used

#![forbid(unsafe_code)]

mod authority;
mod consensus;
mod error;
mod network;
mod node;
mod ports;

pub use error::Error;
pub use network::{Options, Testnet};

//! A private Tor network on 127.0.0.1, for tests and demonstrations: three directory authorities
//! and six relays.
//!
//! Each node is one `tor` process with its own ports and its own folder in one parent folder. The
//! nodes contact no address but 127.0.0.1. Invariant: no process outlives its [`Testnet`]. Dropping
//! the value kills its child processes by handle. Each node also watches its owner process and
//! exits within about 15 s when the owner was killed. Tested by `tests/processes.rs`.
//!
//! - `network`: starts the whole network and waits for a usable consensus
//! - `authority`: creates an authority's keys and fingerprints before it starts
//! - `node`: one process with its `torrc`
//! - `consensus`: reads the usable relays from a consensus
//! - `ports`: free ports, reserved until their node starts

#![forbid(unsafe_code)]

mod authority;
mod consensus;
mod error;
mod network;
mod node;
mod ports;

pub use error::Error;
pub use network::{Options, Testnet};

//! Nodes, clients and attackers for the tests, benchmarks and demonstrations of this workspace.
//!
//! [`Setup`] starts a [`TestNode`] (a core that a test calls by hand) or a [`LiveNode`] (the same
//! with sessions over memory pipes). A setup can start its node again. Keys come from a seed and
//! [`ManualClock`] moves only when a test moves it, so every run does the same. [`RawClient`] dials
//! a node and sends any message; `StolenKeys` signs as an attacker; `NodeProcess` runs the program
//! itself. Contacts 127.0.0.1 only.
//!
//! Panics on every failure, because a failed helper is a failed test.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers fail like the tests themselves; node processes run in real time"
)]

mod clock;
pub mod compare;
pub mod dump;
pub mod forge;
mod live;
mod moving;
pub mod needles;
mod node;
pub mod process;
pub mod profile;
pub mod pull;
pub mod raw_client;
pub mod receipts;
pub mod recorded;
pub mod relay;
pub mod rights;
mod setup;
pub mod sim;
pub mod stolen_keys;
pub mod stored;
mod talks;
mod values;

pub use clock::{ManualClock, START};
pub use live::{LiveNode, Wiring};
pub use node::{TestNode, context_of};
pub use pull::meet;
pub use raw_client::RawClient;
pub use setup::{ALL_APPS, NO_MARKET, Setup, boot_id, manual_sync, seed_of};
pub use values::{card, conversation, message, offer, ride};

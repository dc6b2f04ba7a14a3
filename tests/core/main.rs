//! The core without a network: graph, state engine and engine over real databases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "../common/mod.rs"]
mod common;

mod engines;
mod local_writes;
mod packages;
mod quotas;
mod remote_identities;
mod remote_writes;
mod services;
mod thieves;
mod windows;

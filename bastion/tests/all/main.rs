//! The integration tests of this crate in one binary, so that the crate is linked once.
//!
//! `echo` with the feature `tor` starts a private Tor network; `.config/nextest.toml` isolates it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod echo;
mod gate;
mod repeated;
mod retries;
mod support;
mod unadmitted;

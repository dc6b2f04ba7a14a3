//! The program as an operator runs it: its files, its commands, its output, and its end at any
//! step.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail like the tests themselves; processes run in real time"
)]

mod acknowledged;
mod backup;
// A release build has no crash points.
#[cfg(debug_assertions)]
mod crash;
mod groups;
mod loopback;
mod moves;
mod operating;
mod people;
mod purge;
mod schema;
mod secrets;

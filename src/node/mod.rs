//! The composition of a node: [`init()`] makes one, [`run()`] runs one.
//!
//! The only module that imports all others below it. Its own logic is order: what starts before
//! what, and what stops first. Invariant: when [`run()`] returns, every task has ended, every
//! acknowledged write is on the disk, and no second process ran on the same folder. Tested in
//! `tests/system/operating.rs` and `tests/system/crash.rs`.

mod backup_job;
mod calibrate;
mod control;
mod error;
mod event;
mod init;
mod local_api;
mod moving;
mod network;
mod reload;
mod rotation;
mod run;
mod schemas;

pub use calibrate::calibrated;
pub use error::RunError;
pub use event::{Event, Events, NetworkState};
pub use init::{InitError, Initialised, init};
pub use reload::Reloads;
pub use rotation::check_may_rotate;
pub use run::run;
pub use schemas::refused_schema;

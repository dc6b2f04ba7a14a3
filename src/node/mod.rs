//! The node: where everything is put together. `init` makes one, `run` is one.
//!
//! The only place that knows all rooms. Never holds logic of its own beyond order: what starts before what, and what
//! stops first. Invariant: when [`run()`] returns, every task is over, all that was acknowledged is on disk, and no
//! second process ran on the same folder.

mod backup_job;
mod calibrate;
mod control;
mod error;
mod event;
mod init;
mod local_api;
mod network;
mod reload;
mod rotation;
mod run;

pub use calibrate::calibrated;
pub use error::RunError;
pub use event::{Event, Events, NetworkState};
pub use init::{InitError, Initialised, init};
pub use reload::Reloads;
pub use rotation::check_may_rotate;
pub use run::run;

//! A node's data folder: its files, the lock on it, and how a new one is staged.
//!
//! Tested in the files themselves and in `tests/system/crash.rs`, which kills a process after each
//! step.

mod lock;
mod paths;
mod staging;

pub use lock::{DirLock, DirLockError};
pub use paths::DataDir;
pub(crate) use paths::OPERATOR_LABEL;
pub(crate) use staging::{StagedDir, StagingKind, create_new, files, sync_folder, write_new};
pub use staging::{StagingError, check_free};

//! Sealed backups of a node: their format, how one is made, and how one becomes a node again. Files
//! that move an identity to another node have the same form.
//!
//! Input: a configuration, a vault and a database, or a backup file with its passphrase. Output: a
//! file, or a data folder. A file has its final name only after its content was read back and
//! compared. Tested in the files beside this one, `tests/system/backup.rs`, and
//! `tests/system/crash.rs`.

mod archive;
mod create;
mod handover;
mod layout;
mod progress;
mod restore;

pub use archive::ArchiveError;
pub use create::{BackedUp, CreateBackupError, create};
pub(crate) use create::{check_target, remove_stale_files};
pub(crate) use handover::{MoveFileError, MoveReader, MoveWriter};
pub use layout::LayoutError;
pub use progress::{BackupProgress, BackupProgressFn, BackupStep, Cancelled};
pub use restore::{RestoreError, Restored, restore};

//! The lock of a node's data folder: only one process at a time may write there.
//!
//! Taking the lock does not wait. Invariant: at most one [`DirLock`] of a folder exists on the
//! machine; the system releases it when the process ends, also by a crash.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use super::paths::DataDir;

/// The exclusive lock of a data folder, held until it is dropped.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the open file holds the lock")] File);

/// The cause for which the folder was not locked.
#[derive(Debug, thiserror::Error)]
pub enum DirLockError {
    /// Another process has locked the folder.
    #[error("{0}: another process runs this node")]
    Running(PathBuf),
    /// The lock file cannot be opened or locked.
    #[error("{path}: cannot {action}")]
    Files {
        /// The operation, as a verb.
        action: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
}

impl DataDir {
    /// Locks the folder for this process.
    ///
    /// # Errors
    /// [`DirLockError::Running`] where another process has locked it.
    pub fn lock(&self) -> Result<DirLock, DirLockError> {
        let path = self.lock_file();
        let failed = |action, source| DirLockError::Files {
            action,
            path: path.clone(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed("open", error))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock(file)),
            Err(TryLockError::WouldBlock) => Err(DirLockError::Running(path)),
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }

    /// Whether another process has locked the folder.
    pub fn is_running(&self) -> bool {
        let file = File::options().write(true).open(self.lock_file());
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_process_cannot_lock_the_data_dir() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::at(folder.path());
        assert!(!data.is_running());
        let lock = data.lock().unwrap();
        assert!(data.is_running());
        assert!(matches!(data.lock(), Err(DirLockError::Running(_))));
        drop(lock);
        assert!(!data.is_running());
        data.lock().unwrap();
    }
}

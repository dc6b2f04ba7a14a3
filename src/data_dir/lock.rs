//! The lock of a node's folder: one process at a time writes there.
//!
//! Never waits. Invariant: who has a [`DirLock`] is the only one, until it is dropped or the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use super::paths::DataDir;

/// The folder is ours.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "open is locked")] File);

/// Why the folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum DirLockError {
    /// Another process runs on the same folder.
    #[error("{0}: another process runs this node")]
    Running(PathBuf),
    /// The file system.
    #[error("{path}: cannot {doing}")]
    Files {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl DataDir {
    /// Takes the folder for this process.
    ///
    /// # Errors
    /// [`DirLockError::Running`] where another process has it.
    pub fn lock(&self) -> Result<DirLock, DirLockError> {
        let path = self.lock_file();
        let failed = |doing, source| DirLockError::Files {
            doing,
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

    /// Whether a process runs on the folder: it holds the lock for as long as it lives.
    pub fn is_running(&self) -> bool {
        let file = File::options().write(true).open(self.lock_file());
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
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

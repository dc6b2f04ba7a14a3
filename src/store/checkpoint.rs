//! Checkpoints: copying the pages of the write-ahead log into the database (docs/DECISIONS.md 2).
//!
//! SQLite's automatic checkpoint is off, because it runs inside a commit. [`Checkpointer`] copies
//! while others read and write. `Store::restart_log` lets the next write restart the log.
//! Invariant: a checkpoint changes no row, and no commit is lost by one that fails.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::error::{SqlContext as _, StoreError};

/// The write-ahead log at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// Pages since the log was restarted, each 4 KiB.
    pub pages: u64,
    /// How many of them are in the database already.
    pub copied: u64,
}

impl LogState {
    /// Pages that are not in the database yet.
    pub fn rest(&self) -> u64 {
        self.pages.saturating_sub(self.copied)
    }
}

/// How far a checkpoint goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extent {
    /// Only looks.
    Nothing,
    /// Copies what no read still needs, and does not wait.
    Passive,
    /// Copies everything, and waits until no read uses the log.
    Restart,
}

/// The database's file, opened a second time to sync it.
///
/// Invariant: every connection of a store holds it after its own handle. Closing any descriptor of
/// a file releases all POSIX locks of the process on the file, also those of SQLite
/// (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
#[derive(Debug, Clone)]
pub(super) struct DatabaseFile(Arc<File>);

impl DatabaseFile {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::Sync)?;
        Ok(Self(Arc::new(file)))
    }

    /// Waits until everything that was written to the file is on the disk.
    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync_data().map_err(StoreError::Sync)
    }
}

/// A connection that only makes checkpoints.
#[derive(Debug)]
pub struct Checkpointer {
    pub(super) connection: Connection,
    pub(super) file: DatabaseFile,
}

impl Checkpointer {
    /// Copies the pages that no read still needs, and syncs the database's file. Neither reads nor
    /// writes wait meanwhile.
    ///
    /// SQLite syncs the file only after the whole log is copied. The restart of the log would
    /// otherwise sync the pages of all rounds on the writer.
    pub fn copy(&self) -> Result<LogState, StoreError> {
        let state = checkpoint(&self.connection, Extent::Passive)?;
        self.file.sync()?;
        Ok(state)
    }
}

/// Runs a checkpoint. One that another connection prevents is no error.
pub(super) fn checkpoint(connection: &Connection, extent: Extent) -> Result<LogState, StoreError> {
    let context = "copying the write-ahead log";
    let sql = match extent {
        Extent::Nothing => "PRAGMA wal_checkpoint(NOOP)",
        Extent::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Extent::Restart => "PRAGMA wal_checkpoint(RESTART)",
    };
    let mut statement = connection.prepare_cached(sql).context(context)?;
    // Both are -1 if there is no log yet.
    let state = |row: &rusqlite::Row<'_>| {
        Ok(LogState {
            pages: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
            copied: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        })
    };
    statement.query_row([], state).context(context)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::store::Store;
    use crate::store::testing::Folder;
    use crate::store::tests::write;

    /// Writes rows `from..to` of `rides`, each in a transaction.
    fn write_rows(store: &mut Store, rows: std::ops::Range<u8>) {
        for number in rows {
            write(store, number, number.into(), number.into()).unwrap();
        }
    }

    /// Whether this process has a POSIX lock on the database's file.
    fn is_locked(folder: &Folder) -> bool {
        let inode = std::fs::metadata(folder.file()).unwrap().ino();
        let process = std::process::id().to_string();
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        // Fields: number, kind, mode, access, process, major:minor:inode, first and last byte.
        locks.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(4) == Some(&&*process)
                && fields[5].rsplit(':').next() == Some(&*inode.to_string())
        })
    }

    #[test]
    fn store_keeps_its_lock_when_the_checkpointer_ends() {
        let folder = Folder::new();
        let store = folder.open(&["rides", "identities"]).unwrap();
        let checkpointer = store.checkpointer().unwrap();
        assert!(is_locked(&folder));
        checkpointer.copy().unwrap();
        drop(checkpointer);
        assert!(is_locked(&folder));
    }

    #[test]
    fn commit_makes_no_checkpoint_and_a_copy_keeps_every_row() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities", "rides"]).unwrap();
        let checkpointer = store.checkpointer().unwrap();
        write_rows(&mut store, 1..20);
        let before = store.log_state().unwrap();
        assert!(before.pages > 19, "{before:?}");
        assert_eq!(before.copied, 0);
        let copied = checkpointer.copy().unwrap();
        assert_eq!((copied.pages, copied.rest()), (before.pages, 0));
        write_rows(&mut store, 20..21);
        let after = store.log_state().unwrap();
        assert!(
            after.pages < before.pages,
            "{after:?}: the log was restarted"
        );
        assert_eq!(store.rows().heads().unwrap().0, 20);
    }

    #[test]
    fn open_snapshot_keeps_the_log_and_loses_nothing() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities", "rides"]).unwrap();
        let checkpointer = store.checkpointer().unwrap();
        write_rows(&mut store, 1..3);
        let mut reader = store.reader().unwrap();
        let pages = reader
            .snapshot(|rows| {
                rows.heads()?;
                write_rows(&mut store, 3..5);
                let copied = checkpointer.copy()?;
                assert!(copied.rest() > 0, "{copied:?}");
                let kept = store.restart_log()?;
                assert_eq!(kept, copied);
                assert_eq!(rows.heads()?.0, 2);
                Ok::<_, StoreError>(kept.pages)
            })
            .unwrap();
        let restarted = store.restart_log().unwrap();
        assert_eq!((restarted.pages, restarted.rest()), (pages, 0));
        write_rows(&mut store, 5..6);
        assert!(store.log_state().unwrap().pages < pages);
        assert_eq!(store.rows().heads().unwrap().0, 5);
    }
}

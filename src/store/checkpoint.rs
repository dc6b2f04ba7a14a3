//! Checkpoints: copying the pages of the write-ahead log into the database (docs/DECISIONS.md 2).
//!
//! SQLite's automatic checkpoint is off, because it runs inside a commit. [`Checkpointer`] copies
//! while others read and write. `Store::restart_log` lets the next write restart the log.
//! Invariant: a checkpoint changes no row, and no commit is lost by one that fails.

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

/// A connection that only makes checkpoints.
#[derive(Debug)]
pub struct Checkpointer(pub(super) Connection);

impl Checkpointer {
    /// Copies the pages that no read still needs. Neither reads nor writes wait meanwhile.
    pub fn copy(&self) -> Result<LogState, StoreError> {
        checkpoint(&self.0, Extent::Passive)
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

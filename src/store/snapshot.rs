//! Copies of a database, and the check of a copy.
//!
//! [`snapshot`] does not change the content of the copied database and does not overwrite a file.
//! Invariant: a snapshot is one committed state, even while other connections write.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{SqlContext as _, StoreError};
use super::version::{FileContent, inspect};

/// Copies the database at `database` to the new file `out` of mode 0600.
///
/// This or another process may have the database open. The copy is on the disk when this function
/// returns, and contains no free pages.
///
/// # Errors
/// `out` exists, `database` was not made by Postern, or the disk failed. The caller removes the
/// incomplete copy.
pub fn snapshot(database: &Path, out: &Path) -> Result<(), StoreError> {
    // A read-only connection that closes last would leave its WAL file behind.
    let connection = open(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .context("setting the busy timeout")?;
    check_tables(&connection)?;
    let name = out
        .to_str()
        .ok_or_else(|| StoreError::Unsupported(format!("{} is not UTF-8", out.display())))?;
    let create = |source| StoreError::Create {
        path: out.to_owned(),
        source,
    };
    // SQLite accepts an empty file as the target, and would create a missing one with a wider mode.
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .map_err(create)?;
    connection
        .execute("VACUUM INTO ?1", [name])
        .context("copying the database")?;
    drop(connection);
    File::open(out)
        .and_then(|file| file.sync_all())
        .map_err(create)
}

/// Checks every page, index and reference of a database that no process has open.
///
/// # Errors
/// [`StoreError::Damaged`] with the first fault that SQLite finds; [`StoreError::Foreign`] for a
/// file of another program; [`StoreError::Version`] for one of a later version.
pub fn check_whole(database: &Path) -> Result<(), StoreError> {
    let connection = open(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let damaged = |source: rusqlite::Error| StoreError::Damaged(source.to_string());
    // In a damaged file even the first page may be unreadable.
    match check_tables(&connection) {
        Err(StoreError::Sqlite { source, .. }) => return Err(damaged(source)),
        checked => checked?,
    }
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(damaged)?;
    if found != "ok" {
        return Err(StoreError::Damaged(found));
    }
    let mut statement = connection
        .prepare("PRAGMA foreign_key_check")
        .map_err(damaged)?;
    if statement.exists([]).map_err(damaged)? {
        return Err(StoreError::Damaged(
            "a row refers to a row that does not exist".into(),
        ));
    }
    Ok(())
}

/// Opens an existing file. SQLite would create a missing one by default.
fn open(database: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(database, flags).map_err(|source| StoreError::Open {
        path: database.to_owned(),
        source,
    })
}

fn check_tables(connection: &Connection) -> Result<(), StoreError> {
    match inspect(connection)? {
        FileContent::Version(_) => Ok(()),
        FileContent::Empty => Err(StoreError::Foreign("the database is empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Seek as _, SeekFrom, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use keys::Digest;

    use super::*;
    use crate::op_context::Timestamp;
    use crate::store::testing::Folder;

    fn rows(database: &Path) -> u64 {
        let connection = Connection::open(database).unwrap();
        let count = connection.query_row("SELECT COUNT(*) FROM api_token", [], |row| row.get(0));
        count.unwrap()
    }

    /// Writes two rows in one transaction, so that an odd count reveals a partial one.
    fn put(store: &mut crate::store::Store, number: u64) {
        let digest = |half: u64| Digest::of(&[number.to_be_bytes(), half.to_be_bytes()].concat());
        let written = store.transaction(|tx| {
            tx.put_token(&digest(0), "one", Timestamp(number))?;
            tx.put_token(&digest(1), "two", Timestamp(number))
        });
        written.unwrap();
    }

    #[test]
    fn snapshot_is_one_committed_state_during_writes() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        let (committed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    put(&mut store, number);
                    committed.store(number + 1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
            for index in 0..20 {
                let out = folder.0.path().join(format!("copy-{index}"));
                let before = committed.load(Ordering::SeqCst);
                snapshot(&folder.file(), &out).unwrap();
                check_whole(&out).unwrap();
                assert_eq!(
                    fs::metadata(&out).unwrap().permissions().mode() & 0o777,
                    0o600
                );
                let copied = rows(&out);
                assert!(
                    copied.is_multiple_of(2) && copied >= 2 * before,
                    "{copied} rows, {before} writes before"
                );
            }
            stop.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn snapshot_neither_overwrites_a_file_nor_copies_a_missing_or_foreign_one() {
        let folder = Folder::new();
        drop(folder.open(&["identities"]).unwrap());
        let out = folder.0.path().join("copy");
        fs::write(&out, "").unwrap();
        assert!(matches!(
            snapshot(&folder.file(), &out),
            Err(StoreError::Create { .. })
        ));
        let none = folder.0.path().join("none");
        assert!(snapshot(&none, &folder.0.path().join("other")).is_err());
        assert!(!none.exists());
        // A database of another program.
        let foreign = folder.0.path().join("foreign.db");
        Connection::open(&foreign)
            .unwrap()
            .execute_batch("CREATE TABLE x (y)")
            .unwrap();
        assert!(matches!(check_whole(&foreign), Err(StoreError::Foreign(_))));
        assert!(matches!(
            snapshot(&foreign, &folder.0.path().join("other")),
            Err(StoreError::Foreign(_))
        ));
    }

    #[test]
    fn check_finds_damage_in_every_page() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        (0..500).for_each(|number| put(&mut store, number));
        let out = folder.0.path().join("copy");
        snapshot(&folder.file(), &out).unwrap();
        check_whole(&out).unwrap();
        let whole = fs::read(&out).unwrap();
        let mut found = 0;
        // Damages the header of each page after the first.
        for page in 1..whole.len() / 4096 {
            let mut file = File::options().write(true).open(&out).unwrap();
            file.seek(SeekFrom::Start(page as u64 * 4096)).unwrap();
            file.write_all(&[0xff; 16]).unwrap();
            found += usize::from(matches!(check_whole(&out), Err(StoreError::Damaged(_))));
            fs::write(&out, &whole).unwrap();
        }
        assert_eq!(found, whole.len() / 4096 - 1);
        fs::write(&out, &whole[..whole.len() - 4096]).unwrap();
        assert!(matches!(check_whole(&out), Err(StoreError::Damaged(_))));
        fs::write(&out, &whole[..100]).unwrap();
        assert!(check_whole(&out).is_err());
    }
}

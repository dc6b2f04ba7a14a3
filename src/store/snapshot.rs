//! Whole copies of a database, and whether a copy is whole.
//!
//! Never changes what is in the database that is copied, and never writes over a file. Invariant: a snapshot is one committed state,
//! whoever writes meanwhile.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Found, SqlContext as _, StoreError, check_ours};

/// Copies the database at `database`, which this or another process may be using, to the new file `out` of mode 0600.
/// The copy is on the disk when this returns. It is as long as the data, without what was freed.
///
/// # Errors
/// Where `out` exists, where `database` is not one of Postern's, and what the disk does. A copy that failed stays behind,
/// for the caller to remove.
pub fn snapshot(database: &Path, out: &Path) -> Result<(), StoreError> {
    // One that may only read would leave its log behind where it is the last to close.
    let connection = open(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .context("waiting for the database")?;
    check_tables(&connection)?;
    let name = out
        .to_str()
        .ok_or_else(|| StoreError::Unsupported(format!("{} is not UTF-8", out.display())))?;
    let create = |source| StoreError::Create {
        path: out.to_owned(),
        source,
    };
    // SQLite takes an empty file for none, and would make its own with a looser mode.
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

/// Whether a copy that nobody else uses is a whole database of Postern's: every page, every index, every reference.
///
/// # Errors
/// [`StoreError::Damaged`] with SQLite's first words on what is wrong; [`StoreError::Foreign`] for another program's file
/// or a later version's.
pub fn check_whole(database: &Path) -> Result<(), StoreError> {
    let connection = open(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let damaged = |source: rusqlite::Error| StoreError::Damaged(source.to_string());
    // Of a file that is damaged, already the first page may not be readable.
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
            "a row refers to one that is not there".into(),
        ));
    }
    Ok(())
}

/// Never makes the file, unlike SQLite by default.
fn open(database: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(database, flags).map_err(|source| StoreError::Open {
        path: database.to_owned(),
        source,
    })
}

fn check_tables(connection: &Connection) -> Result<(), StoreError> {
    match check_ours(connection)? {
        Found::Ours(_) => Ok(()),
        Found::Nothing => Err(StoreError::Foreign("the database is empty".into())),
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

    /// Two rows a transaction, so that half of one would show.
    fn put(store: &mut crate::store::Store, number: u64) {
        let digest = |half: u64| Digest::of(&[number.to_be_bytes(), half.to_be_bytes()].concat());
        let written = store.transaction(|tx| {
            tx.put_token(&digest(0), "one", Timestamp(number))?;
            tx.put_token(&digest(1), "two", Timestamp(number))
        });
        written.unwrap();
    }

    #[test]
    fn a_snapshot_is_one_committed_state_while_somebody_writes() {
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
            for place in 0..20 {
                let out = folder.0.path().join(format!("copy-{place}"));
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
    fn what_is_there_is_not_written_over_and_nothing_is_made_of_nothing() {
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
        // Another program's.
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
    fn damage_anywhere_in_a_page_with_rows_is_found() {
        let folder = Folder::new();
        let mut store = folder.open(&["identities"]).unwrap();
        (0..500).for_each(|number| put(&mut store, number));
        let out = folder.0.path().join("copy");
        snapshot(&folder.file(), &out).unwrap();
        check_whole(&out).unwrap();
        let whole = fs::read(&out).unwrap();
        let mut found = 0;
        // The header of each page, behind the first.
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

//! Recognises database files: the program that made them, and the version of their tables.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::{SqlContext as _, StoreError};

/// Version of `schema.sql`, stored in `user_version`.
pub(super) const SCHEMA_VERSION: i32 = 13;
/// "Pstn", stored in `application_id`, so that another program's database is recognised as such.
pub(super) const APPLICATION_ID: i32 = 0x5073_746e;

/// Opens the database of a node, which need not run, with the version of its tables. Databases of
/// earlier versions are not migrated.
///
/// `access` is [`OpenFlags::SQLITE_OPEN_READ_ONLY`] or [`OpenFlags::SQLITE_OPEN_READ_WRITE`].
pub(super) fn open_unmigrated(
    database: &Path,
    access: OpenFlags,
) -> Result<(Connection, i32), StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(database, flags);
    let connection = opened.map_err(|source| StoreError::Open {
        path: database.to_owned(),
        source,
    })?;
    let version = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .context("reading the version of the tables")?;
    Ok((connection, version))
}

/// The content of a database file that this program may open.
pub(super) enum FileContent {
    /// No tables. The caller creates them.
    Empty,
    /// Tables of this version or of an earlier one.
    Version(i32),
}

/// Inspects a database before anything is written to it.
///
/// A file with tables but without our `application_id` belongs to another program, because most
/// programs leave `application_id` and `user_version` at 0.
///
/// # Errors
/// [`StoreError::Foreign`] for a file of another program, [`StoreError::Version`] for one of a
/// later version of this program.
pub(super) fn inspect(connection: &Connection) -> Result<FileContent, StoreError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .context("reading the version of the tables")
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
        .context("counting the tables")?;
    match (application, version, tables) {
        (APPLICATION_ID, 1..=SCHEMA_VERSION, _) => Ok(FileContent::Version(version)),
        (0, 0, 0) => Ok(FileContent::Empty),
        (APPLICATION_ID, later, _) => Err(StoreError::Version(format!(
            "the database has version {later}, and this program knows versions up to \
             {SCHEMA_VERSION}: use a later program"
        ))),
        _ => Err(StoreError::Foreign(
            "the database was not made by Postern".into(),
        )),
    }
}

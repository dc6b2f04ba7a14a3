//! Errors of the store, and the trait that names the failed operation in an SQLite error.

use std::io;
use std::path::PathBuf;

use super::reserve::ReserveError;
use crate::schema::SchemaRefused;

/// A failure of the database, its file or its disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite cannot open the file.
    #[error("cannot open the database {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// The reason that SQLite gives.
        source: rusqlite::Error,
    },
    /// An SQLite operation failed: full disk, input or output error, damaged file.
    #[error("database: {context}")]
    Sqlite {
        /// The operation that failed.
        context: &'static str,
        /// The reason that SQLite gives.
        source: rusqlite::Error,
    },
    /// A file cannot be created, or cannot be written to the disk.
    #[error("cannot create {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// The reason that the operating system gives.
        source: io::Error,
    },
    /// The database's file cannot be synced.
    #[error("cannot sync the file of the database")]
    Sync(#[source] io::Error),
    /// The operating system refused to start the writer thread.
    #[error("cannot start the writer thread")]
    Thread(#[source] io::Error),
    /// The file was made by another program.
    #[error("{0}")]
    Foreign(String),
    /// The tables, or the objects of an app, have a version that this program cannot read.
    #[error("{0}")]
    Version(String),
    /// The schema file of an app cannot replace the one with which the database was used last.
    #[error(transparent)]
    Schema(#[from] SchemaRefused),
    /// This program cannot work with this SQLite or this file name.
    #[error("{0}")]
    Unsupported(String),
    /// The oid of a new Parent exists already. Nothing was written.
    #[error("an object with this oid exists already")]
    Exists,
    /// The file of reserved sequence numbers failed.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The pages, indexes or references of a database do not match each other.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A row contradicts what this program writes.
    #[error("the database is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Adds the failed operation to an SQLite error.
pub(super) trait SqlContext<T> {
    /// Turns an SQLite error into [`StoreError::Sqlite`]. `context` names the operation.
    fn context(self, context: &'static str) -> Result<T, StoreError>;
}

impl<T> SqlContext<T> for rusqlite::Result<T> {
    fn context(self, context: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sqlite { context, source })
    }
}

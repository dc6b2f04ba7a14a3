//! The store: all SQL there is, one writing connection, any number of reading ones.
//!
//! Never decides what may be written or read by whom beyond the readers' join: `acl` and `graph` do. Never hands out a
//! connection. Invariants: rows change only inside [`Store::transaction`], which commits whole or not at all and is
//! durable when it returns (`synchronous=FULL`); commit order is `change_seq` order, as there is one writer.

mod app_tables;
mod epochs;
mod identities;
mod migrations;
mod own;
mod parents;
mod parked;
mod peers;
mod pending;
mod reserve;
mod select;
mod snapshot;
mod sync_state;
mod tokens;
mod usage;
mod verdicts;
mod write_mode;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::Epoch;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::schema::Schemas;

pub use app_tables::{AppTable, Apps};
pub use epochs::{EpochReason, HeardEpoch};
pub use identities::IdentityRow;
pub use parents::{ParentRow, ParentWriter, StoredValue};
pub use parked::{Parked, RejectRow};
pub use peers::{MetThere, PeerRow};
pub use pending::{PendingBounds, PendingRequest, PendingRow};
pub use reserve::{Reserve, ReserveError};
pub use select::{Changed, Selection};
pub use snapshot::{check_whole, snapshot};
pub use sync_state::{Cursor, Direction, SyncStateRow};
pub use usage::{Stored, Usage};
pub use verdicts::{Verdict, VerdictRow};
pub use write_mode::{WriteMode, WriteModeRow, write_mode_of};

/// SQLite before 3.51.3 can corrupt a database when its WAL is reset under concurrent readers.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Version of `schema.sql`, kept in `user_version`.
const SCHEMA_VERSION: i32 = 3;
/// "Pstn", kept in `application_id`, so that another program's database is not taken for ours.
const APPLICATION_ID: i32 = 0x5073_746e;

/// What the disk or the database did.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite cannot open the file.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// SQLite failed: disk full, input or output error, damaged file.
    #[error("database: {context}")]
    Sqlite {
        /// What was being done.
        context: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file cannot be created, or cannot be made durable.
    #[error("cannot create {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused to start the writer thread.
    #[error("cannot start the writer thread")]
    Thread(#[source] io::Error),
    /// The file belongs to another program, or to a later version of this one.
    #[error("{0}")]
    Foreign(String),
    /// This program cannot work with this SQLite, this file name or this version of the tables.
    #[error("{0}")]
    Unsupported(String),
    /// A new Parent's oid is here already. Nothing was written.
    #[error("an object of this name is here already")]
    Exists,
    /// The file of reserved sequence numbers.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// A copy is not whole: pages, indices or references do not fit each other.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Rows contradict what this program writes.
    #[error("the database is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Adds "what I was context" to SQLite's errors.
trait SqlContext<T> {
    fn context(self, context: &'static str) -> Result<T, StoreError>;
}

impl<T> SqlContext<T> for rusqlite::Result<T> {
    fn context(self, context: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sqlite { context, source })
    }
}

/// The writing connection.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    writer: Connection,
    apps: Arc<Apps>,
    epoch: Epoch,
}

/// A reading connection: sees one committed state for as long as [`ReadStore::snapshot`] lasts.
#[derive(Debug)]
pub struct ReadStore {
    connection: Connection,
    apps: Arc<Apps>,
}

/// Queries over a connection, with the tables that it holds.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'c> {
    connection: &'c Connection,
    apps: &'c Apps,
}

/// An open write transaction. Reads see its own writes.
#[derive(Debug)]
pub struct WriteTx<'c> {
    rows: Rows<'c>,
}

impl<'c> std::ops::Deref for WriteTx<'c> {
    type Target = Rows<'c>;

    fn deref(&self) -> &Rows<'c> {
        &self.rows
    }
}

impl Store {
    /// Opens or makes the database at `path`, with tables for every app of `schemas`.
    /// `new_epoch` is used only where the database is made.
    pub fn open(path: &Path, schemas: &Schemas, new_epoch: Epoch) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(StoreError::Unsupported(format!(
                "SQLite {} is too old",
                rusqlite::version()
            )));
        }
        make_private(path)?;
        let mut writer = Connection::open(path).map_err(open)?;
        let found = check_ours(&writer)?;
        configure(&writer, 64 * 1024).map_err(open)?;
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(open)?;
        match found {
            Found::Ours(version) => migrations::run(&transaction, version, SCHEMA_VERSION)?,
            Found::Nothing => create_tables(&transaction, new_epoch)?,
        }
        let apps = Apps::open(&transaction, schemas)?;
        let epoch = read_epoch(&transaction)?;
        transaction.commit().context("commit of the migration")?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            apps: Arc::new(apps),
            epoch,
        })
    }

    /// The epoch in which this database's sequence numbers count.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The tables of each app.
    pub fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// Runs `work` in one transaction: committed and durable if it returns `Ok`, undone otherwise.
    pub fn transaction<R, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&WriteTx<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction = self
            .writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .context("begin of a transaction")
            .map_err(E::from)?;
        let result = work(&WriteTx {
            rows: Rows {
                connection: &transaction,
                apps: &self.apps,
            },
        })?;
        transaction.commit().context("commit").map_err(E::from)?;
        Ok(result)
    }

    /// Reads through the writing connection, between transactions.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            connection: &self.writer,
            apps: &self.apps,
        }
    }

    /// A further connection that only reads.
    pub fn reader(&self) -> Result<ReadStore, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |source| StoreError::Open {
            path: self.path.clone(),
            source,
        };
        let connection = Connection::open_with_flags(&self.path, flags).map_err(open)?;
        configure(&connection, 8 * 1024).map_err(open)?;
        Ok(ReadStore {
            connection,
            apps: self.apps.clone(),
        })
    }
}

impl ReadStore {
    /// Runs `work` on one committed state of the database.
    pub fn snapshot<R, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(Rows<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction = self
            .connection
            .transaction()
            .context("begin of a snapshot")
            .map_err(E::from)?;
        work(Rows {
            connection: &transaction,
            apps: &self.apps,
        })
    }
}

impl Rows<'_> {
    /// The tables of each app.
    pub fn apps(&self) -> &Apps {
        self.apps
    }
}

/// A database that is made is its owner's alone; SQLite gives its log the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    match File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(StoreError::Create {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn configure(connection: &Connection, cache_kib: i32) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(128);
    if !connection.is_readonly(rusqlite::MAIN_DB)? {
        connection.pragma_update(None, "journal_mode", "WAL")?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    // A checkpoint every 64 MiB of log: bulk writes touch each page once instead of many times.
    connection.pragma_update(None, "wal_autocheckpoint", 16_384)
}

/// What a database file holds before this program touches it.
enum Found {
    /// Nothing: the tables have to be made.
    Nothing,
    /// Tables of this version or an earlier one of this program.
    Ours(i32),
}

/// Refuses, before anything is written, what another program or a later version made: most programs leave the marks
/// at 0, so that a file with tables and without our mark is not ours.
fn check_ours(connection: &Connection) -> Result<Found, StoreError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .context("version")
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
        .context("looking for tables")?;
    match (application, version, tables) {
        (APPLICATION_ID, 1..=SCHEMA_VERSION, _) => Ok(Found::Ours(version)),
        (0, 0, 0) => Ok(Found::Nothing),
        (APPLICATION_ID, later, _) => Err(StoreError::Foreign(format!(
            "the database has version {later}; this program knows up to {SCHEMA_VERSION}: use a later one"
        ))),
        _ => Err(StoreError::Foreign(
            "the database is not one of Postern's".into(),
        )),
    }
}

fn create_tables(connection: &Connection, new_epoch: Epoch) -> Result<(), StoreError> {
    connection
        .execute_batch(include_str!("schema.sql"))
        .context("making of the tables")?;
    connection
        .execute(
            "INSERT INTO meta (name, value) VALUES ('epoch', ?1)",
            [new_epoch.as_bytes()],
        )
        .context("minting of the epoch")?;
    connection
        .execute(
            "INSERT INTO epoch (epoch, reason, at) VALUES (?1, ?2, 0)",
            (new_epoch.as_bytes(), EpochReason::New.as_str()),
        )
        .context("minting of the epoch")?;
    connection
        .pragma_update(None, "application_id", APPLICATION_ID)
        .context("version")?;
    connection
        .pragma_update(None, "user_version", SCHEMA_VERSION)
        .context("version")
}

fn read_epoch(connection: &Connection) -> Result<Epoch, StoreError> {
    let bytes: Vec<u8> = connection
        .query_row(
            "SELECT value FROM meta WHERE name = 'epoch'",
            params![],
            |row| row.get(0),
        )
        .context("reading the epoch")?;
    Epoch::from_slice(&bytes).ok_or(StoreError::Inconsistent("epoch"))
}

/// A column that holds an identifier of exactly `N` bytes.
fn fixed<const N: usize>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

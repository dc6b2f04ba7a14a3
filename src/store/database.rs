//! [`Store`], the one writing connection, and [`ReadStore`], a reading one.
//!
//! Invariants: rows change only inside [`Store::transaction`]. A transaction commits whole or not
//! at all, and is on the disk when it returns (`synchronous=FULL`). Tested in `src/store/tests.rs`.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keys::Epoch;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::app_tables::Apps;
use super::checkpoint::{Checkpointer, DatabaseFile, Extent, LogState, checkpoint};
use super::epochs::{EpochReason, insert_first_epoch, read_epoch};
use super::error::{SqlContext as _, StoreError};
use super::migrations::{self, Migration};
use super::reserve::Reserve;
use super::rollback::Rollback;
use super::rows::{Rows, WriteTx};
use super::version::{APPLICATION_ID, FileContent, SCHEMA_VERSION, inspect};
use crate::op_context::Timestamp;
use crate::schema::Schemas;

/// 3.51.3: earlier versions can corrupt a database when its WAL is reset under concurrent readers.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Page cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: i32 = 64 * 1024;
/// Page cache of each reading connection, in KiB.
const READER_CACHE_KIB: i32 = 8 * 1024;
/// Time that a connection waits for another one's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a restart of the log waits for reads that still use the log.
const READERS_WAIT_MAX: Duration = Duration::from_millis(10);
/// Page cache of the connection for checkpoints, in KiB. A checkpoint reads the log past it.
const CHECKPOINTER_CACHE_KIB: i32 = 256;
/// Size to which the file of the log is cut when the log is restarted, in bytes.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// The writing connection.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    pub(super) writer: Connection,
    file: DatabaseFile,
    apps: Arc<Apps>,
    epoch: Epoch,
    migration: Option<Migration>,
    commit_hook: CommitHook,
}

/// Runs after every commit. For tests, which copy the files there as a crash would leave them.
#[derive(Default)]
struct CommitHook(Option<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for CommitHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommitHook")
    }
}

/// A reading connection.
#[derive(Debug)]
pub struct ReadStore {
    pub(super) connection: Connection,
    _file: DatabaseFile,
    apps: Arc<Apps>,
}

impl Store {
    /// Opens or creates the database at `path`, with tables for every app of `schemas`.
    ///
    /// Migrates the tables of an earlier version, after copying its file. A new database starts in
    /// `new_epoch`, and so does one whose objects could not all be carried over. Any other keeps
    /// its epoch. If the earlier database was rolled back, its migration begins a recovery.
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
        create_private(path)?;
        let mut writer = Connection::open(path).map_err(open)?;
        let content = inspect(&writer)?;
        let (mut copy, mut rollback) = (None, None);
        if let FileContent::Version(version @ ..SCHEMA_VERSION) = content {
            // Compared before the migration drops objects and begins an epoch.
            let reserve = Reserve::read(&Reserve::path_beside(path))?;
            rollback = Rollback::find(&writer, reserve.as_ref())?;
            copy = Some((version, migrations::keep_copy(path, version)?));
        }
        let reason = match rollback {
            Some(_) => EpochReason::RolledBack,
            None => EpochReason::Migrated,
        };
        configure(&writer, WRITER_CACHE_KIB).map_err(open)?;
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(open)?;
        let migrated = match content {
            FileContent::Version(version) => {
                migrations::run(&transaction, version, SCHEMA_VERSION, &new_epoch, reason)?
            }
            FileContent::Empty => {
                create_tables(&transaction, new_epoch)?;
                Vec::new()
            }
        };
        let (apps, loaded) = Apps::open(&transaction, schemas)?;
        if let Some(rollback) = &rollback {
            let tx = WriteTx::new(Rows {
                connection: &transaction,
                apps: &apps,
            });
            // The store has no clock. As with the first epoch, the time is 0.
            tx.recover_from(rollback, &new_epoch, Timestamp(0))?;
        }
        let tx = WriteTx::new(Rows {
            connection: &transaction,
            apps: &apps,
        });
        for app in &loaded {
            tx.note_loaded(app)?;
        }
        if matches!(content, FileContent::Version(..migrations::RELAY)) {
            tx.note_flags_of_received()?;
        }
        let epoch = read_epoch(&transaction)?;
        transaction.commit().context("committing the migration")?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            file: DatabaseFile::open(path)?,
            apps: Arc::new(apps),
            epoch,
            migration: copy.map(|(from, copy)| Migration {
                from,
                copy,
                apps: migrated,
            }),
            commit_hook: CommitHook::default(),
        })
    }

    /// Runs `hook` after every commit from now on.
    pub fn on_commit(&mut self, hook: Box<dyn Fn() + Send + Sync>) {
        self.commit_hook = CommitHook(Some(hook));
    }

    /// The migration of the tables that opening the database made; `None` if none was needed.
    pub fn migration(&self) -> Option<&Migration> {
        self.migration.as_ref()
    }

    /// The epoch in which this database's sequence numbers count.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Reads the epoch from the database, after a transaction began another one.
    pub fn reload_epoch(&mut self) -> Result<Epoch, StoreError> {
        self.epoch = read_epoch(&self.writer)?;
        Ok(self.epoch)
    }

    /// The tables of each app.
    pub fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// Runs `work` in one transaction. Commits durably if it returns `Ok`; rolls back otherwise.
    pub fn transaction<R, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&WriteTx<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction = self
            .writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .context("beginning a transaction")
            .map_err(E::from)?;
        let result = work(&WriteTx::new(Rows {
            connection: &transaction,
            apps: &self.apps,
        }))?;
        transaction
            .commit()
            .context("committing a transaction")
            .map_err(E::from)?;
        if let Some(hook) = &self.commit_hook.0 {
            hook();
        }
        Ok(result)
    }

    /// Turns the checks of foreign keys on or off for the next transactions. Without an index on
    /// the referring columns, SQLite reads whole tables to check a removal.
    pub fn check_references(&self, are_checked: bool) -> Result<(), StoreError> {
        self.writer
            .pragma_update(None, "foreign_keys", are_checked)
            .context("setting the checks of foreign keys")
    }

    /// Queries through the writing connection, between transactions.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            connection: &self.writer,
            apps: &self.apps,
        }
    }

    /// The write-ahead log after the last commit.
    pub fn log_state(&self) -> Result<LogState, StoreError> {
        checkpoint(&self.writer, Extent::Nothing)
    }

    /// Copies the rest of the log and lets the next write restart it. If a read uses the log for
    /// longer than 10 ms, the log stays as it is.
    pub fn restart_log(&self) -> Result<LogState, StoreError> {
        let set_timeout = |timeout| {
            let set = self.writer.busy_timeout(timeout);
            set.context("setting the busy timeout")
        };
        set_timeout(READERS_WAIT_MAX)?;
        let state = checkpoint(&self.writer, Extent::Restart);
        set_timeout(BUSY_TIMEOUT)?;
        state
    }

    /// Opens another connection, which only makes checkpoints.
    pub fn checkpointer(&self) -> Result<Checkpointer, StoreError> {
        let open = |source| StoreError::Open {
            path: self.path.clone(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(open)?;
        configure(&connection, CHECKPOINTER_CACHE_KIB).map_err(open)?;
        Ok(Checkpointer {
            connection,
            file: self.file.clone(),
        })
    }

    /// Opens another connection, which can only read.
    pub fn reader(&self) -> Result<ReadStore, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |source| StoreError::Open {
            path: self.path.clone(),
            source,
        };
        let connection = Connection::open_with_flags(&self.path, flags).map_err(open)?;
        configure(&connection, READER_CACHE_KIB).map_err(open)?;
        Ok(ReadStore {
            connection,
            _file: self.file.clone(),
            apps: self.apps.clone(),
        })
    }
}

impl ReadStore {
    /// Runs `work` on one committed state, which does not change until `work` returns.
    pub fn snapshot<R, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(Rows<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction = self
            .connection
            .transaction()
            .context("beginning a snapshot")
            .map_err(E::from)?;
        work(Rows {
            connection: &transaction,
            apps: &self.apps,
        })
    }
}

/// Creates the file with mode 0600, unless it exists. SQLite gives its WAL the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
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
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    if !connection.is_readonly(rusqlite::MAIN_DB)? {
        connection.pragma_update(None, "journal_mode", "WAL")?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Pages of large statements would otherwise go to a file in the system's temporary folder.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    // A checkpoint inside a commit would hold the writer; see `checkpoint.rs`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

fn create_tables(connection: &Connection, first_epoch: Epoch) -> Result<(), StoreError> {
    connection
        .execute_batch(include_str!("schema.sql"))
        .context("creating the tables")?;
    insert_first_epoch(connection, &first_epoch)?;
    connection
        .pragma_update(None, "application_id", APPLICATION_ID)
        .and_then(|()| connection.pragma_update(None, "user_version", SCHEMA_VERSION))
        .context("writing the version of the tables")
}

//! [`Rows`] and [`WriteTx`]: the handles on which all queries and all writes are methods.
//!
//! The other files of `store` add the methods, one file for each group of tables.

use std::cell::Cell;
use std::ops::Deref;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, Row};

use super::app_tables::Apps;
use super::error::{SqlContext as _, StoreError};

/// Queries over one connection. Inside a transaction or a snapshot, all see one committed state.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'c> {
    pub(super) connection: &'c Connection,
    pub(super) apps: &'c Apps,
}

impl<'c> Rows<'c> {
    /// The tables of each app.
    pub fn apps(&self) -> &Apps {
        self.apps
    }

    /// Prepares a statement, which the connection keeps. `context` names the operation in errors.
    pub(super) fn prepare(
        &self,
        context: &'static str,
        sql: &str,
    ) -> Result<Prepared<'c>, StoreError> {
        let statement = self.connection.prepare_cached(sql).context(context)?;
        Ok(Prepared { statement, context })
    }
}

/// A statement, and the operation that its errors name.
pub(super) struct Prepared<'c> {
    statement: CachedStatement<'c>,
    context: &'static str,
}

impl Prepared<'_> {
    /// Changes rows, and returns how many.
    pub(super) fn execute(&mut self, parameters: impl Params) -> Result<usize, StoreError> {
        self.statement.execute(parameters).context(self.context)
    }

    /// Whether there is a row.
    pub(super) fn exists(&mut self, parameters: impl Params) -> Result<bool, StoreError> {
        self.statement.exists(parameters).context(self.context)
    }

    /// The first row. No row is an error.
    pub(super) fn one<T>(
        &mut self,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let row = self.statement.query_row(parameters, read);
        row.context(self.context)
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &mut self,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let row = self.statement.query_row(parameters, read);
        row.optional().context(self.context)
    }

    /// All rows.
    pub(super) fn all<T, B: FromIterator<T>>(
        &mut self,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<B, StoreError> {
        let rows = self.statement.query_map(parameters, read);
        let rows = rows.context(self.context)?;
        rows.collect::<rusqlite::Result<_>>().context(self.context)
    }

    /// The rows one by one, for callers that stop early.
    pub(super) fn query(
        &mut self,
        parameters: impl Params,
    ) -> rusqlite::Result<rusqlite::Rows<'_>> {
        self.statement.query(parameters)
    }
}

/// Bytes of changed values that take as long as a changed row.
const BYTES_PER_ROW: usize = 512;

/// An open write transaction. Its queries see its own writes.
#[derive(Debug)]
pub struct WriteTx<'c> {
    rows: Rows<'c>,
    /// Rows that the connection had changed before.
    changed_before: u64,
    /// Bytes of changed values, as far as callers counted them.
    bytes: Cell<usize>,
}

impl<'c> WriteTx<'c> {
    /// Wraps the connection of an open transaction.
    pub(super) fn new(rows: Rows<'c>) -> Self {
        Self {
            rows,
            changed_before: rows.connection.total_changes(),
            bytes: Cell::new(0),
        }
    }

    /// Counts bytes of changed values.
    pub fn count_bytes(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    /// How much this transaction changed: rows, and values of 512 bytes that callers counted. A
    /// number of objects alone bounds no work, because an object may have 256 values or 64 KiB.
    pub fn spent(&self) -> usize {
        let changed = self.rows.connection.total_changes() - self.changed_before;
        let rows = usize::try_from(changed).unwrap_or(usize::MAX);
        rows.saturating_add(self.bytes.get() / BYTES_PER_ROW)
    }
}

impl<'c> Deref for WriteTx<'c> {
    type Target = Rows<'c>;

    fn deref(&self) -> &Rows<'c> {
        &self.rows
    }
}

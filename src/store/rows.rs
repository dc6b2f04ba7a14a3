//! [`Rows`] and [`WriteTx`]: the handles on which all queries and all writes are methods.
//!
//! The other files of `store` add the methods, one file for each group of tables.

use std::cell::Cell;
use std::ops::Deref;

use rusqlite::Connection;

use super::app_tables::Apps;

/// Queries over one connection. Inside a transaction or a snapshot, all see one committed state.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'c> {
    pub(super) connection: &'c Connection,
    pub(super) apps: &'c Apps,
}

impl Rows<'_> {
    /// The tables of each app.
    pub fn apps(&self) -> &Apps {
        self.apps
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

//! [`Rows`] and [`WriteTx`]: the handles on which all queries and all writes are methods.
//!
//! The other files of `store` add the methods, one file for each group of tables.

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

/// An open write transaction. Its queries see its own writes.
#[derive(Debug)]
pub struct WriteTx<'c> {
    rows: Rows<'c>,
    /// Rows that the connection had changed before.
    changed_before: u64,
}

impl<'c> WriteTx<'c> {
    /// Wraps the connection of an open transaction.
    pub(super) fn new(rows: Rows<'c>) -> Self {
        Self {
            rows,
            changed_before: rows.connection.total_changes(),
        }
    }

    /// The number of rows that this transaction changed.
    pub fn changed_rows(&self) -> usize {
        let changed = self.rows.connection.total_changes() - self.changed_before;
        usize::try_from(changed).unwrap_or(usize::MAX)
    }
}

impl<'c> Deref for WriteTx<'c> {
    type Target = Rows<'c>;

    fn deref(&self) -> &Rows<'c> {
        &self.rows
    }
}

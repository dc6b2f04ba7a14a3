//! Migrations: from the tables of an earlier version to those of this one, step by step.
//!
//! [`run`] works inside the transaction that opens the database, so that a failure changes nothing.
//! Each step is an SQL file. Invariant: a migrated database has exactly the tables of a new one,
//! and every row that it had. `tests.rs` checks both from every earlier version.

use rusqlite::Connection;

use super::error::{SqlContext as _, StoreError};

/// The steps, oldest first. The step at index `n` leads from version `n + 1` to `n + 2`.
const STEPS: &[&str] = &[
    include_str!("to_version_2.sql"),
    include_str!("to_version_3.sql"),
    include_str!("to_version_4.sql"),
];

/// Migrates the tables from version `from` to version `to`. Does nothing if they are equal.
pub(super) fn run(connection: &Connection, from: i32, to: i32) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    let unsupported = || {
        StoreError::Version(format!(
            "there is no migration from version {from} of the database to version {to}"
        ))
    };
    let first = step_after(from).ok_or_else(unsupported)?;
    let end = step_after(to).ok_or_else(unsupported)?;
    for sql in STEPS.get(first..end).ok_or_else(unsupported)? {
        connection
            .execute_batch(sql)
            .context("migrating the tables")?;
    }
    connection
        .pragma_update(None, "user_version", to)
        .context("writing the version of the tables")
}

/// Index in [`STEPS`] of the step that follows a version.
fn step_after(version: i32) -> Option<usize> {
    usize::try_from(version).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests;

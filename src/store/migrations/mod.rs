//! Migrations: from the tables of an earlier version to those of this one, step by step.
//!
//! [`run`] works inside the transaction that opens the database, so that a failure changes nothing.
//! [`keep_copy`] copies the old file before. Each step is an SQL file; the steps to versions 5 to 7
//! have a part in code. Invariants: a migrated database has exactly the tables of a new one. All
//! rows are kept, except those that [`Migration`] counts as not carried over. `tests.rs` and the
//! tests of versions 6 to 13 check both from every earlier version.

mod report;
mod to_version_5;
mod to_version_6;
mod to_version_7;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use keys::Epoch;
use rusqlite::Connection;

use super::epochs::EpochReason;
use super::error::{SqlContext as _, StoreError};
use super::snapshot::snapshot;

pub use report::{MigratedApp, Migration};

/// The steps, oldest first. The step at index `n` leads from version `n + 1` to `n + 2`.
const STEPS: &[&str] = &[
    include_str!("to_version_2.sql"),
    include_str!("to_version_3.sql"),
    include_str!("to_version_4.sql"),
    include_str!("to_version_5.sql"),
    include_str!("to_version_6.sql"),
    include_str!("to_version_7.sql"),
    include_str!("to_version_8.sql"),
    include_str!("to_version_9.sql"),
    include_str!("to_version_10.sql"),
    include_str!("to_version_11.sql"),
    include_str!("to_version_12.sql"),
    include_str!("to_version_13.sql"),
];

/// The first version whose objects have oids that bind their owners.
const BOUND_OIDS: i32 = 5;
/// The first version with an address book.
const ADDRESS_BOOK: i32 = 6;
/// The first version that sends received objects on, and whose objects state their accounts.
pub(super) const RELAY: i32 = 7;

/// Copies the database of an earlier version to `<name>.v<version>` beside it. Replaces the copy of
/// an earlier attempt, because that attempt changed nothing.
pub(super) fn keep_copy(database: &Path, version: i32) -> Result<PathBuf, StoreError> {
    let beside = |ending: &str| {
        let mut name = OsString::from(database);
        name.push(format!(".v{version}{ending}"));
        PathBuf::from(name)
    };
    let (copy, part) = (beside(""), beside(".part"));
    let create = |source| StoreError::Create {
        path: copy.clone(),
        source,
    };
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(create(error)),
        _ => {}
    }
    snapshot(database, &part)?;
    fs::rename(&part, &copy).map_err(create)?;
    let folder = database
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(create)?;
    Ok(copy)
}

/// Migrates the tables from version `from` to version `to`. Does nothing if they are equal. Begins
/// `epoch` for `reason` if objects could not be carried over. Returns the numbers for
/// [`Migration::apps`].
pub(super) fn run(
    connection: &Connection,
    from: i32,
    to: i32,
    epoch: &Epoch,
    reason: EpochReason,
) -> Result<Vec<MigratedApp>, StoreError> {
    if from == to {
        return Ok(Vec::new());
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
    let apps = if from < BOUND_OIDS {
        to_version_5::run(connection, epoch, reason)?
    } else {
        Vec::new()
    };
    if from < ADDRESS_BOOK {
        to_version_6::run(connection)?;
    }
    if from < RELAY {
        to_version_7::run(connection)?;
    }
    connection
        .pragma_update(None, "user_version", to)
        .context("writing the version of the tables")?;
    Ok(apps)
}

/// Index in [`STEPS`] of the step that follows a version.
fn step_after(version: i32) -> Option<usize> {
    usize::try_from(version).ok()?.checked_sub(1)
}

#[cfg(test)]
mod earlier;
#[cfg(test)]
mod old_database;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod to_version_11_tests;
#[cfg(test)]
mod to_version_12_tests;
#[cfg(test)]
mod to_version_13_tests;
#[cfg(test)]
mod to_version_6_tests;
#[cfg(test)]
mod to_version_7_tests;
#[cfg(test)]
mod to_version_8_tests;
#[cfg(test)]
mod to_version_9_tests;

//! The part of the migration to version 7 that depends on the apps: objects state the account in
//! which they count. All that are stored count in the own account of their senders.

use rusqlite::Connection;

use crate::store::error::{SqlContext as _, StoreError};

/// Adds the column to the objects of each app, disabled ones included. Tables that the migration
/// made have it already.
pub(super) fn run(connection: &Connection) -> Result<(), StoreError> {
    let context = "adding the accounts of objects";
    let mut statement = connection
        .prepare(
            "SELECT slug FROM app WHERE NOT EXISTS (
               SELECT 1 FROM pragma_table_info('app_' || slug || '_parent')
               WHERE name = 'account')",
        )
        .context(context)?;
    let apps = statement
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
        .context(context)?;
    for app in apps {
        let sql =
            format!("ALTER TABLE app_{app}_parent ADD COLUMN account INTEGER NOT NULL DEFAULT 0");
        connection.execute_batch(&sql).context(context)?;
    }
    Ok(())
}

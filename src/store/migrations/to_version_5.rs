//! The part of the migration to version 5 that depends on the apps.
//!
//! Keeps identities and servers, and drops the other objects. Counts the usage of peers again, and
//! begins an epoch.

use keys::{Epoch, Oid};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::report::MigratedApp;
use crate::object::{Attrs, Object, OidProof, Value};
use crate::schema::identities;
use crate::store::app_tables::AppTable;
use crate::store::columns::fixed;
use crate::store::epochs::EpochReason;
use crate::store::error::{SqlContext as _, StoreError};
use crate::store::scope_id::ScopeId;

/// Carries the objects over, and returns how many of each app were kept and not carried over.
pub(super) fn run(
    connection: &Connection,
    epoch: &Epoch,
    reason: EpochReason,
) -> Result<Vec<MigratedApp>, StoreError> {
    let context = "carrying objects over";
    let apps = slugs(connection).context(context)?;
    let mut done = Vec::with_capacity(apps.len());
    for slug in apps {
        let count = format!("SELECT COUNT(*) FROM app_{slug}_parent");
        let objects: u64 = connection
            .query_row(&count, [], |row| row.get(0))
            .context(context)?;
        let is_kept = slug == identities::APP;
        if is_kept {
            keep_identities(connection)?;
        } else {
            let sql = format!("DROP TABLE app_{slug}_attr; DROP TABLE app_{slug}_parent;");
            connection.execute_batch(&sql).context(context)?;
            AppTable::create(connection, &slug)?;
        }
        done.push(MigratedApp {
            app: slug,
            kept: if is_kept { objects } else { 0 },
            dropped: if is_kept { 0 } else { objects },
        });
    }
    count_usage(connection)?;
    begin_epoch(connection, epoch, reason).context("beginning an epoch")?;
    Ok(done)
}

/// The slugs of all apps, disabled ones included, sorted.
fn slugs(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT slug FROM app ORDER BY slug")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Copies identities and servers into tables of this version. Local ids stay.
fn keep_identities(connection: &Connection) -> Result<(), StoreError> {
    let context = "carrying identities over";
    let run = |sql: &str| connection.execute_batch(sql).context(context);
    // An index keeps its name when its table is renamed.
    let mut statement = connection
        .prepare(
            "SELECT name FROM sqlite_schema
             WHERE type = 'index' AND tbl_name = 'app_identities_parent' AND sql IS NOT NULL",
        )
        .context(context)?;
    let indexes = statement
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
        .context(context)?;
    for index in indexes {
        run(&format!("DROP INDEX {index}"))?;
    }
    run(
        "ALTER TABLE app_identities_parent RENAME TO identities_parent_4;
         ALTER TABLE app_identities_attr RENAME TO identities_attr_4;",
    )?;
    AppTable::create(connection, identities::APP)?;
    run(&format!(
        "INSERT INTO app_identities_parent (id, oid, type, owner_oid, scope_id, rev, deleted,
             key_id, signature, origin, created_seq, change_seq, sync_flags)
           SELECT id, oid, type, owner_oid, CASE type WHEN {server} THEN {local} ELSE {public} END,
             rev, deleted, key_id, signature, origin, change_seq, change_seq, sync_flags
           FROM identities_parent_4;
         INSERT INTO app_identities_attr (id, parent_id, type, ordinal, value, value_parent_id,
             change_seq, sync_flags)
           SELECT id, parent_id, type, ordinal, value, value_parent_id, change_seq, sync_flags
           FROM identities_attr_4;
         DROP TABLE identities_attr_4;
         DROP TABLE identities_parent_4;",
        server = identities::SERVER,
        local = ScopeId::LOCAL.0,
        public = ScopeId::PUBLIC.0,
    ))
}

/// Sets the usage of each peer and tier to the identities that it sent.
fn count_usage(connection: &Connection) -> Result<(), StoreError> {
    let context = "counting the usage of peers";
    let run = |sql: &str| connection.execute_batch(sql).context(context);
    run("UPDATE peers SET stored_objects = 0, stored_bytes = 0; DELETE FROM tier_usage;")?;
    let mut sent = connection
        .prepare(
            "SELECT origin, id, oid, type, owner_oid, rev, deleted FROM app_identities_parent
             WHERE origin IS NOT NULL",
        )
        .context(context)?;
    let mut rows = sent.query([]).context(context)?;
    while let Some(row) = rows.next().context(context)? {
        let origin: i64 = row.get(0).context(context)?;
        let bytes = sent_object(connection, row).context(context)?.to_bytes();
        connection
            .execute(
                "UPDATE peers SET stored_objects = stored_objects + 1,
                   stored_bytes = stored_bytes + ?2
                 WHERE id = ?1",
                (origin, bytes.len()),
            )
            .context(context)?;
    }
    // A forgotten peer counts as untrusted (`columns::tier`).
    run("INSERT INTO tier_usage (tier, objects, bytes)
           SELECT CASE tier WHEN 'trusted' THEN 'trusted' ELSE 'untrusted' END AS counted,
             SUM(stored_objects), SUM(stored_bytes)
           FROM peers GROUP BY counted")
}

/// The identity object of a row, which was signed in this form.
fn sent_object(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Object> {
    let mut attrs = Attrs::new();
    let mut statement = connection.prepare_cached(
        "SELECT type, value FROM app_identities_attr WHERE parent_id = ?1 ORDER BY id",
    )?;
    let mut values = statement.query([row.get::<_, i64>(1)?])?;
    while let Some(value) = values.next()? {
        let number = value.get(0)?;
        let value = match value.get_ref(1)? {
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Integer(number) => Value::Integer(number),
            other => Value::Bytes(other.as_blob_or_null()?.unwrap_or_default().to_vec()),
        };
        attrs.entry(number).or_default().push(value);
    }
    let is_deleted: bool = row.get(6)?;
    Ok(Object {
        app: identities::APP.to_owned(),
        type_number: row.get(3)?,
        oid: Oid::from_bytes(fixed(row, 2)?),
        owner: Oid::from_bytes(fixed(row, 4)?),
        rev: row.get(5)?,
        proof: OidProof::Genesis,
        rights: None,
        attrs: (!is_deleted).then_some(attrs),
    })
}

/// Begins an epoch, because peers have cursors that count dropped objects.
fn begin_epoch(
    connection: &Connection,
    epoch: &Epoch,
    reason: EpochReason,
) -> rusqlite::Result<()> {
    // The store has no clock. As with the first epoch, the time is 0.
    connection.execute(
        "INSERT INTO epoch (epoch, reason, at) VALUES (?1, ?2, 0)",
        (epoch.as_bytes(), reason.as_str()),
    )?;
    connection.execute(
        "UPDATE meta SET value = ?1 WHERE name = 'epoch'",
        [epoch.as_bytes()],
    )?;
    Ok(())
}

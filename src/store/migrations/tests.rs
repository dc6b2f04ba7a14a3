//! Each earlier version of the tables, filled with rows, becomes the present one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bastion::Tier;
use keys::{Epoch, Oid, PeerId};
use rusqlite::Connection;

use super::MigratedApp;
use super::earlier::create;
use crate::object::{Attrs, Object, OidProof, Value};
use crate::store::testing::{EPOCH, Folder};
use crate::store::version::SCHEMA_VERSION;
use crate::store::{
    EpochReason, Reserve, ScopeId, Store, StoreError, Usage, WriteMode, write_mode_of,
};

const APPS: &[&str] = &["identities", "rides"];
/// Epoch of the earlier database. The migrated one begins [`EPOCH`].
pub(super) const OLD_EPOCH: Epoch = Epoch::from_bytes([8; 16]);

/// Tables and columns that migrations renamed: old name, new name.
const RENAMED: &[(&str, &str)] = &[
    ("pending.knocks", "pending.attempts"),
    ("standing.state", "write_mode.mode"),
    ("standing", "write_mode"),
    ("heard_epoch", "peer_epoch"),
    ("recovery_asked", "reclaimed_peer"),
    ("recovery_deletion", "recovery_tombstone"),
    ("sync_parked", "waiting"),
];
/// Columns that migrations change.
const REMOVED: &[&str] = &[
    // Counted again.
    "peers.stored_objects",
    "peers.stored_bytes",
];
/// Tables whose rows are not carried over, under their present names, and `meta`, which holds the
/// new epoch.
const DROPPED: &[&str] = &[
    "app_rides_attr",
    "app_rides_parent",
    "app_identities_parent",
    "meta",
    "reader",
    "reclaimed_peer",
    "recovery_tombstone",
    "sync_rejects",
    "sync_state",
    "tier_usage",
    "waiting",
];
/// Values that migrations replaced: old value, new value.
const REPLACED: &[(&str, &str)] = &[
    ("'worked'", "'untrusted'"),
    ("'recovering'", "'new_objects_only'"),
    ("'fell_back'", "'rolled_back'"),
];

fn list(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// The text of every table and index, without comments, quotes and redundant spaces.
pub(super) fn tables(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let texts = list(
        &connection,
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name",
    );
    texts.iter().map(|text| without_layout(text)).collect()
}

fn without_layout(sql: &str) -> String {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap());
    let text = lines.collect::<Vec<_>>().join(" ").replace('"', "");
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for sign in ["(", ")", ","] {
        for spaced in [format!(" {sign}"), format!("{sign} ")] {
            text = text.replace(&spaced, sign);
        }
    }
    text
}

/// A row: column name to quoted value.
pub(super) type Cells = BTreeMap<String, String>;

/// All rows of all tables. Sequences of SQLite itself are left out.
pub(super) fn rows(path: &Path) -> BTreeMap<String, Vec<Cells>> {
    let connection = Connection::open(path).unwrap();
    let names = list(
        &connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    );
    let read = |table: String| {
        let columns = list(
            &connection,
            &format!("SELECT name FROM pragma_table_info('{table}')"),
        );
        let quoted: Vec<_> = columns.iter().map(|it| format!("quote({it})")).collect();
        let mut statement = connection
            .prepare(&format!("SELECT {} FROM {table}", quoted.join(", ")))
            .unwrap();
        let rows = statement.query_map([], |row| {
            let cells = columns.iter().enumerate();
            cells
                .map(|(index, name)| Ok((name.clone(), row.get(index)?)))
                .collect::<rusqlite::Result<Cells>>()
        });
        let rows = rows.unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap();
        (table, rows)
    };
    names.into_iter().map(read).collect()
}

/// The rows that a migrated database must hold, made from those of the earlier one.
fn migrated(before: BTreeMap<String, Vec<Cells>>) -> BTreeMap<String, Vec<Cells>> {
    let renamed = |name: &str| {
        let found = RENAMED.iter().find(|(old, _)| *old == name);
        found
            .map_or(name, |(_, new)| new.rsplit('.').next().unwrap())
            .to_owned()
    };
    let cell = |table: &str, column: String, value: String| {
        let full = format!("{table}.{column}");
        let new = RENAMED.iter().find(|(old, _)| *old == full);
        let column = new.map_or(column, |(_, new)| {
            new.rsplit('.').next().unwrap().to_owned()
        });
        let new = REPLACED.iter().find(|(old, _)| *old == value);
        let value = new.map_or(value, |(_, new)| (*new).to_owned());
        // Claims of earlier versions say nothing of schemas.
        let value = match full.as_str() {
            "peers.peer_apps" => "'[]'".to_owned(),
            _ => value,
        };
        (!REMOVED.contains(&full.as_str())).then_some((column, value))
    };
    let tables = before.into_iter().map(|(table, rows)| {
        let rows = rows.into_iter().map(|cells| {
            cells
                .into_iter()
                .filter_map(|(column, value)| cell(&table, column, value))
                .collect()
        });
        (renamed(&table), rows.collect())
    });
    tables.collect()
}

fn check_migration_from(version: i32) {
    let (old, new) = (Folder::new(), Folder::new());
    create(&old.file(), version);
    let before = rows(&old.file());
    assert!(
        before.values().all(|rows| !rows.is_empty()),
        "a table without rows"
    );
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), EPOCH, "objects were dropped");
    assert!(store.rows().is_own_epoch(&OLD_EPOCH).unwrap());
    check_objects(&store);
    let migration = store.migration().unwrap().clone();
    drop(store);
    assert_eq!(new.open(APPS).unwrap().epoch(), EPOCH);
    assert_eq!(tables(&old.file()), tables(&new.file()));

    assert_eq!(migration.from, version);
    let app = |app: &str, kept, dropped| MigratedApp {
        app: app.into(),
        kept,
        dropped,
    };
    assert_eq!(
        migration.apps,
        [app("identities", 2, 0), app("rides", 0, 1)]
    );
    assert_eq!(rows(&migration.copy), before, "the copy of the old file");
    let mode = fs::metadata(&migration.copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let after = rows(&old.file());
    for (table, expected) in migrated(before) {
        if DROPPED.contains(&table.as_str()) {
            continue;
        }
        let columns = expected[0].keys().cloned().collect::<Vec<_>>();
        let mut found = after[&table].clone();
        found
            .iter_mut()
            .for_each(|row| row.retain(|column, _| columns.contains(column)));
        let is_kept = |row: &Cells| expected.contains(row);
        let others = found.iter().filter(|row| !is_kept(row)).count();
        // Only `epoch` gets a row.
        assert_eq!(others, usize::from(table == "epoch"), "{table}");
        assert_eq!(found.len() - others, expected.len(), "{table}");
    }
    for table in ["app_rides_parent", "app_rides_attr", "reader", "sync_state"] {
        assert!(after[table].is_empty(), "{table}");
    }
    // The migrated database opens again, with the version of a new one.
    let store = old.open(APPS).unwrap();
    assert_eq!(store.migration(), None);
    let version = store
        .writer
        .pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    assert_eq!(version.unwrap(), SCHEMA_VERSION);
}

/// Identities and servers are kept, and the usage of their senders was counted again.
fn check_objects(store: &Store) {
    let (rows, apps) = (store.rows(), store.apps());
    let identities = apps.get("identities").unwrap();
    let parent = |byte| {
        rows.parent(identities, &Oid::from_bytes([byte; 16]))
            .unwrap()
    };
    let (identity, server) = (parent(0x11).unwrap(), parent(0x22).unwrap());
    assert_eq!(
        (identity.scope_id, identity.created_seq, identity.rev),
        (ScopeId::PUBLIC, 7, 3)
    );
    assert_eq!((server.scope_id, server.created_seq), (ScopeId::LOCAL, 5));
    assert_eq!(
        rows.attrs(identities, identity.id).unwrap(),
        [(1, Value::Bytes(vec![2, 3])), (4, Value::from("Eve"))]
    );
    let bytes = Object {
        app: "identities".into(),
        type_number: 1,
        oid: identity.oid,
        owner: identity.oid,
        rev: 3,
        proof: OidProof::Genesis,
        rights: None,
        attrs: Some(Attrs::from([
            (1, vec![Value::Bytes(vec![2, 3])]),
            (4, vec![Value::from("Eve")]),
        ])),
    };
    let stored = rows
        .stored_by(&PeerId::from_bytes([0; 32]))
        .unwrap()
        .unwrap();
    assert_eq!(stored.usage, Usage::one(bytes.to_bytes().len()));
    assert_eq!(rows.tier_usage(Tier::Trusted).unwrap(), stored.usage);
    assert!(rows.tier_usage(Tier::Untrusted).unwrap().is_zero());
}

#[test]
fn version_1_becomes_the_present_one_and_keeps_its_rows() {
    check_migration_from(1);
}

#[test]
fn version_2_becomes_the_present_one_and_keeps_its_rows() {
    check_migration_from(2);
}

#[test]
fn version_3_becomes_the_present_one_and_keeps_its_rows() {
    check_migration_from(3);
}

#[test]
fn version_4_becomes_the_present_one_and_keeps_its_rows() {
    check_migration_from(4);
}

/// How the epoch of a migrated database began, and the write mode that its node then has.
fn begun(store: &Store) -> (String, Option<WriteMode>) {
    let sql = "SELECT reason FROM epoch WHERE epoch = ?1";
    let reason = store
        .writer
        .query_row(sql, [store.epoch().as_bytes()], |row| row.get(0));
    let mode = store.rows().write_mode().unwrap();
    (reason.unwrap(), mode.map(|row| row.mode))
}

#[test]
fn rollback_before_a_migration_begins_a_recovery() {
    // The newest object has `change_seq` 9. The database knows its epoch, and not epoch 6.
    let later = Epoch::from_bytes([6; 16]);
    for version in 1..=4 {
        let kept = (version > 2).then_some(WriteMode::NewObjectsOnly);
        let recovery = ("rolled_back".to_owned(), Some(WriteMode::NewObjectsOnly));
        let migrated = ("migrated".to_owned(), kept);
        for (epoch, floor, expected) in [
            (OLD_EPOCH, 9, &migrated),
            (OLD_EPOCH, 10, &recovery),
            (later, 0, &recovery),
        ] {
            let folder = Folder::new();
            create(&folder.file(), version);
            let file = Reserve::path_beside(&folder.file());
            Reserve::create(&file, epoch, floor, floor).unwrap();
            let store = folder.open(APPS).unwrap();
            assert_eq!(&begun(&store), expected, "version {version}, floor {floor}");
            let rows = store.rows();
            assert!(
                rows.is_own_epoch(&epoch).unwrap(),
                "its own, not another copy's"
            );
            let sql = "SELECT COUNT(*) FROM recovery_peer WHERE peer_id = zeroblob(32)";
            let waits = store.writer.query_row(sql, [], |row| row.get::<_, bool>(0));
            assert_eq!(waits.unwrap(), expected == &recovery, "version {version}");
        }
    }
}

#[test]
fn missing_file_of_numbers_before_a_migration_begins_a_recovery() {
    let folder = Folder::new();
    create(&folder.file(), 4);
    Connection::open(folder.file())
        .unwrap()
        .execute_batch("INSERT INTO meta VALUES ('reserved', 1); DELETE FROM write_mode;")
        .unwrap();
    let store = folder.open(APPS).unwrap();
    let recovery = ("rolled_back".to_owned(), Some(WriteMode::NewObjectsOnly));
    assert_eq!(begun(&store), recovery);
}

#[test]
fn damaged_file_of_numbers_stops_a_migration() {
    let folder = Folder::new();
    create(&folder.file(), 4);
    let before = rows(&folder.file());
    fs::write(Reserve::path_beside(&folder.file()), "damaged").unwrap();
    let error = folder.open(APPS).unwrap_err();
    assert!(matches!(error, StoreError::Reserve(_)), "{error}");
    assert_eq!(rows(&folder.file()), before);
}

#[test]
fn frozen_tables_of_version_4_are_those_of_its_migration() {
    let [stepped, frozen] = [3, 4].map(|version| {
        let folder = Folder::new();
        create(&folder.file(), version);
        folder
    });
    let connection = Connection::open(stepped.file()).unwrap();
    connection.execute_batch(super::STEPS[2]).unwrap();
    assert_eq!(tables(&stepped.file()), tables(&frozen.file()));
    assert_eq!(rows(&stepped.file()), rows(&frozen.file()));
}

#[test]
fn migration_that_fails_leaves_the_old_file_and_a_later_one_succeeds() {
    let folder = Folder::new();
    create(&folder.file(), 4);
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute_batch("CREATE TABLE scope (x)").unwrap();
    let before = rows(&folder.file());
    assert!(folder.open(APPS).is_err());
    assert_eq!(rows(&folder.file()), before);
    connection.execute_batch("DROP TABLE scope").unwrap();
    drop(connection);
    let store = folder.open(APPS).unwrap();
    let copy = rows(&store.migration().unwrap().copy);
    assert!(
        !copy.contains_key("scope"),
        "the copy is that of the second attempt"
    );
}

#[test]
fn write_mode_is_read_before_a_migration() {
    let mode = Some(WriteMode::NewObjectsOnly);
    for (version, expected) in [(1, None), (2, None), (3, mode), (4, mode)] {
        let folder = Folder::new();
        create(&folder.file(), version);
        let mode = || write_mode_of(&folder.file()).unwrap().map(|row| row.mode);
        assert_eq!(mode(), expected, "version {version}");
        folder.open(APPS).unwrap();
        assert_eq!(mode(), expected, "version {version}, migrated");
    }
}

#[test]
fn refuses_an_earlier_version_of_a_schema() {
    let folder = Folder::new();
    drop(folder.open(&["identities"]).unwrap());
    Connection::open(folder.file())
        .unwrap()
        .execute_batch("UPDATE app SET version = version + 1")
        .unwrap();
    let error = folder.open(&["identities"]).unwrap_err();
    assert!(matches!(error, StoreError::Schema(_)), "{error}");
}

#[test]
fn every_version_has_a_step_and_unknown_versions_have_none() {
    assert_eq!(super::STEPS.len() as i32 + 1, SCHEMA_VERSION);
    let connection = Connection::open_in_memory().unwrap();
    for (from, to) in [
        (0, SCHEMA_VERSION),
        (SCHEMA_VERSION, 1),
        (1, SCHEMA_VERSION + 1),
    ] {
        let refused = super::run(&connection, from, to, &EPOCH, EpochReason::Migrated);
        assert!(
            matches!(refused, Err(StoreError::Version(_))),
            "{from} to {to}"
        );
    }
}

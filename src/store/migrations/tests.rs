//! Each earlier version of the tables, filled with rows, becomes the present one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bastion::Tier;
use keys::{Epoch, Oid, PeerId};
use rusqlite::Connection;

use super::MigratedApp;
use crate::object::{Attrs, Object, OidProof, Value};
use crate::store::testing::{EPOCH, Folder};
use crate::store::version::{APPLICATION_ID, SCHEMA_VERSION};
use crate::store::{ScopeId, Store, StoreError, Usage, WriteMode, write_mode_of};

const APPS: &[&str] = &["identities", "rides"];
/// Epoch of the earlier database. The migrated one begins [`EPOCH`].
const OLD_EPOCH: Epoch = Epoch::from_bytes([8; 16]);

/// Rows that version 1 could hold.
const ROWS_1: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO app VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO identity (oid, parent_id, pubkey_attr_id, key_id, public_key, home_peer, home_counter)
  VALUES (x'01', 1, 65536, 2, x'02', x'03', 4);
INSERT INTO reader VALUES (x'01', 1, 7, 40), (x'02', 1, 7, 41);
INSERT INTO peers (peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch, tier,
    last_contact)
  VALUES (zeroblob(32), zeroblob(16), '[\"rides\"]', '[]', '[]', zeroblob(32), zeroblob(16),
      'trusted', 41),
    (x'01', zeroblob(16), '[]', '[]', '[]', zeroblob(32), zeroblob(16), 'worked', 42);
INSERT INTO sync_state VALUES (x'01', 'rides.offers', 'in', x'', x'05', 6, 0),
  (x'01', 'rides.offers', 'out', x'', x'06', 7, 5);
INSERT INTO sync_rejects VALUES (3, x'01', 'rides.offers', x'05', 6, x'', 'mode', 9);
INSERT INTO sync_parked
  VALUES (4, x'01', 'rides.offers', x'05', 6, x'07', x'08', 0, x'09', x'0a', 10);
INSERT INTO api_token VALUES (zeroblob(32), 'operator', 5);
";
/// Rows that version 2 could hold besides.
const ROWS_2: &str = "
UPDATE peers SET ticket = x'0b', stored_objects = 2, stored_bytes = 200 WHERE tier = 'worked';
INSERT INTO peers VALUES (9, x'02', zeroblob(16), '[]', '[]', '[]', zeroblob(32), zeroblob(16),
  'forgotten', 0, NULL, 1, 100);
INSERT INTO verdict VALUES (x'02', 'banned', 'a reason', 11, NULL, 12);
INSERT INTO pending VALUES (x'03', x'04', '[]', '[]', '[\"Eve\"]', 64, 13, 14, 3);
INSERT INTO tier_usage VALUES ('worked', 3, 300), ('trusted', 4, 400);
";
/// Rows that version 3 could hold besides.
const ROWS_3: &str = "
UPDATE identity SET retired = 1, frozen = 1;
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0),
  (x'0809', 'fell_back', 15);
INSERT INTO heard_epoch VALUES (x'01', x'05', 1, x'0c', 16, 17);
INSERT INTO standing VALUES (1, 'recovering', 'fell_back', 18, 19, NULL);
INSERT INTO recovery_peer VALUES (x'01');
INSERT INTO recovery_asked VALUES (x'02');
INSERT INTO recovery_key VALUES (x'01', 2);
INSERT INTO recovery_deletion VALUES (x'0d', 1, x'0e', x'0f');
";

/// The objects of each version: an identity that a peer sent, a server, and a ride.
const OBJECTS: &str = "
INSERT INTO app_identities_parent VALUES
  (1, x'11111111111111111111111111111111', 1, x'11111111111111111111111111111111', NULL, 3, 0, 2,
    zeroblob(64), 1, 7, 1),
  (2, x'22222222222222222222222222222222', 2, x'22222222222222222222222222222222', NULL, 1, 0, 0,
    zeroblob(64), NULL, 5, 0);
INSERT INTO app_identities_attr VALUES (65536, 1, 1, 0, x'0203', NULL, 7, 1),
  (65537, 1, 4, 0, 'Eve', NULL, 7, 1), (131072, 2, 1, 0, x'04', NULL, 5, 0);
INSERT INTO app_rides_parent VALUES
  (1, x'33333333333333333333333333333333', 1, x'11111111111111111111111111111111', NULL, 1, 0, 2,
    zeroblob(64), 1, 9, 2);
INSERT INTO app_rides_attr VALUES (65536, 1, 1, 0, 'Bern', NULL, 9, 2);
";

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

/// Creates a database of an earlier version with its rows.
fn create(path: &Path, version: i32) {
    let (tables, rows) = match version {
        1 => (include_str!("version_1.sql"), vec![ROWS_1]),
        2 => (include_str!("version_2.sql"), vec![ROWS_1, ROWS_2]),
        _ => (include_str!("version_3.sql"), vec![ROWS_1, ROWS_2, ROWS_3]),
    };
    let apps = include_str!("apps_to_version_4.sql");
    let apps = ["identities", "rides"].map(|slug| apps.replace("SLUG", slug));
    let connection = Connection::open(path).unwrap();
    for sql in [tables, &apps.concat(), &rows.concat(), OBJECTS] {
        connection.execute_batch(sql).unwrap();
    }
    if version == 4 {
        connection.execute_batch(super::STEPS[2]).unwrap();
    }
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
        ))
        .unwrap();
}

fn list(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// The text of every table and index, without comments, quotes and redundant spaces.
fn tables(path: &Path) -> Vec<String> {
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
type Cells = BTreeMap<String, String>;

/// All rows of all tables. Sequences of SQLite itself are left out.
fn rows(path: &Path) -> BTreeMap<String, Vec<Cells>> {
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
    assert!(matches!(error, StoreError::Version(_)), "{error}");
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
        let refused = super::run(&connection, from, to, &EPOCH);
        assert!(
            matches!(refused, Err(StoreError::Version(_))),
            "{from} to {to}"
        );
    }
}

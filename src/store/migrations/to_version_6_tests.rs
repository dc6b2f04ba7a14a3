//! A database of version 5 gets an address book and loses nothing.

use std::collections::BTreeMap;

use keys::Oid;
use rusqlite::Connection;

use super::tests::{Cells, OLD_EPOCH, rows, tables};
use super::to_version_11_tests::remove_receipts;
use super::to_version_12_tests::remove_purges;
use crate::store::app_tables::AppTable;
use crate::store::testing::{EPOCH, Folder};
use crate::store::version::APPLICATION_ID;
use crate::store::{EpochReason, Reserve, WriteMode};

const APPS: &[&str] = &["identities", "rides"];

const ROWS_5: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO peers VALUES (1, zeroblob(32), zeroblob(16), '[]', '[]', '[]', zeroblob(32),
  zeroblob(16), 'trusted', 41, NULL, 0, 0);
INSERT INTO api_token VALUES (zeroblob(32), 'operator', 5);
";

/// Creates the tables of an app as in versions 5 and 6.
pub(super) fn create_app(connection: &Connection, slug: &str) {
    AppTable::create(connection, slug).unwrap();
    let sql = format!("ALTER TABLE app_{slug}_parent DROP COLUMN account");
    connection.execute_batch(&sql).unwrap();
}

/// Creates a database of version 5 with identities: number, name, whether it lives on this node.
fn create(folder: &Folder, identities: &[(u8, &str, bool)]) {
    let connection = Connection::open(folder.file()).unwrap();
    connection
        .execute_batch(include_str!("version_5.sql"))
        .unwrap();
    for slug in APPS {
        create_app(&connection, slug);
    }
    connection.execute_batch(ROWS_5).unwrap();
    for (number, name, is_local) in identities {
        let oid = [*number; 16];
        let id = i64::from(*number);
        connection
            .execute(
                "INSERT INTO app_identities_parent (id, oid, type, owner_oid, scope_id, rev,
                   deleted, key_id, signature, origin, created_seq, change_seq, sync_flags)
                 VALUES (?1, ?2, 1, ?2, 1, 1, 0, 0, zeroblob(64), ?3, ?1, ?1, 1)",
                (id, oid, (!is_local).then_some(1)),
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO app_identities_attr (id, parent_id, type, ordinal, value, change_seq,
                   sync_flags)
                 VALUES (?1 << 16, ?1, 1, 0, x'02', ?1, 1), ((?1 << 16) + 1, ?1, 4, 0, ?2, ?1, 1)",
                (id, *name),
            )
            .unwrap();
    }
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 5;"
        ))
        .unwrap();
}

/// Removes what later versions add.
fn remove_accounts(tables: &mut BTreeMap<String, Vec<Cells>>) {
    let new = [
        "relayed_usage",
        "ended_ban",
        "accept",
        "address",
        "introduction",
        "invitation",
        "pending_home",
    ];
    for table in new {
        assert_eq!(tables.remove(table).unwrap().len(), 0, "{table}");
    }
    remove_receipts(tables);
    remove_purges(tables);
    let added = ["account", "relayed_objects", "relayed_bytes"];
    for row in tables.values_mut().flatten() {
        row.retain(|column, _| !added.contains(&column.as_str()));
    }
}

#[test]
fn version_5_gets_an_address_book_and_keeps_its_rows() {
    let (old, new) = (Folder::new(), Folder::new());
    create(&old, &[(1, "Alice", true), (2, "Bob", false)]);
    let mut before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (5, Vec::new()));
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let mut after = rows(&old.file());
    for peer in before.get_mut("peers").unwrap() {
        peer.insert("relays".into(), "0".into());
        peer.insert("is_removed".into(), "0".into());
    }
    assert_eq!(after.remove("contact").unwrap().len(), 1);
    remove_accounts(&mut after);
    // The first start notes the text of each app.
    for tables in [&mut before, &mut after] {
        tables.remove("app");
    }
    assert_eq!(after, before);
}

#[test]
fn own_identities_of_version_5_get_their_names_as_petnames() {
    let folder = Folder::new();
    create(
        &folder,
        &[
            (1, "Alice", true),
            (2, "ALICE", true),
            (3, "Bob", false),
            (4, " Bo\u{200b}b", true),
            (5, "\u{3164}", true),
            (6, "deadbeef", true),
        ],
    );
    let store = folder.open(APPS).unwrap();
    let found = store.rows().contacts("", 10).unwrap().into_iter();
    let names: BTreeMap<_, _> = found.map(|row| (row.identity, row.name)).collect();
    let expected = [(1, "Alice"), (2, "ALICE 2"), (4, "Bob"), (6, "deadbeef 2")];
    let expected = expected.map(|(number, name)| (Oid::from_bytes([number; 16]), name.to_owned()));
    assert_eq!(names, BTreeMap::from(expected));
}

#[test]
fn rollback_before_the_migration_of_version_5_begins_a_recovery() {
    let folder = Folder::new();
    create(&folder, &[(1, "Alice", true)]);
    let file = Reserve::path_beside(&folder.file());
    Reserve::create(&file, OLD_EPOCH, 10, 10).unwrap();
    let store = folder.open(APPS).unwrap();
    assert_eq!(store.epoch(), EPOCH);
    let mode = store.rows().write_mode().unwrap().unwrap();
    let reason = EpochReason::RolledBack.as_str().to_owned();
    assert_eq!(
        (mode.mode, mode.reason),
        (WriteMode::NewObjectsOnly, reason)
    );
}

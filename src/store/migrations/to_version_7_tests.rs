//! A database of version 6 gets accounts of relayed objects and loses nothing.

use rusqlite::Connection;

use super::tests::{OLD_EPOCH, rows, tables};
use super::to_version_6_tests::create_app;
use crate::op_context::Timestamp;
use crate::store::testing::Folder;
use crate::store::version::APPLICATION_ID;
use crate::store::{Account, Usage};
use keys::{Oid, PeerId};

const APPS: &[&str] = &["identities", "rides"];

const ROWS_6: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO peers VALUES (1, zeroblob(32), zeroblob(16), '[]', '[]', '[]', zeroblob(32),
  zeroblob(16), 'trusted', 41, NULL, 2, 300);
INSERT INTO tier_usage VALUES ('trusted', 2, 300);
INSERT INTO verdict VALUES (zeroblob(32), 'banned', '', 5, 60, 0),
  (x'0101010101010101010101010101010101010101010101010101010101010101', 'banned', '', 5, NULL, 0);
INSERT INTO waiting VALUES (4, 1, 'rides.offers', zeroblob(16), 6, zeroblob(16), 1,
  x'000000000000000000000000000000000000000000000002', 0, 0, zeroblob(32), x'0a', zeroblob(64), 10);
INSERT INTO app_rides_parent (id, oid, type, owner_oid, scope_id, rev, deleted, key_id, signature,
    origin, created_seq, change_seq, sync_flags)
  VALUES (1, zeroblob(16), 1, zeroblob(16), 1, 1, 0, 0, zeroblob(64), 1, 1, 1, 0);
";

/// A received object of a scope, which version 6 stored without bits.
const RECEIVED_6: &str = "
INSERT INTO scope (id, app_id, oid, parent_id, founders, is_local)
  VALUES (2, 2, x'02', 2, zeroblob(32), 0);
INSERT INTO app_rides_parent (id, oid, type, owner_oid, scope_id, rev, deleted, key_id, signature,
    origin, created_seq, change_seq, sync_flags)
  VALUES (2, x'02020202020202020202020202020202', 1, zeroblob(16), 2, 1, 0, 0, zeroblob(64), 1, 9,
    9, 0);
";

fn create(folder: &Folder) {
    let connection = Connection::open(folder.file()).unwrap();
    for sql in [
        include_str!("version_5.sql"),
        include_str!("to_version_6.sql"),
    ] {
        connection.execute_batch(sql).unwrap();
    }
    for slug in APPS {
        create_app(&connection, slug);
    }
    connection.execute_batch(ROWS_6).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 6;"
        ))
        .unwrap();
}

#[test]
fn objects_of_version_6_count_in_the_own_accounts_of_their_senders() {
    let (old, new) = (Folder::new(), Folder::new());
    create(&old);
    let before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (6, Vec::new()));
    let (read, peer) = (store.rows(), PeerId::from_bytes([0; 32]));
    let stored = read.stored_by(&peer).unwrap().unwrap();
    let usage = |objects, bytes| Usage { objects, bytes };
    assert_eq!((stored.usage, stored.relayed), (usage(2, 300), usage(0, 0)));
    let rides = read.apps().get("rides").unwrap();
    let row = read.parent(rides, &Oid::from_bytes([0; 16])).unwrap();
    let waiting = read.waiting(4).unwrap();
    assert_eq!(row.unwrap().account, Account::Own);
    assert_eq!(waiting.unwrap().account, Account::Own);
    let ends = |now| read.next_ended_ban(Timestamp(now)).unwrap().is_some();
    assert!(!ends(59) && ends(60), "of the ban with an end");
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let after = rows(&old.file());
    for table in ["peers", "waiting", "verdict", "app_rides_parent"] {
        assert_eq!(after[table].len(), before[table].len(), "{table}");
    }
}

#[test]
fn received_objects_of_scopes_of_version_6_get_their_bits() {
    let folder = Folder::new();
    create(&folder);
    drop(folder.open(APPS).unwrap());
    let pending = |folder: &Folder| rows(&folder.file())["settling"].len();
    assert_eq!(pending(&folder), 0, "public objects are not sent on");
    let folder = Folder::new();
    create(&folder);
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute_batch(RECEIVED_6).unwrap();
    drop(connection);
    drop(folder.open(APPS).unwrap());
    assert_eq!(pending(&folder), 1);
}

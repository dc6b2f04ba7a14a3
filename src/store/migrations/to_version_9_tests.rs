//! A database of version 8 gets homes that wait, and loses nothing. No identity of it moved. One of
//! version 9 gets introductions.

use keys::{Oid, PeerId};

use super::old_database;
use super::tests::{OLD_EPOCH, tables};
use crate::op_context::Timestamp;
use crate::store::testing::Folder;

const APPS: &[&str] = &["identities", "rides"];

const ROWS_8: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO identity VALUES (x'01010101010101010101010101010101', 1, 2, 3, zeroblob(32),
  zeroblob(32), 4, 0, 0, 5, 6);
";

/// A database of version 8, or of a later one to which `steps` lead.
#[test]
fn identities_of_version_8_have_not_moved() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 8, APPS, ROWS_8);
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (8, Vec::new()));
    let identity = Oid::from_bytes([1; Oid::LEN]);
    let known = store.rows().identity(&identity).unwrap().unwrap();
    assert_eq!(
        (known.home, known.home_counter),
        (PeerId::from_bytes([0; 32]), 4)
    );
    assert_eq!(
        (known.home_since_seq, known.home_moved_at),
        (5, Timestamp(0))
    );
    assert_eq!(store.rows().pending_home(&identity).unwrap(), None);
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
}

#[test]
fn database_of_version_9_has_introduced_no_node() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 8, APPS, ROWS_8);
    old_database::change(&old, 8, 9);
    let store = old.open(APPS).unwrap();
    assert_eq!(store.migration().unwrap().from, 9);
    assert_eq!(store.rows().introductions().unwrap(), []);
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
}

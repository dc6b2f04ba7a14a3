//! A database of version 10 gets receipts and loses nothing.

use std::collections::BTreeMap;

use super::old_database;
use super::tests::{Cells, OLD_EPOCH, rows, tables};
use super::to_version_12_tests::remove_purges;
use crate::store::testing::Folder;
use keys::PeerId;

const APPS: &[&str] = &["identities", "rides"];

const ROWS_10: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO sync_state VALUES (zeroblob(32), 'rides.offers', 'out',
  x'08080808080808080808080808080808', 7, 7);
";

/// Removes the tables that version 11 adds. All are empty.
pub(super) fn remove_receipts(tables: &mut BTreeMap<String, Vec<Cells>>) {
    for table in [
        "receipt",
        "unapplied_object",
        "unapplied_scope",
        "refused_object",
    ] {
        assert_eq!(tables.remove(table).unwrap().len(), 0, "{table}");
    }
}

#[test]
fn cursors_of_version_10_are_no_receipts() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 10, APPS, ROWS_10);
    let mut before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (10, Vec::new()));
    let peer = PeerId::from_bytes([0; 32]);
    assert_eq!(
        store.rows().receipted_seq(&peer, "rides.offers").unwrap(),
        0
    );
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let mut after = rows(&old.file());
    remove_receipts(&mut after);
    remove_purges(&mut after);
    // The first start notes the text of each app.
    for tables in [&mut before, &mut after] {
        tables.remove("app");
    }
    assert_eq!(after, before);
}

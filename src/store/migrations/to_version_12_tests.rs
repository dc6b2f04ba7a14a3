//! A database of version 11 gets the tables of purges and loses nothing.

use std::collections::BTreeMap;

use super::old_database;
use super::tests::{Cells, OLD_EPOCH, rows, tables};
use crate::store::testing::Folder;

const APPS: &[&str] = &["identities", "rides"];

/// Removes the tables that version 12 adds. All are empty.
pub(super) fn remove_purges(tables: &mut BTreeMap<String, Vec<Cells>>) {
    for table in [
        "purge",
        "purge_round",
        "purge_position",
        "purge_scope",
        "purge_identity",
        "purged",
        "forgotten_key",
    ] {
        assert_eq!(tables.remove(table).unwrap().len(), 0, "{table}");
    }
}

const ROWS_11: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO scope (id, app_id, oid, parent_id, founders, is_local)
  VALUES (2, 2, x'02', 2, zeroblob(32), 0);
INSERT INTO invitation VALUES (x'01010101010101010101010101010101', 2, 'open', 0, 7);
";

#[test]
fn version_11_keeps_its_rows() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 11, APPS, ROWS_11);
    let mut before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (11, Vec::new()));
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let mut after = rows(&old.file());
    remove_purges(&mut after);
    // The first start notes the text of each app.
    for tables in [&mut before, &mut after] {
        tables.remove("app");
    }
    assert_eq!(after, before);
}

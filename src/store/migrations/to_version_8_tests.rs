//! A database of version 7 gets invitations and loses nothing. Scopes that its identities read stay
//! visible.

use super::old_database;
use super::tests::{OLD_EPOCH, rows, tables};
use super::to_version_11_tests::remove_receipts;
use super::to_version_12_tests::remove_purges;
use crate::store::testing::Folder;
use crate::store::{Onlooker, ScopeId};
use keys::Oid;

const APPS: &[&str] = &["identities", "rides"];

const ROWS_7: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO scope (id, app_id, oid, parent_id, founders, is_local)
  VALUES (2, 2, x'02', 2, zeroblob(32), 0);
INSERT INTO rights_list (id, scope_id, digest, key_number, version)
  VALUES (7, 2, zeroblob(32), 0, 0);
INSERT INTO reader (identity_oid, scope_id, since_seq)
  VALUES (x'01010101010101010101010101010101', 2, 0);
INSERT INTO leave VALUES (2, x'03030303030303030303030303030303', 0, 0, 7);
";

#[test]
fn scopes_of_version_7_stay_visible_without_an_invitation() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 7, APPS, ROWS_7);
    let mut before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (7, Vec::new()));
    let reader = Oid::from_bytes([1; Oid::LEN]);
    let sight = store.rows().sight(Onlooker::Identity(reader));
    assert_eq!(sight.until_seq(ScopeId(2)).unwrap(), Some(u64::MAX));
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let mut after = rows(&old.file());
    for table in [
        "accept",
        "address",
        "introduction",
        "invitation",
        "pending_home",
    ] {
        assert_eq!(after.remove(table).unwrap().len(), 0, "{table}");
    }
    remove_receipts(&mut after);
    remove_purges(&mut after);
    // The first start notes the text of each app.
    for tables in [&mut before, &mut after] {
        tables.remove("app");
    }
    assert_eq!(after, before);
}

//! A database of version 12 pulls again what its markers of further refused objects stood for.

use super::old_database;
use super::tests::{OLD_EPOCH, rows, tables};
use crate::store::testing::Folder;
use keys::{Epoch, Oid, PeerId};

const APPS: &[&str] = &["identities", "rides"];

const ROWS_12: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0);
INSERT INTO app (id, slug, version) VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO peers (id, peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch,
    tier, last_contact)
  VALUES (3, zeroblob(32), zeroblob(16), '[]', '[]', '[]', zeroblob(32), zeroblob(16),
    'trusted', 1);
INSERT INTO sync_state VALUES (zeroblob(32), 'rides.offers', 'in', zeroblob(16), 7, 7);
INSERT INTO refused_object VALUES (zeroblob(32), 'rides.offers', x'', zeroblob(16)),
  (zeroblob(32), 'rides.offers', x'01010101010101010101010101010101', zeroblob(16)),
  (zeroblob(32), 'rides.requests', x'', zeroblob(16));
INSERT INTO pull_again VALUES (3, 'rides.requests', x'02020202020202020202020202020202',
  zeroblob(16), 0, 7, 'no_room', 0, 9, 10, 0, 0, 0, 0);
";

#[test]
fn markers_of_version_12_become_domains_that_are_pulled_again() {
    let (old, new) = (Folder::new(), Folder::new());
    old_database::create(&old, 12, APPS, ROWS_12);
    let mut before = rows(&old.file());
    let store = old.open(APPS).unwrap();
    assert_eq!(store.epoch(), OLD_EPOCH, "objects were kept");
    let migration = store.migration().unwrap().clone();
    assert_eq!((migration.from, migration.apps), (12, Vec::new()));
    let (peer, epoch) = (PeerId::from_bytes([0; 32]), Epoch::from_bytes([0; 16]));
    let view = store.rows();
    let refused = |domain| view.refused_objects(&peer, domain, &epoch).unwrap();
    assert_eq!(refused("rides.offers"), [Oid::from_bytes([1; 16])]);
    assert_eq!(refused("rides.requests"), [], "without a cursor");
    let again = |domain| view.unfinished_again(&peer, domain).unwrap();
    assert_eq!(again("rides.offers"), None, "the whole domain");
    assert_eq!(
        again("rides.requests"),
        Some(vec![Oid::from_bytes([2; 16])])
    );
    drop(store);
    drop(new.open(APPS).unwrap());
    assert_eq!(tables(&old.file()), tables(&new.file()));
    let mut after = rows(&old.file());
    for peer in before.get_mut("peers").unwrap() {
        peer.insert("is_removed".into(), "0".into());
    }
    for tables in [&mut before, &mut after] {
        for changed in ["app", "pull_again", "refused_object"] {
            tables.remove(changed);
        }
    }
    assert_eq!(after, before);
}

//! Test support: databases of each earlier version, filled with rows.

use std::path::Path;

use rusqlite::Connection;

use crate::store::version::APPLICATION_ID;

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

/// Rows of version 4, the same as an earlier database has after its migration to it.
const ROWS_4: &str = "
INSERT INTO meta VALUES ('epoch', x'08080808080808080808080808080808');
INSERT INTO app VALUES (1, 'identities', 1), (2, 'rides', 1);
INSERT INTO domain_bit VALUES ('identities', 0), ('rides.offers', 1);
INSERT INTO identity VALUES (x'01', 1, 65536, 2, x'02', x'03', 4, 1, 1);
INSERT INTO reader VALUES (x'01', 1, 7), (x'02', 1, 7);
INSERT INTO peers VALUES
  (1, zeroblob(32), zeroblob(16), '[\"rides\"]', '[]', '[]', zeroblob(32), zeroblob(16),
    'trusted', 41, NULL, 0, 0),
  (2, x'01', zeroblob(16), '[]', '[]', '[]', zeroblob(32), zeroblob(16), 'untrusted', 42, x'0b',
    2, 200),
  (9, x'02', zeroblob(16), '[]', '[]', '[]', zeroblob(32), zeroblob(16), 'forgotten', 0, NULL, 1,
    100);
INSERT INTO sync_state VALUES (x'01', 'rides.offers', 'in', x'05', 6, 0),
  (x'01', 'rides.offers', 'out', x'06', 7, 5);
INSERT INTO sync_rejects VALUES (3, x'01', 'rides.offers', x'05', 6, x'', 'mode', 9);
INSERT INTO sync_parked
  VALUES (4, x'01', 'rides.offers', x'05', 6, x'07', x'08', 0, x'09', x'0a', 10);
INSERT INTO api_token VALUES (zeroblob(32), 'operator', 5);
INSERT INTO verdict VALUES (x'02', 'banned', 'a reason', 11, NULL, 12);
INSERT INTO pending VALUES (x'03', x'04', '[]', '[]', '[\"Eve\"]', 64, 13, 14, 3);
INSERT INTO tier_usage VALUES ('untrusted', 3, 300), ('trusted', 4, 400);
INSERT INTO epoch VALUES (x'08080808080808080808080808080808', 'new', 0),
  (x'0809', 'rolled_back', 15);
INSERT INTO peer_epoch VALUES (x'01', x'05', 1, x'0c', 16, 17);
INSERT INTO write_mode VALUES (1, 'new_objects_only', 'rolled_back', 18, 19, NULL);
INSERT INTO recovery_peer VALUES (x'01');
INSERT INTO reclaimed_peer VALUES (x'02');
INSERT INTO recovery_key VALUES (x'01', 2);
INSERT INTO recovery_tombstone VALUES (x'0d', 1, x'0e', x'0f');
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

/// Creates a database of an earlier version with its rows.
pub(super) fn create(path: &Path, version: i32) {
    let (tables, rows) = match version {
        1 => (include_str!("version_1.sql"), vec![ROWS_1]),
        2 => (include_str!("version_2.sql"), vec![ROWS_1, ROWS_2]),
        3 => (include_str!("version_3.sql"), vec![ROWS_1, ROWS_2, ROWS_3]),
        _ => (include_str!("version_4.sql"), vec![ROWS_4]),
    };
    let apps = include_str!("apps_to_version_4.sql");
    let apps = ["identities", "rides"].map(|slug| apps.replace("SLUG", slug));
    let connection = Connection::open(path).unwrap();
    for sql in [tables, &apps.concat(), &rows.concat(), OBJECTS] {
        connection.execute_batch(sql).unwrap();
    }
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
        ))
        .unwrap();
}

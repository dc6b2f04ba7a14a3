//! From an older version of the tables to the present one: forward only, a step at a time, in the transaction that opens
//! the database.
//!
//! Never looks at what rows mean beyond what a step needs. Invariant: a database that was migrated has exactly the tables
//! and columns of a new one (tested against the text of each older version), and every row that it had.

use rusqlite::Connection;

use super::{SqlContext as _, StoreError};

/// Steps, oldest first: what makes version `n + 2` of version `n + 1`.
const STEPS: &[&str] = &[TO_VERSION_2, TO_VERSION_3];

/// Version 2: tickets of other nodes, verdicts, pending strangers, and who has stored how much.
const TO_VERSION_2: &str = "
ALTER TABLE peers ADD COLUMN ticket BLOB;
ALTER TABLE peers ADD COLUMN stored_objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdict (
  peer_id            BLOB    NOT NULL PRIMARY KEY,
  verdict            TEXT    NOT NULL CHECK (verdict IN ('approved', 'refused', 'banned')),
  reason             TEXT    NOT NULL,
  at                 INTEGER NOT NULL,
  until              INTEGER,
  tickets_void_until INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  onion        BLOB    NOT NULL,
  apps         TEXT    NOT NULL,
  sync_domains TEXT    NOT NULL,
  names        TEXT    NOT NULL,
  effort       INTEGER NOT NULL,
  first_seen   INTEGER NOT NULL,
  last_seen    INTEGER NOT NULL,
  knocks       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tier_usage (
  tier    TEXT    NOT NULL PRIMARY KEY,
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 3: retired and frozen identities, the epochs of this node and of its peers, and recovery after a restore.
const TO_VERSION_3: &str = "
ALTER TABLE identity ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
CREATE TABLE epoch (
  epoch  BLOB    NOT NULL PRIMARY KEY,
  reason TEXT    NOT NULL,
  at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO epoch (epoch, reason, at) SELECT value, 'new', 0 FROM meta WHERE name = 'epoch';
CREATE TABLE heard_epoch (
  peer_id   BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,
  signature BLOB    NOT NULL,
  head      INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE write_mode (
  id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  state   TEXT    NOT NULL CHECK (state IN ('recovering', 'read_only')),
  reason  TEXT    NOT NULL,
  since   INTEGER NOT NULL,
  until   INTEGER,
  foreign_epoch BLOB
) STRICT;
CREATE TABLE recovery_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_asked (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_deletion (
  oid       BLOB    NOT NULL PRIMARY KEY,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Takes the tables from version `from` to version `to`. Nothing to do where they are equal.
pub(super) fn run(connection: &Connection, from: i32, to: i32) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    let no_way = || {
        StoreError::Unsupported(format!(
            "there is no way from version {from} of the database to {to}"
        ))
    };
    let (first, end) = (step(from).ok_or_else(no_way)?, step(to).ok_or_else(no_way)?);
    for sql in STEPS.get(first..end).ok_or_else(no_way)? {
        connection
            .execute_batch(sql)
            .context("migration of the tables")?;
    }
    connection
        .pragma_update(None, "user_version", to)
        .context("version")
}

/// Place in [`STEPS`] of what follows a version.
fn step(version: i32) -> Option<usize> {
    usize::try_from(version).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use keys::Epoch;
    use rusqlite::Connection;

    use crate::schema::Schemas;
    use crate::store::{APPLICATION_ID, SCHEMA_VERSION, Store, StoreError};

    /// The tables as version 1 made them: no program makes them any more.
    const VERSION_1: &str = include_str!("schema_v1.sql");
    const EPOCH: Epoch = Epoch::from_bytes([7; 16]);
    const OTHER: Epoch = Epoch::from_bytes([8; 16]);

    fn open(path: &std::path::Path) -> Store {
        let schemas = Schemas::load(&["identities".to_owned()], None).unwrap();
        Store::open(path, &schemas, OTHER).unwrap()
    }

    fn old(path: &std::path::Path) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(VERSION_1).unwrap();
        connection
            .execute(
                "INSERT INTO meta (name, value) VALUES ('epoch', ?1)",
                [EPOCH.as_bytes()],
            )
            .unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;
                 INSERT INTO peers (peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch, tier, last_contact)
                 VALUES (zeroblob(32), zeroblob(16), '[\"rides\"]', '[]', '[]', zeroblob(32), zeroblob(16), 'trusted', 41);
                 INSERT INTO api_token (hash, label, at) VALUES (zeroblob(32), 'operator', 5);"
            ))
            .unwrap();
    }

    /// Every table and index with its columns: name, type, whether NULL is kept out, default, place in the key.
    fn form(store: &Store) -> Vec<String> {
        let sql = "SELECT s.type || ' ' || s.name || ' ' || coalesce(l.strict, '') || coalesce(l.wr, '') || ' ' || coalesce(
                     (SELECT group_concat(c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || coalesce(c.dflt_value, '-')
                             || ' ' || c.pk, ', ' ORDER BY c.cid) FROM pragma_table_info(s.name) AS c), '')
                   FROM sqlite_schema AS s LEFT JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name
                   ORDER BY s.type, s.name";
        let mut statement = store.writer.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn a_database_of_version_1_becomes_one_like_a_new_one_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (migrated, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
        old(&migrated);
        let migrated = open(&migrated);
        assert_eq!(form(&migrated), form(&open(&new)));
        assert_eq!(migrated.epoch(), EPOCH);
        let [peer] = migrated.rows().peers().unwrap().try_into().unwrap();
        assert_eq!(
            (peer.peer_apps, peer.last_contact.0),
            (vec!["rides".to_owned()], 41)
        );
        let kept: (Option<Vec<u8>>, i64, i64, i64) = migrated
            .writer
            .query_row(
                "SELECT ticket, stored_objects, stored_bytes, (SELECT COUNT(*) FROM api_token) FROM peers",
                [],
                |row| row.try_into(),
            )
            .unwrap();
        assert_eq!(kept, (None, 0, 0, 1));
    }

    #[test]
    fn a_migrated_database_is_opened_again_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.db");
        old(&path);
        drop(open(&path));
        let version = |store: &Store| {
            store
                .writer
                .pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))
        };
        assert_eq!(version(&open(&path)).unwrap(), SCHEMA_VERSION);
    }

    #[test]
    fn there_is_a_step_to_each_version_and_none_from_nowhere() {
        assert_eq!(super::STEPS.len() as i32 + 1, SCHEMA_VERSION);
        let connection = Connection::open_in_memory().unwrap();
        for (from, to) in [
            (0, SCHEMA_VERSION),
            (SCHEMA_VERSION, 1),
            (1, SCHEMA_VERSION + 1),
        ] {
            let refused = super::run(&connection, from, to);
            assert!(
                matches!(refused, Err(StoreError::Unsupported(_))),
                "{from} to {to}"
            );
        }
    }
}

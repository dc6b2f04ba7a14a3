//! The objects of a database without what is local to its node, so that two databases can be
//! compared row by row.
//!
//! Local ids are replaced by oids. Left out are the origin of a row, its sequence numbers and the
//! domains in which the node exports it.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::dump;

fn open(database: &Path) -> Connection {
    Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Every Parent and Attr row of every app, as text.
pub fn portable_rows(database: &Path) -> BTreeSet<String> {
    let connection = open(database);
    let mut found = BTreeSet::new();
    for app in apps(&connection) {
        // The scope of a local or public object has no oid; the lower of 2 and its id tells which.
        let parents = format!(
            "SELECT '{app}', p.oid, p.type, p.owner_oid, MIN(s.id, 2), s.oid, p.rev, p.deleted,
                    p.key_id, p.signature, p.salt, l.digest
             FROM app_{app}_parent p
             JOIN scope s ON s.id = p.scope_id
             LEFT JOIN rights_list l ON l.id = p.rights_id"
        );
        let attrs = format!(
            "SELECT '{app}', p.oid, a.type, a.ordinal, a.value, v.oid
             FROM app_{app}_attr a
             JOIN app_{app}_parent p ON p.id = a.parent_id
             LEFT JOIN app_{app}_parent v ON v.id = a.value_parent_id"
        );
        for query in [parents, attrs] {
            found.extend(dump::rows_of(&connection, &query));
        }
    }
    found
}

fn apps(connection: &Connection) -> Vec<String> {
    let mut statement = connection.prepare("SELECT slug FROM app").unwrap();
    let slugs = statement.query_map([], |row| row.get(0)).unwrap();
    slugs.map(Result::unwrap).collect()
}

/// The last sequence number of a domain that a database has taken from a peer; 0 before the first.
pub fn pulled(database: &Path, domain: &str) -> u64 {
    let query = "SELECT COALESCE(MAX(last_seq), 0) FROM sync_state
                 WHERE domain = ?1 AND direction = 'in'";
    let connection = open(database);
    connection
        .query_row(query, [domain], |row| row.get(0))
        .unwrap()
}

/// Asserts that a database is whole, and that nothing in it waits or was rejected.
pub fn assert_settled(database: &Path) {
    let connection = open(database);
    let check = dump::rows_of(&connection, "PRAGMA integrity_check");
    assert_eq!(check, ["\"ok\""]);
    for table in ["sync_rejects", "waiting", "settling", "pull_again"] {
        let left = dump::rows_of(&connection, &format!("SELECT * FROM {table}"));
        assert_eq!(left, Vec::<String>::new(), "{table}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TestNode, meet, ride};

    #[test]
    fn databases_are_equal_after_a_sync_and_differ_by_a_later_object() {
        let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
        meet(&alice, &bob);
        alice.make("rides", 1, ride("Bern", 1)).unwrap();
        alice.send(bob.identity, "Hi");
        let rows = |node: &TestNode| portable_rows(&node.database());
        assert!(rows(&alice) != rows(&bob));
        bob.pull_everything(&alice);
        alice.pull_everything(&bob);
        assert!(rows(&alice) == rows(&bob));
        assert!(pulled(&bob.database(), "messages") > 0);
        assert_eq!(pulled(&bob.database(), "no domain"), 0);
        assert_settled(&bob.database());
        let later = alice.make("rides", 1, ride("Basel", 2)).unwrap();
        let more = &rows(&alice) - &rows(&bob);
        assert!(!more.is_empty() && more.iter().all(|row| row.contains(&later.oid.to_hex())));
    }
}

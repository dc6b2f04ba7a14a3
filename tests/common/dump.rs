//! The database from outside: every row of every table as text, so that "nothing moved" can be said of all of them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::TestNode;

/// Table to rows, each row as text, sorted.
pub type Dump = BTreeMap<String, Vec<String>>;

impl TestNode {
    /// Everything that is committed.
    pub fn dump(&self) -> Dump {
        dump(&self.path())
    }

    /// The rows of one table.
    pub fn rows(&self, table: &str) -> Vec<String> {
        self.dump().remove(table).unwrap()
    }
}

pub fn dump(path: &Path) -> Dump {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(tables).unwrap();
    let names = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap();
    names
        .map(|name| name.unwrap())
        .map(|name| (name.clone(), rows(&connection, &name)))
        .collect()
}

fn rows(connection: &Connection, table: &str) -> Vec<String> {
    let mut statement = connection
        .prepare(&format!("SELECT * FROM {table}"))
        .unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut texts = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|column| text(row.get_ref(column).unwrap()));
        texts.push(values.collect::<Vec<_>>().join(" | "));
    }
    texts.sort();
    texts
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => data_encoding::HEXLOWER.encode(bytes),
    }
}

/// Makes the local ids of Parents and apps go on behind an offset, as if other rows had come and gone.
pub fn shift_ids(path: &Path, apps: &[String], offset: i64) {
    let connection = Connection::open(path).unwrap();
    for app in apps {
        let mut oid = [0xee; 16];
        oid[8..].copy_from_slice(&offset.to_be_bytes());
        connection
            .execute(
                &format!(
                    "INSERT INTO app_{app}_parent VALUES (?1, ?2, 65535, ?2, NULL, 1, 1, 0, zeroblob(64), NULL, 0, 0)"
                ),
                (offset, oid),
            )
            .unwrap();
    }
    connection
        .execute("UPDATE sqlite_sequence SET seq = seq + ?1", [offset])
        .unwrap();
    connection
        .execute(
            "INSERT OR IGNORE INTO sqlite_sequence (name, seq) VALUES ('peers', ?1)",
            [offset],
        )
        .unwrap();
}

//! A node's database as text: every row of every table, so that a test can compare all of them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::node::TestNode;

/// Table to rows, each row as text, sorted.
pub type Dump = BTreeMap<String, Vec<String>>;

impl TestNode {
    /// Every committed row.
    pub fn dump(&self) -> Dump {
        dump(&self.database())
    }

    /// The rows of one table.
    pub fn rows(&self, table: &str) -> Vec<String> {
        self.dump().remove(table).unwrap()
    }
}

/// Every committed row of a database file.
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
    rows_of(connection, &format!("SELECT * FROM {table}"))
}

/// The rows of a query, each as text, sorted.
pub(crate) fn rows_of(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection.prepare(query).unwrap();
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

//! Databases of versions 7 to 12 for tests, as those versions created them.

use rusqlite::Connection;

use super::to_version_6_tests::create_app;
use super::to_version_7;
use crate::store::testing::Folder;
use crate::store::version::APPLICATION_ID;

/// The first version from which databases are made.
const FIRST: usize = 5;
/// The SQL of the first version, and of each later one.
const VERSIONS: [&str; 8] = [
    include_str!("version_5.sql"),
    include_str!("to_version_6.sql"),
    include_str!("to_version_7.sql"),
    include_str!("to_version_8.sql"),
    include_str!("to_version_9.sql"),
    include_str!("to_version_10.sql"),
    include_str!("to_version_11.sql"),
    include_str!("to_version_12.sql"),
];

/// Creates a database of a version with these apps and rows.
pub(super) fn create(folder: &Folder, version: usize, apps: &[&str], rows: &str) {
    let connection = Connection::open(folder.file()).unwrap();
    for sql in &VERSIONS[..=version - FIRST] {
        connection.execute_batch(sql).unwrap();
    }
    for slug in apps {
        create_app(&connection, slug);
    }
    connection.execute_batch(rows).unwrap();
    to_version_7::run(&connection).unwrap();
    let pragmas =
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};");
    connection.execute_batch(&pragmas).unwrap();
}

/// Changes a database from one version to a later one, as those versions did.
pub(super) fn change(folder: &Folder, from: usize, to: usize) {
    let connection = Connection::open(folder.file()).unwrap();
    for sql in &VERSIONS[from + 1 - FIRST..=to - FIRST] {
        connection.execute_batch(sql).unwrap();
    }
    let pragma = format!("PRAGMA user_version = {to};");
    connection.execute_batch(&pragma).unwrap();
}

//! Report of a migration, for the operator.

use std::path::PathBuf;

/// A migration that was made when the database was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The earlier version of the tables.
    pub from: i32,
    /// The copy of the earlier file, beside the database.
    pub copy: PathBuf,
    /// Numbers of the objects of each app, sorted by slug. Empty if all were kept.
    pub apps: Vec<MigratedApp>,
}

/// Numbers of the objects of one app, tombstones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigratedApp {
    /// The app's slug.
    pub app: String,
    /// Objects that the database still has.
    pub kept: u64,
    /// Objects that could not be carried over.
    pub dropped: u64,
}

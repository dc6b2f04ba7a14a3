//! The schemas with which a database was used last.
//!
//! Invariant: the database has one text for each app that was ever enabled. A later file accepts
//! every stored object. Tested in `schema_tests.rs`.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use super::error::{SqlContext as _, StoreError};
use super::version::open_unmigrated;
use crate::schema::{AppSchema, SchemaRefused, compare, parse_stored};

/// First version of the tables that keep the text.
const TEXT_SINCE: i32 = 5;

/// The schema of an app as a database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchema {
    /// Slug of the app.
    pub slug: String,
    /// Version of the file that was loaded last.
    pub version: u32,
    /// Text of that file. `None`: the tables were migrated, and no file was loaded since.
    pub text: Option<String>,
}

fn stored_schema(row: &Row<'_>) -> rusqlite::Result<StoredSchema> {
    Ok(StoredSchema {
        slug: row.get(0)?,
        version: row.get(1)?,
        text: row.get(2)?,
    })
}

impl StoredSchema {
    /// Checks that a file may replace this schema.
    ///
    /// # Errors
    /// [`StoreError::Schema`] with each reason. [`StoreError::Inconsistent`] if the stored text is
    /// not a schema.
    pub fn check(&self, file: &AppSchema) -> Result<(), StoreError> {
        if let Some(it) = SchemaRefused::of_version(&self.slug, self.version, file.version) {
            return Err(it.into());
        }
        let Some(text) = &self.text else {
            return Ok(());
        };
        let stored = parse_stored(text).ok_or(StoreError::Inconsistent("the schema of an app"))?;
        Ok(compare(&stored, file)?)
    }
}

/// A reading connection to a database that a node may have open, and the version of its tables.
/// `None`: there is no database, or it has no tables.
pub(super) fn open_stored(database: &Path) -> Result<Option<(Connection, i32)>, StoreError> {
    if !database.exists() {
        return Ok(None);
    }
    let opened = open_unmigrated(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Some(opened).filter(|(_, version)| *version > 0))
}

/// The schemas of a database that a node may have open. Empty: there is no database, or its tables
/// are of an earlier version.
///
/// # Errors
/// The database cannot be opened or read.
pub fn stored_schemas(database: &Path) -> Result<Vec<StoredSchema>, StoreError> {
    let stored = open_stored(database)?.filter(|(_, version)| *version >= TEXT_SINCE);
    let Some((connection, _)) = stored else {
        return Ok(Vec::new());
    };
    let context = "reading the schemas";
    let mut statement = connection
        .prepare("SELECT slug, version, text FROM app ORDER BY slug")
        .context(context)?;
    let rows = statement.query_map([], stored_schema).context(context)?;
    rows.collect::<rusqlite::Result<_>>().context(context)
}

/// Stores version and text of an app's schema, unless the stored schema forbids it. Returns the
/// version that was stored before; `None` for a new app.
///
/// # Errors
/// As [`StoredSchema::check`]. Nothing is written then.
pub(super) fn note_schema(
    connection: &Connection,
    schema: &AppSchema,
) -> Result<Option<u32>, StoreError> {
    let stored = connection
        .query_row(
            "SELECT slug, version, text FROM app WHERE slug = ?1",
            [&schema.slug],
            stored_schema,
        )
        .optional()
        .context("reading the schema of an app")?;
    if let Some(stored) = &stored {
        stored.check(schema)?;
    }
    connection
        .execute(
            "INSERT INTO app (slug, version, text) VALUES (?1, ?2, ?3)
             ON CONFLICT (slug) DO UPDATE SET version = excluded.version, text = excluded.text",
            (&schema.slug, schema.version, &*schema.text),
        )
        .context("writing the schema of an app")?;
    Ok(stored.map(|stored| stored.version))
}

/// An app whose schema was loaded.
pub(super) struct LoadedApp<'s> {
    pub(super) schema: &'s AppSchema,
    /// Whether the database was used with a lower version before.
    pub(super) is_later: bool,
    /// Bits that were assigned to new domains.
    pub(super) new_bits: Vec<u8>,
}

impl<'s> LoadedApp<'s> {
    pub(super) fn new(schema: &'s AppSchema, before: Option<u32>, new_bits: Vec<u8>) -> Self {
        let is_later = before.is_some_and(|before| before < schema.version);
        Self {
            schema,
            is_later,
            new_bits,
        }
    }
}

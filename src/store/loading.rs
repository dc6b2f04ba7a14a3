//! Work that a loaded schema causes. Waiting objects are tried, and rows need the bits of new
//! domains. Overruled scopes of an app that was disabled are released.
//!
//! Invariant: it is noted in the transaction that stores the schema. Tested in
//! `tests/core/schema_versions.rs` and `tests/core/new_domains.rs`.

use super::app_schema::LoadedApp;
use super::app_tables::AppTable;
use super::cause::Cause;
use super::error::StoreError;
use super::pull_again_state::{DAY_MS, FINISHED};
use super::rows::{Rows, WriteTx};

impl Rows<'_> {
    /// The version of an app's schema that was loaded last, also of a disabled app.
    pub fn schema_version(&self, app: &AppTable) -> Result<u32, StoreError> {
        let mut statement = self.prepare(
            "reading the version of a schema",
            "SELECT version FROM app WHERE id = ?1",
        )?;
        statement.one([app.id.0], |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Lets what waits for this version of an app's schema be tried. Releases scopes that were held
    /// while the app was disabled. After an upgrade everything of the app that is to be pulled
    /// again starts now, because it may fit.
    pub(super) fn note_loaded(&self, app: &LoadedApp<'_>) -> Result<(), StoreError> {
        let (slug, version) = (&app.schema.slug, app.schema.version);
        let table = self.apps.get(slug);
        let table = table.ok_or(StoreError::Inconsistent("an app without tables"))?;
        self.fulfil(&Cause::Schema(table.id, version))?;
        for bit in &app.new_bits {
            self.note_flag(table, *bit)?;
        }
        self.release_overruled(table.id)?;
        if !app.is_later {
            return Ok(());
        }
        let mut statement = self.prepare(
            "waking what is to be pulled again",
            "UPDATE pull_again SET not_before = 0, pause_ms = ?2
             WHERE domain = ?1 AND cursor != ?3",
        )?;
        for domain in &app.schema.domains {
            statement.execute((&domain.name, DAY_MS, FINISHED))?;
        }
        Ok(())
    }
}

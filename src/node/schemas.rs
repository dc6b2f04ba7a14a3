//! Whether the node can start with its schema files. Tested in `tests/system/schema.rs`.

use crate::data_dir::DataDir;
use crate::schema::{SchemaRefused, Schemas};
use crate::store::{DomainBits, StoreError, stored_schemas};

/// Compares the enabled apps with those with which the node's database was used last. Returns the
/// first refusal. The node may run meanwhile.
///
/// # Errors
/// The database cannot be read.
pub fn refused_schema(
    data: &DataDir,
    schemas: &Schemas,
) -> Result<Option<SchemaRefused>, StoreError> {
    for stored in stored_schemas(&data.database())? {
        let checked = schemas.app(&stored.slug).map(|file| stored.check(file));
        match checked {
            Some(Err(StoreError::Schema(refused))) => return Ok(Some(refused)),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => {}
        }
    }
    Ok(DomainBits::of_database(&data.database())?.refused(schemas))
}

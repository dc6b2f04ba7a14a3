//! Table `domain_bit`: the bits of sync domains in `sync_flags`.
//!
//! Invariant: a bit keeps its domain for the life of the database, also if the app of the domain is
//! disabled. So the bits can be used up. Tested in `schema_tests.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::app_schema::open_stored;
use super::error::{SqlContext as _, StoreError};
use crate::schema::{SchemaRefused, Schemas};

/// The domains that have a bit.
#[derive(Debug, Default)]
pub struct DomainBits(BTreeMap<String, u8>);

impl DomainBits {
    /// The bits of a database that a node may have open. Empty: there is no database.
    ///
    /// # Errors
    /// The database cannot be opened or read.
    pub fn of_database(database: &Path) -> Result<Self, StoreError> {
        match open_stored(database)? {
            Some((connection, _)) => Self::read(&connection),
            None => Ok(Self::default()),
        }
    }

    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        let context = "reading the bits of domains";
        let mut statement = connection
            .prepare("SELECT domain, bit FROM domain_bit")
            .context(context)?;
        let bits = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .context(context)?;
        let bits = bits.collect::<rusqlite::Result<_>>().context(context)?;
        Ok(Self(bits))
    }

    /// The bit of a domain.
    pub(super) fn of(&self, domain: &str) -> Option<u8> {
        self.0.get(domain).copied()
    }

    /// The refusal of the first app whose new domains need more bits than are left.
    pub fn refused(&self, schemas: &Schemas) -> Option<SchemaRefused> {
        let highest = self.0.values().max();
        let mut used = highest.map_or(0, |bit| usize::from(*bit) + 1);
        schemas.apps().find_map(|app| {
            let domains = app.domains.iter();
            let new = domains.filter(|domain| !self.0.contains_key(&domain.name));
            let new = new.count();
            let refused = SchemaRefused::of_domains(&app.slug, new, used);
            used += new;
            refused
        })
    }
}

/// The bit of a domain, and whether the domain is new. A new domain gets the next free bit.
pub(super) fn bit_of(connection: &Connection, domain: &str) -> Result<(u8, bool), StoreError> {
    if let Some(bit) = DomainBits::read(connection)?.of(domain) {
        return Ok((bit, false));
    }
    connection
        .query_row(
            "INSERT INTO domain_bit (domain, bit)
             SELECT ?1, COALESCE(MAX(bit) + 1, 0) FROM domain_bit RETURNING bit",
            [domain],
            |row| Ok((row.get(0)?, true)),
        )
        .context("assigning a bit to a domain")
}

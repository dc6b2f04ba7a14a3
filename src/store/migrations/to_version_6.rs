//! The part of the migration to version 6 that SQL cannot do: the names of this node's identities
//! become their petnames.
//!
//! A name that another identity has already gets a number. A name without a visible character
//! becomes none. Invariant: objects and rows of other tables stay.

use keys::Oid;
use rusqlite::{Connection, OptionalExtension as _};

use crate::schema::identities;
use crate::store::columns::fixed;
use crate::store::error::{SqlContext as _, StoreError};
use crate::text::Petname;

/// Gives each identity of this node its petname, in the order in which they were made.
pub(super) fn run(connection: &Connection) -> Result<(), StoreError> {
    for (identity, claim) in own_names(connection).context("reading the names of identities")? {
        let is_taken = |name: &Petname| {
            let sql = "SELECT 1 FROM contact WHERE folded = ?1";
            let found = connection
                .query_row(sql, [name.folded()], |_| Ok(()))
                .optional();
            found.map(|found| found.is_some())
        };
        let name = Petname::from_claim(&claim, is_taken).context("looking up a petname")?;
        if let Some(name) = name {
            let row = (identity.as_bytes(), name.as_str(), name.folded());
            connection
                .execute("INSERT INTO contact VALUES (?1, ?2, ?3, '')", row)
                .context("writing the address book")?;
        }
    }
    Ok(())
}

/// The names of identities that were made on this node: no peer sent them.
fn own_names(connection: &Connection) -> rusqlite::Result<Vec<(Oid, String)>> {
    let has_app = connection
        .query_row(
            "SELECT 1 FROM app WHERE slug = ?1",
            [identities::APP],
            |_| Ok(()),
        )
        .optional()?;
    if has_app.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(
        "SELECT p.oid, a.value FROM app_identities_parent AS p
           JOIN app_identities_attr AS a ON a.id BETWEEN (p.id << 16) AND ((p.id << 16) | 65535)
         WHERE p.type = ?1 AND p.origin IS NULL AND p.deleted = 0 AND a.type = ?2
         ORDER BY p.id",
    )?;
    let names = statement.query_map([identities::IDENTITY, identities::NAME], |row| {
        Ok((Oid::from_bytes(fixed(row, 0)?), row.get(1)?))
    })?;
    names.collect()
}

//! Conversions between Rust values and the columns that several tables share.

use bastion::Tier;
use rusqlite::Row;
use rusqlite::types::Type;

/// Reads an identifier of exactly `N` bytes.
pub(super) fn fixed<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}

/// Writes names as a JSON array.
pub(super) fn json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// Reads a JSON array of names.
pub(super) fn names(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Reads a tier, as [`Tier::as_str`] writes it. A forgotten peer counts as untrusted.
pub(super) fn tier(row: &Row<'_>, column: usize) -> rusqlite::Result<Tier> {
    let text: String = row.get(column)?;
    Ok(if text == Tier::Trusted.as_str() {
        Tier::Trusted
    } else {
        Tier::Untrusted
    })
}

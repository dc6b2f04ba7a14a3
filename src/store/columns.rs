//! Conversions between Rust values and the columns that several tables share.

use bastion::{AppClaim, Tier};
use keys::ids::ParseIdError;
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

/// Writes the claims of apps as a JSON array of `[slug, version, digest in hex]`.
pub(super) fn apps_json(apps: &[AppClaim]) -> String {
    let rows = apps.iter();
    let rows = rows.map(|app| serde_json::json!([app.slug, app.version, app.digest.to_hex()]));
    serde_json::Value::from_iter(rows).to_string()
}

/// Reads what [`apps_json`] wrote.
pub(super) fn apps(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<AppClaim>> {
    let text: String = row.get(column)?;
    let fail = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error);
    let rows: Vec<(String, u32, String)> =
        serde_json::from_str(&text).map_err(|error| fail(Box::new(error)))?;
    let claim = |(slug, version, digest): (String, u32, String)| {
        let digest = digest
            .parse()
            .map_err(|error: ParseIdError| fail(Box::new(error)))?;
        Ok(AppClaim::new(slug, version, digest))
    };
    rows.into_iter().map(claim).collect()
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

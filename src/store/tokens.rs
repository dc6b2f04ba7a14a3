//! Tokens of the local API, stored by their hash. The tokens themselves are never stored.

use keys::Digest;

use super::error::StoreError;
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

impl Rows<'_> {
    /// Whether a token with this hash was issued.
    ///
    /// The time of the lookup may depend on the hash. That reveals nothing useful, because the
    /// token has 32 random bytes.
    pub fn has_token(&self, hash: &Digest) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking up a token",
            "SELECT 1 FROM api_token WHERE hash = ?1",
        )?;
        statement.exists([hash.as_bytes()])
    }
}

impl WriteTx<'_> {
    /// Stores a token's hash.
    pub fn put_token(&self, hash: &Digest, label: &str, at: Timestamp) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a token",
            "INSERT OR IGNORE INTO api_token (hash, label, at) VALUES (?1, ?2, ?3)",
        )?;
        statement.execute((hash.as_bytes(), label, at.0))?;
        Ok(())
    }

    /// Deletes all tokens with this label.
    pub fn remove_tokens(&self, label: &str) -> Result<(), StoreError> {
        let mut statement =
            self.prepare("deleting tokens", "DELETE FROM api_token WHERE label = ?1")?;
        statement.execute([label])?;
        Ok(())
    }
}

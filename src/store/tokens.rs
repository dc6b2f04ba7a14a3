//! Tokens of the local API, stored by their hash. The tokens themselves are never stored.

use keys::Digest;

use super::error::{SqlContext as _, StoreError};
use super::rows::{Rows, WriteTx};
use crate::op_context::Timestamp;

impl Rows<'_> {
    /// Whether a token with this hash was issued.
    ///
    /// The time of the lookup may depend on the hash. That reveals nothing useful, because the
    /// token has 32 random bytes.
    pub fn has_token(&self, hash: &Digest) -> Result<bool, StoreError> {
        let context = "looking up a token";
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM api_token WHERE hash = ?1")
            .context(context)?;
        statement.exists([hash.as_bytes()]).context(context)
    }
}

impl WriteTx<'_> {
    /// Stores a token's hash.
    pub fn put_token(&self, hash: &Digest, label: &str, at: Timestamp) -> Result<(), StoreError> {
        let context = "writing a token";
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO api_token (hash, label, at) VALUES (?1, ?2, ?3)")
            .context(context)?;
        statement
            .execute((hash.as_bytes(), label, at.0))
            .context(context)?;
        Ok(())
    }

    /// Deletes all tokens with this label.
    pub fn remove_tokens(&self, label: &str) -> Result<(), StoreError> {
        let context = "deleting tokens";
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM api_token WHERE label = ?1")
            .context(context)?;
        statement.execute([label]).context(context)?;
        Ok(())
    }
}

//! Tokens of the local API, by their hash. Never holds a token itself.

use keys::Digest;

use super::{Rows, SqlContext as _, StoreError, WriteTx};
use crate::op_context::Timestamp;

impl Rows<'_> {
    /// Whether a token with this hash was issued. The hash is of 32 random bytes: looking it up leaks nothing useful.
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
    /// Notes a token's hash.
    pub fn put_token(&self, hash: &Digest, label: &str, at: Timestamp) -> Result<(), StoreError> {
        let context = "noting a token";
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO api_token (hash, label, at) VALUES (?1, ?2, ?3)")
            .context(context)?;
        statement
            .execute((hash.as_bytes(), label, at.0))
            .context(context)?;
        Ok(())
    }

    /// Forgets every token that bears this label.
    pub fn remove_tokens(&self, label: &str) -> Result<(), StoreError> {
        let context = "forgetting tokens";
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM api_token WHERE label = ?1")
            .context(context)?;
        statement.execute([label]).context(context)?;
        Ok(())
    }
}

//! STUB, to be replaced when this branch is merged: the epoch written anew.
//!
//! Never in a release. Invariant: none.

use keys::Epoch;

use super::{Doing as _, StoreError, WriteTx};

impl WriteTx<'_> {
    /// STUB.
    pub fn stub_put_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE meta SET value = ?1 WHERE name = 'epoch'", [epoch.as_bytes()])
            .doing("minting of the epoch")?;
        Ok(())
    }
}

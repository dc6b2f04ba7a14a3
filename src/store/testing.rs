//! Test support: a store in a temporary folder.

use std::path::PathBuf;

use keys::Epoch;
use tempfile::TempDir;

use super::{Store, StoreError};
use crate::schema::Schemas;

pub(super) const EPOCH: Epoch = Epoch::from_bytes([7; 16]);

pub(super) fn schemas(apps: &[&str]) -> Schemas {
    let apps: Vec<String> = apps.iter().map(ToString::to_string).collect();
    Schemas::load(&apps, None).unwrap()
}

pub(super) struct Folder(pub(super) TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.path().join("postern.db")
    }

    pub(super) fn open(&self, apps: &[&str]) -> Result<Store, StoreError> {
        Store::open(&self.file(), &schemas(apps), EPOCH)
    }
}

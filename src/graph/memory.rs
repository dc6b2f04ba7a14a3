//! What one transaction has looked up: a package names the same few owners and scopes a thousand times.
//!
//! Lives in a `GraphManager`, so never longer than its transaction, and only one transaction writes. Keeps only what is
//! here: what is missing may arrive, and a package could name any number of it. Invariant: what is written is forgotten
//! in the same call.

use std::collections::BTreeMap;
use std::rc::Rc;

use keys::Oid;

use super::GraphManager;
use crate::op_context::AppId;
use crate::store::{AppTable, IdentityRow, ParentRow, StoreError};

/// The rows that were looked up, by what they were looked up by.
#[derive(Debug, Default)]
pub(super) struct Memory {
    identities: BTreeMap<Oid, IdentityRow>,
    readers: BTreeMap<(AppId, i64), Rc<[Oid]>>,
    /// Parents that others refer to.
    referenced: BTreeMap<(AppId, Oid), ParentRow>,
}

impl Memory {
    /// An identity's row is written.
    pub(super) fn forget_identity(&mut self, oid: &Oid) {
        self.identities.remove(oid);
    }

    /// A Parent or its readers are written.
    pub(super) fn forget_parent(&mut self, app: AppId, row: &ParentRow) {
        self.referenced.remove(&(app, row.oid));
        self.readers.remove(&(app, row.id));
    }
}

impl GraphManager<'_> {
    /// An identity or server by its oid.
    pub(super) fn identity(&self, oid: &Oid) -> Result<Option<IdentityRow>, StoreError> {
        if let Some(known) = self.memory.borrow().identities.get(oid) {
            return Ok(Some(*known));
        }
        let row = self.tx.identity(oid)?;
        if let Some(row) = row {
            self.memory.borrow_mut().identities.insert(*oid, row);
        }
        Ok(row)
    }

    /// Who may read a scope, by oid.
    pub(super) fn readers(&self, app: &AppTable, scope_id: i64) -> Result<Rc<[Oid]>, StoreError> {
        let scope = (app.id, scope_id);
        if let Some(known) = self.memory.borrow().readers.get(&scope) {
            return Ok(known.clone());
        }
        let readers: Rc<[Oid]> = self.tx.readers(app.id, scope_id)?.into();
        self.memory
            .borrow_mut()
            .readers
            .insert(scope, readers.clone());
        Ok(readers)
    }

    /// A Parent that another object refers to.
    pub(super) fn referenced(
        &self,
        app: &AppTable,
        oid: &Oid,
    ) -> Result<Option<ParentRow>, StoreError> {
        let key = (app.id, *oid);
        if let Some(known) = self.memory.borrow().referenced.get(&key) {
            return Ok(Some(known.clone()));
        }
        let row = self.tx.parent(app, oid)?;
        if let Some(row) = &row {
            self.memory.borrow_mut().referenced.insert(key, row.clone());
        }
        Ok(row)
    }
}

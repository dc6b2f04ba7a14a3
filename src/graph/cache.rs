//! Cache of one transaction: a package names the same few owners and scopes a thousand times.
//!
//! A `TxCache` lives in a `GraphManager`, so no longer than its transaction, and only one
//! transaction writes at a time. Missing rows are not cached, because they may arrive within the
//! transaction and a package could name any number of them. Invariant: a row that is written is
//! invalidated in the same call.

use std::collections::BTreeMap;
use std::rc::Rc;

use keys::Oid;

use crate::object::RightsList;
use crate::op_context::AppId;
use crate::store::{IdentityRow, ParentRow, ScopeId};

/// Rows that were read in this transaction, by the key of the query.
#[derive(Debug, Default)]
pub(super) struct TxCache {
    pub(super) identities: BTreeMap<Oid, IdentityRow>,
    /// Reader lists by scope.
    pub(super) readers: BTreeMap<ScopeId, Rc<[Oid]>>,
    /// Rights lists by scope; `None`: the founding list.
    pub(super) rights: BTreeMap<(ScopeId, Option<i64>), Rc<RightsList>>,
    /// Parents that other objects refer to.
    pub(super) referenced: BTreeMap<(AppId, Oid), ParentRow>,
    /// Whether any object waits; `None` before the first look.
    pub(super) is_any_waiting: Option<bool>,
}

impl TxCache {
    /// Removes an identity, because its row is being written.
    pub(super) fn invalidate_identity(&mut self, oid: &Oid) {
        self.identities.remove(oid);
    }

    /// Removes a Parent, its readers and its founding list, because one of them is being written.
    pub(super) fn invalidate_parent(&mut self, app: AppId, row: &ParentRow) {
        self.referenced.remove(&(app, row.oid));
        self.readers.remove(&row.scope_id);
        self.rights.remove(&(row.scope_id, None));
    }
}

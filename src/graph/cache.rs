//! Cache of one transaction: a package names the same few owners and scopes a thousand times.
//!
//! A `TxCache` lives in a `GraphManager`, so no longer than its transaction, and only one
//! transaction writes at a time. Missing rows are not cached, because they may arrive within the
//! transaction and a package could name any number of them. Invariant: a row that is written is
//! invalidated in the same call.

use std::collections::{BTreeMap, BTreeSet};

use keys::{Oid, PeerId};

use crate::object::Rights;
use crate::op_context::AppId;
use crate::store::{IdentityRow, ParentRow, ScopeId};

/// Rows that were read in this transaction, by the key of the query.
#[derive(Debug, Default)]
pub(super) struct TxCache {
    pub(super) identities: BTreeMap<Oid, IdentityRow>,
    /// Scopes whose present readers were touched, each with the sender of the row.
    pub(super) touched: BTreeSet<(ScopeId, Option<i64>)>,
    /// Scopes whose former readers were touched, each with the sender of the row, and with the
    /// lowest `created_seq` of such a row.
    pub(super) touched_former: BTreeMap<(ScopeId, Option<i64>), u64>,
    /// Rights of identities by scope and list; `None`: the founding list.
    pub(super) rights: BTreeMap<(ScopeId, Option<i64>, Oid), Option<Rights>>,
    /// Parents that other objects refer to.
    pub(super) referenced: BTreeMap<(AppId, Oid), ParentRow>,
    /// Scopes that an identity of this node reads.
    pub(super) read_here: BTreeMap<ScopeId, bool>,
    /// Scopes of which this node keeps nothing, because its identities declined.
    pub(super) declined: BTreeMap<ScopeId, bool>,
    /// Whether a node is banned.
    pub(super) banned: BTreeMap<PeerId, bool>,
    /// Whether a peer has a later schema of an app.
    pub(super) later: BTreeMap<(PeerId, AppId), bool>,
    /// Whether any object waits; `None` before the first look.
    pub(super) is_any_waiting: Option<bool>,
    /// Whether the node remembers anything of purges; `None` before the first look.
    pub(super) is_any_purged: Option<bool>,
    /// The number of identities of other nodes that were frozen.
    pub(super) frozen: usize,
    /// Searches and rows that were read, all together.
    pub(super) looked_at: usize,
}

impl TxCache {
    /// Removes an identity, because its row is being written. Its home may change.
    pub(super) fn invalidate_identity(&mut self, oid: &Oid) {
        self.identities.remove(oid);
        self.touched.clear();
        self.touched_former.clear();
    }

    /// Removes a Parent, because it is being written.
    pub(super) fn invalidate_parent(&mut self, app: AppId, row: &ParentRow) {
        self.referenced.remove(&(app, row.oid));
    }

    /// Removes the rights in a scope, because its founding list is being written.
    pub(super) fn invalidate_rights(&mut self, scope: ScopeId) {
        self.rights.retain(|(of, _, _), _| *of != scope);
    }
}

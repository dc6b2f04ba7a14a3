//! Scopes of this node that no peer may read for a while.

use std::collections::BTreeSet;

use super::error::{SqlContext as _, StoreError};
use super::rows::Rows;
use super::scope_id::ScopeId;

/// The scopes of this node with a reader at a node that the recovery waits for. A former reader
/// counts too, because that node may just have returned the list that removed it.
const CLOSED_SCOPES: &str = "SELECT r.scope_id FROM recovery_peer \
     CROSS JOIN identity AS i CROSS JOIN reader AS r CROSS JOIN scope AS s \
     WHERE i.home_peer = peer_id AND r.identity_oid = i.oid \
     AND s.id = r.scope_id AND s.is_local = 1";

impl Rows<'_> {
    /// The scopes of this node that are closed during a recovery: the home of an identity that may
    /// read them was not asked yet.
    pub fn closed_scopes(&self) -> Result<BTreeSet<ScopeId>, StoreError> {
        let context = "reading the scopes that are closed during a recovery";
        let mut statement = self
            .connection
            .prepare_cached(CLOSED_SCOPES)
            .context(context)?;
        let rows = statement
            .query_map([], |row| row.get(0).map(ScopeId))
            .context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

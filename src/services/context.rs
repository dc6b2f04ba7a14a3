//! The [`OpContext`] of local operations, and the identities that may do them.

use keys::Oid;

use crate::graph::{GraphManager, SaveError};
use crate::op_context::OpContext;
use crate::store::StoreError;

/// The context of a person of this node who acts as `identity` in an app. Fails if the identity is
/// not known.
pub(crate) fn local_context(
    graph: &GraphManager<'_>,
    identity: &Oid,
    app: &str,
) -> Result<OpContext, SaveError> {
    let row = graph
        .tx()
        .identity(identity)?
        .ok_or(SaveError::Missing(*identity))?;
    let app = graph
        .tx()
        .apps()
        .get(app)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    Ok(OpContext::Local {
        requester_pubkey_attr_id: row.pubkey_attr_id,
        app_id: app.id,
        trace_id: graph.trace(),
    })
}

/// Whether an identity lives on this node.
pub(super) fn is_local(graph: &GraphManager<'_>, identity: &Oid) -> Result<bool, StoreError> {
    let row = graph.tx().identity(identity)?;
    Ok(row.is_some_and(|row| row.home == graph.keys().peer_id()))
}

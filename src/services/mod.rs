//! The apps' few verbs: what a person does, in terms of objects. Everything else an app needs is its schema. Beside them
//! [`admission`], the operator's.
//!
//! Never writes an object's rows: `graph` does. Invariant: a verb is one change group, or one transaction of rows that are
//! no objects.

pub mod admission;
pub mod identities;
pub mod messages;

use keys::Oid;

use crate::graph::{GraphManager, SaveError};
use crate::op_context::OpContext;
use crate::store::StoreError;
use keys::TraceId;

/// The context of a person of this node who acts as `identity`, in an app.
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
    let trace_id = TraceId(graph.now().0);
    Ok(OpContext::Local {
        requester_pubkey_attr_id: row.pubkey_attr_id,
        app_id: app.id,
        trace_id,
    })
}

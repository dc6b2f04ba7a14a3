//! [`View`]: one committed state, to read from and to build packages of.

use std::sync::Arc;

use keys::{Epoch, KeyManager, PeerId};

use super::limits::CoreLimits;
use crate::schema::Schemas;
use crate::store::{Cursor, Direction, Rows, StoreError, SyncStateRow};

/// What does not change while the node runs.
#[derive(Debug, Clone)]
pub struct CoreContext {
    /// The apps' schemas: `SYNC_DOMAINS` comes from them.
    pub schemas: Arc<Schemas>,
    /// The node's and its identities' keys.
    pub keys: Arc<KeyManager>,
    /// Limits.
    pub limits: CoreLimits,
    /// The epoch of the database.
    pub epoch: Epoch,
}

/// One committed state, to read from and to build packages of.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// The rows.
    pub rows: Rows<'v>,
    /// What does not change.
    pub context: &'v CoreContext,
}

impl View<'_> {
    /// This node.
    pub fn this_node(&self) -> PeerId {
        self.context.keys.peer_id()
    }

    /// How far a domain was synchronised with a peer in one direction; `None` before the first package.
    pub fn cursor(
        &self,
        peer: &PeerId,
        domain: &str,
        direction: Direction,
    ) -> Result<Option<SyncStateRow>, StoreError> {
        self.rows.sync_state(Cursor {
            peer,
            domain,
            direction,
        })
    }

    /// The highest committed `change_seq`.
    pub fn head(&self) -> Result<u64, StoreError> {
        self.rows.heads().map(|(head, _)| head)
    }
}

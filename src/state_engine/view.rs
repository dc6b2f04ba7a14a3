//! [`View`]: one committed state, for reads and for building packages.

use std::sync::Arc;

use keys::{Epoch, KeyManager, PeerId};

use super::limits::CoreLimits;
use crate::schema::Schemas;
use crate::store::{Cursor, Direction, Rows, StoreError, SyncStateRow};

/// Values that do not change while the node runs.
#[derive(Debug, Clone)]
pub struct CoreContext {
    /// The apps' schemas, which also define the sync domains.
    pub schemas: Arc<Schemas>,
    /// The node's and its identities' keys.
    pub keys: Arc<KeyManager>,
    /// Limits of the core.
    pub limits: CoreLimits,
    /// The epoch of the database.
    pub epoch: Epoch,
}

/// One committed state, for reads and for building packages.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// The rows of that state.
    pub rows: Rows<'v>,
    /// Schemas, keys, limits and epoch.
    pub context: &'v CoreContext,
}

impl View<'_> {
    /// This node's peer identity.
    pub fn this_node(&self) -> PeerId {
        self.context.keys.peer_id()
    }

    /// The cursor of a domain, for one peer and direction; `None` before the first package.
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

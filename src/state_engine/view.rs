//! [`View`]: one committed state, for reads and for building packages.

use std::sync::Arc;

use keys::{Epoch, KeyManager, PeerId};

use super::limits::CoreLimits;
use super::outbox::OutboxPlan;
use super::peer_scopes::PeerScopesCache;
use crate::graph::ScopeMemory;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{Cursor, Direction, PullAgain, Rows, StoreError, SyncStateRow};

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
    /// Numbers and sets that the writer and all readers share in memory.
    pub memory: Arc<CoreMemory>,
}

/// Numbers and sets that the writer and all readers of a database share in memory.
#[derive(Debug, Default)]
pub struct CoreMemory {
    /// The newest change of each scope.
    pub scopes: ScopeMemory,
    pub(super) peers: PeerScopesCache,
    pub(super) outbox: OutboxPlan,
}

/// One committed state, for reads and for building packages.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// The rows of that state.
    pub rows: Rows<'v>,
    /// Schemas, keys, limits and epoch.
    pub context: &'v CoreContext,
}

/// The position at which the next pull of a domain starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPull {
    /// The epoch in which `last_seq` counts; `None` before the first package.
    pub epoch: Option<Epoch>,
    /// The last sequence number that this node holds.
    pub last_seq: u64,
    /// The scopes that are pulled again; `None` for a pull of what is new.
    pub again: Option<PullAgain>,
}

impl View<'_> {
    /// The position of the next pull. Scopes that are to be pulled again come before what is new.
    pub fn next_pull(
        &self,
        peer: &PeerId,
        domain: &str,
        now: Timestamp,
    ) -> Result<NextPull, StoreError> {
        if let Some(again) = self.rows.next_pull_again(peer, domain, now)? {
            return Ok(NextPull {
                epoch: Some(again.epoch),
                last_seq: again.cursor,
                again: Some(again),
            });
        }
        let state = self.cursor(peer, domain, Direction::In)?;
        Ok(NextPull {
            epoch: state.map(|state| state.epoch),
            last_seq: state.map_or(0, |state| state.last_seq),
            again: None,
        })
    }

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

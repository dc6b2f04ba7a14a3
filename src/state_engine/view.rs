//! [`View`]: one committed state, for reads and for building packages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use keys::{Epoch, KeyManager, Oid, PeerId};

use super::limits::CoreLimits;
use super::outbox_plan::OutboxPlan;
use super::peer_scopes::PeerScopesCache;
use crate::graph::ScopeMemory;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{Cursor, Direction, PullAgain, Rows, SettlingTurn, StoreError, SyncStateRow};

/// Of so many portions one sets bits of new domains.
const FLAG_TURN: u8 = 4;

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
    /// Bits of new domains, since the node started.
    pub(super) flags: FlagTurns,
}

/// Whether rows lack bits of new domains, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct FlagTurns {
    /// Whether any did when the node started. So the usual pull looks up nothing.
    pub(super) are_any: AtomicBool,
    portions: AtomicU8,
}

impl FlagTurns {
    /// Every fourth portion is of bits, so that neither holds up the other.
    pub(super) fn next(&self) -> SettlingTurn {
        if !self.are_any.load(Ordering::Relaxed) {
            return SettlingTurn::Others;
        }
        match self.portions.fetch_add(1, Ordering::Relaxed) % FLAG_TURN {
            0 => SettlingTurn::Flags,
            _ => SettlingTurn::Others,
        }
    }
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
        self.next_news(peer, domain)
    }

    /// The position of the next pull of what is new.
    pub fn next_news(&self, peer: &PeerId, domain: &str) -> Result<NextPull, StoreError> {
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

    /// The node to which an identity of this node moves. `None`: it does not move.
    pub fn moves_to(&self, identity: &Oid) -> Option<PeerId> {
        let moving = self.context.keys.moving_identity(identity);
        moving.map(|moving| moving.target)
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

    /// The number up to which a domain is served: the head, unless rows lack the domain's bit.
    pub(super) fn head_of(&self, domain: &str, head: u64) -> Result<u64, StoreError> {
        if !self.context.memory.flags.are_any.load(Ordering::Relaxed) {
            return Ok(head);
        }
        let apps = self.rows.apps();
        let app = self.context.schemas.domain(domain);
        let app = app.and_then(|domain| apps.get(&domain.app));
        let (Some(app), Some(table)) = (app, apps.domain(domain)) else {
            return Ok(head);
        };
        let bit = u8::try_from(table.mask.trailing_zeros()).unwrap_or(u8::MAX);
        let reached = self.rows.flagged_up_to(app.id, bit)?;
        Ok(reached.map_or(head, |reached| reached.min(head)))
    }

    /// The highest committed `change_seq`.
    pub fn head(&self) -> Result<u64, StoreError> {
        self.rows.heads().map(|(head, _)| head)
    }
}

//! StateEngine: what changed since last time, as packages out and packages in (docs/STORY.md 2, 4, 7; docs/DECISIONS.md 7).
//!
//! Synchronous and deterministic: time and chance are arguments, and nothing here knows of a network. Never lets a
//! cursor pass what was not committed with it. Invariant: a package is exactly the window that it names: every change
//! in `from_seq..=to_seq` that the recipient may read, and no part of a change group.

mod apply;
mod build;
mod package;
mod quota;
mod recovery;
mod returned;
mod rotation;

use std::path::Path;
use std::sync::Arc;

use keys::{Epoch, KeyManager, PeerId};
use rand::CryptoRng;

use crate::graph::{Counters, Environment, GraphLimits, GraphManager};
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{EpochReason, ReadStore, Reserve, Rows, Store, StoreError, WriteModeRow};

pub use apply::{
    AppliedPackage, ApplyPackageError, CheckedObject, WindowFault, check_objects, known_keys,
};
pub use build::{Answer, BuildError, PullRequest};
pub use package::{Package, PackageFault, PackageLimits, VerifiedPackage, Window};
pub use quota::{QuotaFault, Quotas, TierQuota};
pub use recovery::{EpochFault, HearError, OwnEpoch, Recovery};
pub use returned::{GivenBack, ReturnRequest, TakenBack};

/// Limits of the core.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreLimits {
    /// Of the graph.
    pub graph: GraphLimits,
    /// Of a package.
    pub package: PackageLimits,
    /// Of what is kept aside.
    pub aside: AsideLimits,
    /// Of what peers may store and ask.
    pub quotas: Quotas,
    /// Of the wait after a restore.
    pub recovery: RecoveryLimits,
}

/// How long changes wait after a restore.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryLimits {
    /// Milliseconds after which nobody is waited for any more.
    pub wait_ms: u64,
}

impl Default for RecoveryLimits {
    /// Three days: whoever is away over a weekend is back.
    fn default() -> Self {
        Self {
            wait_ms: 3 * 24 * 3_600_000,
        }
    }
}

/// How much that could not be applied is kept.
#[derive(Debug, Clone, Copy)]
pub struct AsideLimits {
    /// Most objects of one peer that wait for another object.
    pub parked_per_peer_max: u64,
    /// Most refusals of one peer that are remembered; the oldest go first.
    pub rejects_per_peer_max: u64,
}

impl Default for AsideLimits {
    /// A thousand of each: enough to see what is wrong, too few to fill a disk.
    fn default() -> Self {
        Self {
            parked_per_peer_max: 1000,
            rejects_per_peer_max: 1000,
        }
    }
}

/// What does not change while the node runs.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The apps' schemas: `SYNC_DOMAINS` comes from them.
    pub schemas: Arc<Schemas>,
    /// The node's and its identities' keys.
    pub keys: Arc<KeyManager>,
    /// Limits.
    pub limits: CoreLimits,
    /// The epoch of the database.
    pub epoch: Epoch,
}

/// The core: one store, one writer.
pub struct StateEngine {
    store: Store,
    ground: Ground,
    counters: Counters,
    reserve: Reserve,
    write_mode: Option<WriteModeRow>,
    rng: Box<dyn CryptoRng + Send>,
}

/// One committed state, to read from and to build packages of.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// The rows.
    pub rows: Rows<'v>,
    /// What does not change.
    pub ground: &'v Ground,
}

impl StateEngine {
    /// Opens or makes the database at `path`. `rng` mints the epoch and later oids.
    pub fn open(
        path: &Path,
        schemas: Arc<Schemas>,
        keys: Arc<KeyManager>,
        limits: CoreLimits,
        mut rng: Box<dyn CryptoRng + Send>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut store = Store::open(path, &schemas, minted(&mut *rng))?;
        let mut counters = Counters::new(store.rows().heads()?);
        let (reserve, fell_back) = recovery::reserve(path, &mut store, &mut counters, now)?;
        let ground = Ground {
            schemas,
            keys,
            limits,
            epoch: store.epoch(),
        };
        let write_mode = store.rows().write_mode()?;
        let mut engine = Self {
            store,
            ground,
            counters,
            reserve,
            write_mode,
            rng,
        };
        if fell_back {
            engine.begin_recovery(EpochReason::RolledBack, now)?;
        } else if engine
            .write_mode
            .as_ref()
            .is_some_and(recovery::is_resolved)
        {
            engine.begin_recovery(EpochReason::Resolved, now)?;
        }
        engine.begin_waiting(now)?;
        engine.note_own_server(now)?;
        engine.settle_keys(now)?;
        Ok(engine)
    }

    /// The node's own server identity stands in the graph from the first start on.
    fn note_own_server(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let chain = self.ground.keys.node_chain();
        let verified = chain
            .verify()
            .map_err(|_| StoreError::Inconsistent("the node's own key chain"))?;
        self.write(now, |graph| {
            graph.save_server(&chain, &verified).map(|_| ())
        })
    }

    /// Makes the node's own key known here, after a rotation.
    pub fn settle_node(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.note_own_server(now)
    }

    /// What does not change while the node runs.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The last `GLOBAL_CHANGE_SEQ` given out.
    pub fn change_seq(&self) -> u64 {
        self.counters.change_seq
    }

    /// A connection for reads beside the writer.
    pub fn reader(&self) -> Result<ReadStore, StoreError> {
        self.store.reader()
    }

    /// Reads between writes.
    pub fn view(&self) -> View<'_> {
        View {
            rows: self.store.rows(),
            ground: &self.ground,
        }
    }

    /// One transaction on the graph: durable when it returns `Ok`, undone otherwise.
    pub fn write<R, E: From<StoreError>>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut GraphManager<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let write_mode = self.write_mode_at(now);
        let Self {
            store,
            ground,
            counters,
            reserve,
            rng,
            ..
        } = self;
        if reserve.is_short(counters.change_seq) {
            let (head, _) = store.rows().heads()?;
            reserve
                .extend(counters.change_seq, Some(head))
                .map_err(|error| E::from(error.into()))?;
        }
        store.transaction(|tx| {
            let env = Environment {
                schemas: &ground.schemas,
                keys: &ground.keys,
                limits: &ground.limits.graph,
                counters: &mut *counters,
                write_mode,
                rng: &mut **rng,
                now,
            };
            let done = work(&mut GraphManager::new(tx, env))?;
            // A transaction that needed more numbers than were left: they are reserved before they are committed.
            if counters.change_seq > reserve.reserved() {
                reserve
                    .extend(counters.change_seq, None)
                    .map_err(|error| E::from(error.into()))?;
            }
            Ok(done)
        })
    }
}

impl Drop for StateEngine {
    /// A clean end leaves no gap in the sequence numbers, and makes any later falling back visible.
    fn drop(&mut self) {
        let closed = self.store.rows().heads().map_err(|error| error.to_string());
        let closed = closed.and_then(|(head, _)| {
            let last = self.counters.change_seq;
            self.reserve
                .close(head, last)
                .map_err(|error| error.to_string())
        });
        if let Err(error) = closed {
            // The block that is reserved already stands: the next start skips it.
            tracing::warn!(%error, "the reserved sequence numbers were not given back");
        }
    }
}

/// A new epoch.
fn minted(rng: &mut dyn CryptoRng) -> Epoch {
    let mut epoch = [0; 16];
    rng.fill_bytes(&mut epoch);
    Epoch::from_bytes(epoch)
}

impl View<'_> {
    /// This node.
    pub fn us(&self) -> PeerId {
        self.ground.keys.peer_id()
    }

    /// The highest committed `change_seq`.
    pub fn head(&self) -> Result<u64, StoreError> {
        self.rows.heads().map(|(head, _)| head)
    }
}

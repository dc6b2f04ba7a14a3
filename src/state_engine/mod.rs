//! StateEngine: what changed since last time, as packages out and packages in (SEED 2, 4, 7; DESIGN 7).
//!
//! Synchronous and deterministic: time and chance are arguments, and nothing here knows of a network. Never lets a
//! cursor pass what was not committed with it. Invariant: a package is exactly the window that it names: every change
//! in `from_seq..=to_seq` that the recipient may read, and no part of a change group.

mod apply;
mod build;
mod package;
mod quota;
mod recovery_stub;

use std::path::Path;
use std::sync::Arc;

use keys::{Epoch, KeyManager, PeerId};
use rand::CryptoRng;

use crate::graph::{Counters, Environment, GraphLimits, GraphManager};
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{ReadStore, Rows, Store, StoreError};

pub use apply::{AppliedPackage, ApplyPackageError, Checked, WindowFault, check_objects, known_keys};
pub use build::{Answer, BuildError, PullRequest};
pub use package::{Package, PackageFault, PackageLimits, VerifiedPackage, Window};
pub use quota::{QuotaFault, Quotas, TierQuota};
pub use recovery_stub::RecoveryReason;

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
        let mut epoch = [0; 16];
        rng.fill_bytes(&mut epoch);
        let store = Store::open(path, &schemas, Epoch::from_bytes(epoch))?;
        let counters = Counters::new(store.rows().heads()?);
        let ground = Ground {
            schemas,
            keys,
            limits,
            epoch: store.epoch(),
        };
        let mut engine = Self {
            store,
            ground,
            counters,
            rng,
        };
        engine.note_own_server(now)?;
        Ok(engine)
    }

    /// The node's own server identity stands in the graph from the first start on.
    fn note_own_server(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let chain = self.ground.keys.node_chain();
        let verified = chain
            .verify(self.ground.limits.graph.key_events_max)
            .map_err(|_| StoreError::Inconsistent("the node's own key chain"))?;
        self.write(now, |graph| graph.save_server(&chain, &verified).map(|_| ()))
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
        let Self {
            store,
            ground,
            counters,
            rng,
        } = self;
        store.transaction(|tx| {
            let env = Environment {
                schemas: &ground.schemas,
                keys: &ground.keys,
                limits: &ground.limits.graph,
                counters,
                rng: &mut **rng,
                now,
            };
            work(&mut GraphManager::new(tx, env))
        })
    }
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

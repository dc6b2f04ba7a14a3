//! GraphManager: the single path on which objects become rows.
//!
//! Local writes come through [`GraphManager::save_with_sync`], a peer's through [`GraphManager::apply_message`]; both end
//! in the same few lines that stamp, place and write. Never asks the network, a clock or chance: they are arguments.
//! Invariants: every row was granted by `AclManager`; all rows of one write share one `change_seq` (a change group);
//! what came from a peer carries no `sync_flags`, so it is never echoed.

mod identity;
mod load;
mod local;
mod memory;
mod own;
mod place;
mod record;
mod remote;
mod verify;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use keys::protocol::KEY_EVENTS_MAX;
use keys::{KeyManager, PeerId};
use rand::CryptoRng;

use crate::object::ObjectLimits;
use crate::op_context::{AppId, Timestamp};
use crate::schema::Schemas;
use crate::store::{AppTable, ParentWriter, StoreError, WriteMode, WriteTx};

use memory::Memory;

pub use identity::Profile;
pub use load::load_object;
pub use local::{Draft, SaveError, Saved};
pub use own::Returned;
pub use record::{IdentityRecord, RecordFault, new_identity_attrs};
pub use remote::{Applied, ApplyError, Fault};
pub use verify::{DecodedObject, KnownKeys, ObjectFault, VerifiedObject, decode_object};

/// Limits of what the graph accepts. The defaults are the protocol's; tests set others.
#[derive(Debug, Clone, Copy)]
pub struct GraphLimits {
    /// Of one object.
    pub object: ObjectLimits,
    /// Most key events in a chain.
    pub key_events_max: usize,
}

impl Default for GraphLimits {
    fn default() -> Self {
        Self {
            object: ObjectLimits::default(),
            key_events_max: KEY_EVENTS_MAX,
        }
    }
}

/// The counters that the one writer keeps in memory: `GLOBAL_CHANGE_SEQ` and the next local ids.
/// They only go up, also when a transaction fails: gaps are fine, reuse never.
#[derive(Debug)]
pub struct Counters {
    /// `GLOBAL_CHANGE_SEQ`: the last one given out.
    pub change_seq: u64,
    ids: BTreeMap<String, i64>,
}

impl Counters {
    /// Counters that go on behind what the database holds.
    pub fn new((change_seq, ids): (u64, Vec<(String, i64)>)) -> Self {
        Self {
            change_seq,
            ids: ids.into_iter().collect(),
        }
    }

    fn next_id(&mut self, app: &AppTable) -> i64 {
        let last = self.ids.entry(app.slug.clone()).or_default();
        *last += 1;
        *last
    }
}

/// What the graph works with besides its transaction.
pub struct Environment<'e> {
    /// The apps' schemas.
    pub schemas: &'e Schemas,
    /// The node's and its identities' keys.
    pub keys: &'e KeyManager,
    /// Limits.
    pub limits: &'e GraphLimits,
    /// The writer's counters.
    pub counters: &'e mut Counters,
    /// What this node may write of its own.
    pub write_mode: WriteMode,
    /// Chance, for new oids.
    pub rng: &'e mut (dyn CryptoRng + Send),
    /// The time of this write.
    pub now: Timestamp,
}

/// The single write path, for the length of one transaction.
pub struct GraphManager<'e> {
    tx: &'e WriteTx<'e>,
    env: Environment<'e>,
    us: PeerId,
    change_seq: Option<u64>,
    memory: RefCell<Memory>,
    writers: BTreeMap<AppId, ParentWriter<'e>>,
}

impl<'e> GraphManager<'e> {
    /// A graph over an open transaction.
    pub fn new(tx: &'e WriteTx<'e>, env: Environment<'e>) -> Self {
        let us = env.keys.peer_id();
        Self {
            tx,
            env,
            us,
            change_seq: None,
            memory: RefCell::default(),
            writers: BTreeMap::new(),
        }
    }

    /// The transaction, for reads and for rows that are not objects.
    pub fn tx(&self) -> &'e WriteTx<'e> {
        self.tx
    }

    /// The time of this write.
    pub fn now(&self) -> Timestamp {
        self.env.now
    }

    /// The keys.
    pub fn keys(&self) -> &'e KeyManager {
        self.env.keys
    }

    /// Limits.
    pub fn limits(&self) -> &'e GraphLimits {
        self.env.limits
    }

    /// The apps' schemas.
    pub fn schemas(&self) -> &'e Schemas {
        self.env.schemas
    }

    /// Ends the change group: the next write gets a `change_seq` of its own.
    pub fn end_group(&mut self) {
        self.change_seq = None;
    }

    /// The group's `change_seq`, given out at its first write.
    fn stamp(&mut self) -> u64 {
        let counters = &mut self.env.counters;
        *self.change_seq.get_or_insert_with(|| {
            counters.change_seq += 1;
            counters.change_seq
        })
    }

    /// What writes an app's Parents.
    fn parents(&mut self, app: &AppTable) -> Result<&mut ParentWriter<'e>, StoreError> {
        match self.writers.entry(app.id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(self.tx.parents(app)?)),
        }
    }

    fn table(&self, slug: &str) -> Result<&'e AppTable, StoreError> {
        let apps: &'e crate::store::Apps = self.tx.apps();
        apps.get(slug)
            .ok_or(StoreError::Inconsistent("an app without tables"))
    }
}

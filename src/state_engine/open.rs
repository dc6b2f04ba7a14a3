//! Opening the core: the database, the reserve of sequence numbers, and work left from before.

use std::path::Path;
use std::sync::Arc;

use keys::{KeyManager, TraceId};
use rand::CryptoRng;

use super::engine::StateEngine;
use super::epoch::new_epoch;
use super::limits::CoreLimits;
use super::recovery::is_resolved;
use super::view::CoreContext;
use crate::graph::Counters;
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{EpochReason, Reserve, Store, StoreError};

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
        let mut store = Store::open(path, &schemas, new_epoch(&mut *rng))?;
        let mut counters = Counters::new(store.rows().heads()?);
        let (reserve, fell_back) = reserve(path, &mut store, &mut counters, now)?;
        let context = CoreContext {
            schemas,
            keys,
            limits,
            epoch: store.epoch(),
        };
        let write_mode = store.rows().write_mode()?;
        let mut engine = Self {
            store,
            context,
            counters,
            reserve,
            write_mode,
            rng,
            trace: TraceId(0),
        };
        if fell_back {
            engine.begin_recovery(EpochReason::RolledBack, now)?;
        } else if engine.write_mode.as_ref().is_some_and(is_resolved) {
            engine.begin_recovery(EpochReason::Resolved, now)?;
        }
        engine.begin_waiting(now)?;
        engine.note_own_server(now)?;
        engine.settle_keys(now)?;
        Ok(engine)
    }

    /// The node's own server identity stands in the graph from the first start on.
    fn note_own_server(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let chain = self.context.keys.node_chain();
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
}

/// Goes on behind what was given out, and tells whether the database fell back behind that.
fn reserve(
    path: &Path,
    store: &mut Store,
    counters: &mut Counters,
    now: Timestamp,
) -> Result<(Reserve, bool), StoreError> {
    let file = Reserve::path_beside(path);
    let (head, epoch) = (counters.change_seq, store.epoch());
    let before = Reserve::read(&file)?;
    let fell_back = match &before {
        None => store.rows().has_reserved()?,
        Some(before) if before.epoch() == epoch => head < before.floor(),
        // The database minted an epoch and the file was not written any more; or it is a database from before.
        Some(before) => !store.rows().is_own_epoch(&before.epoch())?,
    };
    if let Some(before) = before.as_ref().filter(|_| fell_back) {
        // This machine's own, from after what the database is: peers will show it.
        store.transaction(|tx| tx.adopt_epoch(&before.epoch(), EpochReason::RolledBack, now))?;
    }
    if let Some(before) = &before {
        counters.change_seq = head.max(before.reserved());
    }
    let reserve = Reserve::create(&file, epoch, head, counters.change_seq)?;
    if !store.rows().has_reserved()? {
        store.transaction(|tx| tx.note_reserved())?;
    }
    Ok((reserve, fell_back))
}

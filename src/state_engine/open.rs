//! Opening the core: the database, the reserve of sequence numbers, and unfinished work.
//!
//! Invariant: no sequence number is used twice, also not after a rollback of the database. Tested
//! in `tests/net/clone.rs`.

use std::path::Path;
use std::sync::Arc;

use keys::{KeyManager, TraceId};
use rand::CryptoRng;

use super::engine::StateEngine;
use super::epoch::new_epoch;
use super::limits::CoreLimits;
use super::recovery::is_resolved;
use super::view::{CoreContext, CoreMemory};
use crate::graph::{Counters, Touched};
use crate::op_context::Timestamp;
use crate::schema::Schemas;
use crate::store::{EpochReason, MigratedApp, Migration, Reserve, Store, StoreError};

impl StateEngine {
    /// Opens or creates the database at `path`. `rng` makes the epoch and later oids.
    ///
    /// Starts a recovery if the database was rolled back, or if the operator has resolved a
    /// read-only state. Completes interrupted key rotations.
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
        if let Some(migration) = store.migration() {
            log_migration(migration);
        }
        let (reserve, was_rolled_back) = reserve(path, &mut store, &mut counters, now)?;
        let context = CoreContext {
            schemas,
            keys,
            limits,
            epoch: store.epoch(),
            memory: Arc::new(memory(&store)?),
        };
        let write_mode = store.rows().write_mode()?;
        let mut engine = Self {
            store,
            context,
            counters,
            touched: Touched::default(),
            reserve,
            write_mode,
            rng,
            trace: TraceId(0),
        };
        if was_rolled_back {
            engine.start_recovery(EpochReason::RolledBack, now)?;
        } else if engine.write_mode.as_ref().is_some_and(is_resolved) {
            engine.start_recovery(EpochReason::Resolved, now)?;
        }
        engine.set_recovery_end(now)?;
        engine.save_own_server(now)?;
        engine.resume_rotations(now)?;
        engine.settle_all(now)?;
        Ok(engine)
    }

    /// Writes the node's server identity, at the first start and after a rotation of the node key.
    pub fn save_own_server(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let chain = self.context.keys.node_chain();
        let verified = chain
            .verify()
            .map_err(|_| StoreError::Inconsistent("the node's own key chain"))?;
        self.write(now, |graph| {
            graph.save_server(&chain, &verified).map(|_| ())
        })
    }
}

fn log_migration(migration: &Migration) {
    tracing::warn!(
        from = migration.from,
        copy = %migration.copy.display(),
        "migrated the tables of an earlier version; a copy of the earlier file is kept"
    );
    for MigratedApp { app, kept, dropped } in &migration.apps {
        tracing::warn!(app, kept, dropped, "carried objects over");
    }
}

/// Reads the newest change of each scope.
fn memory(store: &Store) -> Result<CoreMemory, StoreError> {
    let (memory, rows) = (CoreMemory::default(), store.rows());
    for app in rows.apps().iter() {
        rows.newest_of_scopes(app, |scope, newest| {
            memory.scopes.raise(app.id, scope, newest);
        })?;
    }
    Ok(memory)
}

/// Continues after the last reserved sequence number. Returns also whether the database was rolled
/// back behind a number that it had used.
fn reserve(
    path: &Path,
    store: &mut Store,
    counters: &mut Counters,
    now: Timestamp,
) -> Result<(Reserve, bool), StoreError> {
    let file = Reserve::path_beside(path);
    let (head, epoch) = (counters.change_seq, store.epoch());
    let before = Reserve::read(&file)?;
    let was_rolled_back = match &before {
        None => store.rows().has_reserved()?,
        Some(before) if before.epoch() == epoch => head < before.floor(),
        // An epoch that the database does not know was created after this state of the database. A
        // known one is earlier: the node ended between creating an epoch and writing the file.
        Some(before) => !store.rows().is_own_epoch(&before.epoch())?,
    };
    if let Some(before) = before.as_ref().filter(|_| was_rolled_back) {
        // Adopted as this node's own, because a peer that sends it later proves no second copy.
        store.transaction(|tx| tx.adopt_epoch(&before.epoch(), EpochReason::RolledBack, now))?;
    }
    if let Some(before) = &before {
        counters.change_seq = head.max(before.reserved());
    }
    let reserve = Reserve::create(&file, epoch, head, counters.change_seq)?;
    if !store.rows().has_reserved()? {
        store.transaction(|tx| tx.note_reserved())?;
    }
    Ok((reserve, was_rolled_back))
}

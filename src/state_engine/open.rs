//! Opening the core: the database, the reserve of sequence numbers, and unfinished work.
//!
//! Invariant: no sequence number is used twice, also not after a rollback of the database. Tested
//! in `tests/net/clone.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    /// read-only state. Waits for peers again if a domain is new since the last recovery.
    /// Completes interrupted key rotations.
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
        let reserve = reserve(path, &mut store, &mut counters, (&mut *rng, now))?;
        let context = CoreContext {
            schemas,
            keys,
            limits,
            epoch: store.epoch(),
            memory: Arc::new(memory(&store, counters.change_seq)?),
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
            is_purges_turn: false,
        };
        if engine.write_mode.as_ref().is_some_and(is_resolved) {
            engine.start_recovery(EpochReason::Resolved, now)?;
        }
        engine.recover_new_domains()?;
        engine.set_recovery_end(now)?;
        engine.save_own_server(now)?;
        engine.resume_rotations(now)?;
        engine.write(now, |graph| {
            graph.tx().wake_all_no_room()?;
            graph.tx().release_accepts()?;
            graph.tx().release_lists()
        })?;
        engine.settle_at_start(now)?;
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
fn memory(store: &Store, change_seq: u64) -> Result<CoreMemory, StoreError> {
    let (memory, rows) = (CoreMemory::default(), store.rows());
    memory.scopes.raise_restamped(change_seq);
    for app in rows.apps().iter() {
        rows.newest_of_scopes(app, |scope, newest, is_own| {
            memory.scopes.raise(app.id, scope, newest, is_own);
        })?;
    }
    memory.scopes.end_write(true);
    let flags = &memory.flags.are_any;
    flags.store(rows.is_any_flag_pending()?, Ordering::Relaxed);
    Ok(memory)
}

/// Continues after the last reserved sequence number. If the database was rolled back behind a
/// number that it had used, begins an epoch and a recovery before the file is written again.
fn reserve(
    path: &Path,
    store: &mut Store,
    counters: &mut Counters,
    (rng, now): (&mut dyn CryptoRng, Timestamp),
) -> Result<Reserve, StoreError> {
    let file = Reserve::path_beside(path);
    let head = counters.change_seq;
    let before = Reserve::read(&file)?;
    if let Some(rollback) = store.rows().rollback(before.as_ref())? {
        let epoch = new_epoch(rng);
        store.transaction(|tx| tx.recover_from(&rollback, &epoch, now))?;
        store.reload_epoch()?;
    }
    if let Some(before) = &before {
        counters.change_seq = head.max(before.reserved());
    }
    let reserve = Reserve::create(&file, store.epoch(), head, counters.change_seq)?;
    if !store.rows().has_reserved()? {
        store.transaction(|tx| tx.note_reserved())?;
    }
    Ok(reserve)
}

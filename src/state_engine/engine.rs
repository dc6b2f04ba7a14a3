//! [`StateEngine`]: the store, its writer and the writer's counters.

use std::sync::Arc;

use keys::{TraceId, error_chain};
use rand::CryptoRng;

use super::outbox_plan::note_outbox;
use super::preceded::drop_preceded;
use super::view::{CoreContext, View};
use crate::graph::{Counters, Environment, GraphManager, Touched};
use crate::op_context::Timestamp;
use crate::store::{
    Apps, Checkpointer, LogState, Migration, ReadStore, Reserve, Store, StoreError, WriteModeRow,
};

/// Pages of the log from which [`StateEngine::bound_log`] copies them: 64 MiB.
const LOG_PAGES_MAX: u64 = 16_384;

/// The core: one store and its only writer. `tests/core/engines.rs` runs it behind both drivers.
pub struct StateEngine {
    pub(super) store: Store,
    pub(super) context: CoreContext,
    pub(super) counters: Counters,
    pub(super) touched: Touched,
    pub(super) reserve: Reserve,
    /// The row in the database, so that a write needs no read.
    pub(super) write_mode: Option<WriteModeRow>,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    /// The id of the operation that is running, for the logs and for `OpContext`.
    pub(super) trace: TraceId,
    /// Whether the next portion of work is one of a purge, if one is left. Every second one is, so
    /// that neither holds up the other.
    pub(super) is_purges_turn: bool,
}

impl StateEngine {
    /// Schemas, keys, limits and epoch.
    pub fn context(&self) -> &CoreContext {
        &self.context
    }

    /// The migration that opening the database made; `None` if none was needed.
    pub fn migration(&self) -> Option<&Migration> {
        self.store.migration()
    }

    /// `GLOBAL_CHANGE_SEQ`: the last number that a change group took.
    pub fn change_seq(&self) -> u64 {
        self.counters.change_seq
    }

    /// Runs `hook` after every commit, for tests of crashes.
    pub fn on_commit(&mut self, hook: Box<dyn Fn() + Send + Sync>) {
        self.store.on_commit(hook);
    }

    /// Returns which peers the commits since the last call touched. A write that was undone may
    /// have touched some too.
    pub fn take_touched(&mut self) -> Touched {
        self.touched.take()
    }

    /// The tables of each app.
    pub fn apps(&self) -> &Arc<Apps> {
        self.store.apps()
    }

    /// Opens a connection for reads concurrent with the writer.
    pub fn reader(&self) -> Result<ReadStore, StoreError> {
        self.store.reader()
    }

    /// Opens a connection for checkpoints concurrent with the writer.
    pub fn checkpointer(&self) -> Result<Checkpointer, StoreError> {
        self.store.checkpointer()
    }

    /// The write-ahead log after the last commit.
    pub fn log_state(&self) -> Result<LogState, StoreError> {
        self.store.log_state()
    }

    /// Copies the rest of the log and lets the next write restart it, unless a read uses the log.
    pub fn restart_log(&self) -> Result<LogState, StoreError> {
        self.store.restart_log()
    }

    /// Makes a checkpoint on the calling thread if the log is long. For callers that have no
    /// checkpoint thread; call it between two writes.
    pub fn bound_log(&self) -> Result<(), StoreError> {
        if self.store.log_state()?.rest() >= LOG_PAGES_MAX {
            self.store.restart_log()?;
        }
        Ok(())
    }

    /// The committed state, read on the writer's connection.
    pub fn view(&self) -> View<'_> {
        View {
            rows: self.store.rows(),
            context: &self.context,
        }
    }

    /// Sets the id under which the following writes are logged. Id 0 means work that no request or
    /// session caused, such as opening the database.
    pub fn set_trace(&mut self, trace: TraceId) {
        self.trace = trace;
    }

    /// Runs one transaction on the graph. The transaction is durable if `work` returns `Ok`, and
    /// undone otherwise.
    pub fn write<R, E: From<StoreError>>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut GraphManager<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let write_mode = self.write_mode_at(now);
        let Self {
            store,
            context,
            counters,
            touched,
            reserve,
            rng,
            trace,
            ..
        } = self;
        if reserve.is_short(counters.change_seq) {
            let (head, _) = store.rows().heads()?;
            reserve
                .extend(counters.change_seq, Some(head))
                .map_err(|error| E::from(error.into()))?;
        }
        let done = store.transaction(|tx| {
            let env = Environment {
                schemas: &context.schemas,
                keys: &context.keys,
                limits: &context.limits.graph,
                counters: &mut *counters,
                touched: &mut *touched,
                memory: &context.memory.scopes,
                write_mode,
                rng: &mut **rng,
                now,
                trace: *trace,
            };
            let done = {
                let mut graph = GraphManager::new(tx, env);
                let done = work(&mut graph)?;
                drop_preceded(&mut graph)?;
                note_outbox(&graph, &context.memory.outbox)?;
                done
            };
            // The transaction took more numbers than were left; they are reserved before the
            // commit.
            if counters.change_seq > reserve.reserved() {
                reserve
                    .extend(counters.change_seq, None)
                    .map_err(|error| E::from(error.into()))?;
            }
            Ok(done)
        });
        context.memory.scopes.end_write(done.is_ok());
        done
    }
}

impl Drop for StateEngine {
    /// Releases the reserved sequence numbers. After a clean end no number is skipped, and any
    /// later rollback of the database is detected.
    fn drop(&mut self) {
        let heads = self.store.rows().heads();
        let closed = heads.and_then(|(head, _)| {
            let last = self.counters.change_seq;
            Ok(self.reserve.close(head, last)?)
        });
        if let Err(error) = closed {
            // The reserved block stays on disk, and the next start skips it.
            tracing::warn!(
                error = %error_chain(&error),
                "could not release the reserved sequence numbers"
            );
        }
    }
}

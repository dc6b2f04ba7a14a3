//! [`StateEngine`]: the one writer, over one store.

use keys::TraceId;
use rand::CryptoRng;

use super::view::{CoreContext, View};
use crate::graph::{Counters, Environment, GraphManager};
use crate::op_context::Timestamp;
use crate::store::{ReadStore, Reserve, Store, StoreError, WriteModeRow};

/// The core: one store, one writer.
pub struct StateEngine {
    pub(super) store: Store,
    pub(super) context: CoreContext,
    pub(super) counters: Counters,
    pub(super) reserve: Reserve,
    pub(super) write_mode: Option<WriteModeRow>,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    /// The id of the operation that is running, for the logs and for `OpContext`.
    pub(super) trace: TraceId,
}

impl StateEngine {
    /// What does not change while the node runs.
    pub fn context(&self) -> &CoreContext {
        &self.context
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
            context: &self.context,
        }
    }

    /// Sets the id under which the following writes are logged. Id 0 means work that no request or
    /// session caused, such as opening the database.
    pub fn set_trace(&mut self, trace: TraceId) {
        self.trace = trace;
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
            context,
            counters,
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
        store.transaction(|tx| {
            let env = Environment {
                schemas: &context.schemas,
                keys: &context.keys,
                limits: &context.limits.graph,
                counters: &mut *counters,
                write_mode,
                rng: &mut **rng,
                now,
                trace: *trace,
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

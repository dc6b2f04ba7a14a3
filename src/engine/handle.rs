//! [`CoreHandle`]: the only way from async code to the core.

use std::sync::Arc;

use keys::{PeerId, TraceId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::deliveries::{Deliveries, DeliveryChange};
use super::error::{CoreStopped, EngineError};
use super::news::News;
use super::writer::{Commits, Holds, WriteJob, Writer, WriterThread, bound_log, settle};
use crate::graph::{Exported, GraphManager};
use crate::op_context::Timestamp;
use crate::state_engine::{CoreContext, StateEngine, View};
use crate::store::{Apps, ReadStore, StoreError};

pub(super) enum Driver {
    /// The caller's thread does the work.
    Inline(Box<Mutex<StateEngine>>),
    /// One thread writes; reads run on the blocking threads of the runtime.
    Thread {
        jobs: mpsc::Sender<WriteJob>,
        readers: Arc<Readers>,
    },
}

/// The pool of reading connections.
pub(super) struct Readers {
    idle: Mutex<Vec<ReadStore>>,
    /// As many permits as connections, so that a permit holder always finds one in `idle`.
    permits: Arc<Semaphore>,
}

/// A handle on the core: runs reads and writes, and tells which `change_seq` was committed last.
///
/// All clones share one core. Clones are cheap.
///
/// # Examples
///
/// ```no_run
/// use std::sync::Arc;
///
/// use keys::{PeerId, TraceId};
/// use postern::engine::{Clock, CoreHandle, EngineError};
/// use postern::op_context::Timestamp;
/// use postern::state_engine::StateEngine;
/// use postern::store::StoreError;
///
/// struct FixedClock;
///
/// impl Clock for FixedClock {
///     fn now(&self) -> Timestamp {
///         Timestamp(1_700_000_000_000)
///     }
/// }
///
/// async fn forget(core: StateEngine, peer: PeerId) -> Result<u64, EngineError<StoreError>> {
///     let handle = CoreHandle::inline(core, Arc::new(FixedClock));
///     let request = handle.traced(TraceId(1));
///     request
///         .graph(move |graph| graph.tx().remove_pending(&peer).map(|_| ()))
///         .await?;
///     request.read(|view| view.head()).await
/// }
/// ```
#[derive(Clone)]
pub struct CoreHandle {
    pub(super) driver: Arc<Driver>,
    clock: Arc<dyn Clock>,
    pub(super) context: CoreContext,
    apps: Arc<Apps>,
    commits: Commits,
    deliveries: Deliveries,
    holds: Holds,
    trace: TraceId,
}

impl CoreHandle {
    /// Creates a handle whose work runs on the caller's thread: deterministic, for tests and
    /// simulation.
    pub fn inline(mut core: StateEngine, clock: Arc<dyn Clock>) -> Self {
        while settle(&mut core, clock.now()) {}
        Self {
            context: core.context().clone(),
            apps: core.apps().clone(),
            commits: Commits::new(&core),
            deliveries: Deliveries::default(),
            holds: Holds::default(),
            driver: Arc::new(Driver::Inline(Box::new(Mutex::new(core)))),
            clock,
            trace: TraceId(0),
        }
    }

    /// Starts a writer thread with a queue of `queue_max` writes, and opens `readers_max` reading
    /// connections.
    pub fn spawn(
        core: StateEngine,
        clock: Arc<dyn Clock>,
        queue_max: usize,
        readers_max: usize,
    ) -> Result<(Self, WriterThread), StoreError> {
        let context = core.context().clone();
        let (apps, commits) = (core.apps().clone(), Commits::new(&core));
        let idle = (0..readers_max)
            .map(|_| core.reader())
            .collect::<Result<Vec<_>, _>>()?;
        let readers = Arc::new(Readers {
            idle: Mutex::new(idle),
            permits: Arc::new(Semaphore::new(readers_max)),
        });
        let (jobs, queue) = mpsc::channel::<WriteJob>(queue_max);
        let holds = Holds::default();
        let writer = Writer {
            checkpoints: Checkpoints::start(core.checkpointer()?)?,
            core,
            commits: commits.clone(),
            clock: clock.clone(),
            holds: holds.clone(),
        };
        let thread = WriterThread::start(writer, queue)?;
        let driver = Arc::new(Driver::Thread { jobs, readers });
        let handle = Self {
            driver,
            clock,
            context,
            apps,
            commits,
            deliveries: Deliveries::default(),
            holds,
            trace: TraceId(0),
        };
        Ok((handle, thread))
    }

    /// Returns a handle for one request or session. Its writes carry `trace` in their log span and
    /// in the `OpContext` of every object that they write. A handle that was not traced has trace
    /// id 0.
    #[must_use]
    pub fn traced(&self, trace: TraceId) -> Self {
        Self {
            trace,
            ..self.clone()
        }
    }

    /// The id under which this handle's writes are logged.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Schemas, keys, limits and epoch, which do not change while the node runs.
    pub fn context(&self) -> &CoreContext {
        &self.context
    }

    /// The present time, in milliseconds since 1970.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long the writer thread was held; empty for an inline core.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Subscribes to the last committed `change_seq`; a receiver is woken when it changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.commits.changed.subscribe()
    }

    /// Subscribes to what peers applied of this node's objects. A receiver that lags by more than
    /// 256 changes misses the oldest.
    pub fn deliveries(&self) -> broadcast::Receiver<DeliveryChange> {
        self.deliveries.subscribe()
    }

    /// Announces what a peer applied.
    pub fn announce(&self, change: DeliveryChange) {
        self.deliveries.announce(change);
    }

    /// Watches for what a commit may hold for `peer` in a domain. The watcher is not woken by
    /// commits that the peer may not read, and by none in an unknown domain.
    pub fn watch(&self, peer: &PeerId, domain: &str, exported: Exported) -> News {
        self.watch_all(peer, [domain], exported)
    }

    /// [`CoreHandle::watch`] for several domains.
    pub fn watch_all<'d>(
        &self,
        peer: &PeerId,
        domains: impl IntoIterator<Item = &'d str>,
        exported: Exported,
    ) -> News {
        let apps = domains.into_iter().filter_map(|domain| {
            let domain = self.context.schemas.domain(domain)?;
            self.apps.get(&domain.app).map(|app| app.id)
        });
        self.commits.watchers.watch(peer, apps, exported)
    }

    /// Runs `work` on the writer and returns its result once it is committed. A caller that stops
    /// waiting does not undo the write. Most writes need only the graph: use [`CoreHandle::graph`].
    pub async fn write<R: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateEngine, Timestamp) -> Result<R, E> + Send + 'static,
    ) -> Result<R, EngineError<E>> {
        let (now, trace) = (self.now(), self.trace);
        // A child of the caller's span, so that a line of the writer thread names both.
        let span = tracing::info_span!("write", %trace);
        let traced_work = move |core: &mut StateEngine| {
            let _span = span.entered();
            core.set_trace(trace);
            work(core, now)
        };
        match &*self.driver {
            Driver::Inline(core) => {
                let mut core = core.lock();
                let result = traced_work(&mut core);
                while settle(&mut core, now) {}
                self.commits.publish(&mut core);
                bound_log(&core);
                result.map_err(EngineError::Work)
            }
            Driver::Thread { jobs, .. } => {
                let (reply, result) = oneshot::channel();
                let job: WriteJob = Box::new(move |core| {
                    // The receiver is gone if the caller has stopped waiting.
                    let _ = reply.send(traced_work(core));
                });
                jobs.send(job).await.map_err(|_| CoreStopped)?;
                result
                    .await
                    .map_err(|_| CoreStopped)?
                    .map_err(EngineError::Work)
            }
        }
    }

    /// Runs `work` in one transaction on the graph and returns its result once it is committed.
    pub async fn graph<
        R: Send + 'static,
        E: std::error::Error + From<StoreError> + Send + 'static,
    >(
        &self,
        work: impl FnOnce(&mut GraphManager<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, EngineError<E>> {
        self.write(move |core, now| core.write(now, work)).await
    }

    /// Runs `work` on one committed state, concurrently with the writer.
    pub async fn read<
        R: Send + 'static,
        E: std::error::Error + From<StoreError> + Send + 'static,
    >(
        &self,
        work: impl FnOnce(View<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, EngineError<E>> {
        match &*self.driver {
            Driver::Inline(core) => {
                let core = core.lock();
                work(core.view()).map_err(EngineError::Work)
            }
            Driver::Thread { readers, .. } => {
                let permit = readers
                    .permits
                    .clone()
                    .acquire_owned()
                    .await
                    .map_err(|_| CoreStopped)?;
                let taken = readers.idle.lock().pop();
                let mut reader = taken.ok_or(CoreStopped)?;
                let context = self.context.clone();
                let pool = readers.clone();
                let done = tokio::task::spawn_blocking(move || {
                    let result = reader.snapshot(|rows| {
                        work(View {
                            rows,
                            context: &context,
                        })
                    });
                    pool.idle.lock().push(reader);
                    // Released here, because the connection must be back in the pool first and the
                    // caller may have stopped waiting.
                    drop(permit);
                    result
                });
                done.await
                    .map_err(|_| CoreStopped)?
                    .map_err(EngineError::Work)
            }
        }
    }
}

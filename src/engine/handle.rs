//! [`CoreHandle`]: the only way from async code to the core.

use std::sync::Arc;
use std::thread::JoinHandle;

use keys::{PeerId, TraceId};
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::clock::Clock;
use super::error::{CoreStopped, EngineError};
use super::news::{News, Watchers};
use crate::graph::GraphManager;
use crate::op_context::Timestamp;
use crate::state_engine::{CoreContext, StateEngine, View};
use crate::store::{Apps, ReadStore, StoreError};

/// A write on its way to the writer thread.
type WriteJob = Box<dyn FnOnce(&mut StateEngine) + Send>;

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
    trace: TraceId,
}

/// The audience of commits. All clones share one.
#[derive(Clone)]
struct Commits {
    /// The last committed `change_seq`.
    changed: watch::Sender<u64>,
    watchers: Arc<Watchers>,
}

impl Commits {
    fn new(core: &StateEngine) -> Self {
        Self {
            changed: watch::Sender::new(core.change_seq()),
            watchers: Arc::default(),
        }
    }

    /// Tells what the writer has committed since the last call.
    fn publish(&self, core: &mut StateEngine) {
        let change_seq = core.change_seq();
        self.changed.send_if_modified(|known| {
            let is_new = *known != change_seq;
            *known = change_seq;
            is_new
        });
        self.watchers.publish(&core.take_touched());
    }
}

/// The writer thread. Join it after every [`CoreHandle`] is dropped; until then it does not end.
pub struct WriterThread(JoinHandle<()>);

impl WriterThread {
    /// Waits until every accepted write is committed and the database is closed.
    pub fn join(self) {
        // The panic hook has reported a panic of the writer; there is nothing to save here.
        let _ = self.0.join();
    }
}

impl CoreHandle {
    /// Creates a handle whose work runs on the caller's thread: deterministic, for tests and
    /// simulation.
    pub fn inline(core: StateEngine, clock: Arc<dyn Clock>) -> Self {
        Self {
            context: core.context().clone(),
            apps: core.apps().clone(),
            commits: Commits::new(&core),
            driver: Arc::new(Driver::Inline(Box::new(Mutex::new(core)))),
            clock,
            trace: TraceId(0),
        }
    }

    /// Starts a writer thread with a queue of `queue_max` writes, and opens `readers_max` reading
    /// connections.
    pub fn spawn(
        mut core: StateEngine,
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
        let (jobs, mut queue) = mpsc::channel::<WriteJob>(queue_max);
        let (audience, writer_clock) = (commits.clone(), clock.clone());
        let run = move || {
            let mut is_settling = false;
            loop {
                // Between two jobs, or as long as there is none, one portion is settled.
                let job = if is_settling {
                    match queue.try_recv() {
                        Err(TryRecvError::Disconnected) => return,
                        job => job.ok(),
                    }
                } else {
                    match queue.blocking_recv() {
                        None => return,
                        job => job,
                    }
                };
                if let Some(job) = job {
                    job(&mut core);
                    audience.publish(&mut core);
                }
                is_settling = settle(&mut core, writer_clock.now());
                audience.publish(&mut core);
            }
        };
        let thread = std::thread::Builder::new().name("writer".into()).spawn(run);
        let thread = thread.map_err(StoreError::Thread)?;
        let driver = Arc::new(Driver::Thread { jobs, readers });
        let handle = Self {
            driver,
            clock,
            context,
            apps,
            commits,
            trace: TraceId(0),
        };
        Ok((handle, WriterThread(thread)))
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

    /// Subscribes to the last committed `change_seq`; a receiver is woken when it changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.commits.changed.subscribe()
    }

    /// Watches for what a commit may hold for `peer` in a domain. The watcher is not woken by
    /// commits that the peer may not read, and by none in an unknown domain.
    pub fn watch(&self, peer: &PeerId, domain: &str) -> News {
        let domain = self.context.schemas.domain(domain);
        let app = domain.and_then(|domain| self.apps.get(&domain.app));
        self.commits.watchers.watch(peer, app.map(|app| app.id))
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

/// Settles one portion of waiting objects. Returns whether there was one. After an error the next
/// write tries again.
fn settle(core: &mut StateEngine, now: Timestamp) -> bool {
    core.settle_step(now).unwrap_or_else(|error| {
        tracing::error!(error = %keys::error_chain(&error), "could not settle waiting objects");
        false
    })
}

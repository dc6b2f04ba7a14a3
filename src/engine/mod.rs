//! The engine: the only door from async code to data.
//!
//! Two drivers behind one handle: a writer thread with reading connections (the node), and inline (tests, simulation),
//! where everything happens at once in the caller and a seed decides everything. Never holds a lock across an `await`.
//! Invariants: one writer, so commit order is `change_seq` order; a reply is given after the commit that it stands for.

mod check;

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::op_context::Timestamp;
use crate::state_engine::{Ground, StateEngine, View};
use crate::store::{ReadStore, StoreError};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The engine was stopped: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// A failed read or write, or an engine that has stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError<E: std::error::Error + 'static> {
    /// The node is shutting down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The work itself failed.
    #[error(transparent)]
    Work(E),
}

impl<E: std::error::Error + 'static> EngineError<E> {
    /// The work's own error, or what stands for "stopped".
    pub fn unwrap_or_stopped(self, stopped: E) -> E {
        match self {
            Self::Work(error) => error,
            Self::Stopped(_) => stopped,
        }
    }
}

type Job = Box<dyn FnOnce(&mut StateEngine) + Send>;

enum Driver {
    Inline(Box<Mutex<StateEngine>>),
    Thread {
        jobs: mpsc::Sender<Job>,
        readers: Arc<Readers>,
    },
}

struct Readers {
    idle: Mutex<Vec<ReadStore>>,
    permits: Arc<Semaphore>,
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    driver: Arc<Driver>,
    clock: Arc<dyn Clock>,
    ground: Ground,
    changed: watch::Sender<u64>,
}

/// The writer thread. Joined last, after every handle is gone.
pub struct WriterThread(JoinHandle<()>);

impl WriterThread {
    /// Waits until all that was accepted is written and the database is closed.
    pub fn join(self) {
        // A panic of the writer was reported by the panic hook; there is nothing left to save here.
        let _ = self.0.join();
    }
}

impl Engine {
    /// An engine that works in its caller: deterministic, for tests and simulation.
    pub fn inline(core: StateEngine, clock: Arc<dyn Clock>) -> Self {
        let ground = core.ground().clone();
        let changed = watch::Sender::new(core.change_seq());
        Self {
            driver: Arc::new(Driver::Inline(Box::new(Mutex::new(core)))),
            clock,
            ground,
            changed,
        }
    }

    /// An engine with a writer thread, a queue of `queue_max` writes and `readers_max` reading connections.
    pub fn spawn(
        mut core: StateEngine,
        clock: Arc<dyn Clock>,
        queue_max: usize,
        readers_max: usize,
    ) -> Result<(Self, WriterThread), StoreError> {
        let ground = core.ground().clone();
        let changed = watch::Sender::new(core.change_seq());
        let idle = (0..readers_max)
            .map(|_| core.reader())
            .collect::<Result<Vec<_>, _>>()?;
        let readers = Arc::new(Readers {
            idle: Mutex::new(idle),
            permits: Arc::new(Semaphore::new(readers_max)),
        });
        let (jobs, mut queue) = mpsc::channel::<Job>(queue_max);
        let publish = changed.clone();
        let run = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut core);
                publish_change(&publish, core.change_seq());
            }
        };
        let thread = std::thread::Builder::new().name("writer".into()).spawn(run);
        let thread = thread.map_err(StoreError::Thread)?;
        let driver = Arc::new(Driver::Thread { jobs, readers });
        Ok((
            Self {
                driver,
                clock,
                ground,
                changed,
            },
            WriterThread(thread),
        ))
    }

    /// What does not change while the node runs.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Follows the last committed `change_seq`.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Runs `work` on the one writer and gives its result after the commit. Waits where the queue is full. Once begun,
    /// a write is finished even where the caller is gone.
    pub async fn write<R: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateEngine, Timestamp) -> Result<R, E> + Send + 'static,
    ) -> Result<R, EngineError<E>> {
        let now = self.now();
        match &*self.driver {
            Driver::Inline(core) => {
                let mut core = core.lock();
                let result = work(&mut core, now);
                publish_change(&self.changed, core.change_seq());
                result.map_err(EngineError::Work)
            }
            Driver::Thread { jobs, .. } => {
                let (reply, result) = oneshot::channel();
                let job: Job = Box::new(move |core| {
                    // The caller may have stopped waiting; the write stands all the same.
                    let _ = reply.send(work(core, now));
                });
                jobs.send(job).await.map_err(|_| Stopped)?;
                result
                    .await
                    .map_err(|_| Stopped)?
                    .map_err(EngineError::Work)
            }
        }
    }

    /// Runs `work` on one committed state, beside the writer.
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
                    .map_err(|_| Stopped)?;
                let taken = readers.idle.lock().pop();
                let mut reader = taken.ok_or(Stopped)?;
                let ground = self.ground.clone();
                let pool = readers.clone();
                let done = tokio::task::spawn_blocking(move || {
                    let result = reader.snapshot(|rows| {
                        work(View {
                            rows,
                            ground: &ground,
                        })
                    });
                    pool.idle.lock().push(reader);
                    // Not before the connection is back, and not by a caller that stopped waiting.
                    drop(permit);
                    result
                });
                done.await.map_err(|_| Stopped)?.map_err(EngineError::Work)
            }
        }
    }
}

/// Wakes who waits for changes, where something changed.
fn publish_change(changed: &watch::Sender<u64>, change_seq: u64) {
    changed.send_if_modified(|known| {
        let is_new = *known != change_seq;
        *known = change_seq;
        is_new
    });
}

//! The writer thread: runs one job after the other, settles between them, and looks after the log.
//!
//! Inputs are the jobs of a queue; outputs are commits, told to their audience. Invariant: between
//! two jobs at most one portion is settled, so that a job waits for one portion at most. Tested in
//! `tests/core/engines.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::news::Watchers;
use crate::op_context::Timestamp;
use crate::state_engine::StateEngine;
use crate::store::StoreError;

/// A write on its way to the writer thread.
pub(super) type WriteJob = Box<dyn FnOnce(&mut StateEngine) + Send>;

/// The audience of commits. All clones share one.
#[derive(Clone)]
pub(super) struct Commits {
    /// The last committed `change_seq`.
    pub(super) changed: watch::Sender<u64>,
    pub(super) watchers: Arc<Watchers>,
}

impl Commits {
    pub(super) fn new(core: &StateEngine) -> Self {
        Self {
            changed: watch::Sender::new(core.change_seq()),
            watchers: Arc::default(),
        }
    }

    /// Tells what the writer has committed since the last call.
    pub(super) fn publish(&self, core: &mut StateEngine) {
        let change_seq = core.change_seq();
        self.changed.send_if_modified(|known| {
            let is_new = *known != change_seq;
            *known = change_seq;
            is_new
        });
        self.watchers.publish(&core.take_touched());
    }
}

/// How long the writer was held by one job, one portion or one checkpoint. All clones share one.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<AtomicU64>);

impl Holds {
    /// The longest hold since the last call.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }

    /// Runs `work` and notes how long it took.
    fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(micros, Ordering::Relaxed);
        result
    }
}

/// The writer thread. Join it after every `CoreHandle` is dropped; until then it does not end.
pub struct WriterThread(JoinHandle<()>);

impl WriterThread {
    /// Waits until every accepted write is committed and the database is closed.
    pub fn join(self) {
        // The panic hook has reported a panic of the writer; there is nothing to save here.
        let _ = self.0.join();
    }
}

/// Everything that the writer thread owns.
pub(super) struct Writer {
    /// Dropped first, so that the core closes the database.
    pub(super) checkpoints: Checkpoints,
    pub(super) core: StateEngine,
    pub(super) commits: Commits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) holds: Holds,
}

impl WriterThread {
    pub(super) fn start(
        mut writer: Writer,
        queue: mpsc::Receiver<WriteJob>,
    ) -> Result<Self, StoreError> {
        let run = move || writer.run(queue);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(run);
        thread.map(Self).map_err(StoreError::Thread)
    }
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<WriteJob>) {
        // A start leaves some work for now.
        let mut is_settling = true;
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
            let holds = self.holds.clone();
            if let Some(job) = job {
                holds.time(|| {
                    job(&mut self.core);
                    self.commits.publish(&mut self.core);
                });
            }
            is_settling = holds.time(|| {
                let is_settling = settle(&mut self.core, self.clock.now());
                self.commits.publish(&mut self.core);
                is_settling
            });
            holds.time(|| self.checkpoints.after_job(&self.core));
        }
    }
}

/// Settles one portion of waiting objects. Returns whether there was one. After an error the next
/// write tries again.
pub(super) fn settle(core: &mut StateEngine, now: Timestamp) -> bool {
    core.settle_step(now).unwrap_or_else(|error| {
        tracing::error!(error = %keys::error_chain(&error), "could not settle waiting objects");
        false
    })
}

/// Makes a checkpoint on the calling thread if the log is long.
pub(super) fn bound_log(core: &StateEngine) {
    if let Err(error) = core.bound_log() {
        tracing::error!(error = %keys::error_chain(&error), "could not copy the write-ahead log");
    }
}

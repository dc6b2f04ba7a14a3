//! The pool that verifies: few threads of its own, a bounded queue, the highest effort first.
//!
//! Who showed a ticket goes before all who worked, in a line of its own. A full queue drops its lowest effort, and of
//! equals the newest; what is dropped has cost nothing, not even its serial. The threads are nicer to the rest of the
//! node than the rest is to them: open sessions come first. Never blocks an async task. Invariant: at most `workers`
//! jobs run, at most `waiting_max` of strangers and `known_max` of known peers wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::config::GateConfig;
use crate::error::HandshakeError;
use crate::puzzle::{Algorithm, Memory};

/// Runs with a worker's memory, which is kept from job to job.
type Job = Box<dyn FnOnce(&mut Memory) + Send>;

pub(super) struct VerifyPool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    awake: Condvar,
    waiting_max: usize,
    known_max: usize,
}

#[derive(Default)]
struct State {
    stopped: bool,
    workers: usize,
    running: usize,
    arrivals: u64,
    /// Last is next: the highest effort, of equals the earliest arrival.
    waiting: BTreeMap<(u64, Reverse<u64>), Job>,
    known: VecDeque<Job>,
}

impl VerifyPool {
    /// A pool with its threads. They end when the pool is dropped.
    pub(super) fn new(config: &GateConfig) -> Self {
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            awake: Condvar::new(),
            waiting_max: config.verify_queue_max,
            known_max: config.ticket_handshakes_max + config.trusted_handshakes_max,
        });
        for _ in 0..config.verify_workers.max(1) {
            let (worker, niceness) = (inner.clone(), config.verify_niceness);
            let work = move || {
                // Where the system does not allow it, verifying competes like everything else.
                let _ = rustix::process::nice(i32::from(niceness));
                worker.work();
            };
            match thread::Builder::new().name("verify".into()).spawn(work) {
                Ok(_) => inner.state().workers += 1,
                Err(error) => {
                    tracing::error!(%error, "a thread that verifies could not be started")
                }
            }
        }
        Self(inner)
    }

    /// Jobs that run.
    pub(super) fn running(&self) -> usize {
        self.0.state().running
    }

    /// Jobs of strangers that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// Runs `work` when its turn comes. `effort` is what its sender claims to have worked; none goes by a ticket. `Busy`
    /// where too many who worked more are waiting, now or later.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        effort: Option<u64>,
        work: impl FnOnce(&mut Memory) -> R + Send + 'static,
    ) -> Result<R, HandshakeError> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            // Whoever waited may be gone; what was found out is kept where `work` put it.
            let _ = reply.send(work(memory));
        });
        self.0.push(effort, job)?;
        // A job that is dropped takes its reply along.
        result.await.map_err(|_| HandshakeError::Busy)
    }
}

impl Drop for VerifyPool {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.stopped = true;
        let (waiting, known) = (
            std::mem::take(&mut state.waiting),
            std::mem::take(&mut state.known),
        );
        drop(state);
        drop((waiting, known));
        self.0.awake.notify_all();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn push(&self, effort: Option<u64>, job: Job) -> Result<(), HandshakeError> {
        let mut state = self.state();
        if state.stopped || state.workers == 0 {
            return Err(HandshakeError::Busy);
        }
        let dropped = match effort {
            None if state.known.len() >= self.known_max => return Err(HandshakeError::Busy),
            None => {
                state.known.push_back(job);
                None
            }
            Some(effort) => {
                let dropped = if state.waiting.len() < self.waiting_max {
                    None
                } else if state
                    .waiting
                    .keys()
                    .next()
                    .is_some_and(|lowest| lowest.0 < effort)
                {
                    state.waiting.pop_first()
                } else {
                    return Err(HandshakeError::Busy);
                };
                state.arrivals += 1;
                let place = (effort, Reverse(state.arrivals));
                state.waiting.insert(place, job);
                dropped
            }
        };
        drop(state);
        // Outside of the lock: it may hold the last handle of a gate.
        drop(dropped);
        self.awake.notify_one();
        Ok(())
    }

    /// A worker's life.
    fn work(&self) {
        let mut memory = Algorithm::Argon2id1m.memory();
        let mut state = self.state();
        loop {
            let next = state.known.pop_front();
            let next = next.or_else(|| state.waiting.pop_last().map(|(_, job)| job));
            if let Some(job) = next {
                state.running += 1;
                drop(state);
                // A job that panics was reported by the hook and answers nobody; the worker goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut memory)));
                state = self.state();
                state.running -= 1;
            } else if state.stopped {
                return;
            } else {
                self.awake.wait(&mut state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::sync::mpsc::{Receiver, Sender, channel};

    fn pool(waiting: usize) -> Arc<VerifyPool> {
        Arc::new(VerifyPool::new(&GateConfig {
            verify_workers: 1,
            verify_queue_max: waiting,
            ..GateConfig::default()
        }))
    }

    /// Keeps the one worker busy until told otherwise, and says so once it is.
    fn occupy(pool: &Arc<VerifyPool>) -> (Sender<()>, tokio::task::JoinHandle<()>, Receiver<()>) {
        let ((release, held), (begun, begins)) = (channel(), channel());
        let pool = pool.clone();
        let job = move |_: &mut Memory| {
            begun.send(()).unwrap();
            held.recv().unwrap();
        };
        let task = tokio::spawn(async move { pool.run(Some(1), job).await.unwrap() });
        (release, task, begins)
    }

    /// Begins to wait for a turn.
    async fn queued<R>(
        mut job: std::pin::Pin<Box<impl Future<Output = R>>>,
    ) -> std::pin::Pin<Box<impl Future<Output = R>>> {
        assert!(futures::poll!(job.as_mut()).is_pending());
        job
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tickets_go_first_then_the_highest_effort_and_the_lowest_is_dropped() {
        let pool = pool(2);
        let (release, held, begins) = occupy(&pool);
        tokio::task::spawn_blocking(move || begins.recv().unwrap())
            .await
            .unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let turn = |effort, name: &'static str| {
            let order = order.clone();
            Box::pin(pool.run(effort, move |_| order.lock().push(name)))
        };
        let low = queued(turn(Some(2), "low")).await;
        let high = queued(turn(Some(9), "high")).await;
        assert_eq!(pool.waiting(), 2);
        // Full: an equal effort pushes nobody out, a higher one pushes the lowest.
        assert!(matches!(
            turn(Some(2), "equal").await,
            Err(HandshakeError::Busy)
        ));
        let middle = queued(turn(Some(5), "middle")).await;
        assert!(matches!(low.await, Err(HandshakeError::Busy)));
        let known = queued(turn(None, "known")).await;
        release.send(()).unwrap();
        held.await.unwrap();
        for job in [high, middle, known] {
            job.await.unwrap();
        }
        assert_eq!(*order.lock(), ["known", "high", "middle"]);
        assert_eq!(pool.waiting(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_is_done_though_nobody_waits_for_it_and_a_panic_ends_no_worker() {
        let pool = pool(4);
        let (release, held, begins) = occupy(&pool);
        tokio::task::spawn_blocking(move || begins.recv().unwrap())
            .await
            .unwrap();
        let (done, is_done) = channel();
        drop(queued(Box::pin(pool.run(Some(9), move |_| done.send(()).unwrap()))).await);
        let panics = queued(Box::pin(pool.run(Some(5), |_| panic!("as it should")))).await;
        release.send(()).unwrap();
        held.await.unwrap();
        tokio::task::spawn_blocking(move || is_done.recv().unwrap())
            .await
            .unwrap();
        assert!(matches!(panics.await, Err(HandshakeError::Busy)));
        assert_eq!(pool.run(Some(1), |_| 7).await.unwrap(), 7);
    }
}

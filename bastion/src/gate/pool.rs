//! [`VerifyPool`]: a few threads that verify solutions from a bounded queue.
//!
//! Ticket holders have a queue of their own, which goes first. The other queue is ordered by
//! claimed effort, highest first. When it is full, the job with the lowest effort is dropped, and
//! among equal efforts the newest. A dropped job leaves its serial unused. The threads run at a
//! lower scheduling priority, so that open sessions come first.
//!
//! Invariant: at most `verify_workers` jobs run, and both queues are bounded. Tested below.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;

use keys::error_chain;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::config::GateConfig;
use crate::error::HandshakeError;
use crate::puzzle::{Algorithm, Memory};

/// A job gets the worker's memory, which is kept between jobs.
type VerifyJob = Box<dyn FnOnce(&mut Memory) + Send>;

pub(super) struct VerifyPool(Arc<PoolShared>);

struct PoolShared {
    /// See [`GateConfig::is_inline`].
    is_inline: bool,
    queue: Mutex<VerifyQueue>,
    wake: Condvar,
    waiting_max: usize,
    ticketed_max: usize,
}

#[derive(Default)]
struct VerifyQueue {
    stopped: bool,
    workers: usize,
    running: usize,
    arrivals: u64,
    /// By effort, then by arrival. The last entry is next: the highest effort, and among equal
    /// efforts the earliest arrival.
    waiting: BTreeMap<(u64, Reverse<u64>), VerifyJob>,
    ticketed: VecDeque<VerifyJob>,
}

impl VerifyPool {
    /// Starts the threads, none for an inline gate. They end when the pool is dropped.
    pub(super) fn new(config: &GateConfig) -> Self {
        let shared = Arc::new(PoolShared {
            is_inline: config.is_inline,
            queue: Mutex::default(),
            wake: Condvar::new(),
            waiting_max: config.verify_queue_max,
            ticketed_max: config.ticket_handshakes_max + config.trusted_handshakes_max,
        });
        let workers = if config.is_inline {
            0
        } else {
            config.verify_workers.max(1)
        };
        for _ in 0..workers {
            let (worker, niceness) = (shared.clone(), config.verify_niceness);
            let work = move || {
                // Without permission the thread keeps the priority of the process.
                let _ = rustix::process::nice(i32::from(niceness));
                worker.work();
            };
            match thread::Builder::new().name("verify".into()).spawn(work) {
                Ok(_) => shared.queue().workers += 1,
                Err(error) => {
                    tracing::error!(
                        error = %error_chain(&error),
                        "could not start a verification thread"
                    )
                }
            }
        }
        Self(shared)
    }

    /// Returns the number of running jobs.
    pub(super) fn running(&self) -> usize {
        self.0.queue().running
    }

    /// Returns the number of waiting jobs, without those of ticket holders.
    pub(super) fn waiting(&self) -> usize {
        self.0.queue().waiting.len()
    }

    /// Runs `work` on a worker thread. `effort` is the claimed effort, none for a ticket holder.
    /// Fails with `Busy` when the queue is full of higher efforts, now or while the job waits.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        effort: Option<u64>,
        work: impl FnOnce(&mut Memory) -> R + Send + 'static,
    ) -> Result<R, HandshakeError> {
        if self.0.is_inline {
            return Ok(work(&mut Algorithm::Argon2id1m.memory()));
        }
        let (reply, result) = oneshot::channel();
        let job: VerifyJob = Box::new(move |memory| {
            // The caller may have ended. `work` keeps its result where it is needed.
            let _ = reply.send(work(memory));
        });
        self.0.push(effort, job)?;
        // Dropping a job drops its reply channel.
        result.await.map_err(|_| HandshakeError::Busy)
    }
}

impl Drop for VerifyPool {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.stopped = true;
        let (waiting, ticketed) = (
            std::mem::take(&mut queue.waiting),
            std::mem::take(&mut queue.ticketed),
        );
        drop(queue);
        drop((waiting, ticketed));
        self.0.wake.notify_all();
    }
}

impl PoolShared {
    fn queue(&self) -> MutexGuard<'_, VerifyQueue> {
        self.queue.lock()
    }

    fn push(&self, effort: Option<u64>, job: VerifyJob) -> Result<(), HandshakeError> {
        let mut queue = self.queue();
        if queue.stopped || queue.workers == 0 {
            return Err(HandshakeError::Busy);
        }
        let dropped = match effort {
            None if queue.ticketed.len() >= self.ticketed_max => return Err(HandshakeError::Busy),
            None => {
                queue.ticketed.push_back(job);
                None
            }
            Some(effort) => {
                let lowest = queue.waiting.keys().next().map(|(effort, _)| *effort);
                let dropped = if queue.waiting.len() < self.waiting_max {
                    None
                } else if lowest.is_some_and(|lowest| lowest < effort) {
                    queue.waiting.pop_first()
                } else {
                    return Err(HandshakeError::Busy);
                };
                queue.arrivals += 1;
                let key = (effort, Reverse(queue.arrivals));
                queue.waiting.insert(key, job);
                dropped
            }
        };
        drop(queue);
        // Dropped after the lock is released, because a job may hold the last handle of a gate.
        drop(dropped);
        self.wake.notify_one();
        Ok(())
    }

    /// The loop of a worker thread.
    fn work(&self) {
        let mut memory = Algorithm::Argon2id1m.memory();
        let mut queue = self.queue();
        loop {
            let next = queue.ticketed.pop_front();
            let next = next.or_else(|| queue.waiting.pop_last().map(|(_, job)| job));
            if let Some(job) = next {
                queue.running += 1;
                drop(queue);
                // A panic is reported by the panic hook. The job sends no reply; the worker goes
                // on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut memory)));
                queue = self.queue();
                queue.running -= 1;
            } else if queue.stopped {
                return;
            } else {
                self.wake.wait(&mut queue);
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

    /// Occupies the one worker until the sender is used. The receiver reports that the job runs.
    fn occupy(pool: &Arc<VerifyPool>) -> (Sender<()>, tokio::task::JoinHandle<()>, Receiver<()>) {
        let ((release, released), (start, started)) = (channel(), channel());
        let pool = pool.clone();
        let job = move |_: &mut Memory| {
            start.send(()).unwrap();
            released.recv().unwrap();
        };
        let task = tokio::spawn(async move { pool.run(Some(1), job).await.unwrap() });
        (release, task, started)
    }

    async fn received(receiver: Receiver<()>) {
        tokio::task::spawn_blocking(move || receiver.recv().unwrap())
            .await
            .unwrap();
    }

    /// Polls a job once, so that it enters the queue.
    async fn queued<R>(
        mut job: std::pin::Pin<Box<impl Future<Output = R>>>,
    ) -> std::pin::Pin<Box<impl Future<Output = R>>> {
        assert!(futures::poll!(job.as_mut()).is_pending());
        job
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn runs_tickets_first_then_the_highest_effort_and_drops_the_lowest() {
        let pool = pool(2);
        let (release, occupied, started) = occupy(&pool);
        received(started).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let job = |effort, name: &'static str| {
            let order = order.clone();
            Box::pin(pool.run(effort, move |_| order.lock().push(name)))
        };
        let low = queued(job(Some(2), "low")).await;
        let high = queued(job(Some(9), "high")).await;
        assert_eq!(pool.waiting(), 2);
        // The queue is full: an equal effort is refused, a higher effort replaces the lowest.
        assert!(matches!(
            job(Some(2), "equal").await,
            Err(HandshakeError::Busy)
        ));
        let middle = queued(job(Some(5), "middle")).await;
        assert!(matches!(low.await, Err(HandshakeError::Busy)));
        let ticketed = queued(job(None, "ticketed")).await;
        release.send(()).unwrap();
        occupied.await.unwrap();
        for job in [high, middle, ticketed] {
            job.await.unwrap();
        }
        assert_eq!(*order.lock(), ["ticketed", "high", "middle"]);
        assert_eq!(pool.waiting(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn finishes_abandoned_jobs_and_survives_a_panic() {
        let pool = pool(4);
        let (release, occupied, started) = occupy(&pool);
        received(started).await;
        let (done, is_done) = channel();
        drop(queued(Box::pin(pool.run(Some(9), move |_| done.send(()).unwrap()))).await);
        let panics = queued(Box::pin(pool.run(Some(5), |_| panic!("intended panic")))).await;
        release.send(()).unwrap();
        occupied.await.unwrap();
        received(is_done).await;
        assert!(matches!(panics.await, Err(HandshakeError::Busy)));
        assert_eq!(pool.run(Some(1), |_| 7).await.unwrap(), 7);
    }
}

//! The gate: handshakes on real streams, bounded in number, time and work.
//!
//! All I/O of the handshake is here; what is said is decided by [`crate::handshake`], who may pass by the
//! [`Gatekeeper`]. Never keeps anything for a stranger beyond its stream. Invariant: at most `open_handshakes_max`
//! strangers at once, each step under a deadline, at most `verify_workers` verifications at once.

mod admit;
mod dial;
mod queue;
mod serve;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use keys::KeyManager;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use dial::Progress;

use crate::claims::{PeerClaims, Profile};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Internal, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::Here;
use crate::load::{Effort, Failures, Load};
use crate::puzzle::CookieJar;
use queue::VerifyQueue;

/// Reads the time: the only clock that the gate knows besides its deadlines.
pub trait Clock: Send + Sync + 'static {
    /// Unix seconds.
    fn now(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Clock for F {
    fn now(&self) -> u64 {
        self()
    }
}

/// What policy says of a peer whose claims are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let it in.
    Admit,
    /// Send it away; it learns the code (`policy`, `banned`, `busy`).
    Refuse(RefusalCode),
}

/// The node's part in a handshake: what we say of ourselves, and whom we let in.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What to claim now.
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>>;

    /// Whether to admit a peer that has worked and proved its claims. Bans, policies and quotas are judged here.
    fn decide<'a>(&'a self, claims: &'a PeerClaims) -> BoxFuture<'a, Decision>;
}

/// The gate at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateStatus {
    /// Effort asked of the next stranger, in expected evaluations.
    pub effort: u64,
    /// Strangers in a handshake.
    pub open_handshakes: usize,
    /// Solutions waiting to be verified.
    pub queue: usize,
    /// Peers admitted since the start.
    pub admitted_total: u64,
    /// Strangers turned away or lost since the start.
    pub refused_total: u64,
    /// Nodes that admitted us since the start.
    pub dialled_total: u64,
}

/// Admits strangers, and is admitted elsewhere. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    here: Arc<Here>,
    gatekeeper: Arc<dyn Gatekeeper>,
    clock: Arc<dyn Clock>,
    /// One lock for what every hello touches; held for microseconds, never across an await.
    desk: Mutex<Desk>,
    slots: Semaphore,
    slots_max: usize,
    queue: VerifyQueue,
    admitted: AtomicU64,
    refused: AtomicU64,
    dialled: AtomicU64,
}

struct Desk {
    jar: CookieJar,
    effort: Effort,
    failures: Failures,
}

impl Gate {
    /// A gate with new cookie keys. `config` should have passed [`GateConfig::check`].
    pub fn new(
        config: GateConfig,
        keys: Arc<KeyManager>,
        gatekeeper: Arc<dyn Gatekeeper>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.now();
        let slots_max = config.open_handshakes_max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            desk: Mutex::new(Desk {
                jar: CookieJar::new(&config, now, &mut rand::rng()),
                effort: Effort::base(&config, now),
                failures: Failures::default(),
            }),
            slots: Semaphore::new(slots_max),
            slots_max,
            queue: VerifyQueue::new(config.verify_workers, config.verify_queue_max),
            here: Arc::new(Here { config, keys }),
            gatekeeper,
            clock,
            admitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
        }))
    }

    /// What the gate is doing.
    pub fn status(&self) -> GateStatus {
        let load = self.load();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateStatus {
            effort: self.desk().effort.value(),
            open_handshakes: load.open_handshakes,
            queue: load.queue,
            admitted_total: read(&self.0.admitted),
            refused_total: read(&self.0.refused),
            dialled_total: read(&self.0.dialled),
        }
    }

    fn config(&self) -> &GateConfig {
        &self.0.here.config
    }

    fn now(&self) -> u64 {
        self.0.clock.now()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Every change under the lock is a single step of plain values: a panic elsewhere leaves nothing half-done.
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Load {
        Load {
            open_handshakes: self.0.slots_max.saturating_sub(self.0.slots.available_permits()),
            queue: self.0.queue.waiting(),
            failures: self.desk().failures.at(self.now()).count(),
        }
    }
}

/// The next frame within `wait`.
async fn receive(session: &mut Session, step: Step, wait: Duration) -> Result<Vec<u8>, HandshakeError> {
    match timeout(wait, session.reader.read()).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => Err(HandshakeError::HungUp(step)),
        Ok(Err(error)) => Err(HandshakeError::from_frame(error, step)),
        Err(_) => Err(HandshakeError::Timeout(step)),
    }
}

/// Writes one frame within `wait`.
async fn send(session: &mut Session, frame: &[u8], wait: Duration) -> Result<(), HandshakeError> {
    match timeout(wait, session.writer.write(frame)).await {
        Ok(written) => written.map_err(|error| HandshakeError::from_frame(error, Step::Send)),
        Err(_) => Err(HandshakeError::Timeout(Step::Send)),
    }
}


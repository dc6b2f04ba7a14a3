//! The gate: handshakes on real streams, bounded in number, time and work.
//!
//! - `lobby`: places, and who goes when they are taken. `pool`: threads that verify. `answers`: the same solution gets
//!   the same answer. `admit`: one stranger. `serve`: all of them. `dial`: being a stranger elsewhere.
//!
//! All I/O of the handshake is here; what is said is decided by [`crate::handshake`], who may pass by the
//! [`Gatekeeper`]. Never keeps anything for a stranger that has not worked beyond its stream. Invariant: at most
//! `open_handshakes_max` strangers at once, each step under a deadline, at most `verify_workers` verifications at once.

mod admit;
mod answers;
mod dial;
mod lobby;
mod pool;
mod serve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use keys::{KeyManager, PeerId};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;

pub use dial::Progress;
pub use lobby::Crowd;

use crate::claims::{PeerClaims, Profile};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Internal, RefusalCode, Step};
use crate::frames::Session;
use crate::handshake::{Desk, Here};
use crate::load::{Effort, Load, PerMinute};
use crate::puzzle::CookieJar;
use crate::ticket::{Tickets, Tier};
use answers::Answers;
use lobby::Lobby;
use pool::VerifyPool;

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

/// A peer that has proved its claims, and worked or shown a ticket.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// What it proved and claims.
    pub claims: &'a PeerClaims,
    /// The work that it did, in expected evaluations; 0 with a ticket.
    pub effort: u64,
    /// When the ticket was issued that it came with, in unix seconds: a ban since then voids it.
    pub ticket_issued: Option<u64>,
}

/// What policy says of an applicant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let it in.
    Admit(Tier),
    /// Send it away; it learns the code (`policy`, `pending`, `banned`, `expired`, `busy`).
    Refuse(RefusalCode),
}

/// The node's part in a handshake: what we say of ourselves, and whom we let in.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What to claim now.
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>>;

    /// Whether to admit an applicant. Bans, policies and room for sessions are judged here.
    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision>;
}

/// The gate at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateStatus {
    /// Effort asked of the next stranger, in expected evaluations.
    pub effort: u64,
    /// Load, in thousandths of what there is room for.
    pub pressure: u64,
    /// Who is in a handshake.
    pub crowd: Crowd,
    /// Solutions of strangers waiting to be verified.
    pub queue: usize,
    /// Solutions being verified.
    pub verifying: usize,
    /// Solutions that failed, counted over about a minute.
    pub failures_per_minute: u64,
    /// Strangers judged for work that held, admitted or not, counted over about a minute.
    pub admissions_per_minute: u64,
    /// Answers that are remembered for solutions that come again.
    pub answers: usize,
    /// Peers admitted since the start.
    pub admitted_total: u64,
    /// Of these, with a ticket.
    pub by_ticket_total: u64,
    /// Strangers turned away or lost since the start.
    pub refused_total: u64,
    /// Of these, told `busy` or made to go for others.
    pub busy_total: u64,
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
    front: Mutex<Front>,
    lobby: Lobby,
    pool: VerifyPool,
    admitted: AtomicU64,
    by_ticket: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    dialled: AtomicU64,
}

struct Front {
    desk: Desk,
    answers: Answers,
    effort: Effort,
    failures: PerMinute,
    admissions: PerMinute,
}

impl Gate {
    /// A gate with new cookie keys, and its threads that verify. `config` should have passed [`GateConfig::check`].
    pub fn new(
        config: GateConfig,
        keys: Arc<KeyManager>,
        gatekeeper: Arc<dyn Gatekeeper>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.now();
        let desk = Desk {
            jar: CookieJar::new(&config, now, &mut rand::rng()),
            tickets: Tickets::new(&config, keys.ticket_key(), &keys.onion()),
        };
        Self(Arc::new(Shared {
            front: Mutex::new(Front {
                desk,
                answers: Answers::new(config.cached_replies_max),
                effort: Effort::calm(&config, now),
                failures: PerMinute::default(),
                admissions: PerMinute::default(),
            }),
            lobby: Lobby::new(&config),
            pool: VerifyPool::new(&config),
            here: Arc::new(Here { config, keys }),
            gatekeeper,
            clock,
            admitted: AtomicU64::new(0),
            by_ticket: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
        }))
    }

    /// What the gate is doing.
    pub fn status(&self) -> GateStatus {
        let load = self.load();
        let effort = self.effort(&load);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateStatus {
            effort,
            pressure: load.pressure(self.config()),
            crowd: self.0.lobby.crowd(),
            queue: load.queue,
            verifying: self.0.pool.running(),
            failures_per_minute: load.failures,
            admissions_per_minute: load.admissions,
            answers: self.front().answers.count(self.now()),
            admitted_total: read(&self.0.admitted),
            by_ticket_total: read(&self.0.by_ticket),
            refused_total: read(&self.0.refused),
            busy_total: read(&self.0.busy) + self.0.lobby.shed_total(),
            dialled_total: read(&self.0.dialled),
        }
    }

    /// The limits in force.
    pub fn config(&self) -> &GateConfig {
        &self.0.here.config
    }

    /// Forgets what a peer was answered, so that it is judged anew: after a ban for example.
    pub fn forget(&self, peer: &PeerId) {
        self.front().answers.forget(peer);
    }

    fn now(&self) -> u64 {
        self.0.clock.now()
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.0.front.lock()
    }

    fn load(&self) -> Load {
        let (open_handshakes, queue) = (self.0.lobby.crowd().strangers(), self.0.pool.waiting());
        let (front, now) = (self.front(), self.now());
        Load {
            open_handshakes,
            queue,
            failures: front.failures.at(now).count(),
            admissions: front.admissions.at(now).count(),
        }
    }

    /// The effort to ask now.
    fn effort(&self, load: &Load) -> u64 {
        let mut front = self.front();
        front.effort = front.effort.follow(load, self.config(), self.now());
        front.effort.value()
    }
}

/// The next frame within `wait`.
async fn receive(
    session: &mut Session,
    step: Step,
    wait: Duration,
) -> Result<Vec<u8>, HandshakeError> {
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

#[cfg(test)]
mod tests;

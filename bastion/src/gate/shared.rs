//! [`Gate`]: the state that all handshakes of the server side share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keys::{KeyManager, PeerId};
use parking_lot::{Mutex, MutexGuard};

use super::pool::VerifyPool;
use super::reply_cache::ReplyCache;
use super::slots::HandshakeSlots;
use super::status::GateStatus;
use crate::clock::SecondsClock;
use crate::config::GateConfig;
use crate::handshake::{HandshakeContext, Moment, ServerState};
use crate::load::{Effort, Load, PerMinute};
use crate::policy::{AdmissionPolicy, LocalProfile};
use crate::puzzle::ChallengeSealer;
use crate::ticket::Tickets;

/// Runs the server side of handshakes. Clones share one state.
///
/// # Example
///
/// Alice serves, Bob dials, over an in-memory transport.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use bastion::transport::memory::MemoryNet;
/// use bastion::{AdmissionPolicy, Admitted, Connector, Gate, GateConfig, LocalProfile};
/// # use bastion::HandshakeError;
/// use keys::KeyManager;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example(
/// #     alice_keys: Arc<KeyManager>,
/// #     bob_keys: Arc<KeyManager>,
/// #     alice: Arc<impl LocalProfile + AdmissionPolicy>,
/// #     bob: Arc<impl LocalProfile>,
/// # ) -> Result<(), HandshakeError> {
/// let net = MemoryNet::new();
/// let onion = alice_keys.onion();
/// let listener = Box::new(net.listen(onion));
/// let stop = CancellationToken::new();
///
/// let clock = Arc::new(|| 1_700_000_000);
/// let gate = Gate::new(GateConfig::default(), alice_keys, alice.clone(), alice, clock);
/// let on_admitted = |_session, peer: Admitted| println!("admitted {}", peer.claims().peer_id());
/// tokio::spawn(async move { gate.serve(listener, on_admitted, stop).await });
///
/// let connector = Connector::new(GateConfig::default(), bob_keys, bob);
/// let progress = |step| println!("{step:?}");
/// let (session, alice) = connector.dial(&net.transport(), &onion, None, &progress).await?;
/// assert!(alice.we_dialled());
/// # drop(session);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gate(pub(super) Arc<GateShared>);

pub(super) struct GateShared {
    pub(super) context: Arc<HandshakeContext>,
    pub(super) profile: Arc<dyn LocalProfile>,
    pub(super) policy: Arc<dyn AdmissionPolicy>,
    clock: Arc<dyn SecondsClock>,
    /// One lock for everything that a hello touches. Held for microseconds, never across an await.
    state: Mutex<GateState>,
    pub(super) slots: HandshakeSlots,
    pub(super) pool: VerifyPool,
    pub(super) admitted: AtomicU64,
    pub(super) by_ticket: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) busy: AtomicU64,
}

pub(super) struct GateState {
    pub(super) server: ServerState,
    pub(super) replies: ReplyCache,
    pub(super) effort: Effort,
    pub(super) failures: PerMinute,
    pub(super) admissions: PerMinute,
}

impl Gate {
    /// Creates a gate with new cookie keys, and starts its verification threads.
    pub fn new(
        config: GateConfig,
        keys: Arc<KeyManager>,
        profile: Arc<dyn LocalProfile>,
        policy: Arc<dyn AdmissionPolicy>,
        clock: Arc<dyn SecondsClock>,
    ) -> Self {
        let now = clock.unix_seconds();
        let server = ServerState {
            sealer: ChallengeSealer::new(&config, now, &mut rand::rng()),
            tickets: Tickets::new(&config, keys.ticket_key(), &keys.onion()),
        };
        Self(Arc::new(GateShared {
            state: Mutex::new(GateState {
                server,
                replies: ReplyCache::new(config.cached_replies_max),
                effort: Effort::idle(&config, now),
                failures: PerMinute::default(),
                admissions: PerMinute::default(),
            }),
            slots: HandshakeSlots::new(&config),
            pool: VerifyPool::new(&config),
            context: Arc::new(HandshakeContext { config, keys }),
            profile,
            policy,
            clock,
            admitted: AtomicU64::new(0),
            by_ticket: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }))
    }

    /// Returns the gate's load and counters.
    pub fn status(&self) -> GateStatus {
        let load = self.load();
        let effort = self.effort(&load);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateStatus {
            effort,
            load_permille: load.load_permille(self.config()),
            handshakes: self.0.slots.counts(),
            queue: load.queue,
            verifying: self.0.pool.running(),
            failures_per_minute: load.failures,
            admissions_per_minute: load.admissions,
            cached_replies: self.state().replies.count(self.now()),
            admitted_total: read(&self.0.admitted),
            by_ticket_total: read(&self.0.by_ticket),
            refused_total: read(&self.0.refused),
            busy_total: read(&self.0.busy) + self.0.slots.evicted_total(),
        }
    }

    /// Returns the limits in force.
    pub fn config(&self) -> &GateConfig {
        &self.0.context.config
    }

    /// Removes the cached replies to a peer, so that the policy decides again. Called after a ban
    /// or another verdict about the peer.
    pub fn forget_replies(&self, peer: &PeerId) {
        self.state().replies.forget(peer);
    }

    /// Returns the current Unix time in seconds.
    pub(super) fn now(&self) -> u64 {
        self.0.clock.unix_seconds()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.state.lock()
    }

    pub(super) fn load(&self) -> Load {
        let open_handshakes = self.0.slots.counts().without_ticket();
        let queue = self.0.pool.waiting();
        let (state, now) = (self.state(), self.now());
        Load {
            open_handshakes,
            queue,
            failures: state.failures.at(now).count(),
            admissions: state.admissions.at(now).count(),
        }
    }

    /// Updates the effort for this load, and returns it.
    pub(super) fn effort(&self, load: &Load) -> u64 {
        let mut state = self.state();
        state.effort = state.effort.follow(load, self.config(), self.now());
        state.effort.value()
    }

    /// Returns the effort that the current load demands, and the time.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            effort: self.effort(&self.load()),
            now: self.now(),
        }
    }
}

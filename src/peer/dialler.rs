//! Keeping in touch: dialling the peers that the operator named, again and again with backoff (DESIGN 7).
//!
//! Never dials an address that nobody asked for, and never more than `dials_max` at once: a dead peer costs the living
//! nothing. Invariant: one task per address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bastion::gate::Progress;
use bastion::{Gate, HandshakeError, Transport};
use keys::{OnionAddr, PeerId};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::registry::Peers;
use super::timers::Backoff;
use crate::engine::EngineError;
use crate::state_engine::ApplyPackageError;

/// Why a dial brought no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer could not be noted.
    #[error("the peer could not be stored")]
    Store(#[from] EngineError<ApplyPackageError>),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

/// A dial that ended in a session.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// The peer.
    pub peer: PeerId,
    /// Expected evaluations of the puzzle that was solved.
    pub effort: u64,
    /// How long solving took.
    pub solving: Duration,
}

/// Dials onion services.
#[derive(Clone)]
pub struct Dialler(Arc<Inner>);

struct Inner {
    gate: Gate,
    transport: Arc<dyn Transport>,
    peers: Peers,
    slots: Semaphore,
    kept: Mutex<BTreeSet<OnionAddr>>,
    turns: Mutex<BTreeMap<OnionAddr, Arc<AsyncMutex<()>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Dialler {
    /// A dialler; its tasks end with `stop`.
    pub fn new(gate: Gate, transport: Arc<dyn Transport>, peers: Peers, stop: CancellationToken) -> Self {
        let slots = Semaphore::new(peers.config().dials_max);
        let (kept, tasks) = (Mutex::new(BTreeSet::new()), TaskTracker::new());
        Self(Arc::new(Inner {
            gate,
            transport,
            peers,
            slots,
            kept,
            turns: Mutex::default(),
            tasks,
            stop,
        }))
    }

    /// Dials once, is admitted, and begins a session. An address is dialled once at a time, so that both sides see the
    /// sessions in the same order and keep the same one.
    pub async fn dial(
        &self,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Reached, DialError> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(*onion).or_default().clone()
        };
        let _turn = turn.lock().await;
        let _slot = self.0.slots.acquire().await.map_err(|_| DialError::Stopped)?;
        let dial = self.0.gate.dial(&*self.0.transport, onion, None, progress);
        let (session, admitted) = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Err(DialError::Stopped),
            result = dial => result?,
        };
        tracing::info!(
            peer = %admitted.claims().peer_id(),
            effort = admitted.effort(),
            solving_ms = admitted.solving_time().as_millis() as u64,
            domains = admitted.domains().len(),
            "admitted by a peer"
        );
        let (effort, solving) = (admitted.effort(), admitted.solving_time());
        let peer = self.0.peers.admit(session, admitted).await?;
        Ok(Reached { peer, effort, solving })
    }

    /// Keeps a session with the node at `onion` from now on. Asking twice changes nothing.
    pub fn keep(&self, onion: OnionAddr) {
        if self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(onion) {
            let this = self.clone();
            self.0.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = this.0.stop.cancelled() => {}
                    () = this.keep_dialling(onion) => {}
                }
            });
        }
    }

    async fn keep_dialling(&self, onion: OnionAddr) {
        let config = self.0.peers.config();
        let lasting = Duration::from_secs(config.backoff_s_min);
        let mut backoff = Backoff::new(config);
        loop {
            let dialled = match self.0.peers.session_at(&onion) {
                Some(_) => Ok(()),
                None => self.dial(&onion, &|_| {}).await.map(drop),
            };
            match dialled {
                Ok(()) => {
                    let begun = Instant::now();
                    if let Some((_, over)) = self.0.peers.session_at(&onion) {
                        over.cancelled().await;
                    }
                    if begun.elapsed() >= lasting {
                        backoff.reset();
                        continue;
                    }
                    // Each dial costs us the puzzle: one that hangs up on us at once must not make us work all day.
                }
                Err(DialError::Stopped) => return,
                Err(error) => tracing::warn!(%onion, %error, "could not reach a peer"),
            }
            let pause = backoff.next();
            tracing::debug!(%onion, retry_s = pause.as_secs(), "dialling again later");
            sleep(pause).await;
        }
    }

    /// Waits for the end of every task.
    pub async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

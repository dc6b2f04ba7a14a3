//! Keeping in touch: dialling the peers that the operator named, again and again with backoff (docs/DECISIONS.md 7).
//!
//! Never dials an address that nobody asked for, and never more than `dials_max` at once: a dead peer costs the living
//! nothing. Invariant: one task per address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bastion::{
    Admitted, Connector, HandshakeError, Progress, RefusalCode, Session, Ticket, Transport,
};
use keys::{OnionAddr, PeerId};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::AdmitError;
use super::registry::Peers;
use super::timers::Backoff;
use crate::engine::EngineError;
use crate::state_engine::ApplyPackageError;
use crate::store::{LastPeerAt, StoreError};

/// Why a dial brought no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The operator banned the peer that was met there last, or is met there now.
    #[error("the peer is banned here")]
    Banned,
    /// The peer could not be looked up or noted.
    #[error("the peer could not be stored")]
    Store(#[source] EngineError<ApplyPackageError>),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

impl From<AdmitError> for DialError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Banned => Self::Banned,
            AdmitError::Store(error) => Self::Store(error),
        }
    }
}

impl From<EngineError<StoreError>> for DialError {
    fn from(error: EngineError<StoreError>) -> Self {
        Self::Store(error.into())
    }
}

/// A dial that ended in a session.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// The peer.
    pub peer: PeerId,
    /// Expected evaluations of the puzzle that was solved; 0 with a ticket.
    pub effort: u64,
    /// How long solving took.
    pub solving: Duration,
}

/// A dial that is shown for as long as it lasts.
struct Underway<'d>(&'d Mutex<BTreeMap<OnionAddr, Progress>>, OnionAddr);

impl Underway<'_> {
    fn note(&self, step: Progress) {
        let mut underway = self.0.lock();
        underway.insert(self.1, step);
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Dials onion services.
#[derive(Clone)]
pub struct Dialler(Arc<Inner>);

struct Inner {
    connector: Connector,
    transport: Arc<dyn Transport>,
    peers: Peers,
    slots: Semaphore,
    kept: Mutex<BTreeSet<OnionAddr>>,
    turns: Mutex<BTreeMap<OnionAddr, Arc<AsyncMutex<()>>>>,
    /// How far each dial is that is under way.
    underway: Mutex<BTreeMap<OnionAddr, Progress>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Dialler {
    /// A dialler; its tasks end with `stop`.
    pub fn new(
        connector: Connector,
        transport: Arc<dyn Transport>,
        peers: Peers,
        stop: CancellationToken,
    ) -> Self {
        let slots = Semaphore::new(peers.config().dials_max);
        let (kept, tasks) = (Mutex::new(BTreeSet::new()), TaskTracker::new());
        Self(Arc::new(Inner {
            connector,
            transport,
            peers,
            slots,
            kept,
            turns: Mutex::default(),
            underway: Mutex::default(),
            tasks,
            stop,
        }))
    }

    /// Dials once, is admitted, and begins a session. Shows the ticket that the node there gave us, if it did; where that
    /// is void, works instead. An address is dialled once at a time, so that both sides see the sessions in the same order
    /// and keep the same one.
    pub async fn dial(
        &self,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Reached, DialError> {
        let turn = {
            let mut turns = self.0.turns.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(*onion).or_default().clone()
        };
        let _turn = turn.lock().await;
        let _slot = self
            .0
            .slots
            .acquire()
            .await
            .map_err(|_| DialError::Stopped)?;
        let shown = Underway(&self.0.underway, *onion);
        let noting = |step| {
            shown.note(step);
            progress(step);
        };
        let (session, admitted) = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Err(DialError::Stopped),
            result = self.knock(onion, &noting) => result?,
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
        Ok(Reached {
            peer,
            effort,
            solving,
        })
    }

    /// Returns how many dials ended in admission since the start.
    pub fn admitted_total(&self) -> u64 {
        self.0.connector.admitted_total()
    }

    /// The dials that are under way, and how far each is.
    pub fn underway(&self) -> Vec<(OnionAddr, Progress)> {
        let underway = self.0.underway.lock();
        underway
            .iter()
            .map(|(onion, step)| (*onion, *step))
            .collect()
    }

    async fn knock(
        &self,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Session, Admitted), DialError> {
        let (connector, transport) = (&self.0.connector, &*self.0.transport);
        let met = self.met_at(onion).await?;
        let ticket = met
            .as_ref()
            .and_then(|met| Ticket::from_bytes(met.ticket.as_ref()?));
        let shown = met.filter(|_| ticket.is_some());
        let dialled = connector.dial(transport, onion, ticket, progress).await;
        match (dialled, shown) {
            // A ban that is over left it void.
            (
                Err(HandshakeError::Refused {
                    code: RefusalCode::Expired,
                    ..
                }),
                Some(met),
            ) => {
                self.0
                    .peers
                    .engine()
                    .graph::<_, StoreError>(move |graph| graph.tx().put_ticket(&met.peer_id, None))
                    .await?;
                Ok(connector.dial(transport, onion, None, progress).await?)
            }
            (result, _) => Ok(result?),
        }
    }

    /// Whom we met at an address last. Fails where anybody was met there who is banned: a node does not get round its ban
    /// with a new key, let alone become trusted because we still dial it.
    async fn met_at(&self, onion: &OnionAddr) -> Result<Option<LastPeerAt>, DialError> {
        let engine = self.0.peers.engine();
        let (onion, now) = (*onion, engine.now());
        let looking = engine.read(move |view| {
            Ok::<_, StoreError>((
                view.rows.last_peer_at(&onion)?,
                view.rows.is_banned_at(&onion, now)?,
            ))
        });
        match looking.await? {
            (_, true) => Err(DialError::Banned),
            (met, false) => Ok(met),
        }
    }

    /// Keeps a session with the node at `onion` from now on. Asking twice changes nothing.
    pub fn keep(&self, onion: OnionAddr) {
        self.keep_from(onion, false);
    }

    /// The same, with a pause before the first dial: one has just failed.
    pub fn keep_later(&self, onion: OnionAddr) {
        self.keep_from(onion, true);
    }

    fn keep_from(&self, onion: OnionAddr, later: bool) {
        if self.0.kept.lock().insert(onion) {
            let this = self.clone();
            self.0.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = this.0.stop.cancelled() => {}
                    () = this.keep_dialling(onion, later) => {}
                }
            });
        }
    }

    async fn keep_dialling(&self, onion: OnionAddr, later: bool) {
        let config = self.0.peers.config();
        let lasting = Duration::from_secs(config.backoff_s_min);
        let mut backoff = Backoff::new(config);
        if later {
            sleep(backoff.next()).await;
        }
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
                // Nobody was dialled; the ban may end.
                Err(DialError::Banned) => tracing::debug!(%onion, "a banned peer is not dialled"),
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

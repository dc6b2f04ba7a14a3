//! Dialling: opens a session with an onion service once, or keeps one open with backoff
//! (docs/DECISIONS.md 7).
//!
//! Inputs are the addresses of configured and trusted peers, and of requested dials; output is
//! sessions of the [`SyncService`]. At most `dials_max` dials run at once, so that unreachable
//! peers do not exhaust the node. Invariants: one task keeps an address; an address is dialled once
//! at a time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bastion::{
    Admitted, Connector, DialTerms, HandshakeError, Progress, RefusalCode, Session, Ticket,
    Transport,
};
use keys::{OnionAddr, PeerId, TraceId, error_chain};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::admit::AdmitError;
use super::backoff::Backoff;
use super::service::SyncService;
use crate::engine::EngineError;
use crate::state_engine::ApplyPackageError;
use crate::store::{LastPeerAt, StoreError};

/// Most dials at the same time to nodes that were introduced.
const INTRODUCTION_DIALS_MAX: usize = 2;

/// Why a dial did not end in a session.
#[derive(Debug, thiserror::Error)]
pub enum PeerDialError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The operator banned a peer that was reached at this address before, or is reached there now.
    #[error("the peer is banned here")]
    Banned,
    /// Objects of the peer at this address are being removed.
    #[error("what the peer sent is being removed: dial again after that")]
    Purging,
    /// The key chain of the node at this address does not continue the known one.
    #[error("the peer's key chain does not continue the known one: stolen or restored keys")]
    ChainForked,
    /// The peer could not be read from or written to the database.
    #[error("the peer could not be stored")]
    Store(#[source] EngineError<ApplyPackageError>),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

impl From<AdmitError> for PeerDialError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Banned => Self::Banned,
            AdmitError::Purging => Self::Purging,
            AdmitError::ChainForked => Self::ChainForked,
            AdmitError::Store(error) => Self::Store(error),
        }
    }
}

impl From<EngineError<StoreError>> for PeerDialError {
    fn from(error: EngineError<StoreError>) -> Self {
        Self::Store(error.into())
    }
}

/// A dial that ended in a session.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// The peer that was reached.
    pub peer: PeerId,
    /// Effort of the puzzle that was solved, in expected evaluations; 0 with a ticket.
    pub effort: u64,
    /// Time that solving took.
    pub solving: Duration,
}

/// Lists a dial in [`Dialler::underway`] until it is dropped.
struct DialGuard<'d>(&'d Mutex<BTreeMap<OnionAddr, Progress>>, OnionAddr);

impl DialGuard<'_> {
    fn note(&self, step: Progress) {
        let mut underway = self.0.lock();
        underway.insert(self.1, step);
    }
}

impl Drop for DialGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Dials onion services. Cheap to clone.
#[derive(Clone)]
pub struct Dialler(Arc<DiallerState>);

struct DiallerState {
    connector: Connector,
    transport: Arc<dyn Transport>,
    sync: SyncService,
    /// One permit for each dial in progress.
    slots: Semaphore,
    /// The same for nodes that were introduced.
    introduction_slots: Semaphore,
    /// Addresses that have a task which keeps a session open, each with what ends the task.
    kept: Mutex<BTreeMap<OnionAddr, CancellationToken>>,
    /// One lock for each address that is being dialled.
    turns: Mutex<BTreeMap<OnionAddr, Arc<AsyncMutex<()>>>>,
    /// The step that each dial in progress has reached.
    underway: Mutex<BTreeMap<OnionAddr, Progress>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Dialler {
    /// A dialler that keeps no address yet; its tasks end with `stop`.
    pub fn new(
        connector: Connector,
        transport: Arc<dyn Transport>,
        sync: SyncService,
        stop: CancellationToken,
    ) -> Self {
        let slots = Semaphore::new(sync.config().dials_max);
        let (kept, tasks) = (Mutex::default(), TaskTracker::new());
        Self(Arc::new(DiallerState {
            connector,
            transport,
            sync,
            slots,
            introduction_slots: Semaphore::new(INTRODUCTION_DIALS_MAX),
            kept,
            turns: Mutex::default(),
            underway: Mutex::default(),
            tasks,
            stop,
        }))
    }

    /// Dials once, passes the handshake and starts a session.
    ///
    /// Shows the ticket that the node at `onion` issued to this node, and solves the puzzle if
    /// there is none or it has expired. An address is dialled once at a time, so that both sides
    /// see the sessions in the same order and keep the same one.
    pub async fn dial(
        &self,
        onion: &OnionAddr,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Reached, PeerDialError> {
        let terms = self.0.connector.chosen_terms();
        self.dial_under(onion, terms, progress).await
    }

    /// [`Dialler::dial`] under other terms than those of a node that the operator chose.
    pub(super) async fn dial_under(
        &self,
        onion: &OnionAddr,
        terms: DialTerms,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Reached, PeerDialError> {
        let trace = TraceId(rand::random());
        let span = tracing::info_span!("dial", %onion, %trace);
        self.dial_traced(trace, (onion, terms), progress)
            .instrument(span)
            .await
    }

    async fn dial_traced(
        &self,
        trace: TraceId,
        (onion, terms): (&OnionAddr, DialTerms),
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Reached, PeerDialError> {
        let turn = {
            let mut turns = self.0.turns.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(*onion).or_default().clone()
        };
        let _turn = turn.lock().await;
        // Nodes that the operator did not choose delay no others.
        let slots = match terms.peer {
            None => &self.0.slots,
            Some(_) => &self.0.introduction_slots,
        };
        let slot = slots.acquire().await;
        let _slot = slot.map_err(|_| PeerDialError::Stopped)?;
        let guard = DialGuard(&self.0.underway, *onion);
        let noting = |step| {
            guard.note(step);
            progress(step);
        };
        let (session, admitted) = tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return Err(PeerDialError::Stopped),
            result = self.dial_known(trace, (onion, terms), &noting) => result?,
        };
        tracing::info!(
            peer = %admitted.claims().peer_id(),
            effort = admitted.effort(),
            solving_ms = admitted.solving_time().as_millis() as u64,
            domains = admitted.domains().len(),
            "admitted by a peer"
        );
        let (effort, solving) = (admitted.effort(), admitted.solving_time());
        let peer = self.0.sync.admit_traced(trace, session, admitted).await?;
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

    /// The dials in progress, and the step that each has reached.
    pub fn underway(&self) -> Vec<(OnionAddr, Progress)> {
        let underway = self.0.underway.lock();
        underway
            .iter()
            .map(|(onion, step)| (*onion, *step))
            .collect()
    }

    /// Dials with the ticket that the node at `onion` issued; if it has expired, once more without.
    async fn dial_known(
        &self,
        trace: TraceId,
        (onion, terms): (&OnionAddr, DialTerms),
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Session, Admitted), PeerDialError> {
        let (connector, transport) = (&self.0.connector, &*self.0.transport);
        let target = (onion, terms);
        let met = self.met_at(onion).await?;
        let is_expected = |met: &LastPeerAt| terms.peer.is_none_or(|peer| peer == met.peer_id);
        let met = met.filter(is_expected);
        let ticket = met
            .as_ref()
            .and_then(|met| Ticket::from_bytes(met.ticket.as_ref()?));
        let shown = met.filter(|_| ticket.is_some());
        let dialled = connector
            .dial_under(transport, target, ticket, progress)
            .await;
        match (dialled, shown) {
            // The peer had banned this node, which revoked the ticket.
            (
                Err(HandshakeError::Refused {
                    code: RefusalCode::Expired,
                    ..
                }),
                Some(met),
            ) => {
                self.0
                    .sync
                    .engine()
                    .traced(trace)
                    .graph::<_, StoreError>(move |graph| graph.tx().put_ticket(&met.peer_id, None))
                    .await?;
                Ok(connector
                    .dial_under(transport, target, None, progress)
                    .await?)
            }
            (result, _) => Ok(result?),
        }
    }

    /// Returns the peer that was reached at an address last. Fails if any peer that was reached
    /// there is banned. A banned node must not evade its ban with a new key, or be trusted because
    /// this node dials it.
    async fn met_at(&self, onion: &OnionAddr) -> Result<Option<LastPeerAt>, PeerDialError> {
        let engine = self.0.sync.engine();
        let (onion, now) = (*onion, engine.now());
        let looking = engine.read(move |view| {
            Ok::<_, StoreError>((
                view.rows.last_peer_at(&onion)?,
                view.rows.is_banned_at(&onion, now)?,
            ))
        });
        match looking.await? {
            (_, true) => Err(PeerDialError::Banned),
            (met, false) => Ok(met),
        }
    }

    /// Keeps a session open with the node at `onion` from now on. A second call changes nothing,
    /// and neither does one with the address of this node.
    pub fn keep(&self, onion: OnionAddr) {
        self.keep_after(onion, false);
    }

    /// [`Dialler::keep`] with a pause before the first dial, because a dial has just failed.
    pub fn keep_later(&self, onion: OnionAddr) {
        self.keep_after(onion, true);
    }

    fn keep_after(&self, onion: OnionAddr, pause_first: bool) {
        if onion == self.0.sync.engine().context().keys.onion() {
            // `postern check` cannot report it, because the address is in the sealed vault.
            return tracing::warn!(
                %onion,
                "a configured or trusted peer has the onion address of this node: it is not dialled"
            );
        }
        let stop = self.0.stop.child_token();
        let is_new = match self.0.kept.lock().entry(onion) {
            Entry::Occupied(_) => false,
            Entry::Vacant(new) => {
                new.insert(stop.clone());
                true
            }
        };
        if is_new {
            let this = self.clone();
            self.in_background(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = this.keep_dialling(onion, pause_first) => {}
                }
            });
        }
    }

    /// Stops keeping a session open with the node at `onion`. An open session stays.
    pub fn leave(&self, onion: &OnionAddr) {
        if let Some(stop) = self.0.kept.lock().remove(onion) {
            stop.cancel();
        }
    }

    async fn keep_dialling(&self, onion: OnionAddr, pause_first: bool) {
        let config = self.0.sync.config();
        let stable_after = Duration::from_secs(config.backoff_s_min);
        let mut backoff = Backoff::new(config);
        if pause_first {
            sleep(backoff.next()).await;
        }
        loop {
            let dialled = match self.0.sync.registry().session_at(&onion) {
                Some(_) => Ok(()),
                None => self.dial(&onion, &|_| {}).await.map(drop),
            };
            match dialled {
                Ok(()) => {
                    let started = Instant::now();
                    if let Some(closed) = self.0.sync.registry().session_at(&onion) {
                        closed.cancelled().await;
                    }
                    if started.elapsed() >= stable_after {
                        backoff.reset();
                        continue;
                    }
                    // A short session counts as a failed dial, because each dial costs a puzzle.
                }
                Err(PeerDialError::Stopped) => return,
                // No dial was made; the ban may end.
                Err(PeerDialError::Banned) => {
                    tracing::debug!(%onion, "did not dial a banned peer")
                }
                Err(error) => {
                    tracing::warn!(%onion, error = %error_chain(&error), "could not reach a peer")
                }
            }
            let pause = backoff.next();
            tracing::debug!(%onion, retry_s = pause.as_secs(), "dial will be retried");
            sleep(pause).await;
        }
    }

    /// The sync service that takes over the sessions.
    pub(super) fn sync(&self) -> &SyncService {
        &self.0.sync
    }

    /// The number of dials to introduced nodes that may begin now.
    pub(super) fn free_introduction_slots(&self) -> usize {
        self.0.introduction_slots.available_permits()
    }

    /// The addresses with which a session is kept open.
    pub(super) fn kept(&self) -> BTreeSet<OnionAddr> {
        self.0.kept.lock().keys().copied().collect()
    }

    /// Runs `work` until it ends or the node stops.
    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits for the end of every task; they end with the token `stop`.
    pub async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;

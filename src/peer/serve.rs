//! Replies to a peer's requests from the core (docs/STORY.md 2.1, 4, 5).
//!
//! Inputs are requests that [`super::session`] admitted; outputs are replies. A refusal carries a
//! short code and no reason beyond it. A domain outside the intersection gets the reply of an empty
//! one, after the same wait, so that a peer cannot tell them apart. Invariant: what is sent was
//! recorded in `sync_state` before.

use std::sync::Arc;
use std::time::Duration;

use bastion::Tier;
use keys::protocol::PULL_WAIT_S_MAX;
use keys::{PeerId, TraceId, codec, error_chain};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::handle::SessionInfo;
use super::message::{
    EpochNote, IdOnly, PackageBody, Pull, ReclaimRequest, ReclaimedBatch, RequestRefusal,
    SessionMessage, UpToDate,
};
use super::processor_budget::ProcessorBudget;
use super::quota_log::QuotaLog;
use super::receive::receive_push;
use super::sync_error::SyncError;
use super::token_bucket::TokenBuckets;
use crate::config::SyncConfig;
use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::{
    ApplyPackageError, EpochError, OwnEpoch, PullReply, PullRequest, RecoveryRequest, WindowFault,
    exported_in,
};
use crate::store::{PeerEpoch, StoreError};

/// Logged when a peer shows an epoch of this node that this database does not contain.
const CLONE: &str = "clone or rollback detected: this peer has seen an epoch or sequence number \
                     signed by our key that this database does not contain; the node is now \
                     read-only: see `postern recovery`";
/// Logged when a peer shows an unknown epoch that is signed with a rotated key of this node.
const OLD_KEY: &str = "this peer shows an epoch that this database does not contain, signed with \
                       a rotated key of this node: another party holds that key, or an old copy \
                       of this node is running";

/// State that the replies of one session share.
#[derive(Debug)]
pub struct ReplyTurns {
    /// One package at a time from its building until it is queued. A peer that requests many and
    /// reads none therefore costs the memory of one.
    build: Semaphore,
    /// Held by the one `watch` in progress. The domain that the last one got.
    watch: AsyncMutex<Option<String>>,
}

impl Default for ReplyTurns {
    fn default() -> Self {
        Self {
            build: Semaphore::new(1),
            watch: AsyncMutex::default(),
        }
    }
}

/// The reply to a request, and the permit that it holds until it is queued.
pub struct ServerReply<'b> {
    /// The message to be queued.
    pub message: SessionMessage,
    /// The session's permit to build a package, if the reply carries one.
    pub build_permit: Option<SemaphorePermit<'b>>,
    /// Whether the reply carries news for which the request waited. Such a request costs no token.
    pub is_news: bool,
}

impl From<SessionMessage> for ServerReply<'_> {
    fn from(message: SessionMessage) -> Self {
        Self {
            message,
            build_permit: None,
            is_news: false,
        }
    }
}

/// Replies to the requests of all peers. Cheap to clone.
#[derive(Clone)]
pub struct RequestServer {
    core: CoreHandle,
    limits: Arc<ServerLimits>,
    quota_log: Arc<QuotaLog>,
    budget: Arc<ProcessorBudget>,
}

/// Limits that all sessions share.
struct ServerLimits {
    /// One permit for each pull or watch that waits for changes, of all peers together.
    waiting: Semaphore,
    buckets: TokenBuckets,
}

impl RequestServer {
    /// A server over the core, with full token buckets.
    pub fn new(core: CoreHandle, config: &SyncConfig) -> Self {
        let quotas = core.context().limits.quotas;
        let limits = ServerLimits {
            buckets: TokenBuckets::new(quotas),
            waiting: Semaphore::new(config.waiting_pulls_max),
        };
        Self {
            core,
            limits: Arc::new(limits),
            quota_log: Arc::default(),
            budget: Arc::new(ProcessorBudget::new(quotas)),
        }
    }

    /// Returns a server with the same limits, whose writes carry `trace` in the logs.
    pub(super) fn traced(&self, trace: TraceId) -> Self {
        Self {
            core: self.core.traced(trace),
            ..self.clone()
        }
    }

    /// Takes one token from a peer's bucket; false if it is empty.
    pub fn may_ask(&self, peer: &PeerId, tier: Tier) -> bool {
        self.limits.buckets.take(peer, tier)
    }

    /// Returns the token of a request that waited and got news, because its peer did not decide how
    /// many there are.
    pub(super) fn give_back(&self, peer: &PeerId, tier: Tier) {
        self.limits.buckets.give_back(peer, tier);
    }

    /// The log of full quotas, shared with the sessions' own pulls.
    pub(super) fn quota_log(&self) -> &Arc<QuotaLog> {
        &self.quota_log
    }

    /// The processor time of all peers, shared with the sessions' own pulls.
    pub(super) fn budget(&self) -> &Arc<ProcessorBudget> {
        &self.budget
    }

    /// Returns the reply to a request of the session's peer. A reply with a package holds the
    /// permit of `turns` to build one until it is queued.
    pub async fn reply<'b>(
        &self,
        session: &SessionInfo,
        request: SessionMessage,
        turns: &'b ReplyTurns,
    ) -> ServerReply<'b> {
        let peer = &session.peer;
        let reply = match request {
            SessionMessage::Pull(pull) => self.pull(session, pull, &turns.build).await,
            SessionMessage::Watch(watch) => self.watch(session, watch, turns).await,
            SessionMessage::Push(push) => self.push(session, push).await.map(ServerReply::from),
            SessionMessage::Epoch(note) => self.hear(peer, note).await.map(ServerReply::from),
            SessionMessage::Heard(note) => self.hear_own(peer, note).await.map(ServerReply::from),
            SessionMessage::Receipt(note) => {
                let reply = self.receipt(session, note, &turns.build).await;
                reply.map(ServerReply::from)
            }
            SessionMessage::Reclaim(request) => self.reclaim(session, request, &turns.build).await,
            SessionMessage::Fetch(request) => self.fetch(session, request, &turns.build).await,
            SessionMessage::Introduce(request) => self.introduce(session, request).await,
            // The session passes on nothing else.
            _ => Err(refused(0, "internal")),
        };
        reply.unwrap_or_else(|refusal| SessionMessage::Refused(refusal).into())
    }

    async fn pull<'b>(
        &self,
        session: &SessionInfo,
        pull: Pull,
        build_permit: &'b Semaphore,
    ) -> Result<ServerReply<'b>, RequestRefusal> {
        let peer = &session.peer;
        if pull.peer_id != *peer {
            return Err(refused(pull.id, "peer_id"));
        }
        let request = PullRequest {
            again: pull.again,
            peer: *peer,
            domain: pull.domain,
            last_seq: pull.last_seq,
            epoch: pull.epoch,
            features: session.features.clone(),
            whole_after: Some(session.start_seq),
        };
        let waiting = self.limits.waiting.try_acquire();
        let wait_s = if waiting.is_ok() && request.again.is_none() {
            u64::from(pull.wait_s).min(PULL_WAIT_S_MAX)
        } else {
            0
        };
        let until = Instant::now() + Duration::from_secs(wait_s);
        let exported = exported_in(&session.features);
        let news = self.core.watch(peer, &request.domain, exported);
        let mut has_waited = false;
        let (answer, build_permit) = loop {
            let asked = request.clone();
            let permit = build_permit
                .acquire()
                .await
                .map_err(|_| refused(pull.id, "internal"))?;
            let built = self.core.read(move |view| view.build_package(&asked)).await;
            let answer = built.map_err(|error| internal(pull.id, &error))?;
            if matches!(answer, PullReply::Package { .. }) {
                break (answer, Some(permit));
            }
            drop(permit);
            if timeout_at(until, news.wait()).await.is_err() {
                break (answer, None);
            }
            has_waited = true;
        };
        // A pull of scopes again says nothing about the peer's cursor.
        let is_news = match &request.again {
            None => self.record_sent(pull.id, request, &answer).await?,
            Some(_) => false,
        };
        let message = match answer {
            PullReply::UpToDate { last_seq, .. } => SessionMessage::UpToDate(UpToDate {
                id: pull.id,
                epoch: self.core.context().epoch,
                last_seq,
            }),
            PullReply::Package { bytes, .. } => SessionMessage::Package(PackageBody {
                id: pull.id,
                body: bytes,
            }),
        };
        Ok(ServerReply {
            message,
            build_permit,
            is_news: has_waited && is_news,
        })
    }

    /// Records in `sync_state` what the reply to a pull sends; nothing for a domain outside the
    /// intersection. Returns whether the peer was never sent as much before.
    async fn record_sent(
        &self,
        id: u64,
        request: PullRequest,
        answer: &PullReply,
    ) -> Result<bool, RequestRefusal> {
        let sent = match answer {
            PullReply::UpToDate {
                in_intersection: false,
                ..
            } => return Ok(false),
            PullReply::UpToDate { .. } => None,
            PullReply::Package { window, .. } => Some(*window),
        };
        let recorded = self
            .core
            .write(move |core, now| core.record_sent(now, &request, sent))
            .await;
        recorded.map_err(|error: EngineError<StoreError>| internal(id, &error))
    }

    /// Stores the epoch in which the peer's sequence numbers count, signed by the peer.
    async fn hear(&self, peer: &PeerId, note: EpochNote) -> Result<SessionMessage, RequestRefusal> {
        let (id, peer, heard) = (note.id, *peer, heard(note));
        let stored = self
            .core
            .write(move |core, now| core.put_peer_epoch(now, &peer, &heard));
        match stored.await {
            Ok(()) => Ok(SessionMessage::Noted(IdOnly { id })),
            Err(EngineError::Work(EpochError::Fault(fault))) => {
                tracing::warn!(
                    error = %error_chain(&fault),
                    "refused the peer's statement of its own epoch"
                );
                Err(refused(id, "epoch"))
            }
            Err(error) => Err(internal(id, &error)),
        }
    }

    /// Compares an epoch that was once signed with a key of this node with those of this database.
    async fn hear_own(
        &self,
        peer: &PeerId,
        note: EpochNote,
    ) -> Result<SessionMessage, RequestRefusal> {
        let (id, peer, heard) = (note.id, *peer, heard(note));
        let compared = self
            .core
            .write(move |core, now| core.check_own_epoch(now, &peer, &heard));
        match compared.await {
            Ok(outcome) => {
                match outcome {
                    OwnEpoch::Known => {}
                    OwnEpoch::OldKey => tracing::error!("{OLD_KEY}"),
                    OwnEpoch::Foreign => tracing::error!("{CLONE}"),
                }
                Ok(SessionMessage::Noted(IdOnly { id }))
            }
            Err(EngineError::Work(EpochError::Fault(fault))) => {
                tracing::warn!(
                    error = %error_chain(&fault),
                    "refused the peer's statement of an epoch of this node"
                );
                Err(refused(id, "epoch"))
            }
            Err(error) => Err(internal(id, &error)),
        }
    }

    /// Sends a restored node one batch of the objects that it once sent. One batch is built at a
    /// time, as with packages. The batch is charged to the peer's processor time, because any peer
    /// may ask. Without time left the reply is `busy`, so that a request in progress does not end.
    async fn reclaim<'b>(
        &self,
        session: &SessionInfo,
        request: ReclaimRequest,
        build_permit: &'b Semaphore,
    ) -> Result<ServerReply<'b>, RequestRefusal> {
        let (id, peer) = (request.id, &session.peer);
        let request = RecoveryRequest {
            peer: *peer,
            domain: request.domain,
            after: request.after,
        };
        let permit = build_permit
            .acquire()
            .await
            .map_err(|_| refused(id, "internal"))?;
        if !self.budget.has_time(peer) {
            return Err(refused(id, "busy"));
        }
        let mut charge = self.budget.begin(peer, session.tier, 0);
        let batch = self
            .core
            .read(move |view| view.recovery_batch(&request))
            .await;
        let batch = batch.map_err(|error| internal(id, &error))?;
        charge.set_objects(batch.cost);
        drop(charge);
        Ok(ServerReply {
            message: SessionMessage::Reclaimed(ReclaimedBatch {
                id,
                body: codec::encode(&batch.objects),
                next: batch.next,
            }),
            build_permit: Some(permit),
            is_news: false,
        })
    }

    async fn push(
        &self,
        session: &SessionInfo,
        push: PackageBody,
    ) -> Result<SessionMessage, RequestRefusal> {
        let peer = &session.peer;
        // The session holds the permit for pushes meanwhile, and ends this with itself.
        self.budget.wait(peer).await;
        let received = receive_push(&self.core, &self.budget, session, &push.body);
        match received.await {
            Ok(package) => {
                if package.applied.written > 0 {
                    self.quota_log.accepted(peer);
                }
                Ok(SessionMessage::Ack(UpToDate {
                    id: push.id,
                    epoch: package.epoch,
                    last_seq: package.applied.last_seq,
                }))
            }
            Err(SyncError::Apply(EngineError::Work(ApplyPackageError::Window(
                WindowFault::Gap { last_seq },
            )))) => Err(RequestRefusal {
                last_seq: Some(last_seq),
                ..refused(push.id, "gap")
            }),
            Err(SyncError::Package(fault)) => {
                tracing::warn!(error = %error_chain(&fault), "refused a pushed package");
                Err(refused(push.id, fault.code()))
            }
            Err(error) => match error.quota() {
                Some(fault) => {
                    self.quota_log.refused(peer, fault);
                    Err(refused(push.id, "quota"))
                }
                None => Err(internal(push.id, &error)),
            },
        }
    }
}

fn heard(note: EpochNote) -> PeerEpoch {
    PeerEpoch {
        epoch: note.epoch,
        key_id: note.key_id,
        signature: note.signature,
        head: note.head,
    }
}

fn refused(id: u64, code: &str) -> RequestRefusal {
    RequestRefusal {
        id,
        code: code.to_owned(),
        last_seq: None,
    }
}

/// Logs a fault of this node with its causes; the peer gets the code alone.
fn internal(id: u64, error: &(dyn std::error::Error + 'static)) -> RequestRefusal {
    tracing::error!(error = %error_chain(error), "could not answer a peer");
    refused(id, "internal")
}

mod fetch;
mod introduce;
mod receipt;
#[cfg(test)]
mod reclaim_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod waking_tests;
mod watch;
#[cfg(test)]
mod watch_tests;

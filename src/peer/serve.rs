//! Answering a peer: pulls and pushes, against the engine (docs/STORY.md 2.1, 4, 5).
//!
//! Never tells a peer why beyond a short word. A domain outside the intersection is answered like an empty one, after
//! the same wait. Invariant: what is sent was noted in `sync_state` before.

use std::time::Duration;

use bastion::Tier;
use keys::protocol::PULL_WAIT_S_MAX;
use keys::{PeerId, codec};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::budget::{QuotaNotes, Requests};
use super::message::{
    EpochNote, Id, Message, PackageBody, Pull, Refused, Return, Returned, UpToDate,
};
use super::pull::{self, SyncError};
use crate::config::SyncConfig;
use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::{
    ApplyPackageError, HearError, OwnEpoch, PullReply, PullRequest, RecoveryRequest, WindowFault,
};
use crate::store::{PeerEpoch, StoreError};

/// What the operator's log says once a foreign epoch was shown.
const CLONE: &str = "clone or rollback: this peer has heard an epoch that is signed with this node's key and was never begun \
                     here, or counted further. This node writes nothing more. `postern recovery` says what to do";

const OLD_KEY: &str = "this peer shows an epoch that is signed with a key of this node's which was rotated away, and was \
                       never begun here: somebody has that key, or a copy of this node from before";

/// Answers the requests of any peer.
pub struct Server {
    engine: CoreHandle,
    /// Places for pulls that wait, of all peers together.
    waiting: Semaphore,
    requests: Requests,
    quota_notes: QuotaNotes,
}

impl Server {
    /// A server over the engine.
    pub fn new(engine: CoreHandle, config: &SyncConfig) -> Self {
        let requests = Requests::new(engine.context().limits.quotas);
        let waiting = Semaphore::new(config.waiting_pulls_max);
        Self {
            engine,
            waiting,
            requests,
            quota_notes: QuotaNotes::default(),
        }
    }

    /// Whether a peer may ask once more now: takes one request out of its bucket. A pull that waits counts once.
    pub fn may_ask(&self, peer: &PeerId, tier: Tier) -> bool {
        self.requests.take(peer, tier)
    }

    /// What was said of full quotas.
    pub(super) fn quota_notes(&self) -> &QuotaNotes {
        &self.quota_notes
    }

    /// The answer to a pull or a push of that peer. A package holds the session's one place for building until it is
    /// queued.
    pub async fn answer<'b>(
        &self,
        peer: &PeerId,
        message: Message,
        building: &'b Semaphore,
    ) -> (Message, Option<SemaphorePermit<'b>>) {
        let (id, result) = match message {
            Message::Pull(pull) => (pull.id, self.pull(peer, pull, building).await),
            Message::Push(push) => (push.id, self.push(peer, push).await.map(|ack| (ack, None))),
            Message::Epoch(note) => (
                note.id,
                self.hear(peer, note).await.map(|noted| (noted, None)),
            ),
            Message::Heard(note) => (
                note.id,
                self.hear_own(peer, note).await.map(|noted| (noted, None)),
            ),
            Message::Return(ask) => (ask.id, self.give_back(peer, ask, building).await),
            // The session hands over nothing else.
            _ => (0, Err(refused(0, "internal"))),
        };
        result.unwrap_or_else(|refused| (Message::Refused(Refused { id, ..refused }), None))
    }

    async fn pull<'b>(
        &self,
        peer: &PeerId,
        pull: Pull,
        building: &'b Semaphore,
    ) -> Result<(Message, Option<SemaphorePermit<'b>>), Refused> {
        if pull.peer_id != *peer {
            return Err(refused(pull.id, "peer_id"));
        }
        let request = PullRequest {
            peer: *peer,
            domain: pull.domain,
            last_seq: pull.last_seq,
            epoch: pull.epoch,
        };
        let place = self.waiting.try_acquire();
        let wait_s = if place.is_ok() {
            u64::from(pull.wait_s).min(PULL_WAIT_S_MAX)
        } else {
            0
        };
        let until = Instant::now() + Duration::from_secs(wait_s);
        let mut changes = self.engine.changes();
        let (answer, built_in) = loop {
            changes.mark_unchanged();
            let asked = request.clone();
            let room = building
                .acquire()
                .await
                .map_err(|_| refused(pull.id, "internal"))?;
            let built = self
                .engine
                .read(move |view| view.build_package(&asked))
                .await;
            let answer = built.map_err(|error| internal(pull.id, &error))?;
            if matches!(answer, PullReply::Package { .. }) {
                break (answer, Some(room));
            }
            drop(room);
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                break (answer, None);
            }
        };
        self.note_sent(pull.id, request, &answer).await?;
        let epoch = self.engine.context().epoch;
        let message = match answer {
            PullReply::UpToDate { last_seq, .. } => Message::UpToDate(UpToDate {
                id: pull.id,
                epoch,
                last_seq,
            }),
            PullReply::Package { bytes, .. } => Message::Package(PackageBody {
                id: pull.id,
                body: bytes,
            }),
        };
        Ok((message, built_in))
    }

    /// A domain outside the intersection changes no state.
    async fn note_sent(
        &self,
        id: u64,
        request: PullRequest,
        answer: &PullReply,
    ) -> Result<(), Refused> {
        let sent = match answer {
            PullReply::UpToDate {
                in_intersection: false,
                ..
            } => return Ok(()),
            PullReply::UpToDate { .. } => None,
            PullReply::Package { window, .. } => Some(*window),
        };
        let noted = self
            .engine
            .write(move |core, now| core.record_sent(now, &request, sent))
            .await;
        noted.map_err(|error: EngineError<StoreError>| internal(id, &error))
    }

    /// The epoch in which the peer's sequence numbers count, signed by it.
    async fn hear(&self, peer: &PeerId, note: EpochNote) -> Result<Message, Refused> {
        let (id, peer, heard) = (note.id, *peer, heard(note));
        let noted = self
            .engine
            .write(move |core, now| core.put_peer_epoch(now, &peer, &heard));
        match noted.await {
            Ok(()) => Ok(Message::Noted(Id { id })),
            Err(EngineError::Work(HearError::Fault(fault))) => {
                tracing::warn!(%peer, %fault, "refused what a peer says of its epoch");
                Err(refused(id, "epoch"))
            }
            Err(error) => Err(internal(id, &error)),
        }
    }

    /// An epoch that this node, or another one with its keys, once said is its own.
    async fn hear_own(&self, peer: &PeerId, note: EpochNote) -> Result<Message, Refused> {
        let (id, peer, heard) = (note.id, *peer, heard(note));
        let heard = self
            .engine
            .write(move |core, now| core.hear_own_epoch(now, &peer, &heard));
        match heard.await {
            Ok(outcome) => {
                match outcome {
                    OwnEpoch::Known => {}
                    OwnEpoch::OldKey => tracing::error!(%peer, "{OLD_KEY}"),
                    OwnEpoch::Foreign => tracing::error!(%peer, "{CLONE}"),
                }
                Ok(Message::Noted(Id { id }))
            }
            Err(EngineError::Work(HearError::Fault(fault))) => {
                tracing::warn!(%peer, %fault, "refused what a peer says of this node's epochs");
                Err(refused(id, "epoch"))
            }
            Err(error) => Err(internal(id, &error)),
        }
    }

    /// What the peer once sent, for a node that was restored. One answer at a time is built, as with packages.
    async fn give_back<'b>(
        &self,
        peer: &PeerId,
        ask: Return,
        building: &'b Semaphore,
    ) -> Result<(Message, Option<SemaphorePermit<'b>>), Refused> {
        let request = RecoveryRequest {
            peer: *peer,
            domain: ask.domain,
            after: ask.after,
        };
        let room = building
            .acquire()
            .await
            .map_err(|_| refused(ask.id, "internal"))?;
        let given = self
            .engine
            .read(move |view| view.recovery_batch(&request))
            .await;
        let given = given.map_err(|error| internal(ask.id, &error))?;
        let returned = Returned {
            id: ask.id,
            body: codec::encode(&given.objects),
            next: given.next,
        };
        Ok((Message::Returned(returned), Some(room)))
    }

    async fn push(&self, peer: &PeerId, push: PackageBody) -> Result<Message, Refused> {
        match pull::take_package(&self.engine, peer, None, &push.body).await {
            Ok((epoch, taken)) => {
                if taken.applied.written > 0 {
                    self.quota_notes.taken(peer);
                }
                Ok(Message::Ack(UpToDate {
                    id: push.id,
                    epoch,
                    last_seq: taken.applied.last_seq,
                }))
            }
            Err(SyncError::Apply(EngineError::Work(ApplyPackageError::Window(
                WindowFault::Gap { last_seq },
            )))) => Err(Refused {
                last_seq: Some(last_seq),
                ..refused(push.id, "gap")
            }),
            Err(SyncError::Package(fault)) => {
                tracing::warn!(%peer, %fault, "refused a pushed package");
                Err(refused(push.id, fault.code()))
            }
            Err(error) => match error.quota() {
                Some(fault) => {
                    self.quota_notes.refused(peer, fault);
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

fn refused(id: u64, code: &str) -> Refused {
    Refused {
        id,
        code: code.to_owned(),
        last_seq: None,
    }
}

/// Our own fault: the log gets the chain, the peer a word.
fn internal(id: u64, error: &(dyn std::error::Error + 'static)) -> Refused {
    tracing::error!(error = %keys::error_chain(error), "could not answer a peer");
    refused(id, "internal")
}

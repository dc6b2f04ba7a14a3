//! What a session begins with besides pulls: epochs are shown to each other, and a node that was restored asks for what is
//! its own (docs/DECISIONS.md 2, 5).
//!
//! Never counts a peer as asked before all of its answers were taken. Invariant: each task ends with its session, and what
//! failed is asked for again while it lasts.

use std::time::Duration;

use keys::{Oid, PeerId};
use tokio::time::sleep;

use super::message::{EpochNote, Message, Return};
use super::pull::SyncError;
use super::registry::Peers;
use super::session::{Handle, SessionError};
use super::timers::Backoff;
use crate::engine::EngineError;
use crate::state_engine::ReclaimSummary;
use crate::store::{PeerEpoch, StoreError, WriteMode};

/// Answers for one domain, at most: a bound against a peer that always says "more".
const ANSWERS_MAX: usize = 100_000;
/// Time between two looks whether a recovery's time is up.
const EVERY: Duration = Duration::from_secs(600);

impl Peers {
    /// Shows the peer this node's epoch, and what else it once signed as its own; then asks for what it holds of this node,
    /// if this node was restored. Tries again until all is done or the session is over.
    pub(super) async fn keep_recovering(&self, handle: &Handle, domains: &[String]) {
        let mut backoff = Backoff::new(self.config());
        let mut are_shown = false;
        loop {
            let done = async {
                if !are_shown {
                    self.show_epochs(handle).await?;
                    are_shown = true;
                }
                self.recover(handle, domains).await
            };
            match done.await {
                Ok(()) | Err(SyncError::Session(SessionError::Over)) => return,
                Err(SyncError::Session(
                    error @ (SessionError::Malformed(_) | SessionError::Misbehaved(_)),
                )) => {
                    // Asked again it would say the same, and has the questions of a whole session to do so.
                    tracing::warn!(peer = %handle.peer(), %error, "ended the session with a peer that misbehaved");
                    handle.end("misbehaviour");
                    return;
                }
                Err(error) => {
                    tracing::warn!(peer = %handle.peer(), %error, "could not make epochs and own objects good")
                }
            }
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = sleep(backoff.next()) => {}
            }
        }
    }

    async fn show_epochs(&self, handle: &Handle) -> Result<(), SyncError> {
        let peer = *handle.peer();
        let read = self.engine().read(move |view| {
            // The present one too: it may once have counted further.
            let heard = view.rows.peer_epochs(&peer)?;
            Ok::<_, StoreError>((view.own_epoch()?, heard))
        });
        let (own, heard) = read.await?;
        self.tell(handle, |id| Message::Epoch(note(id, own)))
            .await?;
        for heard in heard {
            self.tell(handle, |id| Message::Heard(note(id, heard)))
                .await?;
        }
        Ok(())
    }

    async fn recover(&self, handle: &Handle, domains: &[String]) -> Result<(), SyncError> {
        let peer = *handle.peer();
        let asks = self.engine().read(move |view| view.is_to_be_asked(&peer));
        if !asks.await? {
            return Ok(());
        }
        let mut backoff = Backoff::new(self.config());
        loop {
            let taken = self.ask_for_own(handle, domains).await?;
            tracing::info!(%peer, written = taken.written, here = taken.here, missing = taken.missing, refused = taken.refused,
                "a peer gave back what it holds of this node");
            if taken.missing == 0 || !self.is_recovering().await? {
                break;
            }
            // What is missing comes with pulls, this peer's or another's; until then this peer was not asked.
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return Err(SessionError::Over.into()),
                () = sleep(backoff.next()) => {}
            }
        }
        let ended = self
            .engine()
            .write(move |core, now| core.peer_was_asked(now, &peer));
        if ended.await? {
            tracing::info!("every peer was asked: this node changes what exists again");
        }
        Ok(())
    }

    async fn is_recovering(&self) -> Result<bool, SyncError> {
        let now = self.engine().now();
        let write_mode = self.engine().read(move |view| view.write_mode_at(now));
        Ok(write_mode.await? == WriteMode::NewObjectsOnly)
    }

    /// All that the peer holds of this node, in every shared domain. Identities first: the others are signed with their keys.
    async fn ask_for_own(
        &self,
        handle: &Handle,
        domains: &[String],
    ) -> Result<ReclaimSummary, SyncError> {
        let (mut sum, mut backoff) = (ReclaimSummary::default(), Backoff::new(self.config()));
        let is_first = |domain: &&String| *domain == crate::schema::identities::DOMAIN;
        let ordered = domains.iter().filter(is_first);
        for domain in ordered.chain(domains.iter().filter(|domain| !is_first(domain))) {
            let mut after: Option<Oid> = None;
            let mut answers = 0;
            loop {
                if answers == ANSWERS_MAX {
                    return Err(SessionError::Misbehaved("what is ours has no end").into());
                }
                answers += 1;
                let ask = |id| {
                    Message::Return(Return {
                        id,
                        after,
                        domain: domain.clone(),
                    })
                };
                let answer = match handle.request(Duration::ZERO, ask).await? {
                    Message::Returned(returned) => returned,
                    Message::Refused(refused) if refused.code == "busy" => {
                        // From here on, and not from the beginning: there may be more than it answers in a minute.
                        tokio::select! {
                            biased;
                            () = handle.over().cancelled() => return Err(SessionError::Over.into()),
                            () = sleep(backoff.next()) => continue,
                        }
                    }
                    Message::Refused(refused) => return Err(SyncError::Refused(refused.code)),
                    _ => {
                        return Err(SessionError::Misbehaved(
                            "what is ours was answered with something else",
                        )
                        .into());
                    }
                };
                let objects = answer.objects().map_err(SessionError::Malformed)?;
                let taken = self
                    .engine()
                    .write(move |core, now| core.reclaim(now, objects))
                    .await?;
                sum += taken;
                match answer.next {
                    None => break,
                    // By oid, upwards: else it could go on for ever.
                    next if next <= after => {
                        return Err(SessionError::Misbehaved("what is ours goes back").into());
                    }
                    next => after = next,
                }
            }
        }
        Ok(sum)
    }

    async fn tell(
        &self,
        handle: &Handle,
        make: impl FnOnce(u64) -> Message,
    ) -> Result<(), SyncError> {
        match handle.request(Duration::ZERO, make).await? {
            Message::Noted(_) => Ok(()),
            Message::Refused(refused) => {
                // Said again it would be refused again.
                tracing::warn!(peer = %handle.peer(), code = refused.code, "the peer does not take an epoch");
                Ok(())
            }
            _ => Err(SessionError::Misbehaved("an epoch was answered with something else").into()),
        }
    }

    /// Ends a recovery whose time is up, until the node stops.
    pub fn keep_watching_recovery(&self) {
        let this = self.clone();
        self.in_background(async move {
            loop {
                sleep(EVERY).await;
                let ended = this
                    .engine()
                    .write(|core, now| core.end_late_recovery(now))
                    .await;
                match ended {
                    Ok(true) => tracing::warn!(
                        "time is up: peers that were not asked are no longer waited for"
                    ),
                    Ok(false) => {}
                    Err(error) => say(&error),
                }
            }
        });
    }

    /// Ends the sessions with everybody: they begin again with what has changed of this node.
    pub fn end_all(&self, code: &'static str) {
        let peers: Vec<PeerId> = self
            .sessions()
            .into_iter()
            .map(|session| session.peer)
            .collect();
        for peer in peers {
            self.end(&peer, code);
        }
    }
}

fn say(error: &EngineError<StoreError>) {
    tracing::error!(%error, "could not end a recovery");
}

fn note(id: u64, heard: PeerEpoch) -> EpochNote {
    EpochNote {
        id,
        head: heard.head,
        epoch: heard.epoch,
        key_id: heard.key_id,
        signature: heard.signature,
    }
}

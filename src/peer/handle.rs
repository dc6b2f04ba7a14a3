//! The requesting half of a session: sends requests, matches replies to them by id, and ends the
//! session.
//!
//! Inputs are requests of this node's tasks and frames that [`super::session`] reads; output is the
//! queue of frames that it writes. Invariants: every request ends with its reply, its deadline or
//! the session; the reply is of a kind that answers it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bastion::{Features, FrameError, Tier};
use keys::{Epoch, Malformed, PeerId, TraceId};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::end_code::EndCode;
use super::message::SessionMessage;
use super::outgoing::{Outgoing, OutgoingFrames};
use crate::config::SyncConfig;

/// Longest time that all waits of a session for objects from other sessions take together, so that
/// slow peers delay it by no more.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a request got no reply, or why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// This node ended the session, or the peer closed its stream.
    #[error("the session is over")]
    Over,
    /// The peer sent `bye` with this code.
    #[error("the peer ended the session: {0}")]
    Bye(String),
    /// No reply arrived before the deadline.
    #[error("no reply in time")]
    Timeout,
    /// Reading a frame failed.
    #[error("the stream failed")]
    Frame(#[from] FrameError),
    /// A frame does not contain a session message.
    #[error("the peer sent a malformed message")]
    Malformed(#[from] Malformed),
    /// The peer sent a reply to no request or of a wrong kind, or exceeded a limit.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(&'static str),
    /// The peer sent nothing for `silence_s_max` seconds, not even a `pong`.
    #[error("the peer sent nothing for {} s", .0.as_secs())]
    Silent(Duration),
}

/// Which peer a session is with, and how its log lines are found.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The peer at the other end.
    pub peer: PeerId,
    /// The epoch that the peer claimed in the handshake.
    pub epoch: Epoch,
    /// The features that both nodes offer.
    pub features: Features,
    /// This node's last `change_seq` when the session started.
    pub start_seq: u64,
    /// How far the peer is trusted when the session starts.
    pub tier: Tier,
    /// Trace id of the session's span and writes.
    pub trace: TraceId,
}

/// A request whose reply has not arrived.
#[derive(Debug)]
struct AwaitedReply {
    is_answer: fn(&SessionMessage) -> bool,
    reply: oneshot::Sender<SessionMessage>,
}

/// The requesting half of a session, shared by all its tasks.
#[derive(Debug)]
pub struct SessionHandle {
    info: SessionInfo,
    is_trusted: AtomicBool,
    outgoing: Outgoing,
    pending: Mutex<BTreeMap<u64, AwaitedReply>>,
    next_id: AtomicU64,
    closed: CancellationToken,
    /// The code for `bye`, if this node ended the session for a reason; the first one counts.
    end_code: OnceLock<EndCode>,
    /// Time that packages of the peer may still wait for objects from other sessions.
    wait_left: Mutex<Duration>,
    /// Notified of every frame that arrives.
    frames_read: watch::Sender<()>,
    /// Notified of every package of the peer that was applied.
    packages: watch::Sender<()>,
    reply_deadline: Duration,
}

impl SessionHandle {
    /// Creates the handle of a session that ends with `stop`, and the queue of frames to be
    /// written.
    pub(super) fn new(
        info: SessionInfo,
        config: &SyncConfig,
        stop: &CancellationToken,
    ) -> (Self, OutgoingFrames) {
        let (outgoing, frames) = Outgoing::new();
        let handle = Self {
            is_trusted: AtomicBool::new(info.tier == Tier::Trusted),
            info,
            outgoing,
            pending: Mutex::new(BTreeMap::new()),
            next_id: AtomicU64::new(1),
            closed: stop.child_token(),
            end_code: OnceLock::new(),
            wait_left: Mutex::new(WAIT_MAX),
            frames_read: watch::Sender::new(()),
            packages: watch::Sender::new(()),
            reply_deadline: Duration::from_secs(config.reply_deadline_s),
        };
        (handle, frames)
    }

    /// The peer at the other end.
    pub fn peer(&self) -> &PeerId {
        &self.info.peer
    }

    /// The session as the handshake left it. The tier may have changed since.
    pub(super) fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// The features that both nodes offer.
    pub fn features(&self) -> &Features {
        &self.info.features
    }

    /// Time that packages of the peer may still wait for objects from other sessions.
    pub(super) fn wait_left(&self) -> Duration {
        *self.wait_left.lock()
    }

    /// Takes a wait from that time.
    pub(super) fn spend_wait(&self, waited: Duration) {
        let mut left = self.wait_left.lock();
        *left = left.saturating_sub(waited);
    }

    /// Trace id of the session's span and writes.
    pub fn trace(&self) -> TraceId {
        self.info.trace
    }

    /// The peer's tier now: [`SessionHandle::trust`] may have raised it since the handshake.
    pub fn tier(&self) -> Tier {
        if self.is_trusted.load(Ordering::Relaxed) {
            Tier::Trusted
        } else {
            Tier::Untrusted
        }
    }

    /// Treats the peer as trusted for the rest of the session.
    pub fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }

    /// Ends the session and sends the peer `bye` with `code`.
    pub fn end(&self, code: EndCode) {
        // An earlier code stays, because it is the reason why the session ended.
        let _ = self.end_code.set(code);
        self.closed.cancel();
    }

    /// The code of the first [`SessionHandle::end`].
    pub(super) fn end_code(&self) -> Option<EndCode> {
        self.end_code.get().copied()
    }

    /// Cancelled when the session ends.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Sends a ping, and returns whether any frame arrives from the peer within `deadline`.
    pub async fn is_alive(&self, deadline: Duration) -> bool {
        let mut frames_read = self.frames_read.subscribe();
        self.outgoing.ping(self.next_id());
        tokio::select! {
            biased;
            () = self.closed.cancelled() => false,
            frame = timeout(deadline, frames_read.changed()) => matches!(frame, Ok(Ok(()))),
        }
    }

    /// Sends a request and waits for its reply, at most the reply deadline plus `wait`.
    pub async fn request(
        &self,
        wait: Duration,
        make: impl FnOnce(u64) -> SessionMessage,
    ) -> Result<SessionMessage, SessionError> {
        let id = self.next_id();
        let request = make(id);
        let (sender, reply) = oneshot::channel();
        let pending = AwaitedReply {
            is_answer: request.answers(),
            reply: sender,
        };
        self.pending.lock().insert(id, pending);
        let replied = async {
            self.send(&request).await?;
            // A package is not kept while its reply is due.
            drop(request);
            reply.await.map_err(|_| SessionError::Over)
        };
        let result = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(SessionError::Over),
            result = timeout(self.reply_deadline + wait, replied) => {
                result.unwrap_or(Err(SessionError::Timeout))
            }
        };
        self.pending.lock().remove(&id);
        result
    }

    /// Queues a request or a reply. Waits while the queue is full.
    pub async fn send(&self, message: &SessionMessage) -> Result<(), SessionError> {
        if self.outgoing.send(message).await {
            Ok(())
        } else {
            Err(SessionError::Over)
        }
    }

    /// The queue of frames, for what the reader answers at once.
    pub(super) fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// Returns an id that no request of this session has had.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a package of the peer was applied.
    pub(super) fn note_package(&self) {
        self.packages.send_replace(());
    }

    /// Subscribes to the packages of the peer; a receiver is woken when one was applied.
    pub(super) fn packages(&self) -> watch::Receiver<()> {
        self.packages.subscribe()
    }

    /// Notes that a frame arrived, for [`SessionHandle::is_alive`].
    pub(super) fn note_frame(&self) {
        self.frames_read.send_replace(());
    }

    /// Hands a reply to the request that waits for it. A late reply is dropped.
    pub(super) fn deliver_reply(&self, id: u64, reply: SessionMessage) -> Result<(), SessionError> {
        let waiting = self.pending.lock().remove(&id);
        match waiting {
            Some(request) if (request.is_answer)(&reply) => {
                // The requesting task may have given up just now.
                let _ = request.reply.send(reply);
                Ok(())
            }
            Some(_) => Err(SessionError::Misbehaved("a reply of another kind")),
            // A reply after the deadline is late. A reply to an id that was never used is hostile.
            None if id < self.next_id.load(Ordering::Relaxed) => Ok(()),
            None => Err(SessionError::Misbehaved("a reply to no request")),
        }
    }

    /// Ends the session for all its tasks; every pending request fails.
    pub(super) fn shut_down(&self) {
        self.closed.cancel();
        self.pending.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;
    use crate::peer::message::IdOnly;
    use crate::peer::testing::{handle, manual, peer_id, ping, pong};

    const WAIT: Duration = Duration::from_secs(30);

    /// Sends a ping as a request, in a task of its own.
    fn request(
        handle: &Arc<SessionHandle>,
        wait: Duration,
    ) -> tokio::task::JoinHandle<Result<SessionMessage, SessionError>> {
        let handle = handle.clone();
        tokio::spawn(async move { handle.request(wait, ping).await })
    }

    #[tokio::test(start_paused = true)]
    async fn request_returns_the_reply_with_its_id() {
        let (handle, mut frames) = handle(peer_id(1), &manual());
        let (first, second) = (request(&handle, WAIT), request(&handle, WAIT));
        let sent = [frames.next().await.unwrap(), frames.next().await.unwrap()];
        assert_eq!(sent, [ping(1).encode(), ping(2).encode()]);
        handle.deliver_reply(2, pong(2)).unwrap();
        handle.deliver_reply(1, pong(1)).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), pong(1));
        assert_eq!(second.await.unwrap().unwrap(), pong(2));
        assert!(handle.pending.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn request_times_out_after_the_deadline_and_its_wait() {
        let config = manual();
        let (handle, _frames) = handle(peer_id(1), &config);
        let start = tokio::time::Instant::now();
        let result = request(&handle, WAIT).await.unwrap();
        assert!(matches!(result, Err(SessionError::Timeout)));
        let deadline = Duration::from_secs(config.reply_deadline_s);
        assert_eq!(start.elapsed().as_secs(), (deadline + WAIT).as_secs());
        assert!(handle.pending.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn request_fails_when_the_session_ends() {
        let (handle, mut frames) = handle(peer_id(1), &manual());
        let asking = request(&handle, WAIT);
        frames.next().await.unwrap();
        handle.end(EndCode::End);
        assert!(matches!(asking.await.unwrap(), Err(SessionError::Over)));
        let late = request(&handle, WAIT).await.unwrap();
        assert!(matches!(late, Err(SessionError::Over)));
        assert!(
            frames.next().now_or_never().is_none(),
            "nothing more is sent"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shut_down_fails_pending_requests() {
        let (handle, mut frames) = handle(peer_id(1), &manual());
        let asking = request(&handle, WAIT);
        frames.next().await.unwrap();
        handle.shut_down();
        assert!(handle.pending.lock().is_empty());
        assert!(handle.closed().is_cancelled());
        assert!(matches!(asking.await.unwrap(), Err(SessionError::Over)));
    }

    #[test]
    fn reply_to_an_unused_id_is_misbehaviour_and_a_late_one_is_dropped() {
        let (handle, _frames) = handle(peer_id(1), &manual());
        let id = handle.next_id();
        assert!(handle.deliver_reply(id, pong(id)).is_ok());
        assert!(matches!(
            handle.deliver_reply(id + 1, pong(id + 1)),
            Err(SessionError::Misbehaved("a reply to no request"))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn reply_of_another_kind_is_misbehaviour() {
        let (handle, mut frames) = handle(peer_id(1), &manual());
        let asking = request(&handle, WAIT);
        frames.next().await.unwrap();
        let noted = SessionMessage::Noted(IdOnly { id: 1 });
        assert!(matches!(
            handle.deliver_reply(1, noted),
            Err(SessionError::Misbehaved("a reply of another kind"))
        ));
        assert!(matches!(asking.await.unwrap(), Err(SessionError::Over)));
    }

    #[tokio::test(start_paused = true)]
    async fn is_alive_if_any_frame_arrives_in_time() {
        let (handle, mut frames) = handle(peer_id(1), &manual());
        let probing = tokio::spawn({
            let handle = handle.clone();
            async move { handle.is_alive(WAIT).await }
        });
        assert_eq!(frames.next().await.unwrap(), ping(1).encode());
        handle.note_frame();
        assert!(probing.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_alive_without_a_frame_or_after_the_end() {
        let (handle, _frames) = handle(peer_id(1), &manual());
        let start = tokio::time::Instant::now();
        assert!(!handle.is_alive(WAIT).await);
        assert_eq!(start.elapsed().as_secs(), WAIT.as_secs());
        handle.end(EndCode::End);
        handle.note_frame();
        assert!(!handle.is_alive(WAIT).await);
        assert_eq!(start.elapsed().as_secs(), WAIT.as_secs(), "known at once");
    }

    #[test]
    fn trust_raises_the_tier() {
        let (handle, _frames) = handle(peer_id(1), &manual());
        assert_eq!(handle.tier(), Tier::Untrusted);
        handle.trust();
        assert_eq!(handle.tier(), Tier::Trusted);
    }

    #[test]
    fn end_keeps_the_first_code() {
        let (handle, _frames) = handle(peer_id(1), &manual());
        assert_eq!(handle.end_code(), None);
        assert!(!handle.closed().is_cancelled());
        handle.end(EndCode::Duplicate);
        handle.end(EndCode::Busy);
        assert_eq!(handle.end_code(), Some(EndCode::Duplicate));
        assert!(handle.closed().is_cancelled());
    }
}

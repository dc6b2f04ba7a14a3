//! One session: a stream on which both sides send requests and replies, several at once.
//!
//! One task reads frames and one writes them. Requests of the peer go to [`RequestServer`]; replies
//! go to the [`SessionHandle`]. Every step has a deadline. Invariants: when [`SessionDriver::run`]
//! returns, every task of the session has ended and every request of this node has failed. `bye` is
//! the last frame and never inside another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bastion::{FrameReader, FrameWriter, Session};
use keys::protocol::EPOCH_MESSAGES_MAX;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::end_code::EndCode;
use super::handle::{SessionError, SessionHandle, SessionInfo};
use super::message::{Bye, SessionMessage};
use super::outgoing::OutgoingFrames;
use super::serve::{ReplyTurns, RequestServer};
use crate::config::SyncConfig;

/// Time that a session that has ended may take to write the rest of a frame, then `bye`, and then
/// to close its stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that is about to run.
pub struct SessionDriver {
    handle: Arc<SessionHandle>,
    reader: FrameReader,
    writer: FrameWriter,
    frames: OutgoingFrames,
}

impl SessionDriver {
    /// Takes over an admitted stream; the session ends with `stop`.
    pub fn new(
        session: Session,
        info: SessionInfo,
        config: &SyncConfig,
        stop: &CancellationToken,
    ) -> Self {
        let (handle, frames) = SessionHandle::new(info, config, stop);
        Self {
            handle: Arc::new(handle),
            reader: session.reader,
            writer: session.writer,
            frames,
        }
    }

    /// The requesting half.
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Ends the session before it runs: sends `bye` with `code` and closes the stream.
    pub async fn refuse(mut self, code: EndCode) {
        let bye = bye(code).encode();
        // Best effort: the peer may not read.
        let _ = timeout(CLOSE_TIMEOUT, self.writer.write(&bye)).await;
        let _ = timeout(CLOSE_TIMEOUT, self.writer.close()).await;
    }

    /// Runs the session in the current span until it is cancelled, either side ends it, the stream
    /// fails or the peer is silent.
    pub async fn run(self, server: RequestServer, config: &SyncConfig) -> SessionError {
        let Self {
            handle,
            reader,
            writer,
            frames,
        } = self;
        let writing = SessionWriter {
            writer,
            frames,
            deadline: Duration::from_secs(config.reply_deadline_s),
            closed: handle.closed().clone(),
        };
        let (end_code, ended) = oneshot::channel();
        let writing = tokio::spawn(writing.run(ended).in_current_span());
        let mut reading = SessionReader {
            handle: handle.clone(),
            server,
            limits: RequestLimits::new(config),
            tasks: TaskTracker::new(),
        };
        let end = reading.run(reader, config).await;
        // The writer is gone if the stream failed.
        let _ = end_code.send(close_code(&end, handle.end_code()));
        handle.shut_down();
        reading.tasks.close();
        reading.tasks.wait().await;
        // The writer ends with the token; it never panics.
        let _ = writing.await;
        end
    }
}

/// Returns the code that `bye` carries for this end; `requested` is the one that this node ended
/// the session with.
fn close_code(end: &SessionError, requested: Option<EndCode>) -> EndCode {
    match end {
        SessionError::Over => requested.unwrap_or(EndCode::Shutdown),
        SessionError::Silent(_) => EndCode::Silence,
        SessionError::Malformed(_) | SessionError::Misbehaved(_) => EndCode::Misbehaviour,
        SessionError::Bye(_) | SessionError::Timeout | SessionError::Frame(_) => EndCode::End,
    }
}

/// The message that tells the peer why the session ends.
fn bye(code: EndCode) -> SessionMessage {
    let code = code.code().to_owned();
    SessionMessage::Bye(Bye { code })
}

/// The writing task's state.
struct SessionWriter {
    writer: FrameWriter,
    frames: OutgoingFrames,
    /// For each frame.
    deadline: Duration,
    closed: CancellationToken,
}

impl SessionWriter {
    /// Writes frame after frame until the session ends, and then `bye`. Frames that are queued then
    /// are dropped: a peer that does not read must not delay the end.
    async fn run(mut self, end_code: oneshot::Receiver<EndCode>) {
        let is_between_frames = self.write_frames().await;
        self.closed.cancel();
        // Best effort: the stream may be gone, and the peer may not read.
        if is_between_frames && let Ok(code) = end_code.await {
            let bye = bye(code).encode();
            let _ = timeout(CLOSE_TIMEOUT, self.writer.write(&bye)).await;
        }
        let _ = timeout(CLOSE_TIMEOUT, self.writer.close()).await;
    }

    /// Writes frames until the session ends. Returns whether the last one was written to its end.
    async fn write_frames(&mut self) -> bool {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.closed.cancelled() => None,
                frame = self.frames.next() => frame,
            };
            let Some(frame) = frame else { return true };
            let too_late = async {
                self.closed.cancelled().await;
                sleep(CLOSE_TIMEOUT).await;
            };
            let is_written = tokio::select! {
                biased;
                written = timeout(self.deadline, self.writer.write(&frame)) => {
                    matches!(written, Ok(Ok(())))
                }
                () = too_late => false,
            };
            if !is_written {
                return false;
            }
        }
    }
}

/// Limits on the peer's requests in one session.
struct RequestLimits {
    /// One permit for each request in progress.
    slots: Arc<Semaphore>,
    /// One push at a time; no frame is read meanwhile, because a package of 1 MiB is in memory
    /// already.
    push_permit: Arc<Semaphore>,
    turns: Arc<ReplyTurns>,
    /// Ids of the requests in progress, as many as slots are taken. An id leaves before its reply
    /// is queued, so that the peer may use it again.
    in_flight: Arc<Mutex<BTreeSet<u64>>>,
    /// `epoch` and `heard` messages read so far, at most [`EPOCH_MESSAGES_MAX`].
    epochs: u64,
}

impl RequestLimits {
    fn new(config: &SyncConfig) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(config.requests_in_flight_max)),
            push_permit: Arc::new(Semaphore::new(1)),
            turns: Arc::default(),
            in_flight: Arc::default(),
            epochs: 0,
        }
    }
}

/// Which limits a request falls under, besides the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    /// `epoch` and `heard`: bounded by [`EPOCH_MESSAGES_MAX`], free of the token bucket.
    Epoch,
    /// Takes a token, which comes back if the request waited and got news.
    Metered,
    /// Takes a token and the one push permit.
    Push,
}

/// How the reader treats a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MessageClass {
    /// The reply to the request with this id.
    Reply(u64),
    /// A request with this id.
    Request(u64, RequestKind),
    /// A ping with this id.
    Ping(u64),
    /// The end of the session, with its code.
    Bye(String),
}

fn classify(message: &SessionMessage) -> MessageClass {
    match message {
        SessionMessage::Package(body) => MessageClass::Reply(body.id),
        SessionMessage::UpToDate(reply) | SessionMessage::Ack(reply) => {
            MessageClass::Reply(reply.id)
        }
        SessionMessage::Refused(refusal) => MessageClass::Reply(refusal.id),
        SessionMessage::Reclaimed(batch) => MessageClass::Reply(batch.id),
        SessionMessage::Fetched(batch) => MessageClass::Reply(batch.id),
        SessionMessage::Introduced(reply) => MessageClass::Reply(reply.id),
        SessionMessage::Noted(reply)
        | SessionMessage::Unchanged(reply)
        | SessionMessage::Pong(reply) => MessageClass::Reply(reply.id),
        SessionMessage::Pull(pull) => MessageClass::Request(pull.id, RequestKind::Metered),
        SessionMessage::Watch(watch) => MessageClass::Request(watch.id, RequestKind::Metered),
        SessionMessage::Fetch(request) => MessageClass::Request(request.id, RequestKind::Metered),
        SessionMessage::Introduce(request) => {
            MessageClass::Request(request.id, RequestKind::Metered)
        }
        SessionMessage::Reclaim(request) => MessageClass::Request(request.id, RequestKind::Metered),
        SessionMessage::Receipt(note) => MessageClass::Request(note.id, RequestKind::Metered),
        SessionMessage::Push(push) => MessageClass::Request(push.id, RequestKind::Push),
        SessionMessage::Epoch(note) | SessionMessage::Heard(note) => {
            MessageClass::Request(note.id, RequestKind::Epoch)
        }
        SessionMessage::Ping(ping) => MessageClass::Ping(ping.id),
        SessionMessage::Bye(bye) => MessageClass::Bye(bye.code.clone()),
    }
}

/// Permits that a request holds while it is in progress.
struct RequestPermits {
    slot: OwnedSemaphorePermit,
    push: Option<OwnedSemaphorePermit>,
}

/// The reading task's state.
struct SessionReader {
    handle: Arc<SessionHandle>,
    server: RequestServer,
    limits: RequestLimits,
    /// One task for each request in progress.
    tasks: TaskTracker,
}

impl SessionReader {
    async fn run(&mut self, mut reader: FrameReader, config: &SyncConfig) -> SessionError {
        let ping_interval = Duration::from_secs(config.ping_interval_s);
        let silence = Duration::from_secs(config.silence_s_max);
        let mut last_frame = Instant::now();
        loop {
            let frame = tokio::select! {
                biased;
                () = self.handle.closed().cancelled() => return SessionError::Over,
                frame = timeout(ping_interval, reader.read()) => frame,
            };
            let frame = match frame {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return SessionError::Over,
                Ok(Err(error)) => return error.into(),
                Err(_) if last_frame.elapsed() >= silence => return SessionError::Silent(silence),
                Err(_) => {
                    self.handle.outgoing().ping(self.handle.next_id());
                    continue;
                }
            };
            last_frame = Instant::now();
            self.handle.note_frame();
            let message = match SessionMessage::decode(&frame) {
                Ok(message) => message,
                Err(error) => return error.into(),
            };
            if let Err(error) = self.dispatch(message).await {
                return error;
            }
        }
    }

    async fn dispatch(&mut self, message: SessionMessage) -> Result<(), SessionError> {
        let feature = message.feature();
        if feature.is_some_and(|feature| !self.handle.features().has(feature)) {
            return Err(SessionError::Misbehaved(
                "a message of a feature that the session does not have",
            ));
        }
        match (classify(&message), message) {
            (MessageClass::Reply(id), reply) => self.handle.deliver_reply(id, reply),
            (MessageClass::Request(id, kind), request) => {
                if let Some(permits) = self.admit_request(id, kind).await? {
                    self.spawn_request(id, request, permits);
                }
                Ok(())
            }
            (MessageClass::Ping(id), _) => {
                self.handle.outgoing().pong(id);
                Ok(())
            }
            (MessageClass::Bye(code), _) => Err(SessionError::Bye(code)),
        }
    }

    /// Returns the permits of a request, or nothing if it was refused as `busy`.
    async fn admit_request(
        &mut self,
        id: u64,
        kind: RequestKind,
    ) -> Result<Option<RequestPermits>, SessionError> {
        if self.limits.in_flight.lock().contains(&id) {
            return Err(SessionError::Misbehaved(
                "two requests in progress with one id",
            ));
        }
        let is_allowed = match kind {
            RequestKind::Epoch if self.limits.epochs >= EPOCH_MESSAGES_MAX => {
                return Err(SessionError::Misbehaved("more epochs than a node can have"));
            }
            RequestKind::Epoch => {
                self.limits.epochs += 1;
                true
            }
            RequestKind::Metered | RequestKind::Push => {
                self.server.may_ask(self.handle.peer(), self.handle.tier())
            }
        };
        let slot = is_allowed.then(|| self.limits.slots.clone().try_acquire_owned());
        let Some(Ok(slot)) = slot else {
            // The reader never waits for the writer: each side would wait to write, and neither
            // would read.
            return if self.handle.outgoing().busy(id) {
                Ok(None)
            } else {
                Err(SessionError::Misbehaved(
                    "more requests than it may have, and it does not read",
                ))
            };
        };
        self.limits.in_flight.lock().insert(id);
        let push = match kind {
            RequestKind::Push => Some(tokio::select! {
                biased;
                () = self.handle.closed().cancelled() => return Err(SessionError::Over),
                permit = self.limits.push_permit.clone().acquire_owned() => {
                    permit.map_err(|_| SessionError::Over)?
                }
            }),
            RequestKind::Epoch | RequestKind::Metered => None,
        };
        Ok(Some(RequestPermits { slot, push }))
    }

    fn spawn_request(&self, id: u64, request: SessionMessage, permits: RequestPermits) {
        let (handle, server) = (self.handle.clone(), self.server.clone());
        let turns = self.limits.turns.clone();
        let in_flight = self.limits.in_flight.clone();
        let work = async move {
            let RequestPermits { slot, push } = permits;
            let reply = tokio::select! {
                biased;
                () = handle.closed().cancelled() => return,
                reply = server.reply(handle.info(), request, &turns) => reply,
            };
            if reply.is_news {
                server.give_back(handle.peer(), handle.tier());
            }
            if matches!(reply.message, SessionMessage::Ack(_)) {
                handle.note_package();
            }
            drop(push);
            in_flight.lock().remove(&id);
            // If the session has ended, the reply is dropped.
            let _ = handle.send(&reply.message).await;
            drop((reply.build_permit, slot));
        };
        self.tasks.spawn(work.in_current_span());
    }
}

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;

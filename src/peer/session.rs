//! One session: a stream on which both sides send requests and replies, several at once.
//!
//! One task reads frames and one writes them. Requests of the peer go to [`RequestServer`]; replies
//! go to the [`SessionHandle`]. Every step has a deadline. Invariant: when [`SessionDriver::run`]
//! returns, every task of the session has ended and every request of this node has failed.

use std::sync::Arc;
use std::time::Duration;

use bastion::{FrameReader, FrameWriter, Session};
use keys::protocol::EPOCH_MESSAGES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::end_code::EndCode;
use super::handle::{SessionError, SessionHandle, SessionInfo};
use super::message::{Bye, IdOnly, RequestRefusal, SessionMessage};
use super::serve::RequestServer;
use crate::config::SyncConfig;

/// Time that a session that has ended may take to write what is queued, and again to close its
/// stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that is about to run.
pub struct SessionDriver {
    handle: Arc<SessionHandle>,
    reader: FrameReader,
    writer: FrameWriter,
    outgoing: mpsc::Receiver<Vec<u8>>,
}

impl SessionDriver {
    /// Takes over an admitted stream; the session ends with `stop`.
    pub fn new(
        session: Session,
        info: SessionInfo,
        config: &SyncConfig,
        stop: &CancellationToken,
    ) -> Self {
        let (handle, outgoing) = SessionHandle::new(info, config, stop);
        Self {
            handle: Arc::new(handle),
            reader: session.reader,
            writer: session.writer,
            outgoing,
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
            outgoing,
        } = self;
        let writing = SessionWriter {
            writer,
            outgoing,
            deadline: Duration::from_secs(config.reply_deadline_s),
            closed: handle.closed().clone(),
            all_queued: CancellationToken::new(),
        };
        let all_queued = writing.all_queued.clone();
        let writing = tokio::spawn(writing.run().in_current_span());
        let mut reading = SessionReader {
            handle: handle.clone(),
            server,
            limits: RequestLimits::new(config),
            tasks: TaskTracker::new(),
        };
        let end = reading.run(reader, config).await;
        let code = close_code(&end, handle.end_code());
        // Best effort: the stream may be gone.
        handle.try_send(&bye(code));
        all_queued.cancel();
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
    outgoing: mpsc::Receiver<Vec<u8>>,
    /// For each frame.
    deadline: Duration,
    closed: CancellationToken,
    /// Cancelled when no more frames will be queued.
    all_queued: CancellationToken,
}

impl SessionWriter {
    /// Writes frame after frame until all are written. Once the session has ended, the queued
    /// frames, `bye` among them, have [`CLOSE_TIMEOUT`] left. A peer that does not read must not
    /// delay the end.
    async fn run(mut self) {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.outgoing.recv() => frame,
                () = self.all_queued.cancelled() => None,
            };
            let Some(frame) = frame else { break };
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
                break;
            }
        }
        self.closed.cancel();
        // Best effort, as above.
        let _ = timeout(CLOSE_TIMEOUT, self.writer.close()).await;
    }
}

/// Limits on the peer's requests in one session.
struct RequestLimits {
    /// One permit for each request in progress.
    slots: Arc<Semaphore>,
    /// One push at a time; no frame is read meanwhile, because a package of 1 MiB is in memory
    /// already.
    push_permit: Arc<Semaphore>,
    /// One package at a time from its building until it is queued. A peer that requests many and
    /// reads none therefore costs the memory of one.
    build_permit: Arc<Semaphore>,
    /// `epoch` and `heard` messages read so far, at most [`EPOCH_MESSAGES_MAX`].
    epochs: u64,
}

impl RequestLimits {
    fn new(config: &SyncConfig) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(config.requests_in_flight_max)),
            push_permit: Arc::new(Semaphore::new(1)),
            build_permit: Arc::new(Semaphore::new(1)),
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
    /// A message of a feature that no session has yet.
    OfFeature,
}

fn classify(message: &SessionMessage) -> MessageClass {
    match message {
        SessionMessage::Package(body) => MessageClass::Reply(body.id),
        SessionMessage::UpToDate(reply) | SessionMessage::Ack(reply) => {
            MessageClass::Reply(reply.id)
        }
        SessionMessage::Refused(refusal) => MessageClass::Reply(refusal.id),
        SessionMessage::Reclaimed(batch) => MessageClass::Reply(batch.id),
        SessionMessage::Noted(reply) | SessionMessage::Pong(reply) => MessageClass::Reply(reply.id),
        SessionMessage::Pull(pull) => MessageClass::Request(pull.id, RequestKind::Metered),
        SessionMessage::Reclaim(request) => MessageClass::Request(request.id, RequestKind::Metered),
        SessionMessage::Push(push) => MessageClass::Request(push.id, RequestKind::Push),
        SessionMessage::Epoch(note) | SessionMessage::Heard(note) => {
            MessageClass::Request(note.id, RequestKind::Epoch)
        }
        SessionMessage::Ping(ping) => MessageClass::Ping(ping.id),
        SessionMessage::Bye(bye) => MessageClass::Bye(bye.code.clone()),
        SessionMessage::Watch(_) | SessionMessage::Unchanged(_) => MessageClass::OfFeature,
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
                    let id = self.handle.next_id();
                    // If the queue is full, outgoing frames already act as keep-alives; drop the
                    // ping.
                    self.handle.try_send(&SessionMessage::Ping(IdOnly { id }));
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
        match (classify(&message), message) {
            (MessageClass::Reply(id), reply) => self.handle.deliver_reply(id, reply),
            (MessageClass::Request(id, kind), request) => {
                if let Some(permits) = self.admit_request(id, kind).await? {
                    self.spawn_request(request, permits);
                }
                Ok(())
            }
            (MessageClass::Ping(id), _) => {
                // If the queue is full, outgoing frames already act as keep-alives; drop the pong.
                // Waiting here could block both sides: each would wait to write, and neither would
                // read.
                self.handle.try_send(&SessionMessage::Pong(IdOnly { id }));
                Ok(())
            }
            (MessageClass::Bye(code), _) => Err(SessionError::Bye(code)),
            (MessageClass::OfFeature, _) => Err(SessionError::Misbehaved(
                "a message of a feature that the session does not have",
            )),
        }
    }

    /// Returns the permits of a request, or nothing if it was refused as `busy`.
    async fn admit_request(
        &mut self,
        id: u64,
        kind: RequestKind,
    ) -> Result<Option<RequestPermits>, SessionError> {
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
            let busy = SessionMessage::Refused(RequestRefusal {
                id,
                code: "busy".into(),
                last_seq: None,
            });
            // The reader never waits for the writer: a peer that keeps requesting and does not read
            // is misbehaving.
            return if self.handle.try_send(&busy) {
                Ok(None)
            } else {
                Err(SessionError::Misbehaved(
                    "more requests than it may have, and it does not read",
                ))
            };
        };
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

    fn spawn_request(&self, request: SessionMessage, permits: RequestPermits) {
        let (handle, server) = (self.handle.clone(), self.server.clone());
        let build_permit = self.limits.build_permit.clone();
        let work = async move {
            let RequestPermits { slot, push } = permits;
            let reply = tokio::select! {
                biased;
                () = handle.closed().cancelled() => return,
                reply = server.reply(handle.info(), request, &build_permit) => reply,
            };
            if reply.is_news {
                server.give_back(handle.peer(), handle.tier());
            }
            drop(push);
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

//! One session: a stream on which both sides ask and answer, several requests at once.
//!
//! One task reads, one writes; an answer finds its request by id. Never waits without a deadline, never reads ahead of
//! what it may work on. Invariant: when [`Starting::run`] returns, every task of the session is gone and every request
//! of ours has failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bastion::{FrameError, FrameReader, FrameWriter, Session, Tier};
use keys::{Malformed, PeerId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{Bye, Id, Message, Refused};
use super::serve::Server;
use crate::config::SyncConfig;

/// Frames that wait to be written. Small: what waits here is memory.
const OUTGOING_MAX: usize = 4;
/// Messages about epochs in one session: what a node says once, several times over. They do not count as requests.
const EPOCHS_MAX: u64 = 32;
/// What a session that is over may still take to write, and again to close its stream.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a request got no answer, or a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session is over.
    #[error("the session is over")]
    Over,
    /// The other side said goodbye.
    #[error("the peer ended the session: {0}")]
    Bye(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The stream failed.
    #[error("the stream failed")]
    Frame(#[from] FrameError),
    /// A frame is no message.
    #[error("the peer sent a malformed message")]
    Malformed(#[from] Malformed),
    /// An answer to nothing, or of a wrong kind.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(&'static str),
    /// Nothing came, not even a sign of life.
    #[error("the peer fell silent")]
    Silent,
}

/// The asking end of a session.
#[derive(Debug)]
pub struct Handle {
    peer: PeerId,
    is_trusted: AtomicBool,
    outgoing: mpsc::Sender<Vec<u8>>,
    pending: Mutex<BTreeMap<u64, oneshot::Sender<Message>>>,
    next_id: AtomicU64,
    over: CancellationToken,
    /// Why we end it, where there is a reason of its own: the first one counts.
    ended_for: OnceLock<&'static str>,
    /// Told of every frame.
    heard: watch::Sender<()>,
    deadline: Duration,
}

impl Handle {
    /// The peer.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// How far the peer is trusted.
    pub fn tier(&self) -> Tier {
        if self.is_trusted.load(Ordering::Relaxed) {
            Tier::Trusted
        } else {
            Tier::Untrusted
        }
    }

    /// The peer is trusted from now on.
    pub fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }

    /// Ends the session; `code` is what the peer is told in `bye`.
    pub fn end(&self, code: &'static str) {
        // Whoever ended it first has said why.
        let _ = self.ended_for.set(code);
        self.over.cancel();
    }

    /// Whether anything comes from the peer within `patience`, or a ping of ours is answered.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let ping = async {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            // Where this cannot be sent, nothing will be heard.
            let _ = self.send(&Message::Ping(Id { id })).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.over.cancelled() => false,
            () = ping => false,
            heard = timeout(patience, heard.changed()) => matches!(heard, Ok(Ok(()))),
        }
    }

    /// Ends with the session.
    pub fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Asks, and waits for the answer: `wait` beyond the usual deadline.
    pub async fn request(
        &self,
        wait: Duration,
        make: impl FnOnce(u64) -> Message,
    ) -> Result<Message, SessionError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.pending.lock().insert(id, reply);
        let answered = async {
            self.send(&make(id)).await?;
            answer.await.map_err(|_| SessionError::Over)
        };
        let result = tokio::select! {
            biased;
            () = self.over.cancelled() => Err(SessionError::Over),
            result = timeout(self.deadline + wait, answered) => result.unwrap_or(Err(SessionError::Timeout)),
        };
        self.pending.lock().remove(&id);
        result
    }

    /// Queues a message. Waits while the queue is full.
    pub async fn send(&self, message: &Message) -> Result<(), SessionError> {
        self.outgoing
            .send(message.encode())
            .await
            .map_err(|_| SessionError::Over)
    }

    fn answer(&self, id: u64, message: Message) -> Result<(), SessionError> {
        let waiting = self.pending.lock().remove(&id);
        match waiting {
            Some(reply) => {
                // The asking task may have given up just now.
                let _ = reply.send(message);
                Ok(())
            }
            // An answer after our deadline is late, not hostile; one to an id never given out is.
            None if id < self.next_id.load(Ordering::Relaxed) => Ok(()),
            None => Err(SessionError::Misbehaved("an answer to no request")),
        }
    }
}

/// Where the peer's requests are worked on.
struct Desk {
    work: TaskTracker,
    /// A place for each request in work.
    slots: Arc<Semaphore>,
    /// One push at a time, and nothing is read meanwhile: its bytes are here already.
    taking: Arc<Semaphore>,
    /// How often the peer spoke of epochs: at most [`EPOCHS_MAX`].
    epochs: AtomicU64,
    /// One package at a time from its building until it is queued: a peer that asks for many and reads none costs one.
    building: Arc<Semaphore>,
}

/// A session that is about to run.
pub struct Starting {
    handle: Arc<Handle>,
    reader: FrameReader,
    writer: FrameWriter,
    outgoing: mpsc::Receiver<Vec<u8>>,
}

impl Starting {
    /// Takes over an admitted stream.
    pub fn new(
        session: Session,
        (peer, tier): (PeerId, Tier),
        config: &SyncConfig,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, outgoing) = mpsc::channel(OUTGOING_MAX);
        let handle = Handle {
            peer,
            is_trusted: AtomicBool::new(tier == Tier::Trusted),
            outgoing: sender,
            pending: Mutex::new(BTreeMap::new()),
            next_id: AtomicU64::new(1),
            over: stop.child_token(),
            ended_for: OnceLock::new(),
            heard: watch::Sender::new(()),
            deadline: Duration::from_secs(config.reply_deadline_s),
        };
        Self {
            handle: Arc::new(handle),
            reader: session.reader,
            writer: session.writer,
            outgoing,
        }
    }

    /// The asking end.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Ends it before it begins; `code` is what the peer is told.
    pub async fn refuse(mut self, code: &str) {
        let bye = Message::Bye(Bye { code: code.into() }).encode();
        // Best effort, as at any end.
        let _ = timeout(GOODBYE, self.writer.write(&bye)).await;
        let _ = timeout(GOODBYE, self.writer.close()).await;
    }

    /// Runs the session to its end: cancelled, said goodbye to, failed or silent.
    pub async fn run(self, server: Arc<Server>, config: &SyncConfig) -> SessionError {
        let Self {
            handle,
            mut reader,
            writer,
            outgoing,
        } = self;
        let send_deadline = Duration::from_secs(config.reply_deadline_s);
        let said_all = CancellationToken::new();
        let ends = (handle.over.clone(), said_all.clone());
        let writing = tokio::spawn(write_all(writer, outgoing, send_deadline, ends));
        let desk = Desk {
            work: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(config.requests_in_flight_max)),
            taking: Arc::new(Semaphore::new(1)),
            epochs: AtomicU64::new(0),
            building: Arc::new(Semaphore::new(1)),
        };
        let end = read_all(&mut reader, &handle, &server, config, &desk).await;
        let code = match &end {
            SessionError::Over => handle.ended_for.get().copied().unwrap_or("shutdown"),
            SessionError::Silent => "silence",
            SessionError::Malformed(_) | SessionError::Misbehaved(_) => "misbehaviour",
            _ => "end",
        };
        let bye = Message::Bye(Bye { code: code.into() }).encode();
        // Best effort: the stream may be gone.
        let _ = handle.outgoing.try_send(bye);
        said_all.cancel();
        handle.over.cancel();
        handle.pending.lock().clear();
        desk.work.close();
        desk.work.wait().await;
        // The writer ends with the token; it never panics.
        let _ = writing.await;
        end
    }
}

/// Writes frame after frame until all is said. When the session is over, what is queued already, the `bye` among it, may
/// still go out, shortly: a peer that reads nothing holds up no end.
async fn write_all(
    mut writer: FrameWriter,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    deadline: Duration,
    (over, said_all): (CancellationToken, CancellationToken),
) {
    loop {
        let frame = tokio::select! {
            biased;
            frame = outgoing.recv() => frame,
            () = said_all.cancelled() => None,
        };
        let Some(frame) = frame else { break };
        let too_late = async {
            over.cancelled().await;
            sleep(GOODBYE).await;
        };
        let is_written = tokio::select! {
            biased;
            written = timeout(deadline, writer.write(&frame)) => matches!(written, Ok(Ok(()))),
            () = too_late => false,
        };
        if !is_written {
            break;
        }
    }
    over.cancel();
    // Best effort, as above.
    let _ = timeout(GOODBYE, writer.close()).await;
}

async fn read_all(
    reader: &mut FrameReader,
    handle: &Arc<Handle>,
    server: &Arc<Server>,
    config: &SyncConfig,
    desk: &Desk,
) -> SessionError {
    let ping_interval = Duration::from_secs(config.ping_interval_s);
    let silence = Duration::from_secs(config.silence_s_max);
    let mut heard = Instant::now();
    loop {
        let frame = tokio::select! {
            biased;
            () = handle.over.cancelled() => return SessionError::Over,
            frame = timeout(ping_interval, reader.read()) => frame,
        };
        let frame = match frame {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return SessionError::Over,
            Ok(Err(error)) => return error.into(),
            Err(_) if heard.elapsed() >= silence => return SessionError::Silent,
            Err(_) => {
                let id = handle.next_id.fetch_add(1, Ordering::Relaxed);
                // Where the queue is full, frames are on their way and say the same.
                let _ = handle.outgoing.try_send(Message::Ping(Id { id }).encode());
                continue;
            }
        };
        heard = Instant::now();
        handle.heard.send_replace(());
        let message = match Message::decode(&frame) {
            Ok(message) => message,
            Err(error) => return error.into(),
        };
        if let Err(error) = dispatch(message, handle, server, desk).await {
            return error;
        }
    }
}

async fn dispatch(
    message: Message,
    handle: &Arc<Handle>,
    server: &Arc<Server>,
    desk: &Desk,
) -> Result<(), SessionError> {
    if let Some(id) = message.answers() {
        return handle.answer(id, message);
    }
    let id = match &message {
        Message::Bye(bye) => return Err(SessionError::Bye(bye.code.clone())),
        Message::Ping(ping) => {
            // Where the queue is full, frames are on their way and say the same. To wait here could be for ever: two sides
            // that both wait to write would both stop reading.
            let _ = handle
                .outgoing
                .try_send(Message::Pong(ping.clone()).encode());
            return Ok(());
        }
        Message::Pull(pull) => pull.id,
        Message::Push(push) => push.id,
        Message::Epoch(note) | Message::Heard(note) => note.id,
        Message::Return(ask) => ask.id,
        _ => return Err(SessionError::Misbehaved("an answer without an id")),
    };
    let is_free = matches!(message, Message::Epoch(_) | Message::Heard(_));
    if is_free && desk.epochs.fetch_add(1, Ordering::Relaxed) >= EPOCHS_MAX {
        return Err(SessionError::Misbehaved("more epochs than a node can have"));
    }
    let slot = (is_free || server.may_ask(&handle.peer, handle.tier()))
        .then(|| desk.slots.clone().try_acquire_owned());
    let Some(Ok(slot)) = slot else {
        let busy = Message::Refused(Refused {
            id,
            code: "busy".into(),
            last_seq: None,
        });
        // The reader never waits for the writer: a peer that asks on without reading is let go.
        let queued = handle.outgoing.try_send(busy.encode());
        return queued.map_err(|_| {
            SessionError::Misbehaved("more requests than it may have, and it does not read")
        });
    };
    let taking = match message {
        Message::Push(_) => Some(tokio::select! {
            biased;
            () = handle.over.cancelled() => return Err(SessionError::Over),
            place = desk.taking.clone().acquire_owned() => place.map_err(|_| SessionError::Over)?,
        }),
        _ => None,
    };
    let (handle, server, building) = (handle.clone(), server.clone(), desk.building.clone());
    desk.work.spawn(async move {
        let (answer, place) = tokio::select! {
            biased;
            () = handle.over.cancelled() => return,
            answer = server.answer(&handle.peer, message, &building) => answer,
        };
        drop(taking);
        // Where the session is over there is nobody left to answer.
        let _ = handle.send(&answer).await;
        drop((place, slot));
    });
    Ok(())
}

//! [`Outgoing`]: what a session still has to write.
//!
//! Inputs are requests and replies of the session's tasks, and the short frames with which its
//! reader answers at once. Output is one frame after the other, short ones first. Invariants: the
//! reader never waits for the writer; each refused request gets its `busy`, or the session ends.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::message::{IdOnly, RequestRefusal, SessionMessage};

/// Requests and replies that wait to be written. Small, because each may hold a package of 1 MiB.
const MESSAGES_MAX: usize = 4;
/// Refused requests whose `busy` waits to be written: 8 kB. A peer that causes more does not read.
pub(super) const BUSY_MAX: usize = 1024;

/// The sending end of a session's queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: mpsc::Sender<Vec<u8>>,
    short: Arc<ShortFrames>,
}

/// The end of the queue from which frames are written.
#[derive(Debug)]
pub(super) struct OutgoingFrames {
    messages: mpsc::Receiver<Vec<u8>>,
    short: Arc<ShortFrames>,
}

/// Frames that are encoded only when they are written.
#[derive(Debug, Default)]
struct ShortFrames {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The last ping and pong. Frames before them keep the session alive as well.
    ping: Option<u64>,
    pong: Option<u64>,
    /// Ids of refused requests, at most [`BUSY_MAX`].
    busy: VecDeque<u64>,
}

impl Waiting {
    fn next(&mut self) -> Option<SessionMessage> {
        if let Some(id) = self.pong.take() {
            return Some(SessionMessage::Pong(IdOnly { id }));
        }
        if let Some(id) = self.ping.take() {
            return Some(SessionMessage::Ping(IdOnly { id }));
        }
        let id = self.busy.pop_front()?;
        Some(SessionMessage::Refused(RequestRefusal {
            id,
            code: "busy".into(),
            last_seq: None,
        }))
    }
}

impl Outgoing {
    /// An empty queue.
    pub(super) fn new() -> (Self, OutgoingFrames) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let short = Arc::<ShortFrames>::default();
        let outgoing = Self {
            messages: sender,
            short: short.clone(),
        };
        let frames = OutgoingFrames {
            messages: receiver,
            short,
        };
        (outgoing, frames)
    }

    /// Queues a request or a reply. Waits while the queue is full. Returns false if nothing is
    /// written any more.
    pub(super) async fn send(&self, message: &SessionMessage) -> bool {
        self.messages.send(message.encode()).await.is_ok()
    }

    /// Queues a ping in place of one that waits.
    pub(super) fn ping(&self, id: u64) {
        self.short.waiting.lock().ping = Some(id);
        self.short.added.notify_one();
    }

    /// Queues a pong in place of one that waits.
    pub(super) fn pong(&self, id: u64) {
        self.short.waiting.lock().pong = Some(id);
        self.short.added.notify_one();
    }

    /// Queues the refusal of a request as `busy`, and returns whether the queue had space.
    pub(super) fn busy(&self, id: u64) -> bool {
        let busy = &mut self.short.waiting.lock().busy;
        let has_space = busy.len() < BUSY_MAX;
        if has_space {
            busy.push_back(id);
            self.short.added.notify_one();
        }
        has_space
    }
}

impl OutgoingFrames {
    /// Takes the next frame; waits until there is one. None after the sending end is gone. Nothing
    /// is lost if the caller stops waiting.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let short = self.short.waiting.lock().next();
            if let Some(message) = short {
                return Some(message.encode());
            }
            tokio::select! {
                biased;
                () = self.short.added.notified() => {}
                frame = self.messages.recv() => return frame,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::peer::testing::{ping, pong};

    fn next(frames: &mut OutgoingFrames) -> Option<SessionMessage> {
        let frame = frames.next().now_or_never()?;
        Some(SessionMessage::decode(&frame.unwrap()).unwrap())
    }

    fn is_busy(message: Option<SessionMessage>, id: u64) -> bool {
        matches!(message, Some(SessionMessage::Refused(refusal))
            if (refusal.id, refusal.code.as_str()) == (id, "busy"))
    }

    #[tokio::test(start_paused = true)]
    async fn short_frames_come_first_and_the_last_pong_replaces_earlier_ones() {
        let (outgoing, mut frames) = Outgoing::new();
        assert!(outgoing.send(&ping(1)).await);
        assert!(outgoing.busy(2) && outgoing.busy(3));
        outgoing.ping(4);
        outgoing.pong(5);
        outgoing.pong(6);
        assert_eq!(next(&mut frames), Some(pong(6)));
        assert_eq!(next(&mut frames), Some(ping(4)));
        assert!(is_busy(next(&mut frames), 2));
        assert!(is_busy(next(&mut frames), 3));
        assert_eq!(next(&mut frames), Some(ping(1)));
        assert_eq!(next(&mut frames), None, "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_frame_ends_the_wait_for_a_frame() {
        let (outgoing, mut frames) = Outgoing::new();
        let waiting = tokio::spawn(async move { frames.next().await });
        tokio::task::yield_now().await;
        outgoing.pong(1);
        assert_eq!(waiting.await.unwrap(), Some(pong(1).encode()));
    }

    #[test]
    fn busy_has_a_bound() {
        let (outgoing, mut frames) = Outgoing::new();
        for id in 0..BUSY_MAX as u64 {
            assert!(outgoing.busy(id));
        }
        assert!(!outgoing.busy(5000));
        assert!(is_busy(next(&mut frames), 0));
        assert!(outgoing.busy(5000), "a place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn send_waits_while_the_queue_is_full_and_fails_after_its_end() {
        let (outgoing, mut frames) = Outgoing::new();
        let wait = Duration::from_secs(30);
        for id in 0..MESSAGES_MAX as u64 {
            assert!(outgoing.send(&ping(id)).await);
        }
        assert!(timeout(wait, outgoing.send(&ping(9))).await.is_err());
        assert_eq!(next(&mut frames), Some(ping(0)));
        assert!(timeout(wait, outgoing.send(&ping(9))).await.is_ok());
        drop(frames);
        assert!(!outgoing.send(&ping(10)).await);
    }
}

//! Turns to verify: so many at once, so many waiting, the highest effort first.
//!
//! A full queue drops its lowest effort, and of equals the newest. Never blocks a thread.
//! Invariant: at most `workers` turns exist; a turn that is dropped passes on.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::HandshakeError;

pub(super) struct VerifyQueue(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    waiting_max: usize,
}

struct State {
    free: usize,
    arrivals: u64,
    /// Last is next: the highest effort, of equals the earliest arrival.
    waiting: BTreeMap<(u64, Reverse<u64>), oneshot::Sender<Turn>>,
}

/// The right to verify one solution. Passes to the next in the queue when dropped.
pub(super) struct Turn(Option<Arc<Inner>>);

impl VerifyQueue {
    pub(super) fn new(workers: usize, waiting_max: usize) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                free: workers.max(1),
                arrivals: 0,
                waiting: BTreeMap::new(),
            }),
            waiting_max,
        }))
    }

    pub(super) fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// Waits for a turn; `Busy` when too many who worked more are waiting.
    pub(super) async fn turn(&self, effort: u64) -> Result<Turn, HandshakeError> {
        let receiver = {
            let mut state = self.0.state();
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Ok(Turn(Some(self.0.clone())));
            }
            state.waiting.retain(|_, sender| !sender.is_closed());
            if state.waiting.len() >= self.0.waiting_max {
                match state.waiting.first_entry() {
                    // Its sender is dropped, which tells the one who waits.
                    Some(lowest) if lowest.key().0 < effort => drop(lowest.remove()),
                    _ => return Err(HandshakeError::Busy),
                }
            }
            state.arrivals += 1;
            let (sender, receiver) = oneshot::channel();
            let place = (effort, Reverse(state.arrivals));
            state.waiting.insert(place, sender);
            receiver
        };
        receiver.await.map_err(|_| HandshakeError::Busy)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(inner) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = inner.state();
                match state.waiting.pop_last() {
                    Some((_, sender)) => sender,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            match next.send(Turn(Some(inner.clone()))) {
                Ok(()) => return,
                // It no longer waits. The turn that came back must not pass itself on: this one is still looking.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn the_highest_effort_goes_first_and_the_lowest_is_dropped() {
        let queue = VerifyQueue::new(1, 2);
        let first = queue.turn(1).await.unwrap();
        let mut low = Box::pin(queue.turn(2));
        let mut high = Box::pin(queue.turn(9));
        assert!(low.as_mut().now_or_never().is_none() && high.as_mut().now_or_never().is_none());
        assert_eq!(queue.waiting(), 2);
        // Full: an equal effort does not push anybody out, a higher one pushes the lowest.
        assert!(matches!(queue.turn(2).now_or_never(), Some(Err(HandshakeError::Busy))));
        let mut middle = Box::pin(queue.turn(5));
        assert!(middle.as_mut().now_or_never().is_none());
        assert!(matches!(low.await, Err(HandshakeError::Busy)));
        drop(first);
        assert!(middle.as_mut().now_or_never().is_none());
        let turn = high.await.unwrap();
        drop(turn);
        drop(middle.await.unwrap());
        assert_eq!(queue.0.state().free, 1);
    }

    #[tokio::test]
    async fn a_turn_is_not_lost_with_one_who_gave_up() {
        let queue = VerifyQueue::new(1, 4);
        let first = queue.turn(1).await.unwrap();
        let mut gone = Box::pin(queue.turn(3));
        let mut late = Box::pin(queue.turn(2));
        let mut stays = Box::pin(queue.turn(1));
        for waiting in [&mut gone, &mut late, &mut stays] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(first);
        // `late` was handed the turn but goes without looking.
        drop(late);
        drop(stays.await.unwrap());
        assert_eq!(queue.0.state().free, 1);
    }
}

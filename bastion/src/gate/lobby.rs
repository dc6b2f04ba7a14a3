//! The lobby: who is in a handshake, and who goes when it is full.
//!
//! Strangers share one number of places; peers that showed a ticket have their own, and trusted ones again their own, so
//! that no crowd of strangers can take them. When a stranger comes to a full lobby, one that is there goes: of those who
//! hold a challenge the newest (it comes back with its solution, on any stream), of those who have said nothing the one
//! that has been silent longest; from whichever of the two there are more, so that a crowd pays for itself. Who has
//! presented a solution stays. Never waits. Invariant: no class has more than its number, and a place that is dropped
//! is free.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::GateConfig;
use crate::ticket::Tier;

/// How many are in the lobby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Strangers that have said nothing yet.
    pub silent: usize,
    /// Strangers that hold a challenge.
    pub thinking: usize,
    /// Strangers whose solution is being judged.
    pub presenting: usize,
    /// Peers with a ticket that were admitted for their work.
    pub known: usize,
    /// Peers with a ticket that are trusted.
    pub trusted: usize,
}

impl Crowd {
    /// Those without a ticket.
    pub fn strangers(&self) -> usize {
        self.silent + self.thinking + self.presenting
    }
}

pub(super) struct Lobby(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    strangers_max: usize,
    known_max: usize,
    trusted_max: usize,
}

#[derive(Default)]
struct State {
    arrivals: u64,
    /// By arrival.
    silent: BTreeMap<u64, CancellationToken>,
    /// By arrival.
    thinking: BTreeMap<u64, CancellationToken>,
    presenting: usize,
    known: usize,
    trusted: usize,
    shed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Silent,
    Thinking,
    Presenting,
    Known,
    Trusted,
}

/// A place in the lobby, given back when dropped.
pub(super) struct Place {
    lobby: Arc<Inner>,
    number: u64,
    class: Class,
    /// Cancelled when somebody else gets the place.
    shed: CancellationToken,
}

impl Lobby {
    pub(super) fn new(config: &GateConfig) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            strangers_max: config.open_handshakes_max,
            known_max: config.known_handshakes_max,
            trusted_max: config.trusted_handshakes_max,
        }))
    }

    /// A place for somebody who just came; none where all are taken by those who stay.
    pub(super) fn enter(&self) -> Option<Place> {
        let mut state = self.0.state();
        if state.crowd().strangers() >= self.0.strangers_max && !state.shed_one() {
            return None;
        }
        let (number, shed) = (state.arrivals, CancellationToken::new());
        state.arrivals += 1;
        state.silent.insert(number, shed.clone());
        Some(Place {
            lobby: self.0.clone(),
            number,
            class: Class::Silent,
            shed,
        })
    }

    pub(super) fn crowd(&self) -> Crowd {
        self.0.state().crowd()
    }

    /// How many had to go for others since the start.
    pub(super) fn shed_total(&self) -> u64 {
        self.0.state().shed
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole: a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn crowd(&self) -> Crowd {
        Crowd {
            silent: self.silent.len(),
            thinking: self.thinking.len(),
            presenting: self.presenting,
            known: self.known,
            trusted: self.trusted,
        }
    }

    fn shed_one(&mut self) -> bool {
        let goes = if self.thinking.len() > self.silent.len() {
            self.thinking.pop_last()
        } else {
            self.silent.pop_first()
        };
        let Some((_, shed)) = goes else { return false };
        shed.cancel();
        self.shed += 1;
        true
    }

    fn leave(&mut self, class: Class, number: u64) {
        let count = match class {
            // Who was shed is gone already.
            Class::Silent => return drop(self.silent.remove(&number)),
            Class::Thinking => return drop(self.thinking.remove(&number)),
            Class::Presenting => &mut self.presenting,
            Class::Known => &mut self.known,
            Class::Trusted => &mut self.trusted,
        };
        *count = count.saturating_sub(1);
    }
}

impl Place {
    /// Cancelled when the place goes to somebody else: whoever waits in it must end.
    pub(super) fn shed(&self) -> &CancellationToken {
        &self.shed
    }

    /// A challenge goes out. Who showed a ticket moves to a place of its own, if there is one.
    pub(super) fn challenged(&mut self, known: Option<Tier>) {
        self.go(known, Class::Thinking);
    }

    /// A solution came in, and stays until it is judged.
    pub(super) fn presented(&mut self, known: Option<Tier>) {
        self.go(known, Class::Presenting);
    }

    /// The handshake is over but for a last word: the place may go to somebody else.
    pub(super) fn dismissed(&mut self) {
        self.go(None, Class::Thinking);
    }

    fn go(&mut self, known: Option<Tier>, stranger: Class) {
        let mut state = self.lobby.state();
        let has_own = matches!(self.class, Class::Known | Class::Trusted);
        if has_own || self.shed.is_cancelled() {
            return;
        }
        let own = match known {
            Some(Tier::Trusted) if state.trusted < self.lobby.trusted_max => Some(Class::Trusted),
            Some(Tier::Worked) if state.known < self.lobby.known_max => Some(Class::Known),
            _ => None,
        };
        state.leave(self.class, self.number);
        self.class = own.unwrap_or(stranger);
        match self.class {
            Class::Silent => drop(state.silent.insert(self.number, self.shed.clone())),
            Class::Thinking => drop(state.thinking.insert(self.number, self.shed.clone())),
            Class::Presenting => state.presenting += 1,
            Class::Known => state.known += 1,
            Class::Trusted => state.trusted += 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.state().leave(self.class, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lobby(strangers: usize) -> Lobby {
        Lobby::new(&GateConfig {
            open_handshakes_max: strangers,
            known_handshakes_max: 1,
            trusted_handshakes_max: 2,
            ..GateConfig::default()
        })
    }

    fn thinking(lobby: &Lobby) -> Place {
        let mut place = lobby.enter().unwrap();
        place.challenged(None);
        place
    }

    fn gone(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.shed.is_cancelled()).collect()
    }

    #[test]
    fn of_the_silent_the_longest_goes_and_of_the_thinking_the_newest() {
        let full = lobby(3);
        let silent: Vec<_> = (0..3).map(|_| full.enter().unwrap()).collect();
        let _arrival = full.enter().unwrap();
        assert_eq!(gone(&silent), [true, false, false]);
        let full = lobby(3);
        let thinking: Vec<_> = (0..3).map(|_| thinking(&full)).collect();
        let _arrival = full.enter().unwrap();
        assert_eq!(gone(&thinking), [false, false, true]);
        assert_eq!((full.crowd().strangers(), full.shed_total()), (3, 1));
    }

    #[test]
    fn the_larger_crowd_pays() {
        let full = lobby(3);
        let (thinker, silent) = (thinking(&full), [full.enter().unwrap(), full.enter().unwrap()]);
        let _arrival = full.enter().unwrap();
        assert!(!thinker.shed.is_cancelled());
        assert_eq!(gone(&silent), [true, false]);
    }

    #[test]
    fn who_presented_a_solution_stays_and_a_place_that_is_left_is_free() {
        let full = lobby(2);
        let mut places = vec![full.enter().unwrap(), full.enter().unwrap()];
        for place in &mut places {
            place.presented(None);
        }
        assert!(full.enter().is_none());
        assert_eq!(gone(&places), [false, false]);
        places.pop();
        assert!(full.enter().is_some());
        places.clear();
        assert_eq!(full.crowd(), Crowd::default());
    }

    #[test]
    fn tickets_have_places_of_their_own_until_these_are_taken() {
        let full = lobby(2);
        let mut ticketed: Vec<_> = (0..4)
            .map(|number| {
                let mut place = full.enter().unwrap();
                place.challenged(Some(if number < 3 { Tier::Trusted } else { Tier::Worked }));
                place
            })
            .collect();
        let crowd = full.crowd();
        // Two are the trusted ones' own; the third is treated like a stranger.
        assert_eq!((crowd.trusted, crowd.known, crowd.thinking), (2, 1, 1));
        let _strangers = [full.enter().unwrap(), full.enter().unwrap(), full.enter().unwrap()];
        assert_eq!(gone(&ticketed)[..2], [false, false]);
        assert!(!ticketed[3].shed.is_cancelled());
        ticketed[0].presented(Some(Tier::Trusted));
        assert_eq!(full.crowd().trusted, 2);
        ticketed.clear();
        assert_eq!((full.crowd().trusted, full.crowd().known), (0, 0));
    }

    proptest! {
        /// Whatever comes, stays, moves on and goes: the numbers hold, and an empty lobby is empty.
        #[test]
        fn no_class_ever_has_more_than_its_number(steps in proptest::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..200)) {
            let lobby = lobby(5);
            let mut places: Vec<Place> = Vec::new();
            for (step, index) in steps {
                let place = index.index(places.len().max(1));
                match (step, places.get_mut(place)) {
                    (0 | 1, _) => places.extend(lobby.enter()),
                    (2, Some(place)) => place.challenged(None),
                    (3, Some(place)) => place.challenged(Some(Tier::Trusted)),
                    (4, Some(place)) => place.presented(Some(Tier::Worked)),
                    (_, Some(_)) => drop(places.swap_remove(place)),
                    (_, None) => {}
                }
                places.retain(|place| !place.shed.is_cancelled());
                let crowd = lobby.crowd();
                prop_assert!(crowd.strangers() <= 5 && crowd.known <= 1 && crowd.trusted <= 2, "{crowd:?}");
                prop_assert_eq!(crowd.strangers() + crowd.known + crowd.trusted, places.len());
            }
            places.clear();
            prop_assert_eq!(lobby.crowd(), Crowd::default());
        }
    }
}

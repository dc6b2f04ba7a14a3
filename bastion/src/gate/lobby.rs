//! The lobby: who is in a handshake, and who goes when it is full.
//!
//! Strangers share one number of places; peers that showed a ticket have their own, and trusted ones again their own, so
//! that no crowd of strangers can take them, nor one such peer all of them. When a stranger comes to a full lobby, one
//! that is there goes: of those who hold a challenge the newest (it comes back with its solution, on any stream), of those
//! who have said nothing the one that has been silent longest; from whichever of the two there are more, so that a crowd
//! pays for itself. Who has presented a solution stays until it is judged. Never waits. Invariant: no class has more than
//! its number, and a place that is dropped is free.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::PeerId;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::config::GateConfig;
use crate::ticket::{Standing, Tier};

/// Places of their own that one peer's tickets open at once: one for each of two streams that crossed.
const PLACES_PER_PEER_MAX: usize = 2;

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
    known: BTreeMap<PeerId, usize>,
    trusted: BTreeMap<PeerId, usize>,
    shed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Silent,
    Thinking,
    Presenting,
    Known(PeerId),
    Trusted(PeerId),
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
            known_max: config.ticket_handshakes_max,
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
        self.state.lock()
    }
}

impl State {
    fn crowd(&self) -> Crowd {
        Crowd {
            silent: self.silent.len(),
            thinking: self.thinking.len(),
            presenting: self.presenting,
            known: self.known.values().sum(),
            trusted: self.trusted.values().sum(),
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
        match class {
            // Who was shed is gone already.
            Class::Silent => drop(self.silent.remove(&number)),
            Class::Thinking => drop(self.thinking.remove(&number)),
            Class::Presenting => self.presenting = self.presenting.saturating_sub(1),
            Class::Known(peer) => take_one(&mut self.known, &peer),
            Class::Trusted(peer) => take_one(&mut self.trusted, &peer),
        }
    }
}

/// Whether a peer may have one more of `most` places.
fn has_room(places: &BTreeMap<PeerId, usize>, peer: &PeerId, most: usize) -> bool {
    let own = places.get(peer).copied().unwrap_or_default();
    own < PLACES_PER_PEER_MAX && places.values().sum::<usize>() < most
}

fn take_one(places: &mut BTreeMap<PeerId, usize>, peer: &PeerId) {
    match places.get_mut(peer) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(places.remove(peer)),
    }
}

impl Place {
    /// Cancelled when the place goes to somebody else: whoever waits in it must end.
    pub(super) fn shed(&self) -> &CancellationToken {
        &self.shed
    }

    /// A challenge goes out. Who showed a ticket moves to a place of its own, if there is one.
    pub(super) fn challenged(&mut self, known: Option<&Standing>) {
        self.go(known, Class::Thinking);
    }

    /// A solution came in, and stays until it is judged.
    pub(super) fn presented(&mut self, known: Option<&Standing>) {
        self.go(known, Class::Presenting);
    }

    /// The handshake is over but for a last word: the place may go to somebody else.
    pub(super) fn dismissed(&mut self) {
        self.go(None, Class::Thinking);
    }

    fn go(&mut self, known: Option<&Standing>, stranger: Class) {
        let mut state = self.lobby.state();
        let has_own = matches!(self.class, Class::Known(_) | Class::Trusted(_));
        if has_own || self.shed.is_cancelled() {
            return;
        }
        let own = known.and_then(|Standing { peer, tier, .. }| match tier {
            Tier::Trusted if has_room(&state.trusted, peer, self.lobby.trusted_max) => {
                Some(Class::Trusted(*peer))
            }
            Tier::Untrusted if has_room(&state.known, peer, self.lobby.known_max) => {
                Some(Class::Known(*peer))
            }
            _ => None,
        });
        state.leave(self.class, self.number);
        self.class = own.unwrap_or(stranger);
        match self.class {
            Class::Silent => drop(state.silent.insert(self.number, self.shed.clone())),
            Class::Thinking => drop(state.thinking.insert(self.number, self.shed.clone())),
            Class::Presenting => state.presenting += 1,
            Class::Known(peer) => *state.known.entry(peer).or_default() += 1,
            Class::Trusted(peer) => *state.trusted.entry(peer).or_default() += 1,
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
            ticket_handshakes_max: 1,
            trusted_handshakes_max: 2,
            ..GateConfig::default()
        })
    }

    fn standing(number: u8, tier: Tier) -> Standing {
        let peer = PeerId::from_bytes([number; 32]);
        Standing {
            peer,
            tier,
            issued: 0,
        }
    }

    fn thinking(lobby: &Lobby) -> Place {
        let mut place = lobby.enter().unwrap();
        place.challenged(None);
        place
    }

    fn gone(places: &[Place]) -> Vec<bool> {
        places
            .iter()
            .map(|place| place.shed.is_cancelled())
            .collect()
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
        let (thinker, silent) = (
            thinking(&full),
            [full.enter().unwrap(), full.enter().unwrap()],
        );
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
                let tier = if number < 3 {
                    Tier::Trusted
                } else {
                    Tier::Untrusted
                };
                place.challenged(Some(&standing(number, tier)));
                place
            })
            .collect();
        let crowd = full.crowd();
        // Two are the trusted ones' own; the third is treated like a stranger.
        assert_eq!((crowd.trusted, crowd.known, crowd.thinking), (2, 1, 1));
        let _strangers = [
            full.enter().unwrap(),
            full.enter().unwrap(),
            full.enter().unwrap(),
        ];
        assert_eq!(gone(&ticketed)[..2], [false, false]);
        assert!(!ticketed[3].shed.is_cancelled());
        ticketed[0].presented(Some(&standing(0, Tier::Trusted)));
        assert_eq!(full.crowd().trusted, 2);
        ticketed.clear();
        assert_eq!((full.crowd().trusted, full.crowd().known), (0, 0));
    }

    #[test]
    fn one_peer_cannot_take_the_places_of_all_who_hold_tickets() {
        let lobby = Lobby::new(&GateConfig::default());
        let mut places: Vec<_> = (0..5).map(|_| lobby.enter().unwrap()).collect();
        for place in &mut places {
            place.challenged(Some(&standing(1, Tier::Untrusted)));
        }
        assert_eq!((lobby.crowd().known, lobby.crowd().thinking), (2, 3));
        places.remove(0);
        let mut again = lobby.enter().unwrap();
        again.challenged(Some(&standing(1, Tier::Untrusted)));
        assert_eq!(lobby.crowd().known, 2);
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
                    (3, Some(place)) => place.challenged(Some(&standing(step, Tier::Trusted))),
                    (4, Some(place)) => place.presented(Some(&standing(step, Tier::Untrusted))),
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

//! Session slots, by tier: which session gets one, and which session is evicted for it.
//!
//! Pure. A trusted peer's session is never evicted. Invariant: if the registry follows the
//! allocations, it lists at most `sessions_max` sessions, and at most `sessions_untrusted_max` of
//! untrusted peers.

use std::cmp::Reverse;

use bastion::Tier;
use keys::PeerId;

use crate::config::SyncConfig;

/// A slot that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSlot {
    /// The peer whose session takes it.
    pub peer: PeerId,
    /// How far the peer is trusted.
    pub tier: Tier,
    /// Whether the session has ended and only its tasks are left.
    pub is_over: bool,
    /// See [`priority`].
    pub priority: u64,
    /// In which order sessions arrived: higher is later.
    pub arrival: u64,
}

/// The priority of a peer that was admitted with a ticket: the base effort of a gate's defaults.
const TICKET_PRIORITY: u64 = 1024;

/// Returns the priority of a peer that was admitted with this effort, in evaluations; 0 is a
/// ticket.
pub fn priority(effort: u64) -> u64 {
    match effort {
        0 => TICKET_PRIORITY,
        effort => effort,
    }
}

/// A request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRequest {
    /// The peer that requests it.
    pub peer: PeerId,
    /// How far the peer is trusted.
    pub tier: Tier,
    /// See [`priority`].
    pub priority: u64,
}

/// Whether there is a slot for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// A slot is free.
    Free,
    /// A slot is free once this peer's session is evicted.
    Evict(PeerId),
    /// There is no slot.
    Full,
}

/// Allocates a slot for a session. A peer that has a slot takes over its own: that one is not
/// counted.
///
/// - A trusted peer evicts the newest untrusted session if all slots are taken.
/// - If the slots of untrusted peers are taken, an untrusted peer evicts the untrusted session of
///   the lowest priority, if its own is higher. Among equal ones the newest is evicted. So slots
///   that were obtained with little work are not kept for long.
/// - A session that has ended is evicted first.
pub fn allocate_slot(
    config: &SyncConfig,
    request: &SlotRequest,
    taken: impl Iterator<Item = SessionSlot> + Clone,
) -> Allocation {
    let others = taken.filter(|other| other.peer != request.peer);
    let mut untrusted = others.clone().filter(|other| other.tier == Tier::Untrusted);
    let is_full = others.count() >= config.sessions_max;
    let evicted = match request.tier {
        Tier::Untrusted
            if is_full || untrusted.clone().count() >= config.sessions_untrusted_max =>
        {
            let lowest = untrusted
                .max_by_key(|other| (other.is_over, Reverse(other.priority), other.arrival));
            lowest.filter(|other| other.is_over || other.priority < request.priority)
        }
        Tier::Trusted if is_full => untrusted
            .by_ref()
            .max_by_key(|other| (other.is_over, other.arrival)),
        Tier::Untrusted | Tier::Trusted => return Allocation::Free,
    };
    evicted.map_or(Allocation::Full, |other| Allocation::Evict(other.peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNTRUSTED: Tier = Tier::Untrusted;
    const TRUSTED: Tier = Tier::Trusted;

    fn config(all: usize, untrusted: usize) -> SyncConfig {
        SyncConfig {
            sessions_max: all,
            sessions_untrusted_max: untrusted,
            ..SyncConfig::default()
        }
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn request(number: u8, tier: Tier, priority: u64) -> SlotRequest {
        SlotRequest {
            peer: peer(number),
            tier,
            priority,
        }
    }

    fn slots(list: &[(u8, Tier)]) -> impl Iterator<Item = SessionSlot> + Clone {
        let slots = (0..)
            .zip(list)
            .map(|(arrival, (number, tier))| SessionSlot {
                peer: peer(*number),
                tier: *tier,
                is_over: false,
                priority: 8,
                arrival,
            });
        slots.collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn trusted_peer_evicts_the_newest_untrusted_session() {
        let config = config(3, 2);
        let two = [(1, UNTRUSTED), (2, UNTRUSTED)];
        assert_eq!(
            allocate_slot(&config, &request(3, UNTRUSTED, 8), slots(&two)),
            Allocation::Full
        );
        assert_eq!(
            allocate_slot(&config, &request(3, TRUSTED, 8), slots(&two)),
            Allocation::Free
        );
        assert_eq!(
            allocate_slot(&config, &request(2, UNTRUSTED, 8), slots(&two)),
            Allocation::Free,
            "its own"
        );
        let three = [(1, UNTRUSTED), (2, UNTRUSTED), (3, TRUSTED)];
        assert_eq!(
            allocate_slot(&config, &request(4, TRUSTED, 8), slots(&three)),
            Allocation::Evict(peer(2))
        );
        let trusted = [(1, TRUSTED), (2, TRUSTED), (3, TRUSTED)];
        assert_eq!(
            allocate_slot(&config, &request(4, TRUSTED, 8), slots(&trusted)),
            Allocation::Full
        );
        assert_eq!(
            allocate_slot(&config, &request(4, UNTRUSTED, 8), slots(&trusted)),
            Allocation::Full
        );
    }

    #[test]
    fn untrusted_peer_evicts_only_a_lower_priority() {
        let config = config(4, 3);
        let works = [(1, 1024), (2, 8), (3, 8)];
        let with = |works: [(u8, u64); 3]| {
            let slots = (0..)
                .zip(works)
                .map(|(arrival, (number, priority))| SessionSlot {
                    peer: peer(number),
                    tier: UNTRUSTED,
                    is_over: false,
                    priority,
                    arrival,
                });
            slots.collect::<Vec<_>>().into_iter()
        };
        assert_eq!(
            allocate_slot(&config, &request(4, UNTRUSTED, 8), with(works)),
            Allocation::Full
        );
        assert_eq!(
            allocate_slot(&config, &request(4, UNTRUSTED, 9), with(works)),
            Allocation::Evict(peer(3))
        );
        assert_eq!(
            allocate_slot(
                &config,
                &request(4, UNTRUSTED, priority(0)),
                with([(1, 2048), (2, 2048), (3, 4096)])
            ),
            Allocation::Full
        );
        assert_eq!((priority(0), priority(7)), (1024, 7));
    }

    #[test]
    fn evicts_a_session_that_has_ended_first() {
        let mut three: Vec<_> = slots(&[(1, UNTRUSTED), (2, UNTRUSTED), (3, TRUSTED)]).collect();
        three[0].is_over = true;
        assert_eq!(
            allocate_slot(&config(3, 2), &request(4, TRUSTED, 8), three.into_iter()),
            Allocation::Evict(peer(1))
        );
    }

    proptest! {
        #[test]
        fn sessions_stay_within_the_bounds(
            all in 1usize..6,
            untrusted in 1usize..6,
            steps in prop::collection::vec((0u8..10, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let config = config(all, untrusted);
            let mut here: Vec<SessionSlot> = Vec::new();
            for (arrival, (number, is_trusted, comes)) in (0..).zip(steps) {
                let (peer, tier) = (peer(number), if is_trusted { TRUSTED } else { UNTRUSTED });
                if !comes {
                    here.retain(|slot| slot.peer != peer);
                    continue;
                }
                let others = |slot: &&SessionSlot| slot.tier == TRUSTED && slot.peer != peer;
                let trusted_before = here.iter().filter(others).count();
                let request = SlotRequest { peer, tier, priority: 1 };
                match allocate_slot(&config, &request, here.iter().copied()) {
                    Allocation::Full => continue,
                    Allocation::Evict(other) => here.retain(|slot| slot.peer != other),
                    Allocation::Free => {}
                }
                here.retain(|slot| slot.peer != peer);
                let trusted = here.iter().filter(|slot| slot.tier == TRUSTED).count();
                prop_assert_eq!(trusted, trusted_before);
                let priority = arrival % 3;
                here.push(SessionSlot { peer, tier, is_over: false, priority, arrival });
                prop_assert!(here.len() <= all);
                let listed = here.iter().filter(|slot| slot.tier == UNTRUSTED).count();
                prop_assert!(listed <= untrusted);
            }
        }
    }
}

//! Places for sessions, by tier: who finds one, and who has to give one up.
//!
//! Pure: knows of peers what the bounds need. Never gives a trusted peer's place away. Invariant: with its answers kept
//! to, no more sessions are listed than `sessions_max`, and no more of untrusted peers than `sessions_untrusted_max`.

use std::cmp::Reverse;

use bastion::Tier;
use keys::PeerId;

use crate::config::SyncConfig;

/// Somebody who has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seated {
    /// The peer.
    pub peer: PeerId,
    /// How far it is trusted.
    pub tier: Tier,
    /// Whether its session has ended already and only winds up.
    pub is_over: bool,
    /// What it worked to be let in: see [`worth`].
    pub work: u64,
    /// In which order sessions came: higher is later.
    pub arrival: u64,
}

/// What a ticket counts for, where work decides who keeps a place: as much as the base effort of a gate's defaults.
const TICKET_WORTH: u64 = 1024;

/// The work of who was admitted with this effort, in evaluations; none came with a ticket.
pub fn worth(effort: u64) -> u64 {
    match effort {
        0 => TICKET_WORTH,
        effort => effort,
    }
}

/// Whether there is a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// There is.
    Free,
    /// There is, once this peer has given up its own.
    Of(PeerId),
    /// There is none.
    None,
}

/// A place for a peer of that tier that worked so much. A peer that has a place already takes over its own: that one counts
/// for nothing here. For a trusted peer, all places being taken, the worked one that came last goes. For a worked one, its
/// places being taken, the one that worked least goes if that is less, and of equals the newest: places that were got
/// cheaply keep nobody out for long. One whose session is over goes first.
pub fn place(
    config: &SyncConfig,
    peer: &PeerId,
    (tier, work): (Tier, u64),
    seated: impl Iterator<Item = Seated> + Clone,
) -> Place {
    let others = seated.filter(|other| other.peer != *peer);
    let mut untrusted = others.clone().filter(|other| other.tier == Tier::Untrusted);
    let is_full = others.count() >= config.sessions_max;
    let goes = match tier {
        Tier::Untrusted
            if is_full || untrusted.clone().count() >= config.sessions_untrusted_max =>
        {
            let least =
                untrusted.max_by_key(|other| (other.is_over, Reverse(other.work), other.arrival));
            least.filter(|other| other.is_over || other.work < work)
        }
        Tier::Trusted if is_full => untrusted
            .by_ref()
            .max_by_key(|other| (other.is_over, other.arrival)),
        Tier::Untrusted | Tier::Trusted => return Place::Free,
    };
    goes.map_or(Place::None, |other| Place::Of(other.peer))
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

    fn seated(list: &[(u8, Tier)]) -> impl Iterator<Item = Seated> + Clone {
        let seats = (0..).zip(list).map(|(arrival, (number, tier))| Seated {
            peer: peer(*number),
            tier: *tier,
            is_over: false,
            work: 8,
            arrival,
        });
        seats.collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn worked_peers_leave_room_and_the_newest_of_them_goes_for_a_trusted_one() {
        let config = config(3, 2);
        let two = [(1, UNTRUSTED), (2, UNTRUSTED)];
        assert_eq!(
            place(&config, &peer(3), (UNTRUSTED, 8), seated(&two)),
            Place::None
        );
        assert_eq!(
            place(&config, &peer(3), (TRUSTED, 8), seated(&two)),
            Place::Free
        );
        assert_eq!(
            place(&config, &peer(2), (UNTRUSTED, 8), seated(&two)),
            Place::Free,
            "its own"
        );
        let three = [(1, UNTRUSTED), (2, UNTRUSTED), (3, TRUSTED)];
        assert_eq!(
            place(&config, &peer(4), (TRUSTED, 8), seated(&three)),
            Place::Of(peer(2))
        );
        let trusted = [(1, TRUSTED), (2, TRUSTED), (3, TRUSTED)];
        assert_eq!(
            place(&config, &peer(4), (TRUSTED, 8), seated(&trusted)),
            Place::None
        );
        assert_eq!(
            place(&config, &peer(4), (UNTRUSTED, 8), seated(&trusted)),
            Place::None
        );
    }

    #[test]
    fn who_worked_more_takes_the_place_of_the_worked_peer_that_worked_least() {
        let config = config(4, 3);
        let works = [(1, 1024), (2, 8), (3, 8)];
        let seats = |works: [(u8, u64); 3]| {
            let seats = (0..).zip(works).map(|(arrival, (number, work))| Seated {
                peer: peer(number),
                tier: UNTRUSTED,
                is_over: false,
                work,
                arrival,
            });
            seats.collect::<Vec<_>>().into_iter()
        };
        assert_eq!(
            place(&config, &peer(4), (UNTRUSTED, 8), seats(works)),
            Place::None
        );
        assert_eq!(
            place(&config, &peer(4), (UNTRUSTED, 9), seats(works)),
            Place::Of(peer(3))
        );
        assert_eq!(
            place(
                &config,
                &peer(4),
                (UNTRUSTED, worth(0)),
                seats([(1, 2048), (2, 2048), (3, 4096)])
            ),
            Place::None
        );
        assert_eq!((worth(0), worth(7)), (1024, 7));
    }

    #[test]
    fn a_session_that_is_over_goes_before_one_that_lives() {
        let mut three: Vec<_> = seated(&[(1, UNTRUSTED), (2, UNTRUSTED), (3, TRUSTED)]).collect();
        three[0].is_over = true;
        assert_eq!(
            place(&config(3, 2), &peer(4), (TRUSTED, 8), three.into_iter()),
            Place::Of(peer(1))
        );
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whoever_comes_and_goes(
            all in 1usize..6,
            untrusted in 1usize..6,
            steps in prop::collection::vec((0u8..10, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let config = config(all, untrusted);
            let mut here: Vec<Seated> = Vec::new();
            for (arrival, (number, is_trusted, comes)) in (0..).zip(steps) {
                let (peer, tier) = (peer(number), if is_trusted { TRUSTED } else { UNTRUSTED });
                if !comes {
                    here.retain(|seat| seat.peer != peer);
                    continue;
                }
                let trusted_before = here.iter().filter(|seat| seat.tier == TRUSTED && seat.peer != peer).count();
                match place(&config, &peer, (tier, 1), here.iter().copied()) {
                    Place::None => continue,
                    Place::Of(other) => here.retain(|seat| seat.peer != other),
                    Place::Free => {}
                }
                here.retain(|seat| seat.peer != peer);
                prop_assert_eq!(here.iter().filter(|seat| seat.tier == TRUSTED).count(), trusted_before);
                here.push(Seated { peer, tier, is_over: false, work: arrival % 3, arrival });
                prop_assert!(here.len() <= all);
                prop_assert!(here.iter().filter(|seat| seat.tier == UNTRUSTED).count() <= untrusted);
            }
        }
    }
}

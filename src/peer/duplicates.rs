//! Two sessions with one peer: which of them stays.
//!
//! Pure, so that both sides can be held against each other. Never looks at a stream: whether the session that is there
//! still lives is for the caller to find out. Invariant: whatever the order in which they come to know of the same living
//! sessions, both sides keep the same one.

use keys::BootId;

/// What a side knows of a session that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    /// The other node's start, as it said in the handshake.
    pub boot_id: BootId,
    /// Whether the node with the smaller peer id dialled.
    pub dialled_by_smaller: bool,
    /// In which order handshakes ended on this side: higher is later.
    pub arrival: u64,
}

/// Which of two sessions stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// The new one.
    New,
    /// The one that is there.
    Old,
    /// The one that is there, if it lives: it would win, but its end may not have been noticed here, while the peer has
    /// noticed and dialled again.
    OldIfAlive,
}

/// Which of two sessions with one peer stays (docs/DECISIONS.md 6): that of another start of the peer, if it came later; else the
/// one that the smaller peer id dialled; else the later one.
///
/// Arrivals mean the same on both sides wherever they decide: a node ends before it starts anew, and dials an address
/// only once at a time.
pub fn stays(old: &Contender, new: &Contender) -> Stays {
    let is_same_start = old.boot_id == new.boot_id;
    if is_same_start && old.dialled_by_smaller != new.dialled_by_smaller {
        return if new.dialled_by_smaller {
            Stays::New
        } else {
            Stays::OldIfAlive
        };
    }
    if new.arrival > old.arrival {
        Stays::New
    } else {
        Stays::Old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A session between two nodes, seen from above.
    #[derive(Debug, Clone, Copy)]
    struct Link {
        by_smaller: bool,
        /// Which start of the larger node this is: the smaller one never restarts here.
        start: u8,
    }

    /// How a side numbers the sessions: each as a contender, in the order of `links`. Those of one dialler arrive in the
    /// order in which they were dialled; those of the two diallers mix as `early` says. Starts follow each other.
    fn numbered(links: &[Link], early: bool) -> Vec<Contender> {
        let rank = |place: usize, link: &Link| (link.start, link.by_smaller != early, place);
        let mut order: Vec<_> = links
            .iter()
            .enumerate()
            .map(|(place, link)| rank(place, link))
            .collect();
        order.sort_unstable();
        let arrival = |rank| order.iter().position(|other| *other == rank).unwrap() as u64;
        let contender = |(place, link): (usize, &Link)| Contender {
            boot_id: BootId::from_bytes([link.start; 16]),
            dialled_by_smaller: link.by_smaller,
            arrival: arrival(rank(place, link)),
        };
        links.iter().enumerate().map(contender).collect()
    }

    /// Which one a side keeps that comes to know them in that order, while all of them live.
    fn kept(seen: &[Contender], order: &[usize]) -> usize {
        let mut order = order.iter().copied();
        let first = order.next().unwrap();
        order.fold(first, |old, new| match stays(&seen[old], &seen[new]) {
            Stays::New => new,
            Stays::Old | Stays::OldIfAlive => old,
        })
    }

    fn orders(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let shorter = orders(count - 1);
        let places = |order: Vec<usize>| {
            (0..=order.len()).map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, count - 1);
                longer
            })
        };
        shorter.into_iter().flat_map(places).collect()
    }

    #[test]
    fn both_sides_keep_the_same_of_up_to_four_sessions_in_any_order() {
        let kinds = [(true, 1), (false, 1), (true, 2), (false, 2)];
        for count in 1..=4 {
            for code in 0..4usize.pow(count as u32) {
                let mut links: Vec<Link> = (0..count)
                    .map(|place| kinds[code / 4usize.pow(place as u32) % 4])
                    .map(|(by_smaller, start)| Link { by_smaller, start })
                    .collect();
                links.sort_by_key(|link| link.start);
                let newest_start = links.last().unwrap().start;
                let mut all = std::collections::BTreeSet::new();
                for early in [false, true] {
                    let seen = numbered(&links, early);
                    all.extend(orders(count).iter().map(|order| kept(&seen, order)));
                }
                // The side that restarted knows the sessions of its new start alone.
                let own: Vec<usize> = (0..count)
                    .filter(|at| links[*at].start == newest_start)
                    .collect();
                let seen = numbered(&links, true);
                for order in orders(own.len()) {
                    let order: Vec<usize> = order.into_iter().map(|place| own[place]).collect();
                    all.insert(kept(&seen, &order));
                }
                assert_eq!(all.len(), 1, "{links:?}: {all:?}");
                let kept = links[*all.first().unwrap()];
                assert_eq!(
                    kept.start, newest_start,
                    "a node that restarted is locked out: {links:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_later_start_of_the_peer_is_never_kept_out(old_by: bool, new_by: bool, old in 0u64..100, later in 1u64..100) {
            let old = Contender { boot_id: BootId::from_bytes([1; 16]), dialled_by_smaller: old_by, arrival: old };
            let new = Contender {
                boot_id: BootId::from_bytes([2; 16]),
                dialled_by_smaller: new_by,
                arrival: old.arrival + later,
            };
            prop_assert_eq!(stays(&old, &new), Stays::New);
            // And an old handshake that is worked on late does not push it out again.
            prop_assert_eq!(stays(&new, &old), Stays::Old);
        }

        #[test]
        fn who_dials_again_is_never_kept_out_unasked(by: bool, at in 0u64..100) {
            let boot_id = BootId::from_bytes([1; 16]);
            let old = Contender { boot_id, dialled_by_smaller: true, arrival: at };
            let new = Contender { boot_id, dialled_by_smaller: by, arrival: at + 1 };
            let expected = if by { Stays::New } else { Stays::OldIfAlive };
            prop_assert_eq!(stays(&old, &new), expected);
        }
    }
}

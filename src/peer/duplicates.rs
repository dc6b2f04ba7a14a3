//! Duplicate sessions: which of two sessions with one peer stays.
//!
//! Pure, so that tests compare both sides. Input is what a side knows of both sessions; the caller
//! finds out whether the old one is alive. Invariant: both sides keep the same one of the same live
//! sessions, in whatever order they learn of them.

use keys::BootId;

/// The facts that decide between two sessions, as one side knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The peer's start, from its claims.
    pub boot_id: BootId,
    /// Whether the node with the smaller peer id dialled.
    pub dialled_by_smaller: bool,
    /// In which order handshakes ended on this side: higher is later.
    pub arrival: u64,
}

/// Which of two sessions stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    /// The new session.
    New,
    /// The old session.
    Old,
    /// The old session, if it is alive. The peer may have noticed its end and dialled again, while
    /// this side has not noticed.
    OldIfAlive,
}

/// Decides which of two sessions with one peer stays (docs/DECISIONS.md 6).
///
/// 1. If the peer has restarted in between, the later session.
/// 2. Otherwise, if each side dialled one, the session that the smaller peer id dialled.
/// 3. Otherwise the later session.
///
/// Arrivals decide only where both sides number the sessions in the same order. A node ends before
/// it restarts, and dials an address once at a time.
pub fn resolve_duplicate(old: &Candidate, new: &Candidate) -> Winner {
    let is_same_start = old.boot_id == new.boot_id;
    if is_same_start && old.dialled_by_smaller != new.dialled_by_smaller {
        return if new.dialled_by_smaller {
            Winner::New
        } else {
            Winner::OldIfAlive
        };
    }
    if new.arrival > old.arrival {
        Winner::New
    } else {
        Winner::Old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A session between two nodes, as an observer of both sees it.
    #[derive(Debug, Clone, Copy)]
    struct Link {
        by_smaller: bool,
        /// Number of the larger node's start; the smaller node never restarts in these tests.
        start: u8,
    }

    /// Returns the sessions as a side numbers them, in the order of `links`. Sessions of one
    /// dialler arrive in the order of the dials; `early` says whose sessions arrive first. Starts
    /// follow each other.
    fn numbered(links: &[Link], early: bool) -> Vec<Candidate> {
        let rank = |place: usize, link: &Link| (link.start, link.by_smaller != early, place);
        let mut order: Vec<_> = links
            .iter()
            .enumerate()
            .map(|(place, link)| rank(place, link))
            .collect();
        order.sort_unstable();
        let arrival = |rank| order.iter().position(|other| *other == rank).unwrap() as u64;
        let candidate = |(place, link): (usize, &Link)| Candidate {
            boot_id: BootId::from_bytes([link.start; 16]),
            dialled_by_smaller: link.by_smaller,
            arrival: arrival(rank(place, link)),
        };
        links.iter().enumerate().map(candidate).collect()
    }

    /// Returns the session that a side keeps if it learns of them in that order while all are
    /// alive.
    fn kept(seen: &[Candidate], order: &[usize]) -> usize {
        let mut order = order.iter().copied();
        let first = order.next().unwrap();
        order.fold(first, |old, new| {
            match resolve_duplicate(&seen[old], &seen[new]) {
                Winner::New => new,
                Winner::Old | Winner::OldIfAlive => old,
            }
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
    fn both_sides_keep_the_same_of_four_sessions_in_any_order() {
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
                // The side that restarted knows only the sessions of its new start.
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
        fn session_of_a_later_start_replaces_the_old_one(
            old_by: bool,
            new_by: bool,
            old in 0u64..100,
            later in 1u64..100,
        ) {
            let old = Candidate {
                boot_id: BootId::from_bytes([1; 16]),
                dialled_by_smaller: old_by,
                arrival: old,
            };
            let new = Candidate {
                boot_id: BootId::from_bytes([2; 16]),
                dialled_by_smaller: new_by,
                arrival: old.arrival + later,
            };
            prop_assert_eq!(resolve_duplicate(&old, &new), Winner::New);
            // An old handshake that is processed late does not replace it.
            prop_assert_eq!(resolve_duplicate(&new, &old), Winner::Old);
        }

        #[test]
        fn second_dial_replaces_the_old_session_or_probes_it(by: bool, at in 0u64..100) {
            let boot_id = BootId::from_bytes([1; 16]);
            let old = Candidate { boot_id, dialled_by_smaller: true, arrival: at };
            let new = Candidate { boot_id, dialled_by_smaller: by, arrival: at + 1 };
            let expected = if by { Winner::New } else { Winner::OldIfAlive };
            prop_assert_eq!(resolve_duplicate(&old, &new), expected);
        }
    }
}

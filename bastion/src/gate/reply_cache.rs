//! [`ReplyCache`]: the replies to solutions, so that the same solution gets the same reply on
//! another stream.
//!
//! Holds entries only for solutions whose serial was reserved, so each entry is paid for by work or
//! a ticket. An entry ends with its cookie's expiry, and is replayed at most 8 times. Invariant: at
//! most `max` entries; the oldest is evicted first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keys::{Digest, PeerId};

use crate::handshake::Admitted;
use crate::messages::RefusalCode;

/// How often one reply is replayed. A client that loses more streams in a row solves a new
/// challenge.
const REPLAYS_MAX: u8 = 8;

/// A welcome that was sent, and the admission that belongs to it.
pub(super) struct CachedWelcome {
    /// The encoded welcome.
    pub(super) frame: Vec<u8>,
    pub(super) admitted: Admitted,
}

/// The reply to a solution.
#[derive(Clone)]
pub(super) enum CachedReply {
    /// The peer was admitted.
    Welcome(Arc<CachedWelcome>),
    /// The policy refused the peer.
    Refused(RefusalCode),
}

/// The state of a solution in the cache.
pub(super) enum Lookup {
    /// The solution is being verified or decided.
    InProgress,
    /// The reply is known.
    Replied(CachedReply),
}

struct CacheEntry {
    /// The claimed sender. Proved once there is a reply.
    peer: PeerId,
    /// The cookie's expiry in Unix seconds.
    expiry: u64,
    replays: u8,
    /// None while the solution is being verified or decided.
    reply: Option<CachedReply>,
}

pub(super) struct ReplyCache {
    max: usize,
    /// By the digest of the solution's frame.
    entries: BTreeMap<Digest, CacheEntry>,
    /// Oldest first.
    order: VecDeque<Digest>,
}

impl ReplyCache {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            entries: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Adds an entry for a solution whose serial was reserved. `expiry` is its cookie's.
    pub(super) fn begin(&mut self, solution: Digest, peer: PeerId, expiry: u64, now: u64) {
        let is_over = |entries: &BTreeMap<Digest, CacheEntry>, digest: &Digest| {
            entries.get(digest).is_none_or(|entry| now > entry.expiry)
        };
        while let Some(oldest) = self.order.front().copied() {
            if self.order.len() < self.max && !is_over(&self.entries, &oldest) {
                break;
            }
            self.order.pop_front();
            self.entries.remove(&oldest);
        }
        let entry = CacheEntry {
            peer,
            expiry,
            replays: 0,
            reply: None,
        };
        if self.entries.insert(solution, entry).is_none() {
            self.order.push_back(solution);
        }
    }

    /// Sets the reply. Without a reply the entry is removed, because the solution was invalid or
    /// its serial is released.
    pub(super) fn finish(&mut self, solution: &Digest, reply: Option<CachedReply>) {
        match (reply, self.entries.get_mut(solution)) {
            (Some(reply), Some(entry)) => entry.reply = Some(reply),
            (None, Some(_)) => {
                self.entries.remove(solution);
                self.order.retain(|digest| digest != solution);
            }
            (_, None) => {}
        }
    }

    /// Looks up a solution that was received again. Counts the replay.
    pub(super) fn find(&mut self, solution: &Digest, now: u64) -> Option<Lookup> {
        let entry = self
            .entries
            .get_mut(solution)
            .filter(|entry| now <= entry.expiry)?;
        let Some(reply) = &entry.reply else {
            return Some(Lookup::InProgress);
        };
        if entry.replays >= REPLAYS_MAX {
            return None;
        }
        entry.replays += 1;
        Some(Lookup::Replied(reply.clone()))
    }

    /// Removes every entry of a peer, including entries in progress.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.entries.retain(|_, entry| entry.peer != *peer);
        self.order
            .retain(|digest| self.entries.contains_key(digest));
    }

    /// Returns the number of entries that have not expired.
    pub(super) fn count(&self, now: u64) -> usize {
        self.entries
            .values()
            .filter(|entry| now <= entry.expiry)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn refused(cache: &mut ReplyCache, number: u8, now: u64) -> Option<RefusalCode> {
        match cache.find(&digest(number), now)? {
            Lookup::Replied(CachedReply::Refused(code)) => Some(code),
            _ => None,
        }
    }

    #[test]
    fn replays_a_reply_a_limited_number_of_times_until_its_cookie_expires() {
        let mut cache = ReplyCache::new(4);
        cache.begin(digest(1), peer(1), 100, 10);
        assert!(matches!(
            cache.find(&digest(1), 10),
            Some(Lookup::InProgress)
        ));
        cache.finish(&digest(1), Some(CachedReply::Refused(RefusalCode::Policy)));
        assert_eq!(refused(&mut cache, 1, 100), Some(RefusalCode::Policy));
        assert_eq!(refused(&mut cache, 1, 101), None);
        for _ in 1..REPLAYS_MAX {
            assert_eq!(refused(&mut cache, 1, 50), Some(RefusalCode::Policy));
        }
        assert_eq!(refused(&mut cache, 1, 50), None);
    }

    #[test]
    fn forget_removes_the_replies_to_a_peer_also_while_in_progress() {
        let mut cache = ReplyCache::new(4);
        for number in 1..4 {
            cache.begin(digest(number), peer(1 + number / 3), 100, 10);
        }
        cache.finish(&digest(1), Some(CachedReply::Refused(RefusalCode::Pending)));
        cache.forget(&peer(1));
        assert!(cache.find(&digest(1), 10).is_none());
        // The decision was made before `forget`, so its reply is not stored.
        cache.finish(&digest(2), Some(CachedReply::Refused(RefusalCode::Policy)));
        assert!(cache.find(&digest(2), 10).is_none());
        assert!(matches!(
            cache.find(&digest(3), 10),
            Some(Lookup::InProgress)
        ));
        assert_eq!((cache.count(10), cache.order.len()), (1, 1));
    }

    #[test]
    fn removes_invalid_solutions_and_evicts_the_oldest_entry() {
        let mut cache = ReplyCache::new(2);
        cache.begin(digest(1), peer(1), 100, 10);
        cache.finish(&digest(1), None);
        assert!(cache.find(&digest(1), 10).is_none());
        for number in 2..6 {
            cache.begin(digest(number), peer(1), 100, 10);
            cache.finish(
                &digest(number),
                Some(CachedReply::Refused(RefusalCode::Policy)),
            );
            assert!(cache.count(10) <= 2 && cache.order.len() == cache.entries.len());
        }
        assert_eq!(refused(&mut cache, 3, 10), None);
        assert_eq!(refused(&mut cache, 5, 10), Some(RefusalCode::Policy));
        // Expired entries are removed before the cache is full.
        assert_eq!(cache.count(101), 0);
        cache.begin(digest(6), peer(1), 200, 101);
        assert_eq!((cache.count(101), cache.entries.len()), (1, 1));
    }
}

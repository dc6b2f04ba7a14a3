//! How much peers may ask: a bucket of requests for each, by its tier; and what was said of full quotas already.
//!
//! Never forgets who has asked too much before it has waited. Invariant: however often a peer comes and goes, within any
//! minute it is answered at most twice `requests_per_minute_max` requests, and at most once that lastingly.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use bastion::Tier;
use keys::PeerId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::state_engine::Quotas;

/// What a bucket is emptied and filled in.
const MINUTE: Duration = Duration::from_secs(60);
/// Most buckets that are not full. Far above the sessions of a node; each is a few dozen bytes.
const BUCKETS_MAX: usize = 16_384;
/// Most peers of which it is remembered that their quota was said to be full.
const TOLD_MAX: usize = 4096;

/// The buckets of all peers. A bucket outlives its session, so that nothing is won by coming back; one that is full again,
/// a minute later at most, is as good as none.
#[derive(Debug)]
pub struct Requests {
    quotas: Quotas,
    /// When each bucket is full again.
    full_at: Mutex<BTreeMap<PeerId, Instant>>,
}

impl Requests {
    /// All buckets full.
    pub fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            full_at: Mutex::default(),
        }
    }

    /// Takes one request out of a peer's bucket; false where it is empty.
    pub fn take(&self, peer: &PeerId, tier: Tier) -> bool {
        let now = Instant::now();
        let limit = self.quotas.of(tier).requests_per_minute_max.max(1);
        let each = MINUTE / limit;
        let mut buckets = self.full_at.lock();
        let full_at = buckets.get(peer).map_or(now, |at| now.max(*at)) + each;
        if full_at > now + MINUTE {
            return false;
        }
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(peer) {
            buckets.retain(|_, at| *at > now);
            // Who is nearest to a full bucket loses least of its memory.
            while buckets.len() >= BUCKETS_MAX {
                let Some(fullest) = buckets
                    .iter()
                    .min_by_key(|(_, at)| **at)
                    .map(|(peer, _)| *peer)
                else {
                    break;
                };
                buckets.remove(&fullest);
            }
        }
        buckets.insert(*peer, full_at);
        true
    }
}

/// Peers whose full quota was said to the operator: once, until something of theirs is taken again.
#[derive(Debug, Default)]
pub struct QuotaNotes(Mutex<BTreeSet<PeerId>>);

impl QuotaNotes {
    /// A package of the peer was refused: says so in the log, the first time. Whether it was.
    pub fn refused(&self, peer: &PeerId, error: &dyn std::fmt::Display) -> bool {
        let mut told = self.0.lock();
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        let is_first = told.insert(*peer);
        if is_first {
            tracing::warn!(%peer, %error, "a peer has reached its quota: nothing more of it is stored until you raise it");
        }
        is_first
    }

    /// Something of the peer was taken.
    pub fn taken(&self, peer: &PeerId) {
        self.0.lock().remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_engine::TierQuota;
    use tokio::time::advance;

    fn requests(limit: u32) -> Requests {
        let untrusted = TierQuota {
            requests_per_minute_max: limit,
            ..Quotas::default().untrusted
        };
        Requests::new(Quotas {
            untrusted,
            ..Quotas::default()
        })
    }

    fn burst(requests: &Requests, peer: &PeerId) -> usize {
        (0..1000)
            .take_while(|_| requests.take(peer, Tier::Untrusted))
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_is_emptied_and_fills_again_with_time() {
        let (requests, peer) = (requests(60), PeerId::from_bytes([1; 32]));
        assert_eq!(burst(&requests, &peer), 60);
        advance(Duration::from_millis(999)).await;
        assert_eq!(burst(&requests, &peer), 0);
        advance(Duration::from_millis(1)).await;
        assert_eq!(burst(&requests, &peer), 1);
        advance(MINUTE * 10).await;
        assert_eq!(burst(&requests, &peer), 60, "never more than a bucket");
        assert_eq!(
            burst(&requests, &PeerId::from_bytes([2; 32])),
            60,
            "each has its own"
        );
        let trusted = PeerId::from_bytes([3; 32]);
        assert!((0..6000).all(|_| requests.take(&trusted, Tier::Trusted)));
        assert!(!requests.take(&trusted, Tier::Trusted));
    }

    #[test]
    fn a_full_quota_is_said_once_until_something_is_taken_again() {
        let (notes, peer) = (QuotaNotes::default(), PeerId::from_bytes([1; 32]));
        let refused = || notes.refused(&peer, &"full");
        assert_eq!([refused(), refused(), refused()], [true, false, false]);
        notes.taken(&peer);
        assert_eq!([refused(), refused()], [true, false]);
        for number in 0..=TOLD_MAX {
            let mut bytes = [2; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            notes.refused(&PeerId::from_bytes(bytes), &"full");
        }
        assert!(notes.0.lock().len() <= TOLD_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn buckets_are_bounded_and_the_full_ones_go() {
        let requests = requests(2);
        let name = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        for number in 0..BUCKETS_MAX {
            assert!(requests.take(&name(number), Tier::Untrusted));
        }
        advance(MINUTE).await;
        let greedy = name(BUCKETS_MAX);
        assert_eq!(burst(&requests, &greedy), 2);
        assert_eq!(requests.full_at.lock().len(), 1);
        for number in 0..BUCKETS_MAX + 5 {
            requests.take(&name(number), Tier::Untrusted);
        }
        assert_eq!(requests.full_at.lock().len(), BUCKETS_MAX);
        assert_eq!(
            burst(&requests, &greedy),
            0,
            "who has asked most is remembered"
        );
    }
}

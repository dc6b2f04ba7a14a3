//! Token buckets: how many requests a peer may send, by its tier.
//!
//! A bucket outlives its session, so that reconnecting does not refill it. Invariant: within any
//! minute a peer gets at most twice `requests_per_minute_max` requests answered, and on average at
//! most that number per minute. Requests whose token returned do not count.

use std::collections::BTreeMap;
use std::time::Duration;

use bastion::Tier;
use keys::PeerId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::state_engine::Quotas;

/// Time in which an empty bucket fills.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Most buckets that are not full. Each takes some 50 bytes; a node has far fewer sessions.
const BUCKETS_MAX: usize = 16_384;

/// When the bucket of each peer is full again. Buckets survive reconnects. A full bucket is
/// equivalent to an absent one and may be removed.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<BTreeMap<PeerId, Instant>>);

impl Buckets {
    /// When the peer's bucket is full again.
    pub(super) fn full_at(&self, peer: &PeerId) -> Option<Instant> {
        self.0.lock().get(peer).copied()
    }

    /// Takes what returns in `each`, if the bucket is then full again at `latest` or before.
    pub(super) fn take(&self, peer: &PeerId, each: Duration, latest: Instant) -> bool {
        let now = Instant::now();
        let mut buckets = self.0.lock();
        let full_at = buckets.get(peer).map_or(now, |at| now.max(*at)) + each;
        if full_at > latest {
            return false;
        }
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(peer) {
            buckets.retain(|_, at| *at > now);
            // The fullest buckets are removed, because they restrict their peers least.
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

    /// Returns what was taken, at most until the bucket is full.
    fn give_back(&self, peer: &PeerId, each: Duration) {
        if let Some(full_at) = self.0.lock().get_mut(peer) {
            *full_at = full_at.checked_sub(each).unwrap_or(*full_at);
        }
    }
}

/// The token buckets of all peers.
#[derive(Debug)]
pub struct TokenBuckets {
    quotas: Quotas,
    buckets: Buckets,
}

impl TokenBuckets {
    /// Creates the buckets, all full, with the limits of each tier.
    pub fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            buckets: Buckets::default(),
        }
    }

    /// Takes a token from a peer's bucket; returns false if the bucket is empty.
    pub fn take(&self, peer: &PeerId, tier: Tier) -> bool {
        let latest = Instant::now() + MINUTE;
        self.buckets.take(peer, self.each(tier), latest)
    }

    /// Returns a token to a peer's bucket, which never holds more than when it is full.
    pub fn give_back(&self, peer: &PeerId, tier: Tier) {
        self.buckets.give_back(peer, self.each(tier));
    }

    /// Time in which one token returns.
    fn each(&self, tier: Tier) -> Duration {
        MINUTE / self.quotas.of(tier).requests_per_minute_max.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_engine::TierQuota;
    use tokio::time::advance;

    fn buckets(limit: u32) -> TokenBuckets {
        let untrusted = TierQuota {
            requests_per_minute_max: limit,
            ..Quotas::default().untrusted
        };
        TokenBuckets::new(Quotas {
            untrusted,
            ..Quotas::default()
        })
    }

    fn burst(buckets: &TokenBuckets, peer: &PeerId) -> usize {
        (0..1000)
            .take_while(|_| buckets.take(peer, Tier::Untrusted))
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_refills_with_time() {
        let (buckets, peer) = (buckets(60), PeerId::from_bytes([1; 32]));
        assert_eq!(burst(&buckets, &peer), 60);
        advance(Duration::from_millis(999)).await;
        assert_eq!(burst(&buckets, &peer), 0);
        advance(Duration::from_millis(1)).await;
        assert_eq!(burst(&buckets, &peer), 1);
        advance(MINUTE * 10).await;
        assert_eq!(burst(&buckets, &peer), 60, "at most a full bucket");
        assert_eq!(
            burst(&buckets, &PeerId::from_bytes([2; 32])),
            60,
            "each peer has its own bucket"
        );
        let trusted = PeerId::from_bytes([3; 32]);
        assert!((0..6000).all(|_| buckets.take(&trusted, Tier::Trusted)));
        assert!(!buckets.take(&trusted, Tier::Trusted));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_returns_can_be_taken_again_and_overfills_nothing() {
        let (buckets, peer) = (buckets(60), PeerId::from_bytes([1; 32]));
        buckets.give_back(&peer, Tier::Untrusted);
        assert_eq!(burst(&buckets, &peer), 60, "the bucket was full");
        buckets.give_back(&peer, Tier::Untrusted);
        assert_eq!(burst(&buckets, &peer), 1);
        advance(MINUTE).await;
        buckets.give_back(&peer, Tier::Untrusted);
        assert_eq!(burst(&buckets, &peer), 60, "the bucket was full again");
    }

    #[tokio::test(start_paused = true)]
    async fn removes_the_fullest_buckets_beyond_the_bound() {
        let buckets = buckets(2);
        let peer = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        for number in 0..BUCKETS_MAX {
            assert!(buckets.take(&peer(number), Tier::Untrusted));
        }
        advance(MINUTE).await;
        let emptiest = peer(BUCKETS_MAX);
        assert_eq!(burst(&buckets, &emptiest), 2);
        assert_eq!(buckets.buckets.0.lock().len(), 1);
        for number in 0..BUCKETS_MAX + 5 {
            buckets.take(&peer(number), Tier::Untrusted);
        }
        assert_eq!(buckets.buckets.0.lock().len(), BUCKETS_MAX);
        assert_eq!(burst(&buckets, &emptiest), 0, "the emptiest bucket is kept");
    }
}

//! Processor time that each peer may cost, for pushes, for replies to this node's own pulls, and
//! for objects that are returned to the peer.
//!
//! A package is charged for what verifying and judging its objects costs by count, so that a seed
//! reproduces a run. New objects are free, because the quota of stored objects bounds them. A peer
//! that has used up its minute waits before its next package is verified. A stub that brings
//! nothing is charged as an object that is stored already. Invariant: a package is charged also if
//! its session ends meanwhile.

use std::time::Duration;

use bastion::Tier;
use keys::PeerId;
use tokio::time::{Instant, sleep};

use super::token_bucket::{Buckets, MINUTE};
use crate::state_engine::{OBJECT_COST, Quotas};

/// Cost of a package without objects: its signature, and the write that moves the cursor.
const PACKAGE_COST: Duration = Duration::from_millis(1);
/// Most that a byte costs: key chains have a signature in every hundred bytes.
const BYTE_COST_MAX: Duration = Duration::from_nanos(400);

/// The processor time of all peers.
#[derive(Debug)]
pub(super) struct ProcessorBudget {
    quotas: Quotas,
    buckets: Buckets,
}

/// The cost of one package, charged when this is dropped.
#[derive(Debug)]
pub(super) struct Charge<'b> {
    budget: &'b ProcessorBudget,
    peer: PeerId,
    tier: Tier,
    cost: Duration,
}

impl ProcessorBudget {
    /// Every peer has a whole minute's time at first.
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            buckets: Buckets::default(),
        }
    }

    /// Waits until the peer has time left; at most a minute.
    pub(super) async fn wait(&self, peer: &PeerId) {
        let pause = self.pause(peer);
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    /// Whether the peer has time left.
    pub(super) fn has_time(&self, peer: &PeerId) -> bool {
        self.pause(peer).is_zero()
    }

    /// Begins to charge a package. The caller has waited for the peer before.
    pub(super) fn begin(&self, peer: &PeerId, tier: Tier, bytes: usize) -> Charge<'_> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Charge {
            budget: self,
            peer: *peer,
            tier,
            cost: PACKAGE_COST + BYTE_COST_MAX.saturating_mul(bytes),
        }
    }

    /// Time until the peer has time left; at most a minute.
    fn pause(&self, peer: &PeerId) -> Duration {
        self.spent(peer).saturating_sub(MINUTE)
    }

    /// Charges stubs that bring nothing, each as an object that is stored already.
    pub(super) fn charge_stubs(&self, peer: &PeerId, tier: Tier, stubs: usize) {
        let stubs = u32::try_from(stubs).unwrap_or(u32::MAX);
        self.charge(peer, tier, OBJECT_COST.saturating_mul(stubs));
    }

    fn charge(&self, peer: &PeerId, tier: Tier, cost: Duration) {
        let refill = self.refill(tier, cost);
        let refill = refill.min((2 * MINUTE).saturating_sub(self.spent(peer)));
        self.buckets.take(peer, refill, Instant::now() + 3 * MINUTE);
    }

    /// Time until everything that the peer used has come back.
    pub(super) fn spent(&self, peer: &PeerId) -> Duration {
        let full_at = self.buckets.full_at(peer);
        full_at.map_or(Duration::ZERO, |full_at| {
            full_at.saturating_duration_since(Instant::now())
        })
    }

    /// Time in which a peer gets back what costs this much.
    pub(super) fn refill(&self, tier: Tier, cost: Duration) -> Duration {
        let each = self.quotas.of(tier).processor_per_minute_max;
        MINUTE.mul_f64(cost.as_secs_f64() / each.as_secs_f64().max(1e-3))
    }
}

impl Charge<'_> {
    /// Replaces the bound by what the objects of the package cost.
    pub(super) fn set_objects(&mut self, cost: Duration) {
        self.cost = PACKAGE_COST.saturating_add(cost);
    }

    /// Subtracts what is not charged.
    pub(super) fn forgive(&mut self, cost: Duration) {
        self.cost = self.cost.saturating_sub(cost);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.budget.charge(&self.peer, self.tier, self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::from_bytes([1; 32]);

    /// Takes `cost` for a package; returns how long the peer had to wait before.
    async fn package(budget: &ProcessorBudget, peer: PeerId, cost: Duration) -> Duration {
        let start = Instant::now();
        budget.wait(&peer).await;
        let mut charge = budget.begin(&peer, Tier::Untrusted, 1000);
        charge.set_objects(cost);
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn peer_waits_until_the_time_that_it_used_comes_back() {
        let quotas = Quotas::default();
        let each = quotas.untrusted.processor_per_minute_max;
        let budget = ProcessorBudget::new(quotas);
        assert_eq!(package(&budget, PEER, each * 3 / 4).await, Duration::ZERO);
        assert_eq!(package(&budget, PEER, each / 2).await, Duration::ZERO);
        let other = PeerId::from_bytes([2; 32]);
        assert_eq!(package(&budget, other, each / 2).await, Duration::ZERO);
        let pause = package(&budget, PEER, Duration::ZERO).await.as_secs();
        assert!((15..=16).contains(&pause), "{pause} s for a quarter");
        tokio::time::advance(MINUTE).await;
        assert_eq!(package(&budget, PEER, each / 2).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn package_of_a_session_that_ended_is_charged_by_its_bytes() {
        let budget = ProcessorBudget::new(Quotas::default());
        let bound = BYTE_COST_MAX * 1_000_000;
        for _ in 0..50 {
            drop(budget.begin(&PEER, Tier::Untrusted, 1_000_000));
        }
        let each = Quotas::default().untrusted.processor_per_minute_max;
        assert!(bound * 50 > each, "{bound:?}");
        assert!(budget.pause(&PEER) > Duration::ZERO);
        assert!(budget.pause(&PEER) <= MINUTE, "the longest wait");
    }

    #[tokio::test(start_paused = true)]
    async fn stubs_that_bring_nothing_cost_as_much_as_stored_objects() {
        let budget = ProcessorBudget::new(Quotas::default());
        let each = Quotas::default().untrusted.processor_per_minute_max;
        let stubs = usize::try_from(each.as_micros() / OBJECT_COST.as_micros()).unwrap();
        budget.charge_stubs(&PEER, Tier::Untrusted, stubs - 1);
        assert!(budget.has_time(&PEER));
        budget.charge_stubs(&PEER, Tier::Untrusted, 2);
        assert!(!budget.has_time(&PEER));
        budget.charge_stubs(&PEER, Tier::Untrusted, usize::MAX);
        assert!(budget.pause(&PEER) <= MINUTE, "the longest wait");
    }

    #[tokio::test(start_paused = true)]
    async fn forgiven_cost_takes_nothing() {
        let budget = ProcessorBudget::new(Quotas::default());
        for _ in 0..100 {
            let mut charge = budget.begin(&PEER, Tier::Untrusted, 1000);
            charge.set_objects(Duration::from_secs(9));
            charge.forgive(Duration::from_secs(9));
        }
        assert_eq!(budget.pause(&PEER), Duration::ZERO);
    }
}

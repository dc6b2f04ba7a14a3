//! Quotas: how much this node stores of each peer and of each tier (docs/DECISIONS.md 6, 9).
//!
//! Usage is counted in memory while a package is applied and written once at its end, so that
//! counting needs no row per object. A package that does not fit is refused as a whole; the peer
//! sends it again.
//! Invariant: with `settle` called in the transaction that wrote the objects, the stored sums equal
//! the usage. Tested below and in `tests/core/quotas.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use bastion::Tier;
use keys::PeerId;
use keys::protocol::PACKAGE_OBJECTS_MAX;

use crate::store::{Rows, StoreError, Stored, Usage, WriteTx};

/// The quota of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierQuota {
    /// Largest sum of object bytes of one peer.
    pub stored_bytes_max: u64,
    /// Largest number of objects of one peer.
    pub stored_objects_max: u64,
    /// Largest sum of object bytes of all peers of the tier.
    pub total_bytes_max: u64,
    /// Largest number of objects of all peers of the tier.
    pub total_objects_max: u64,
    /// Largest number of pulls and pushes of one peer per minute. The sessions count them.
    pub requests_per_minute_max: u32,
    /// Processor time that the packages of one peer may cost per minute, on one core, besides new
    /// objects. The sessions count it.
    pub processor_per_minute_max: Duration,
}

/// Bytes of a stored object for which a quota of bytes includes one object: a long message. Small
/// objects cost more than their bytes, in rows and indexes.
const BYTES_PER_OBJECT: u64 = 1638;

impl TierQuota {
    /// Quota of untrusted peers. Each may send 120 requests per minute: five domains pulled every
    /// half minute, and ten times that while there are changes. Its 3 s of processor time per
    /// minute are a twentieth of a core, and enough to send 30,000 stored objects again.
    pub fn untrusted(stored_bytes_max: u64, total_bytes_max: u64) -> Self {
        let processor = Duration::from_secs(3);
        Self::of_bytes(stored_bytes_max, total_bytes_max, 120, processor)
    }

    /// Quota of trusted peers. Each may send 6,000 requests per minute: enough for a first sync
    /// over a fast line, and a limit for a node in a loop. Its 30 s of processor time per minute
    /// are half a core.
    pub fn trusted(stored_bytes_max: u64, total_bytes_max: u64) -> Self {
        let processor = Duration::from_secs(30);
        Self::of_bytes(stored_bytes_max, total_bytes_max, 6000, processor)
    }

    /// Derives the numbers of objects, at least those of one package, so that a peer with an empty
    /// account can send one.
    fn of_bytes(
        stored_bytes_max: u64,
        total_bytes_max: u64,
        requests_per_minute_max: u32,
        processor_per_minute_max: Duration,
    ) -> Self {
        let objects = |bytes: u64| (bytes / BYTES_PER_OBJECT).max(PACKAGE_OBJECTS_MAX as u64);
        Self {
            stored_bytes_max,
            stored_objects_max: objects(stored_bytes_max),
            total_bytes_max,
            total_objects_max: objects(total_bytes_max),
            requests_per_minute_max,
            processor_per_minute_max,
        }
    }
}

/// The quotas of both tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Quota of untrusted peers.
    pub untrusted: TierQuota,
    /// Quota of trusted peers.
    pub trusted: TierQuota,
}

impl Quotas {
    /// The quota of a tier.
    pub fn of(&self, tier: Tier) -> &TierQuota {
        match tier {
            Tier::Untrusted => &self.untrusted,
            Tier::Trusted => &self.trusted,
        }
    }
}

impl Default for Quotas {
    /// The defaults of the configuration file, with their reasons in `docs/CONFIG.md`.
    fn default() -> Self {
        Self {
            untrusted: TierQuota::untrusted(16 << 20, 512 << 20),
            trusted: TierQuota::trusted(16 << 30, 64 << 30),
        }
    }
}

/// The quota that a package would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("quota.{}.{key} ({max}) is reached", .tier.as_str())]
pub struct QuotaFault {
    /// The peer's tier.
    pub tier: Tier,
    /// The field of [`TierQuota`].
    pub key: &'static str,
    /// The value of that field.
    pub max: u64,
}

/// A peer's usage while a package is applied: before, its tier's before, and the change.
#[derive(Debug)]
struct QuotaAccount {
    before: Stored,
    tier_before: Usage,
    change: Usage,
}

/// The usage of all peers whose objects one transaction changes.
#[derive(Debug)]
pub(super) struct QuotaLedger {
    quotas: Quotas,
    accounts: BTreeMap<PeerId, QuotaAccount>,
}

impl QuotaLedger {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            accounts: BTreeMap::new(),
        }
    }

    /// Counts a change of a peer's usage. A change that adds nothing always fits, so that a peer
    /// above a lowered quota may still delete.
    pub(super) fn count(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
        change: &Usage,
    ) -> Result<Result<(), QuotaFault>, StoreError> {
        if change.is_zero() {
            return Ok(Ok(()));
        }
        let account = match self.accounts.entry(*peer) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let Some(before) = rows.stored_by(peer)? else {
                    return Ok(Ok(()));
                };
                let tier_before = rows.tier_usage(before.tier)?;
                new.insert(QuotaAccount {
                    before,
                    tier_before,
                    change: Usage::default(),
                })
            }
        };
        account.change += *change;
        Ok(account.fits(self.quotas.of(account.before.tier), change))
    }

    /// Counts a change of a peer's usage if no quota forbids it. Returns whether it was counted.
    pub(super) fn count_if_it_fits(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
        change: &Usage,
    ) -> Result<bool, StoreError> {
        let fits = self.count(rows, peer, change)?.is_ok();
        if !fits {
            let undone = self.count(rows, peer, &-*change)?;
            debug_assert!(undone.is_ok(), "taking back fits every quota");
        }
        Ok(fits)
    }

    /// Writes the changed sums to the database.
    pub(super) fn settle(&self, tx: &WriteTx<'_>) -> Result<(), StoreError> {
        for (peer, account) in &self.accounts {
            tx.add_usage(peer, &account.change)?;
        }
        Ok(())
    }
}

impl QuotaAccount {
    /// Fails with the first quota that `step` would exceed.
    fn fits(&self, quota: &TierQuota, step: &Usage) -> Result<(), QuotaFault> {
        let (peer, all, change) = (&self.before.usage, &self.tier_before, &self.change);
        let bounds = [
            (
                "stored_bytes_max",
                quota.stored_bytes_max,
                peer.bytes,
                change.bytes,
                step.bytes,
            ),
            (
                "stored_objects_max",
                quota.stored_objects_max,
                peer.objects,
                change.objects,
                step.objects,
            ),
            (
                "total_bytes_max",
                quota.total_bytes_max,
                all.bytes,
                change.bytes,
                step.bytes,
            ),
            (
                "total_objects_max",
                quota.total_objects_max,
                all.objects,
                change.objects,
                step.objects,
            ),
        ];
        for (key, max, before, change, step) in bounds {
            let after = before.saturating_add(change).max(0).unsigned_abs();
            if step > 0 && after > max {
                return Err(QuotaFault {
                    tier: self.before.tier,
                    key,
                    max,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(peer: i64, all: i64) -> QuotaAccount {
        let usage = |bytes| Usage { objects: 1, bytes };
        QuotaAccount {
            before: Stored {
                tier: Tier::Untrusted,
                usage: usage(peer),
            },
            tier_before: usage(all),
            change: Usage::default(),
        }
    }

    #[test]
    fn reports_the_first_exceeded_quota_and_always_accepts_less() {
        let quota = TierQuota {
            stored_bytes_max: 100,
            stored_objects_max: 3,
            total_bytes_max: 150,
            total_objects_max: 4,
            requests_per_minute_max: 1,
            processor_per_minute_max: Duration::ZERO,
        };
        let add = |account: &mut QuotaAccount, objects, bytes| {
            let step = Usage { objects, bytes };
            account.change += step;
            account.fits(&quota, &step).map_err(|fault| fault.key)
        };
        let mut some = account(60, 60);
        assert_eq!(add(&mut some, 1, 40), Ok(()), "exactly the quota");
        assert_eq!(add(&mut some, 0, 1), Err("stored_bytes_max"));
        assert_eq!(add(&mut some, 0, -1), Ok(()));
        assert_eq!(add(&mut some, 2, 0), Err("stored_objects_max"));
        assert_eq!(add(&mut account(0, 140), 1, 11), Err("total_bytes_max"));
        let mut full = account(500, 500);
        assert_eq!(
            add(&mut full, 0, -10),
            Ok(()),
            "a peer above its quota may delete"
        );
        assert_eq!(
            add(&mut full, 1, -10),
            Ok(()),
            "and write an object that takes less space than it freed"
        );
        let mut many = account(1, 1);
        many.tier_before.objects = 4;
        assert_eq!(add(&mut many, 1, 1), Err("total_objects_max"));
    }
}

//! Quotas: how much this node stores of each peer and of each tier (docs/DECISIONS.md 6, 9).
//!
//! Usage is counted in memory while a package is applied and written once at its end, so that
//! counting needs no row per object. An object that does not fit the own account of its sender ends
//! its package, and the peer sends it again. Relayed objects have accounts of their own. One that
//! does not fit is passed and pulled again, because the sender is not to blame for it.
//! Invariant: with `settle` called in the transaction that wrote the objects, the stored sums equal
//! the usage. Tested below and in `tests/core/quotas.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bastion::Tier;
use keys::protocol::PACKAGE_OBJECTS_MAX;
use keys::{Oid, PeerId};

use crate::graph::AccountRoom;
use crate::store::{Account, Rows, StoreError, Stored, Usage, WriteTx};

/// Quotas of a peer that all relayed objects of one sender may use. Otherwise one peer could use up
/// the total of its tier with authors that it invents.
const RELAYED_QUOTAS: i64 = 4;
/// Part of a quota that relayed objects of one sender share in scopes that no identity of this node
/// reads. The part has room for Parents, rights lists and some messages.
const SHARED_PART: i64 = 16;

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

/// A peer's usage while a package is applied: before, its tier's before, and the changes of its own
/// account and of all others.
#[derive(Debug)]
struct QuotaAccount {
    before: Stored,
    tier_before: Usage,
    change: Usage,
    relayed: Usage,
}

/// The usage of an account of relayed objects.
#[derive(Debug)]
struct RelayedAccount {
    before: Usage,
    change: Usage,
}

/// The usage of all peers whose objects one transaction changes.
#[derive(Debug)]
pub(super) struct QuotaLedger {
    quotas: Quotas,
    accounts: BTreeMap<PeerId, QuotaAccount>,
    relayed: BTreeMap<(PeerId, Account), RelayedAccount>,
}

impl QuotaLedger {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            accounts: BTreeMap::new(),
            relayed: BTreeMap::new(),
        }
    }

    /// The usage of a peer; `None` if it was never admitted.
    fn peer(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
    ) -> Result<Option<&mut QuotaAccount>, StoreError> {
        Ok(Some(match self.accounts.entry(*peer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Some(before) = rows.stored_by(peer)? else {
                    return Ok(None);
                };
                let tier_before = rows.tier_usage(before.tier)?;
                new.insert(QuotaAccount {
                    before,
                    tier_before,
                    change: Usage::default(),
                    relayed: Usage::default(),
                })
            }
        }))
    }

    /// The usage of one of a peer's accounts of relayed objects.
    fn relayed(
        &mut self,
        rows: &Rows<'_>,
        key: (PeerId, Account),
    ) -> Result<&mut RelayedAccount, StoreError> {
        Ok(match self.relayed.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(RelayedAccount {
                before: rows.relayed_by(&key.0, key.1)?,
                change: Usage::default(),
            }),
        })
    }

    /// The room that a peer's accounts have for an object of an author; `None`: it counts for none.
    pub(super) fn room(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
        author: Option<Oid>,
    ) -> Result<AccountRoom, StoreError> {
        let quotas = self.quotas;
        let Some(known) = self.peer(rows, peer)? else {
            return Ok(AccountRoom::UNLIMITED);
        };
        let quota = quotas.of(known.before.tier);
        let each = Usage::bound(quota.stored_objects_max, quota.stored_bytes_max);
        let total = Usage::bound(quota.total_objects_max, quota.total_bytes_max);
        let (mut own, mut relayed) = (known.before.usage, known.before.relayed);
        own += known.change;
        relayed += known.relayed;
        let mut all = known.tier_before;
        all += known.change;
        all += known.relayed;
        let in_tier = total.less(&all);
        let relaying = each.times(RELAYED_QUOTAS).less(&relayed).min(&in_tier);
        let mut left = |account, max: Usage| {
            let of = self.relayed(rows, (*peer, account))?;
            let mut used = of.before;
            used += of.change;
            Ok::<_, StoreError>(max.less(&used).min(&relaying))
        };
        Ok(AccountRoom {
            own: each.less(&own).min(&in_tier),
            author: match author {
                Some(author) => left(Account::Author(author), each)?,
                None => Usage::default(),
            },
            shared: left(Account::Shared, each.part(SHARED_PART))?,
        })
    }

    /// Counts a change of a peer's usage. A change that adds nothing always fits, so that a peer
    /// above a lowered quota may still delete. A change of a relayed account always fits, because
    /// [`QuotaLedger::room`] was asked before.
    pub(super) fn count(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
        (account, change): (Account, &Usage),
    ) -> Result<Result<(), QuotaFault>, StoreError> {
        let quotas = self.quotas;
        if change.is_zero() {
            return Ok(Ok(()));
        }
        let Some(known) = self.peer(rows, peer)? else {
            return Ok(Ok(()));
        };
        if account == Account::Own {
            known.change += *change;
            return Ok(known.fits(quotas.of(known.before.tier), change));
        }
        known.relayed += *change;
        self.relayed(rows, (*peer, account))?.change += *change;
        Ok(Ok(()))
    }

    /// Counts a change of a peer's own account if no quota forbids it. Returns whether it was
    /// counted.
    pub(super) fn count_if_it_fits(
        &mut self,
        rows: &Rows<'_>,
        peer: &PeerId,
        change: &Usage,
    ) -> Result<bool, StoreError> {
        let own = |change| (Account::Own, change);
        let fits = self.count(rows, peer, own(change))?.is_ok();
        if !fits {
            let undone = self.count(rows, peer, own(&-*change))?;
            debug_assert!(undone.is_ok(), "taking back fits every quota");
        }
        Ok(fits)
    }

    /// Writes the changed sums to the database.
    pub(super) fn settle(&self, tx: &WriteTx<'_>) -> Result<(), StoreError> {
        for (peer, account) in &self.accounts {
            tx.add_usage(peer, Account::Own, &account.change)?;
        }
        for ((peer, account), usage) in &self.relayed {
            tx.add_usage(peer, *account, &usage.change)?;
        }
        Ok(())
    }
}

impl QuotaAccount {
    /// Fails with the first quota that `step` would exceed.
    fn fits(&self, quota: &TierQuota, step: &Usage) -> Result<(), QuotaFault> {
        let (peer, change) = (&self.before.usage, &self.change);
        let mut all = self.tier_before;
        all += self.relayed;
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
                relayed: Usage::default(),
            },
            tier_before: usage(all),
            change: Usage::default(),
            relayed: Usage::default(),
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

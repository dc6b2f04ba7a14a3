//! Merging rights lists after a restore (docs/DECISIONS.md 4).
//!
//! A restored node may write a list before a peer returns later ones. The lists of a scope that no
//! other list replaces are its *heads*. The next list of the owner's node begins with what all
//! heads changed. Invariant: while a scope of this node has several heads, it is closed for peers,
//! and no reader is added. `branches` merges their entries. Tested in
//! `tests/core/rights_merge.rs`.

use std::collections::BTreeMap;

use keys::{Digest, Oid};

use super::branches::{Branch, changed_since, merged};
use super::leaving::Looks;
use super::manager::GraphManager;
use crate::object::{Rights, RightsList};
use crate::store::{Leave, RightsRow, ScopeId, StoreError};

/// Most heads that one list considers. Each restore of a backup makes one.
pub(super) const HEADS_MAX: usize = 16;
/// Most lists that a merge reads. With more the heads count as unrelated.
const STEPS_MAX: usize = 256;
/// Most entries of the lists that a merge reads, besides those of the heads. With more the heads
/// count as unrelated. Reading and comparing them takes some 10 ms.
const ENTRIES_MAX: usize = 8192;
/// Most `leave` of one identity that a merge considers, the latest first.
const LEAVES_MAX: usize = 4;

/// The lists from the heads down to those that all heads follow.
#[derive(Debug, Default)]
struct Ancestry {
    /// Lists that some heads follow: bit `n` stands for head `n`.
    above: Vec<(RightsRow, u64)>,
    /// The highest lists that all heads follow. Empty: none is known, because a list is missing or
    /// too many lie between.
    bases: Vec<RightsRow>,
}

/// Entries of lists, by their local ids.
type Entries = BTreeMap<i64, RightsList>;

/// The lists that one head follows, and the head itself.
struct Followed<'f> {
    ancestry: &'f Ancestry,
    /// The head's bit.
    bit: u64,
    lists: Vec<(&'f RightsRow, &'f RightsList)>,
}

/// Where the list lies that a `leave` names.
enum LeaveOrigin {
    /// The head follows it, and some other head does not.
    Branch,
    /// All heads follow it, or it is below the lists that are known.
    Common,
    /// The head does not follow it.
    Elsewhere,
}

impl Followed<'_> {
    /// The highest version of the lists that all heads follow.
    fn base(&self) -> Option<u64> {
        self.ancestry.bases.iter().map(|base| base.version).max()
    }

    fn origin_of(&self, leave: &Leave) -> LeaveOrigin {
        let mut above = self.ancestry.above.iter();
        match above.find(|(list, _)| list.id == leave.list) {
            Some((_, mask)) if mask & self.bit == 0 => LeaveOrigin::Elsewhere,
            Some(_) => LeaveOrigin::Branch,
            None if self.base().is_some_and(|base| leave.version > base) => LeaveOrigin::Elsewhere,
            None => LeaveOrigin::Common,
        }
    }
}

impl GraphManager<'_> {
    /// The lists of a scope that the owner's next one replaces: the heads, or the list in force.
    pub(super) fn heads(&self, scope: ScopeId) -> Result<Vec<RightsRow>, StoreError> {
        let heads = self.tx.list_heads(scope, HEADS_MAX)?;
        if heads.is_empty() {
            return Ok(vec![self.tx.list_in_force(scope)?]);
        }
        Ok(heads)
    }

    /// The rights with which the next list of a scope of this node begins.
    pub fn next_list(&self, scope: ScopeId) -> Result<RightsList, StoreError> {
        self.next_rights(scope, &self.heads(scope)?)
    }

    /// The rights with which the owner's next list begins: those of the heads, without the
    /// identities that left and were not added again.
    pub(super) fn next_rights(
        &self,
        scope: ScopeId,
        heads: &[RightsRow],
    ) -> Result<RightsList, StoreError> {
        if let [only] = heads {
            return self.without_left(scope, only);
        }
        let ancestry = self.ancestry(heads)?;
        let lists = ancestry.above.iter().map(|(list, _)| list);
        let lists = lists.chain(&ancestry.bases).chain(heads);
        let lists: Entries = lists
            .map(|list| Ok((list.id, self.tx.rights(list.id)?)))
            .collect::<Result<_, StoreError>>()?;
        let latest = heads.iter().map(|head| head.key_number).max();
        let mut looks = Looks::default();
        let mut branches = Vec::with_capacity(heads.len());
        for (number, head) in heads.iter().enumerate() {
            let before: Vec<_> = ancestry.before(1 << number).collect();
            let before = before
                .into_iter()
                .filter_map(|list| Some((list, lists.get(&list.id)?)));
            let followed = Followed {
                ancestry: &ancestry,
                bit: 1 << number,
                lists: before.collect(),
            };
            branches.push(self.branch((scope, head), &followed, latest, &mut looks)?);
        }
        self.end_looks(&looks);
        let (list, beyond) = merged(&branches);
        if beyond > 0 {
            tracing::warn!(
                identities = beyond,
                "left identities out of a merged rights list, because it would have more than 256"
            );
        }
        Ok(list)
    }

    /// Follows the heads down to the lists that all of them follow.
    fn ancestry(&self, heads: &[RightsRow]) -> Result<Ancestry, StoreError> {
        let all = heads.iter().fold(0, |all: u64, _| all << 1 | 1);
        // By version and digest. The flag: a base follows it, so that it is none.
        let mut open: BTreeMap<(u64, Digest), (RightsRow, u64, bool)> = BTreeMap::new();
        for (number, head) in heads.iter().enumerate() {
            open.insert((head.version, head.digest), (*head, 1 << number, false));
        }
        let (mut found, mut steps, mut entries) = (Ancestry::default(), 0, 0);
        while open.values().any(|(_, _, is_below)| !is_below) {
            let Some((_, (list, mask, is_below))) = open.pop_last() else {
                break;
            };
            steps += 1;
            if steps > STEPS_MAX {
                return Ok(Ancestry::unrelated(found));
            }
            let is_common = is_below || mask == all;
            if !is_below {
                entries += self.tx.entries_of(list.id)?;
            }
            if entries > ENTRIES_MAX {
                return Ok(Ancestry::unrelated(found));
            }
            match (is_common, is_below) {
                (false, _) => found.above.push((list, mask)),
                (true, false) => found.bases.push(list),
                (true, true) => {}
            }
            for named in self.tx.named_by(list.id)? {
                // A version that does not fall is no predecessor.
                match named.filter(|named| named.version < list.version) {
                    Some(named) => {
                        let key = (named.version, named.digest);
                        let entry = open.entry(key).or_insert((named, 0, false));
                        entry.1 |= mask;
                        entry.2 |= is_common;
                    }
                    None if is_common => {}
                    None => return Ok(Ancestry::unrelated(found)),
                }
            }
        }
        Ok(found)
    }

    /// Compares a head with the lists that it follows.
    fn branch(
        &self,
        (scope, head): (ScopeId, &RightsRow),
        followed: &Followed<'_>,
        latest: Option<u32>,
        looks: &mut Looks,
    ) -> Result<Branch, StoreError> {
        let entries = self.tx.rights(head.id)?;
        let mut rights = entries.clone();
        for (identity, _) in entries.iter() {
            if self.has_left_in(scope, (head, identity), followed, looks)? {
                rights.set(*identity, None);
            }
        }
        let lists: Vec<_> = followed.lists.iter().map(|(_, list)| *list).collect();
        let changed = changed_since(&lists, &rights);
        Ok(Branch {
            rights,
            changed: (!followed.ancestry.bases.is_empty()).then_some(changed),
            is_older: Some(head.key_number) < latest,
        })
    }

    /// Whether a `leave` of an identity counts in a head: the head follows the list that it names,
    /// and the identity could read ever since. Beyond the budget each `leave` counts.
    fn has_left_in(
        &self,
        scope: ScopeId,
        (head, identity): (&RightsRow, &Oid),
        followed: &Followed<'_>,
        looks: &mut Looks,
    ) -> Result<bool, StoreError> {
        let mut leaves = self.tx.leaves(scope, identity, LEAVES_MAX)?;
        self.look_at(1 + leaves.len());
        if leaves.is_empty() {
            return Ok(false);
        }
        if !looks.take(followed.ancestry.above.len() + followed.ancestry.bases.len()) {
            return Ok(true);
        }
        let reads = |list: &RightsList| list.of(identity).is_some_and(Rights::may_read);
        let without = followed.lists.iter().filter(|(_, list)| !reads(list));
        let without = without.map(|(list, _)| list.version).max().unwrap_or(0);
        leaves.retain(|leave| leave.version >= without);
        let mut common = None;
        for leave in &leaves {
            match followed.origin_of(leave) {
                LeaveOrigin::Branch => return Ok(true),
                LeaveOrigin::Common => common = common.max(Some(leave.version)),
                LeaveOrigin::Elsewhere => {}
            }
        }
        // A later one counts if an earlier one does.
        let Some(version) = common else {
            return Ok(false);
        };
        let below = followed.base().map_or(head.version, |base| base + 1);
        self.reads_by_all(scope, identity, version..below, looks)
    }

    /// Closes a scope of this node that has several heads. Returns whether it had several, and has
    /// one now.
    pub(super) fn note_heads(&mut self, scope: ScopeId, seq: u64) -> Result<bool, StoreError> {
        let has_several = self.tx.list_heads(scope, 2)?.len() > 1;
        match (self.tx.is_merging(scope)?, has_several) {
            (false, true) => {
                self.tx.note_merging(scope)?;
                self.note_closed_or_open(scope, seq)?;
                Ok(false)
            }
            (true, false) => self.tx.end_merging(scope).map(|()| true),
            _ => Ok(false),
        }
    }
}

impl Ancestry {
    /// The lists that the head with this bit follows, and the head itself.
    fn before(&self, bit: u64) -> impl Iterator<Item = &RightsRow> {
        let above = self.above.iter().filter(move |(_, mask)| mask & bit != 0);
        above.map(|(list, _)| list).chain(&self.bases)
    }

    /// The same lists, without a common one.
    fn unrelated(found: Self) -> Self {
        Self {
            bases: Vec::new(),
            ..found
        }
    }
}

//! Merging the entries of rights lists that no other list replaces. Pure functions, for `merge`.

use std::collections::{BTreeMap, BTreeSet};

use keys::Oid;
use keys::protocol::RIGHTS_ENTRIES_MAX;

use crate::object::{Rights, RightsList};

/// One head, compared with the lists that it follows.
#[derive(Debug)]
pub(super) struct Branch {
    /// Its entries, without the identities that left.
    pub(super) rights: RightsList,
    /// The identities whose rights it changed. `None`: what it follows is not known.
    pub(super) changed: Option<BTreeSet<Oid>>,
    /// Whether only an earlier key signed it, which a thief may have.
    pub(super) is_older: bool,
}

impl Branch {
    fn bits(&self, identity: &Oid) -> u8 {
        self.rights.of(identity).map_or(0, Rights::bits)
    }

    fn has_changed(&self, identity: &Oid) -> bool {
        let changed = self.changed.as_ref();
        changed.is_none_or(|changed| changed.contains(identity))
    }
}

/// The identities whose rights in some list differ from `rights`. One look-up for each entry of a
/// list: comparing each list with all of `rights` would take a fifth of a second.
pub(super) fn changed_since(lists: &[&RightsList], rights: &RightsList) -> BTreeSet<Oid> {
    // With the number of lists that give the same.
    let entries = rights.iter().map(|(identity, to)| (*identity, (to, 0)));
    let mut same: BTreeMap<Oid, (Rights, usize)> = entries.collect();
    let mut changed = BTreeSet::new();
    for list in lists {
        for (identity, given) in list.iter() {
            match same.get_mut(identity) {
                Some((to, count)) if *to == given => *count += 1,
                Some(_) => {}
                None => {
                    changed.insert(*identity);
                }
            }
        }
    }
    let differing = same
        .into_iter()
        .filter(|(_, (_, count))| *count < lists.len());
    changed.extend(differing.map(|(identity, _)| identity));
    changed
}

/// The rights after the changes of all branches, of which the first has the latest key. Where
/// several changed the rights of an identity, only what all of them give remains. A branch that
/// only an earlier key signed takes rights away, and gives none.
///
/// Beyond [`RIGHTS_ENTRIES_MAX`] entries, identities that some branch lacks are left out, the
/// highest oids first. Returns how many.
pub(super) fn merged(branches: &[Branch]) -> (RightsList, usize) {
    let entries = branches.iter().flat_map(|branch| branch.rights.iter());
    let identities: BTreeSet<Oid> = entries.map(|(identity, _)| *identity).collect();
    let mut list = RightsList::default();
    for identity in &identities {
        let latest = branches.first().map_or(0, |branch| branch.bits(identity));
        let changed = branches.iter().filter(|it| it.has_changed(identity));
        let given = changed.map(|branch| match branch.is_older {
            true => branch.bits(identity) & latest,
            false => branch.bits(identity),
        });
        // If no branch changed it, all give the same.
        let bits = given.reduce(|one, other| one & other).unwrap_or(latest);
        list.set(*identity, Rights::from_bits(bits));
    }
    let is_everywhere = |identity: &Oid| branches.iter().all(|it| it.bits(identity) > 0);
    let beyond = list.entries().saturating_sub(RIGHTS_ENTRIES_MAX);
    let cut = identities.iter().rev().filter(|it| !is_everywhere(it));
    for identity in cut
        .filter(|it| list.of(it).is_some())
        .take(beyond)
        .copied()
        .collect::<Vec<_>>()
    {
        list.set(identity, None);
    }
    (list, beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u16) -> Oid {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Oid::from_bytes(bytes)
    }

    fn branch(entries: &[(u16, Rights)], changed: &[u16]) -> Branch {
        Branch {
            rights: entries.iter().map(|(it, bits)| (oid(*it), *bits)).collect(),
            changed: Some(changed.iter().copied().map(oid).collect()),
            is_older: false,
        }
    }

    #[test]
    fn changed_rights_are_those_that_all_branches_give() {
        let both = Rights::READ_WRITE;
        // The base: 1 and 2 both, 3 reads.
        let one = branch(&[(1, both), (2, Rights::READ), (3, both)], &[2, 3]);
        let other = branch(&[(1, both), (3, Rights::READ), (4, both)], &[2, 4]);
        let (list, cut) = merged(&[one, other]);
        assert_eq!(cut, 0);
        let expected = [(oid(1), both), (oid(3), both), (oid(4), both)];
        assert_eq!(list, RightsList::from_iter(expected));
    }

    #[test]
    fn changed_rights_are_those_that_differ_from_some_list() {
        let both = Rights::READ_WRITE;
        let list = |entries: &[(u16, Rights)]| -> RightsList {
            entries.iter().map(|(it, to)| (oid(*it), *to)).collect()
        };
        let (one, other) = (
            list(&[(1, both), (2, both), (3, Rights::READ), (4, both)]),
            list(&[(1, both), (2, Rights::READ), (3, Rights::READ)]),
        );
        let rights = list(&[(1, both), (2, both), (4, both), (5, both)]);
        let changed = changed_since(&[&one, &other], &rights);
        assert_eq!(changed, [2, 3, 4, 5].map(oid).into_iter().collect());
        assert!(changed_since(&[], &rights).is_empty());
    }

    #[test]
    fn entries_beyond_the_largest_number_are_those_that_some_branch_lacks() {
        let both = Rights::READ_WRITE;
        // The owner has the highest oid, and all branches have it.
        let owner = (u16::MAX, both);
        let added = |numbers: std::ops::Range<u16>| {
            let entries: Vec<_> = numbers.map(|it| (it, both)).chain([owner]).collect();
            let changed: Vec<_> = entries.iter().map(|(it, _)| *it).collect();
            branch(&entries, &changed[..changed.len() - 1])
        };
        let (list, cut) = merged(&[added(0..200), added(200..400)]);
        assert_eq!(
            (list.entries(), cut),
            (RIGHTS_ENTRIES_MAX, 401 - RIGHTS_ENTRIES_MAX)
        );
        assert_eq!(list.of(&oid(owner.0)), Some(both));
        assert_eq!(list.of(&oid(254)), Some(both));
        assert_eq!(list.of(&oid(255)), None);
    }
}

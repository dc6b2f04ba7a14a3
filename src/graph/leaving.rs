//! Identities that ended their own right to read a scope, and were perhaps added again
//! (docs/DECISIONS.md 4).
//!
//! A `leave` may name an earlier list than the one in force, because the two crossed. Then the
//! owner's node writes its next list at once (`next_list.rs`).
//! Any member can leave under every list, and its owner can have written any number of lists.
//! Invariant: the owner's next list looks at [`LOOKS_MAX`] lists at most to learn which `leave`
//! counts. Tested in `tests/core/leaving.rs`.

use std::ops::Range;

use keys::Oid;

use super::manager::GraphManager;
use crate::object::RightsList;
use crate::store::{MemberAnswer, RightsRow, ScopeId, StoreError};

/// Most lists that are looked at for all identities of one list, at some 2 us each.
const LOOKS_MAX: usize = 4096;

/// The lists that the owner's next list may still look at.
pub(super) struct Looks {
    left: usize,
    /// Identities that were counted as left, because no look was left.
    beyond: usize,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            left: LOOKS_MAX,
            beyond: 0,
        }
    }
}

impl Looks {
    /// Takes looks at so many lists. Otherwise an identity counts as left, and the result is false.
    pub(super) fn take(&mut self, lists: usize) -> bool {
        let left = self.left.checked_sub(lists);
        self.left = left.unwrap_or(0);
        self.beyond += usize::from(left.is_none());
        left.is_some()
    }
}

/// The latest `leave` of an identity that may read by the list in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastLeave {
    /// There is none.
    None,
    /// Names an earlier list: the two crossed, or the identity was added again.
    Earlier,
    /// Names the list in force or a later one, so that the identity reads no more.
    Counts,
}

impl GraphManager<'_> {
    /// The latest `leave` of an identity in a scope.
    pub(super) fn last_leave(
        &self,
        scope: ScopeId,
        in_force: &RightsRow,
        identity: &Oid,
    ) -> Result<LastLeave, StoreError> {
        Ok(match self.left(scope, identity)? {
            None => LastLeave::None,
            Some(version) if version < in_force.version => LastLeave::Earlier,
            Some(_) => LastLeave::Counts,
        })
    }

    /// Notes that an identity may read a scope after [`LastLeave::Earlier`]. If the scope's owner
    /// lives here, the node looks whether its next list is due.
    pub(super) fn note_left(&self, scope: ScopeId, owner: &Oid) -> Result<(), StoreError> {
        match self.is_local(owner)? {
            true => self.tx.note_left(scope),
            false => Ok(()),
        }
    }

    /// The highest version under which an identity left a scope.
    fn left(&self, scope: ScopeId, identity: &Oid) -> Result<Option<u64>, StoreError> {
        let (left, searches) = self.tx.answered(MemberAnswer::Leave, scope, identity)?;
        self.look_at(searches);
        Ok(left)
    }

    /// The entries of a list without identities that left and were not added again. A `leave`
    /// counts if it names a version from which on the identity could read all the time.
    pub(super) fn without_left(
        &self,
        scope: ScopeId,
        list: &RightsRow,
    ) -> Result<RightsList, StoreError> {
        let entries = self.tx.rights(list.id)?;
        let (mut rights, mut looks) = (entries.clone(), Looks::default());
        for (identity, _) in entries.iter() {
            let Some(left) = self.left(scope, identity)? else {
                continue;
            };
            if self.reads_by_all(scope, identity, left..list.version, &mut looks)? {
                rights.set(*identity, None);
            }
        }
        self.end_looks(&looks);
        Ok(rights)
    }

    /// Whether an identity may read by all lists with these versions. Those beyond the budget count
    /// as such lists: the identity left, and the owner may add it again.
    pub(super) fn reads_by_all(
        &self,
        scope: ScopeId,
        identity: &Oid,
        versions: Range<u64>,
        looks: &mut Looks,
    ) -> Result<bool, StoreError> {
        let found = self
            .tx
            .is_any_without(scope, identity, versions, &mut looks.left)?;
        looks.beyond += usize::from(found.is_none());
        Ok(found != Some(true))
    }

    /// Counts what was looked at, and logs identities that were not looked at.
    pub(super) fn end_looks(&self, looks: &Looks) {
        self.look_at(LOOKS_MAX - looks.left);
        if looks.beyond > 0 {
            tracing::warn!(
                identities = looks.beyond,
                "left identities out of a rights list, because they had left the scope, and too \
                 many lists would be looked at to learn whether they were added again"
            );
        }
    }
}

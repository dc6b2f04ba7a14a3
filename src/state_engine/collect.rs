//! The objects and stubs of a package: whole change groups, and the rights lists that their scopes
//! need.
//!
//! Invariant: a package never exceeds its limits, and a list in force that fits no package beside
//! its scope is left out. Tested in `tests/core/package_limits.rs` and
//! `tests/core/rights_checks.rs`.

use std::collections::BTreeMap;

use keys::protocol::STUBS_MAX;
use keys::{Oid, SignedObject};

use super::package::Package;
use super::select::Selected;
use super::stubs::{Stub, StubList, Stubs};
use super::view::View;
use crate::graph::load_object;
use crate::store::{AppTable, ParentRow, ScopeId, StoreError};

/// Identities with rights in a scope of which the peer cannot have objects from elsewhere: one here
/// and one there.
const TWO: usize = 2;

/// Why no package could be built. The cause is always this node, not the peer.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One change group is larger than the limits of a package.
    #[error("the change group {change_seq} has {bytes} bytes and fits no package")]
    GroupTooLarge {
        /// The `change_seq` of the group.
        change_seq: u64,
        /// Encoded bytes of the group.
        bytes: usize,
    },
}

/// The objects of a package under construction.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) objects: Vec<SignedObject>,
    pub(super) stubs: StubList,
    /// The oid of each scope, and whether at most [`TWO`] have rights in it.
    pub(super) scopes: BTreeMap<ScopeId, (Oid, bool)>,
    pub(super) bytes: usize,
    pub(super) last_group: u64,
    pub(super) is_full: bool,
}

impl Collected {
    /// Whether there is neither an object nor a stub.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.stubs.len() == 0
    }
}

/// The objects and stubs of one change group, and their bytes in a package.
#[derive(Default)]
struct Group {
    objects: Vec<SignedObject>,
    stubs: Vec<Stub>,
    bytes: usize,
}

/// The room that is left in a package.
struct Room {
    bytes: usize,
    objects: usize,
    stubs: usize,
}

impl Room {
    fn fits(&self, group: &Group) -> bool {
        group.bytes <= self.bytes
            && group.objects.len() <= self.objects
            && group.stubs.len() <= self.stubs
    }
}

impl View<'_> {
    /// Loads the rows of a change group that the peer may have.
    pub(super) fn load_group(
        &self,
        app: &AppTable,
        group: &[Selected],
        hidden: &[u16],
    ) -> Result<Vec<ParentRow>, StoreError> {
        let mut rows = Vec::with_capacity(group.len());
        for selected in group {
            let row = self.rows.parent_by_id(app, selected.id)?;
            let row = row.ok_or(StoreError::Inconsistent("an index entry without a row"))?;
            let is_late = selected
                .until
                .is_some_and(|until| !row.reaches_former_readers() || row.created_seq > until);
            if !is_late && !hidden.contains(&row.type_number) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Adds a whole change group, or stops before it if it does not fit. With `whole_after`,
    /// objects that the peer may have from elsewhere are added as stubs.
    pub(super) fn collect(
        &self,
        app: &AppTable,
        rows: &[ParentRow],
        whole_after: Option<u64>,
        collected: &mut Collected,
    ) -> Result<(), BuildError> {
        let Some(change_seq) = rows.first().map(|parent| parent.change_seq) else {
            return Ok(());
        };
        // A local write may have more objects than a package has stubs.
        let whole_after = whole_after.filter(|_| rows.len() <= STUBS_MAX);
        let limits = &self.context.limits.package;
        let (bytes, objects) = (collected.bytes, collected.objects.len());
        let room = Room {
            bytes: limits
                .bytes_max
                .saturating_sub(Package::EMPTY_BYTES_MAX + bytes),
            objects: limits.objects_max - objects,
            stubs: STUBS_MAX - collected.stubs.len(),
        };
        let is_first = collected.is_empty();
        let mut group = self.group(app, rows, (true, whole_after), collected)?;
        if !room.fits(&group) && is_first {
            group = self.group(app, rows, (false, whole_after), collected)?;
        }
        if !room.fits(&group) {
            if is_first {
                let bytes = group.bytes;
                return Err(BuildError::GroupTooLarge { change_seq, bytes });
            }
            collected.is_full = true;
            return Ok(());
        }
        collected.bytes += group.bytes;
        collected.objects.append(&mut group.objects);
        group.stubs.iter().for_each(|it| collected.stubs.push(it));
        collected.last_group = change_seq;
        collected.is_full =
            collected.objects.len() == limits.objects_max || collected.stubs.len() == STUBS_MAX;
        Ok(())
    }

    /// Loads a change group. `with_lists`: the list in force follows each scope that was made here,
    /// so that the peer judges the objects after it without waiting. The peer receives it again in
    /// its own order.
    fn group(
        &self,
        app: &AppTable,
        rows: &[ParentRow],
        (with_lists, whole_after): (bool, Option<u64>),
        collected: &mut Collected,
    ) -> Result<Group, StoreError> {
        let mut group = Group::default();
        for row in rows {
            let list = match with_lists {
                true => self.list_of(app, row)?,
                false => None,
            };
            for row in std::iter::once(row).chain(&list) {
                if let Some(stub) = self.stub_of(row, whole_after, collected)? {
                    // Its place and its owner may be new in the package.
                    group.bytes += Stubs::STUB_BYTES + 2 * Package::NAME_BYTES;
                    group.stubs.push(stub);
                    continue;
                }
                let (_, signed) = load_object(&self.rows, app, row)?;
                group.bytes += Package::object_bytes(&signed);
                group.objects.push(signed);
            }
        }
        Ok(group)
    }

    /// The stub of an object that the peer may have from elsewhere. `None`: it is sent whole. An
    /// object of this node is sent whole if it was written after `whole_after`, or if no third
    /// identity has rights in its scope.
    fn stub_of(
        &self,
        row: &ParentRow,
        whole_after: Option<u64>,
        collected: &mut Collected,
    ) -> Result<Option<Stub>, StoreError> {
        let scope = row.scope_id;
        let is_own = row.origin.is_none();
        let is_new = whole_after.is_none_or(|seq| is_own && row.change_seq > seq);
        if is_new || !scope.has_readers() {
            return Ok(None);
        }
        let (place, is_of_two) = match collected.scopes.get(&scope) {
            Some(known) => *known,
            None => {
                let known = self.place_of(scope)?;
                collected.scopes.insert(scope, known);
                known
            }
        };
        Ok((!(is_own && is_of_two)).then(|| Stub::of(row, place)))
    }

    /// The oid of a scope, and whether at most two identities have rights in it.
    fn place_of(&self, scope: ScopeId) -> Result<(Oid, bool), StoreError> {
        let row = self.rows.scope(scope)?;
        let row = row.ok_or(StoreError::Inconsistent("an object without its scope"))?;
        let list = self.rows.list_in_force(scope)?;
        Ok((row.oid, self.rows.entries_of(list.id)? <= TWO))
    }

    /// The list in force of a live scope that was made here; `None` if it is the founding list.
    fn list_of(&self, app: &AppTable, row: &ParentRow) -> Result<Option<ParentRow>, StoreError> {
        let schema = self.context.schemas.type_(&app.slug, row.type_number);
        let is_scope = schema.is_some_and(|schema| schema.visibility.founds_scopes());
        if !is_scope || row.deleted || row.origin.is_some() {
            return Ok(None);
        }
        let Some(list) = self.rows.list_in_force(row.scope_id)?.parent_id else {
            return Ok(None);
        };
        let list = self.rows.parent_by_id(app, list)?;
        Ok(list.filter(|list| list.rev > 0))
    }
}

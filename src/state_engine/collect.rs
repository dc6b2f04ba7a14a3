//! The objects of a package: whole change groups, and the rights lists that their scopes need.
//!
//! Invariant: a package never exceeds its limits, and a list in force that fits no package beside
//! its scope is left out. Tested in `tests/core/windows.rs` and `tests/core/rights_checks.rs`.

use keys::SignedObject;

use super::package::Package;
use super::select::Selected;
use super::view::View;
use crate::graph::load_object;
use crate::store::{AppTable, ParentRow, StoreError};

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
    pub(super) bytes: usize,
    pub(super) last_group: u64,
    pub(super) is_full: bool,
}

/// The objects of one change group, and their bytes in a package.
struct Group {
    objects: Vec<SignedObject>,
    bytes: usize,
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

    /// Adds a whole change group, or stops before it if it does not fit.
    pub(super) fn collect(
        &self,
        app: &AppTable,
        rows: &[ParentRow],
        collected: &mut Collected,
    ) -> Result<(), BuildError> {
        let Some(change_seq) = rows.first().map(|parent| parent.change_seq) else {
            return Ok(());
        };
        let limits = &self.context.limits.package;
        let bytes_left = limits
            .bytes_max
            .saturating_sub(Package::EMPTY_BYTES_MAX + collected.bytes);
        let objects_left = limits.objects_max - collected.objects.len();
        let fits = |it: &Group| it.bytes <= bytes_left && it.objects.len() <= objects_left;
        let mut group = self.group(app, rows, true)?;
        if !fits(&group) && collected.objects.is_empty() {
            group = self.group(app, rows, false)?;
        }
        if !fits(&group) {
            if collected.objects.is_empty() {
                let bytes = group.bytes;
                return Err(BuildError::GroupTooLarge { change_seq, bytes });
            }
            collected.is_full = true;
            return Ok(());
        }
        collected.bytes += group.bytes;
        collected.objects.append(&mut group.objects);
        collected.last_group = change_seq;
        collected.is_full = collected.objects.len() == limits.objects_max;
        Ok(())
    }

    /// Loads a change group. `with_lists`: the list in force follows each scope that was made here,
    /// so that the peer judges the objects after it without waiting. The peer receives it again in
    /// its own order.
    fn group(
        &self,
        app: &AppTable,
        rows: &[ParentRow],
        with_lists: bool,
    ) -> Result<Group, StoreError> {
        let mut group = Group {
            objects: Vec::with_capacity(rows.len()),
            bytes: 0,
        };
        for row in rows {
            let list = match with_lists {
                true => self.list_of(app, row)?,
                false => None,
            };
            for row in std::iter::once(row).chain(&list) {
                let (_, signed) = load_object(&self.rows, app, row)?;
                group.bytes += Package::object_bytes(&signed);
                group.objects.push(signed);
            }
        }
        Ok(group)
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

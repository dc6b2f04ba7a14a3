//! Objects that a purge removed, when they arrive again.
//!
//! Invariant: an object with a purged oid or owner is acknowledged and not stored, from each
//! sender. A later one in a purged scope is refused, so that its author does not take it for
//! delivered.
//! Tested in `tests/core/purged.rs`.

use keys::Oid;

use super::error::{ApplyError, Fault};
use super::manager::GraphManager;
use super::remote::Applied;
use super::verify::VerifiedObject;
use crate::object::{Object, is_core_type};
use crate::op_context::OpContext;
use crate::store::{ParentRow, Purged, StoreError};

/// The fate of an object that a purge concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgedFate {
    /// The object is acknowledged and not stored.
    Dropped,
    /// The object is refused.
    Refused,
}

impl GraphManager<'_> {
    /// The outcome for an object that a purge concerns. `None`: the object is judged as others are.
    ///
    /// An object in a scope of an owner elsewhere that was removed lets this scope be pulled again
    /// from its sender. While the scope is being removed, the object finds no room.
    pub(super) fn judge_purged(
        &self,
        context: &OpContext,
        verified: &VerifiedObject,
    ) -> Result<Option<Applied>, ApplyError> {
        if !self.is_any_purged()? {
            return Ok(None);
        }
        let object = verified.object();
        let place = verified.own_or_outer_scope();
        self.forget_moved(verified)?;
        match self.purged_fate(object, place)? {
            Some(PurgedFate::Dropped) => return Ok(Some(Applied::AlreadyStored)),
            Some(PurgedFate::Refused) => return Err(Fault::ScopeRemoved.into()),
            None => {}
        }
        let (Some(place), Some(app)) = (place, self.tx.apps().get(&object.app)) else {
            return Ok(None);
        };
        if let Some(parent) = self.tx.parent(app, &place)?
            && self.tx.is_going(parent.scope_id)?
        {
            return Ok(Some(Applied::NoRoom));
        }
        if place != object.oid
            && self.tx.purged(&place)? == Some(Purged::Wanted)
            && let OpContext::Remote {
                peer, sync_domain, ..
            } = context
        {
            self.pull_wanted_from(peer, sync_domain, &place)?;
        }
        Ok(None)
    }

    /// The fate of an object that a purge concerns. `place` is the scope in which the object lies,
    /// or that it is. Verifies nothing.
    pub fn purged_fate(
        &self,
        object: &Object,
        place: Option<Oid>,
    ) -> Result<Option<PurgedFate>, StoreError> {
        if !self.is_any_purged()? {
            return Ok(None);
        }
        let is_purged = |oid: &Oid| -> Result<bool, StoreError> {
            self.look_at(1);
            let purged = self.tx.purged(oid)?;
            Ok(matches!(purged, Some(Purged::Object | Purged::Scope)))
        };
        if is_purged(&object.oid)? || is_purged(&object.owner)? {
            return Ok(Some(PurgedFate::Dropped));
        }
        match place.filter(|place| *place != object.oid) {
            Some(place) if is_purged(&place)? => Ok(Some(match is_core_type(object.type_number) {
                true => PurgedFate::Dropped,
                false => PurgedFate::Refused,
            })),
            _ => Ok(None),
        }
    }

    /// Forgets that an object was purged, if its owner lives at another node now. The purge
    /// concerns the object no more. With its record, all objects of the identity are wanted again.
    fn forget_moved(&self, verified: &VerifiedObject) -> Result<(), StoreError> {
        let object = verified.object();
        if !matches!(
            self.tx.purged(&object.oid)?,
            Some(Purged::Object | Purged::Scope)
        ) {
            return Ok(());
        }
        let home = match verified.record() {
            Some(record) => {
                let kept = self.tx.forgotten_key(&object.oid)?;
                let known = kept.map(|kept| (kept.key_id, kept.home_counter));
                let is_old = known.is_some_and(|known| record.precedence() < known);
                Some(record.home()).filter(|_| !is_old)
            }
            None => self.identity(&object.owner)?.map(|owner| owner.home),
        };
        let Some(home) = home else { return Ok(()) };
        if self.tx.peer(&home)?.is_none() || self.tx.is_purged_by(&object.oid, &home)? {
            return Ok(());
        }
        self.tx.forget_oid(&object.oid)?;
        match verified.record() {
            Some(_) => self.tx.restart_all_in(&home),
            None => Ok(()),
        }
    }

    /// Forgets that a scope was removed, because its Parent was stored. Objects in it were dropped
    /// meanwhile, so that it is pulled again.
    pub(super) fn note_scope_back(&self, row: &ParentRow) -> Result<(), StoreError> {
        if self.is_any_purged()? && self.tx.forget_wanted(&row.oid)? {
            return self.pull_scope_again(row);
        }
        Ok(())
    }

    /// Forgets that an object was purged, because this node is its home now.
    pub(super) fn note_own(&self, oid: &Oid) -> Result<(), StoreError> {
        if self.is_any_purged()? && self.tx.purged(oid)?.is_some() {
            self.tx.forget_oid(oid)?;
        }
        Ok(())
    }

    pub(super) fn is_any_purged(&self) -> Result<bool, StoreError> {
        let known = self.cache.borrow().is_any_purged;
        let is_any_purged = match known {
            Some(known) => known,
            None => self.tx.is_any_purged()?,
        };
        self.cache.borrow_mut().is_any_purged = Some(is_any_purged);
        Ok(is_any_purged)
    }
}

//! Objects that a purge removed, when they arrive again.
//!
//! Invariant: an object with a purged oid or owner, or in a purged scope, is acknowledged and not
//! stored, from each sender. Tested in `tests/core/purged.rs`.

use super::manager::GraphManager;
use super::remote::Applied;
use super::verify::VerifiedObject;
use crate::op_context::OpContext;
use crate::store::{ParentRow, Purged, StoreError};

impl GraphManager<'_> {
    /// The outcome for an object that a purge concerns. `None`: the object is judged as others are.
    ///
    /// An object in a scope of an owner elsewhere that was removed lets this scope be pulled again
    /// from its sender. While the scope is being removed, the object finds no room.
    pub(super) fn judge_purged(
        &self,
        context: &OpContext,
        verified: &VerifiedObject,
    ) -> Result<Option<Applied>, StoreError> {
        if !self.is_any_purged()? {
            return Ok(None);
        }
        let object = verified.object();
        let place = verified.own_or_outer_scope();
        for oid in [Some(object.oid), Some(object.owner), place]
            .into_iter()
            .flatten()
        {
            self.look_at(1);
            if matches!(self.tx.purged(&oid)?, Some(Purged::Object | Purged::Scope)) {
                if self.moved_away(verified, &oid)? {
                    continue;
                }
                return Ok(Some(Applied::AlreadyStored));
            }
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

    /// Whether an object is the record of a purged identity that lives at another node now. The
    /// purge concerns it no more.
    fn moved_away(&self, verified: &VerifiedObject, oid: &keys::Oid) -> Result<bool, StoreError> {
        let Some(record) = verified.record().filter(|_| verified.object().oid == *oid) else {
            return Ok(false);
        };
        let home = record.home();
        let kept = self.tx.forgotten_key(oid)?;
        if kept.is_some_and(|kept| record.precedence() < (kept.key_id, kept.home_counter)) {
            return Ok(false);
        }
        if self.tx.peer(&home)?.is_none() || self.tx.is_purged_by(oid, &home)? {
            return Ok(false);
        }
        self.tx.forget_oid(oid).map(|()| true)
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
    pub(super) fn note_own(&self, oid: &keys::Oid) -> Result<(), StoreError> {
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

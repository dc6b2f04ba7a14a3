//! Reclaiming after a restore: this node's own objects, which its peers stored before the backup
//! was restored (docs/DECISIONS.md 5).
//!
//! Invariants: a reclaimed object was signed by an owner whose key this node holds; no lower
//! revision replaces a higher one. Tested in `tests/net/restore.rs` and `tests/core/thieves.rs`.

use keys::PeerId;

use super::commit::Change;
use super::error::{ApplyError, Fault};
use super::fitting::Trial;
use super::local::new_row;
use super::manager::GraphManager;
use super::resolve::{Resolved, Scope};
use super::verify::VerifiedObject;
use crate::acl::{AclManager, Denied, ReclaimFacts, RemoteWrite, ScopeRight};
use crate::object::{CoreRecord, RightsFault};
use crate::store::{AppTable, StoreError};

/// Result for one object that a peer returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimOutcome {
    /// The object was missing or had a lower revision, and was written.
    Written,
    /// The same or a later revision was stored already.
    AlreadyStored,
}

/// How far the version of a returned list may exceed the highest known one. So no thief of an
/// earlier key leaves a scope without further versions.
const VERSION_STEP_MAX: u64 = 1 << 32;

impl GraphManager<'_> {
    /// Applies an object of this node that a peer stored before the backup was restored.
    pub fn reclaim(
        &mut self,
        verified: &VerifiedObject,
        from: (&PeerId, Trial),
    ) -> Result<ReclaimOutcome, ApplyError> {
        let object = &verified.object;
        let (app, schema) = self.schema_of(object, from)?;
        if let Some(record) = &verified.record {
            if record.home() != self.this_node {
                return Err(Fault::HomeConflict.into());
            }
            let known = self.identity(&object.oid)?;
            if known.is_some_and(|known| record.precedence() < (known.key_id, known.home_counter)) {
                return Ok(ReclaimOutcome::AlreadyStored);
            }
        }
        let existing = self.tx.parent(app, &object.oid)?;
        let facts = ReclaimFacts {
            oid: object.oid,
            rev: object.rev,
            deleted: object.is_deleted(),
            owner_here: self.keys().identity_chain(object.owner).is_some(),
            key_is_old: verified.signed.key_id() < self.tx.recovery_key(&object.owner)?,
            mode: self.mode_of(object),
            existing: self.existing(app, existing.as_ref(), verified)?,
        };
        let granted = match AclManager::check_reclaim(&facts).map_err(Fault::Denied)? {
            RemoteWrite::AlreadyHere(granted) => {
                if let Some(row) = existing {
                    self.note_later_signature(&granted, app, row, verified)?;
                }
                return Ok(ReclaimOutcome::AlreadyStored);
            }
            RemoteWrite::Acknowledge => return Ok(ReclaimOutcome::AlreadyStored),
            RemoteWrite::ForkLost => None,
            RemoteWrite::Apply(granted) | RemoteWrite::ForkWon(granted) => Some(granted),
        };
        let resolved = self.resolve(app, schema, object, existing.as_ref())?;
        match resolved.right {
            ScopeRight::Ended => return Ok(ReclaimOutcome::AlreadyStored),
            ScopeRight::OtherOwner => return Err(Fault::Denied(Denied::NotScopeOwner).into()),
            ScopeRight::ScopeOwner => return Err(Fault::Denied(Denied::ScopeOwnerStays).into()),
            ScopeRight::Open | ScopeRight::Participant | ScopeRight::Outsider => {}
        }
        self.check_version(&resolved)?;
        let Some(granted) = granted else {
            if let Some(stored) = &existing {
                self.keep_forked(stored, verified.signed.key_id(), &resolved)?;
            }
            return Ok(ReclaimOutcome::AlreadyStored);
        };
        if !self.keeps_list_in_force(app, &resolved, verified.signed.key_id())? {
            return Err(Fault::OldKey.into());
        }
        let flags = self.sync_flags(app, schema, object, verified.record.as_ref())?;
        self.end_group();
        let row = new_row(object, &verified.signed, None, flags);
        let change = Change::Content(&resolved, existing.as_ref());
        let row = self.commit_row(&granted, app, row, change)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(ReclaimOutcome::Written)
    }

    /// Re-signs the list in force before a Parent that is a scope, or another list, is written
    /// ([`GraphManager::resign_list_in_force`]).
    fn keeps_list_in_force(
        &mut self,
        app: &AppTable,
        resolved: &Resolved<'_>,
        key_id: u32,
    ) -> Result<bool, StoreError> {
        let is_list = matches!(resolved.core, Some(CoreRecord::Rights(_)));
        match resolved.scope {
            Scope::Stored(scope) if is_list || resolved.founding.is_some() => {
                self.resign_list_in_force(app, scope, key_id)
            }
            _ => Ok(true),
        }
    }

    /// Refuses a list whose version is far above all known ones.
    fn check_version(&self, resolved: &Resolved<'_>) -> Result<(), ApplyError> {
        let (Some(CoreRecord::Rights(list)), Scope::Stored(scope)) =
            (&resolved.core, &resolved.scope)
        else {
            return Ok(());
        };
        let heads = self.heads(*scope)?;
        let highest = heads.iter().map(|head| head.version).max();
        if list.version > highest.unwrap_or(0).saturating_add(VERSION_STEP_MAX) {
            return Err(Fault::Rights(RightsFault("the version is far above the others")).into());
        }
        Ok(())
    }
}

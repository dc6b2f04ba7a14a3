//! Reclaiming after a restore: this node's own objects, which its peers stored before the backup
//! was restored (docs/DECISIONS.md 5).
//!
//! Invariants: a reclaimed object was signed by an owner whose key this node holds; no lower
//! revision replaces a higher one. Tested in `tests/net/restore.rs` and `tests/core/thieves.rs`.

use keys::SignedObject;

use super::error::{ApplyError, Fault, ObjectFault};
use super::manager::GraphManager;
use super::resolve::Resolved;
use super::verify::VerifiedObject;
use crate::acl::{AclManager, Granted, ReclaimFacts, RemoteWrite};
use crate::domain::Mode;
use crate::object::Object;
use crate::store::{AppTable, ParentRow, StoreError};

/// Result for one object that a peer returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimOutcome {
    /// The object was missing or had a lower revision, and was written.
    Written,
    /// The same or a later revision was stored already.
    AlreadyStored,
    /// A tombstone whose object is missing; it is kept until the object is reclaimed.
    TombstoneKept,
}

impl GraphManager<'_> {
    /// Applies an object of this node that a peer stored before the backup was restored.
    pub fn reclaim(&mut self, verified: &VerifiedObject) -> Result<ReclaimOutcome, ApplyError> {
        let object = &verified.object;
        let (app, schema) = self.schema_of(object)?;
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
            owner: object.owner,
            rev: object.rev,
            deleted: object.is_deleted(),
            owner_here: self.keys().identity_chain(object.owner).is_some(),
            key_is_old: verified.signed.key_id() < self.tx.recovery_key(&object.owner)?,
            existing_key_is_later: existing
                .as_ref()
                .is_some_and(|row| row.key_id > verified.signed.key_id()),
            mode: self.mode_of(object),
            existing: self.existing(app, existing.as_ref(), object)?,
        };
        let granted = match AclManager::check_reclaim(&facts).map_err(Fault::Denied)? {
            RemoteWrite::AlreadyHere if existing.is_none() => {
                return self.keep_tombstone(object, &verified.signed);
            }
            RemoteWrite::AlreadyHere => {
                if let Some(row) = existing.filter(|row| row.key_id < verified.signed.key_id()) {
                    let (key_id, signature) =
                        (verified.signed.key_id(), verified.signed.signature());
                    self.tx.put_signature(app, row.id, key_id, signature)?;
                }
                return Ok(ReclaimOutcome::AlreadyStored);
            }
            RemoteWrite::Older => return Ok(ReclaimOutcome::AlreadyStored),
            RemoteWrite::Apply(granted) => granted,
        };
        let resolved = self.resolve_over(app, schema, object, existing.as_ref())?;
        self.refuse_move(existing.as_ref(), object, &resolved)?;
        self.write_back(app, verified, &resolved, existing.as_ref(), &granted)?;
        self.apply_kept_tombstone(object)?;
        Ok(ReclaimOutcome::Written)
    }

    /// Writes a reclaimed object as a local one, in a change group of its own.
    fn write_back(
        &mut self,
        app: &AppTable,
        verified: &VerifiedObject,
        resolved: &Resolved<'_>,
        existing: Option<&ParentRow>,
        granted: &Granted,
    ) -> Result<(), StoreError> {
        let object = &verified.object;
        let schemas = self.schemas();
        let schema = schemas.type_(&object.app, object.type_number);
        let flags = schema.map_or(0, |schema| {
            self.sync_flags(schema, object, verified.record.as_ref())
        });
        self.end_group();
        let row = self.parent_row(object, &verified.signed, None, flags);
        let row = self.write(app, row, resolved, existing, granted)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(())
    }

    /// The mode of the domain in which objects of this type travel.
    fn mode_of(&self, object: &Object) -> Option<Mode> {
        self.schemas()
            .domain_of(&object.app, object.type_number)
            .map(|domain| domain.mode)
    }

    /// Keeps a tombstone until its object is reclaimed. The one with the higher revision is kept.
    fn keep_tombstone(
        &mut self,
        object: &Object,
        signed: &SignedObject,
    ) -> Result<ReclaimOutcome, ApplyError> {
        let known = self.tx.kept_tombstone(&object.oid)?;
        let known =
            known.and_then(|kept| Object::from_bytes(kept.bytes(), &self.limits().object).ok());
        if known.is_none_or(|known| known.rev < object.rev) {
            self.tx.keep_tombstone(&object.oid, signed)?;
        }
        Ok(ReclaimOutcome::TombstoneKept)
    }

    /// Deletes a reclaimed object if its tombstone was returned before it.
    fn apply_kept_tombstone(&mut self, object: &Object) -> Result<(), ApplyError> {
        let Some(kept) = self.tx.kept_tombstone(&object.oid)? else {
            return Ok(());
        };
        let deletion =
            Object::from_bytes(kept.bytes(), &self.limits().object).map_err(ObjectFault::from);
        let deletion = deletion.map_err(Fault::from)?;
        let app = self.table(&deletion.app)?;
        let Some(row) = self.tx.parent(app, &deletion.oid)? else {
            return Ok(());
        };
        if row.deleted || deletion.rev <= row.rev || deletion.owner != row.owner {
            return Ok(());
        }
        let facts = ReclaimFacts {
            oid: deletion.oid,
            owner: deletion.owner,
            rev: deletion.rev,
            deleted: true,
            owner_here: true,
            key_is_old: false,
            existing_key_is_later: row.key_id > kept.key_id(),
            mode: self.mode_of(&deletion),
            existing: self.existing(app, Some(&row), &deletion)?,
        };
        if let RemoteWrite::Apply(granted) =
            AclManager::check_reclaim(&facts).map_err(Fault::Denied)?
        {
            let resolved = self.resolve_deletion(&row, &deletion)?;
            self.end_group();
            let deleted = self.parent_row(&deletion, &kept, None, row.sync_flags);
            self.write(app, deleted, &resolved, Some(&row), &granted)?;
        }
        Ok(())
    }
}

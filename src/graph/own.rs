//! This node's own objects beyond making them: signed again after a rotation, and taken back after a restore (docs/DECISIONS.md 5).
//!
//! Never changes what an object says, never takes a lower revision for a higher one. Invariant: what is written here is
//! signed by an owner whose key this node holds, and has a `change_seq` of the present epoch.

use keys::{Oid, SignedObject};

use super::local::SaveError;
use super::place::Place;
use super::remote::{ApplyError, order};
use super::verify::VerifiedObject;
use super::{Fault, GraphManager, load_object};
use crate::acl::{AclManager, Existing, ReclaimFacts, RemoteWrite};
use crate::domain::Mode;
use crate::object::Object;
use crate::store::{AppTable, ParentRow, StoreError};

/// What became of an object that a peer gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// It was missing here, or a lower revision was, and is here now.
    Written,
    /// It was here already, in this or a later revision.
    Here,
    /// It deletes what is not here: kept until that comes back.
    Kept,
}

impl GraphManager<'_> {
    /// Signs again what an owner that lives here signed with earlier keys: `most` objects, oldest first. Says how many it
    /// found. Each comes out with the same revision and content in a change group of its own, so that peers that know of
    /// the rotation take it.
    pub fn sign_again(&mut self, owner: &Oid, most: usize) -> Result<usize, SaveError> {
        self.may_write(true)?;
        let key_id = self.keys().key_id(*owner)?;
        let apps = self.tx.apps();
        let mut found = 0;
        for app in apps.iter() {
            for row in self.tx.signed_before(app, owner, key_id, most - found)? {
                found += 1;
                self.sign_one_again(app, row)?;
            }
        }
        Ok(found)
    }

    /// Key, signature and `change_seq` change and nothing else, whatever has become of what the object refers to. What others
    /// who live here have in the object's scope follows it: else a newcomer would get that first, and all of it would wait.
    fn sign_one_again(&mut self, app: &AppTable, row: ParentRow) -> Result<(), SaveError> {
        let (object, _) = load_object(self.tx, app, &row)?;
        let signed = self.keys().sign_object(row.owner, object.to_bytes())?;
        let (id, owner, is_scope) = (row.id, row.owner, row.scope_id == Some(row.id));
        let again = ParentRow {
            key_id: signed.key_id(),
            signature: *signed.signature(),
            ..row
        };
        self.send_again(app, again)?;
        if is_scope {
            for below in self.tx.local_in_scope(app, id)? {
                if below.owner != owner && self.is_at_home(&below.owner)? {
                    self.send_again(app, below)?;
                }
            }
        }
        Ok(())
    }

    /// Gives an object a new `change_seq` in a change group of its own; what it says, and who signed it, is the row's.
    fn send_again(&mut self, app: &AppTable, row: ParentRow) -> Result<(), SaveError> {
        let owner_at_home = self.is_at_home(&row.owner)?;
        let existing = Existing {
            owner: row.owner,
            rev: row.rev,
            is_local: row.origin.is_none(),
            deleted: row.deleted,
            same: true,
        };
        let granted = AclManager::check_resign(row.oid, owner_at_home, &existing)?;
        self.end_group();
        let again = ParentRow {
            change_seq: self.stamp(),
            ..row
        };
        self.parents(app)?.restamp_parent(&again, &granted)?;
        self.memory.borrow_mut().forget_parent(app.id, &again);
        Ok(())
    }

    fn is_at_home(&self, owner: &Oid) -> Result<bool, StoreError> {
        Ok(self
            .identity(owner)?
            .is_some_and(|owner| owner.home == self.us))
    }

    /// Takes back an object of this node's own that a peer was sent before the backup was restored.
    pub fn take_back(&mut self, verified: &VerifiedObject) -> Result<Returned, ApplyError> {
        let object = &verified.object;
        let schema = self.schemas().type_(&object.app, object.type_number);
        let schema = schema.ok_or(Fault::UnknownType)?;
        let app = self.table(&object.app)?;
        if let Some(attrs) = &object.attrs {
            schema.check(attrs).map_err(Fault::Schema)?;
        }
        if let Some(record) = &verified.record {
            if record.home() != self.us {
                return Err(Fault::HomeConflict.into());
            }
            let known = self.identity(&object.oid)?;
            if known.is_some_and(|known| order(record) < (known.key_id, known.home_counter)) {
                return Ok(Returned::Here);
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
                return self.keep_deletion(object, &verified.signed);
            }
            RemoteWrite::AlreadyHere => {
                if let Some(row) = existing.filter(|row| row.key_id < verified.signed.key_id()) {
                    let (key_id, signature) =
                        (verified.signed.key_id(), verified.signed.signature());
                    self.tx.put_signature(app, row.id, key_id, signature)?;
                }
                return Ok(Returned::Here);
            }
            RemoteWrite::Older => return Ok(Returned::Here),
            RemoteWrite::Apply(granted) => granted,
        };
        let place = match &existing {
            Some(row) if object.is_deleted() => self.place_of_deleted(app, row, object)?,
            _ => self.place(app, schema, object)?,
        };
        if let Some(row) = &existing
            && (row.type_number != object.type_number
                || self.moves_scope(app, row, &place.scope)?)
        {
            return Err(Fault::ScopeChanged.into());
        }
        self.write_back(app, verified, &place, existing.as_ref(), &granted)?;
        self.delete_again(object)?;
        Ok(Returned::Written)
    }

    fn write_back(
        &mut self,
        app: &AppTable,
        verified: &VerifiedObject,
        place: &Place<'_>,
        existing: Option<&ParentRow>,
        granted: &crate::acl::Granted,
    ) -> Result<(), StoreError> {
        let object = &verified.object;
        let schemas = self.schemas();
        let schema = schemas.type_(&object.app, object.type_number);
        let flags = schema.map_or(0, |schema| {
            self.sync_flags(schema, object, verified.record.as_ref())
        });
        self.end_group();
        let row = self.parent_row(object, &verified.signed, None, flags);
        let row = self.write(app, row, place, existing, granted)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(())
    }

    fn mode_of(&self, object: &Object) -> Option<Mode> {
        self.schemas()
            .domain_of(&object.app, object.type_number)
            .map(|domain| domain.mode)
    }

    /// Of two deletions the later one is kept.
    fn keep_deletion(
        &mut self,
        object: &Object,
        signed: &SignedObject,
    ) -> Result<Returned, ApplyError> {
        let known = self.tx.kept_tombstone(&object.oid)?;
        let known =
            known.and_then(|kept| Object::from_bytes(kept.bytes(), &self.limits().object).ok());
        if known.is_none_or(|known| known.rev < object.rev) {
            self.tx.keep_tombstone(&object.oid, signed)?;
        }
        Ok(Returned::Kept)
    }

    /// What came back is deleted at once where its deletion came back before.
    fn delete_again(&mut self, object: &Object) -> Result<(), ApplyError> {
        let Some(kept) = self.tx.kept_tombstone(&object.oid)? else {
            return Ok(());
        };
        let deletion = Object::from_bytes(kept.bytes(), &self.limits().object)
            .map_err(super::ObjectFault::from);
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
            let place = self.place_of_deleted(app, &row, &deletion)?;
            self.end_group();
            let deleted = self.parent_row(&deletion, &kept, None, row.sync_flags);
            self.write(app, deleted, &place, Some(&row), &granted)?;
        }
        Ok(())
    }
}

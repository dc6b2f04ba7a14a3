//! This node's own objects beyond making them: signed again after a rotation, and taken back after a restore (DESIGN 5).
//!
//! Never changes what an object says, never takes a lower revision for a higher one. Invariant: what is written here is
//! signed by an owner whose key this node holds, and has a `change_seq` of the present epoch.

use keys::{Oid, SignedObject};

use super::local::SaveError;
use super::place::Place;
use super::remote::ApplyError;
use super::verify::VerifiedObject;
use super::{Fault, GraphManager, load_object};
use crate::acl::{AclManager, Existing, RemoteWrite, ReturnedFacts};
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

    fn sign_one_again(&mut self, app: &AppTable, row: ParentRow) -> Result<(), SaveError> {
        let (object, _) = load_object(self.tx, app, &row)?;
        let signed = self.keys().sign_object(row.owner, object.to_bytes())?;
        let schemas = self.schemas();
        let Some(schema) = schemas.type_(&object.app, object.type_number) else {
            // An app that is turned off: nothing of it is sent, and nobody can ask. It is signed where it lies.
            self.tx
                .put_signature(app, row.id, signed.key_id(), signed.signature())?;
            return Ok(());
        };
        let owner = self.identity(&row.owner)?;
        let existing = Existing {
            owner: row.owner,
            rev: row.rev,
            made_here: row.origin.is_none(),
            deleted: row.deleted,
            same: true,
        };
        let owner_at_home = owner.is_some_and(|owner| owner.home == self.us);
        let granted = AclManager::check_signed_again(row.oid, owner_at_home, &existing)?;
        let place = if object.is_deleted() {
            self.place_of_deleted(app, &row, &object)?
        } else {
            self.place(app, schema, &object)?
        };
        let flags = self.sync_flags(schema, &object, None);
        // An object that was kept out of its domain stays out.
        let flags = if row.sync_flags == 0 { 0 } else { flags };
        self.end_group();
        let again = self.parent_row(&object, &signed, None, flags);
        self.write(app, again, &place, Some(&row), &granted)?;
        Ok(())
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
        if verified.record.as_ref().is_some_and(|record| record.home() != self.us) {
            return Err(Fault::HomeConflict.into());
        }
        let existing = self.tx.parent(app, &object.oid)?;
        let facts = ReturnedFacts {
            oid: object.oid,
            owner: object.owner,
            rev: object.rev,
            deleted: object.is_deleted(),
            owner_here: self.keys().identity_chain(object.owner).is_some(),
            existing: self.existing(app, existing.as_ref(), object)?,
        };
        let granted = match AclManager::check_returned(&facts).map_err(Fault::Denied)? {
            RemoteWrite::AlreadyHere if existing.is_none() => return self.keep_deletion(object, &verified.signed),
            RemoteWrite::AlreadyHere => {
                if let Some(row) = existing.filter(|row| row.key_id < verified.signed.key_id()) {
                    let (key_id, signature) = (verified.signed.key_id(), verified.signed.signature());
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
            && (row.type_number != object.type_number || self.moves_scope(app, row, &place.scope)?)
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
        let flags = schema.map_or(0, |schema| self.sync_flags(schema, object, verified.record.as_ref()));
        self.end_group();
        let row = self.parent_row(object, &verified.signed, None, flags);
        let row = self.write(app, row, place, existing, granted)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(())
    }

    /// Of two deletions the later one is kept.
    fn keep_deletion(&mut self, object: &Object, signed: &SignedObject) -> Result<Returned, ApplyError> {
        let known = self.tx.kept_deletion(&object.oid)?;
        let known = known.and_then(|kept| Object::from_bytes(kept.bytes(), &self.limits().object).ok());
        if known.is_none_or(|known| known.rev < object.rev) {
            self.tx.keep_deletion(&object.oid, signed)?;
        }
        Ok(Returned::Kept)
    }

    /// What came back is deleted at once where its deletion came back before.
    fn delete_again(&mut self, object: &Object) -> Result<(), ApplyError> {
        let Some(kept) = self.tx.kept_deletion(&object.oid)? else {
            return Ok(());
        };
        let deletion = Object::from_bytes(kept.bytes(), &self.limits().object).map_err(super::ObjectFault::from);
        let deletion = deletion.map_err(Fault::from)?;
        let app = self.table(&deletion.app)?;
        let Some(row) = self.tx.parent(app, &deletion.oid)? else {
            return Ok(());
        };
        if row.deleted || deletion.rev <= row.rev || deletion.owner != row.owner {
            return Ok(());
        }
        let facts = ReturnedFacts {
            oid: deletion.oid,
            owner: deletion.owner,
            rev: deletion.rev,
            deleted: true,
            owner_here: true,
            existing: self.existing(app, Some(&row), &deletion)?,
        };
        if let RemoteWrite::Apply(granted) = AclManager::check_returned(&facts).map_err(Fault::Denied)? {
            let place = self.place_of_deleted(app, &row, &deletion)?;
            self.end_group();
            let deleted = self.parent_row(&deletion, &kept, None, row.sync_flags);
            self.write(app, deleted, &place, Some(&row), &granted)?;
        }
        Ok(())
    }
}

//! Local writes: objects that a person or an app of this node creates, changes or deletes
//! (docs/STORY.md 3, 6.1).
//!
//! Invariants: the owner of a saved object is local; its signature covers exactly the bytes that
//! peers will receive. Tested in `tests/core/local_writes.rs`.

use keys::{Digest, Oid, SignedObject};

use super::commit::Change;
use super::error::SaveError;
use super::load::proof_of;
use super::manager::GraphManager;
use super::record::{IdentityRecord, RecordFault};
use super::resolve::Resolved;
use crate::acl::{AclManager, Granted, LocalFacts, Replaced, ScopeRight};
use crate::domain::Mode;
use crate::object::{Attrs, Object, OidParts, OidProof, Place, Value, is_core_type};
use crate::op_context::OpContext;
use crate::schema::{Kind, TypeSchema, Visibility, identities};
use crate::store::{
    Account, AppTable, ParentRow, RECEIVED_FLAG, ScopeId, StoreError, Usage, WriteMode,
};

/// An object to create, change or delete.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The app's slug.
    pub app: String,
    /// The number of the type in the app's schema.
    pub type_number: u16,
    /// The object to change; `None` creates one.
    pub oid: Option<Oid>,
    /// The local identity that will own the object and sign it.
    pub owner: Oid,
    /// The values; `None` deletes the object.
    pub attrs: Option<Attrs>,
}

/// The result of a local write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The oid of the object.
    pub oid: Oid,
    /// The revision that was written, from 1.
    pub rev: u64,
    /// The `change_seq` of the change group.
    pub change_seq: u64,
}

impl GraphManager<'_> {
    /// Creates, changes or deletes an object: checks it, signs it, and gives it a `change_seq` and
    /// `sync_flags`. Calls without [`GraphManager::end_group`] between them share one `change_seq`.
    pub fn save_with_sync(
        &mut self,
        context: &OpContext,
        mut request: WriteRequest,
    ) -> Result<Saved, SaveError> {
        self.may_write(request.oid.is_some())?;
        let schemas = self.schemas();
        let schema = schemas
            .type_(&request.app, request.type_number)
            .ok_or(SaveError::UnknownType)?;
        let app = self.table(&request.app)?;
        if let Some(attrs) = &mut request.attrs {
            // An attribute without values has no row, so the signed bytes must not contain it.
            attrs.retain(|_, values| !values.is_empty());
            schema.check(attrs)?;
        }
        let existing = match request.oid {
            Some(oid) => Some(self.tx.parent(app, &oid)?.ok_or(SaveError::Missing(oid))?),
            None => None,
        };
        let object = match &existing {
            Some(row) => self.next_revision(row, request)?,
            None => self.new_object(app, schema, request)?,
        };
        let resolved = self.resolve(app, schema, &object, existing.as_ref())?;
        self.check_references(app, schema, &object, existing.as_ref())?;
        let granted = self.may_save(context, &object, existing.as_ref(), resolved.right)?;
        self.sign_and_write(app, schema, &object, &resolved, existing, &granted)
    }

    /// Whether this node's write mode permits a change of an existing object, or a new object.
    pub(super) fn may_write(&self, is_change: bool) -> Result<(), SaveError> {
        match self.env.write_mode {
            WriteMode::ReadOnly => Err(SaveError::ReadOnly),
            WriteMode::NewObjectsOnly if is_change => Err(SaveError::Recovering),
            WriteMode::NewObjectsOnly | WriteMode::ReadWrite => Ok(()),
        }
    }

    /// Whether the node recovers after a restore, or writes nothing.
    pub fn is_barred(&self) -> bool {
        self.env.write_mode != WriteMode::ReadWrite
    }

    /// The next revision of a stored object. Salt and place stay, because the oid covers them.
    fn next_revision(&self, row: &ParentRow, request: WriteRequest) -> Result<Object, SaveError> {
        if row.type_number != request.type_number {
            return Err(SaveError::WrongReference);
        }
        Ok(Object {
            app: request.app,
            type_number: row.type_number,
            oid: row.oid,
            owner: request.owner,
            rev: row.rev + 1,
            proof: proof_of(self.tx, row)?,
            rights: self.rights_in_force(row)?,
            attrs: request.attrs,
        })
    }

    /// A new object, whose oid covers its place and a new salt.
    fn new_object(
        &mut self,
        app: &AppTable,
        schema: &TypeSchema,
        request: WriteRequest,
    ) -> Result<Object, SaveError> {
        if is_core_type(request.type_number) {
            // `save_rights` and `save_leave` write them.
            return Err(SaveError::UnknownType);
        }
        let values = request.attrs.clone().unwrap_or_default();
        let place = self.place_of(app, schema, &request.owner, &values)?;
        let mut salt = [0; 8];
        self.env.rng.fill_bytes(&mut salt);
        let parts = OidParts {
            owner: &request.owner,
            app: &request.app,
            type_number: request.type_number,
            place: &place,
        };
        let rights = match &place {
            Place::In(scope) => match self.referenced(app, scope)? {
                Some(parent) => {
                    self.check_takes_part((parent.scope_id, scope), &request.owner)?;
                    self.name_of_list_in_force(parent.scope_id)?
                }
                None => None,
            },
            Place::Public | Place::Founds(_) => None,
        };
        Ok(Object {
            rights,
            attrs: request.attrs,
            ..Object::create(&parts, self.env.now.0, salt)
        })
    }

    /// Checks the references that decide no scope, as a courtesy to the writer. A value that the
    /// stored revision lacks names a stored object of the right type. Kept ones are not checked, so
    /// that an owner can always change its object.
    fn check_references(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &Object,
        existing: Option<&ParentRow>,
    ) -> Result<(), SaveError> {
        let kept = existing.map_or(Ok(Vec::new()), |row| self.tx.attrs(app, row.id))?;
        let is_kept = |attr, value| {
            let mut kept = kept.iter();
            kept.any(|(number, it)| *number == attr && it == value)
        };
        for (number, values) in object.attrs.iter().flatten() {
            let kind = schema.attr(*number).map(|attr| attr.kind);
            let Some(Kind::Parent { type_number }) = kind else {
                continue;
            };
            let new = values.iter().filter(|value| !is_kept(*number, *value));
            for oid in new.filter_map(Value::as_oid) {
                let parent = self.referenced(app, &oid)?;
                if parent.ok_or(SaveError::Missing(oid))?.type_number != type_number {
                    return Err(SaveError::WrongReference);
                }
            }
        }
        Ok(())
    }

    /// The list that the next revision of an object names.
    fn rights_in_force(&self, row: &ParentRow) -> Result<Option<Digest>, StoreError> {
        match self.tx.scope(row.scope_id)? {
            Some(scope) if scope.parent_id != row.id => self.name_of_list_in_force(scope.id),
            _ => Ok(None),
        }
    }

    /// Gathers the facts of a local write and asks the rules.
    pub(super) fn may_save(
        &self,
        context: &OpContext,
        object: &Object,
        existing: Option<&ParentRow>,
        scope_right: ScopeRight,
    ) -> Result<Granted, SaveError> {
        let requester = self
            .tx
            .identity_by_pubkey_attr(context.requester_pubkey_attr_id())?;
        let owner = self.identity(&object.owner)?;
        let facts = LocalFacts {
            oid: object.oid,
            owner: object.owner,
            requester: requester.map(|identity| identity.oid),
            owner_at_home: owner.is_some_and(|identity| identity.home == self.this_node),
            owner_retired: owner.is_some_and(|identity| identity.retired),
            owner_frozen: owner.is_some_and(|identity| identity.frozen),
            scope_right,
            mode: self.mode_of(object),
            replaces: existing.map(|row| Replaced {
                owner: row.owner,
                deleted: row.deleted,
            }),
        };
        Ok(AclManager::check_access(context, &facts)?)
    }

    /// Checks the limits, signs the object, and writes its row, Attrs and index.
    pub(super) fn sign_and_write(
        &mut self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &Object,
        resolved: &Resolved<'_>,
        existing: Option<ParentRow>,
        granted: &Granted,
    ) -> Result<Saved, SaveError> {
        let bytes = object.to_bytes();
        let bytes_max = self.limits().object.bytes_max;
        if bytes.len() > bytes_max {
            return Err(SaveError::TooLong(bytes.len(), bytes_max));
        }
        let (attrs, attrs_max) = (object.attrs_count(), self.limits().object.attrs_max);
        if attrs > attrs_max {
            return Err(SaveError::TooManyAttrs(attrs, attrs_max));
        }
        if self.keys().moving_identity(&object.owner).is_some() {
            return Err(SaveError::Moves(object.owner));
        }
        let signed = self.keys().sign_object(object.owner, bytes)?;
        let record = IdentityRecord::read(object).transpose()?;
        if record
            .as_ref()
            .is_some_and(|record| record.chain().key_id() != signed.key_id())
        {
            return Err(RecordFault::OtherKey.into());
        }
        let sync_flags = self.sync_flags(app, schema, object, record.as_ref())?;
        if let Some(row) = &existing
            && let Some(freed) = self.freed(app, row, false)?
        {
            // The record of an identity that moves here was received.
            let usage = -Usage::one(freed.bytes);
            self.charge(freed.origin, freed.account, &usage)?;
        }
        let row = new_row(object, &signed, None, sync_flags);
        let change = Change::Content(resolved, existing.as_ref());
        let row = self.commit_row(granted, app, row, change)?;
        if let Some(record) = record {
            self.note_identity(&row, &record)?;
        }
        Ok(Saved {
            oid: row.oid,
            rev: row.rev,
            change_seq: row.change_seq,
        })
    }

    /// The bits of the domains in which this node exports a local object (docs/STORY.md 3 step 2).
    pub(super) fn sync_flags(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &Object,
        identity: Option<&IdentityRecord>,
    ) -> Result<i64, StoreError> {
        let unlisted = identity.is_some()
            && object.first(identities::LISTED).and_then(Value::as_integer) == Some(0);
        if schema.visibility == Visibility::Local || unlisted {
            return Ok(0);
        }
        let type_number = self.travel_type(app, object)?;
        let domains = self
            .schemas()
            .app(&object.app)
            .into_iter()
            .flat_map(|app| app.domains_of(type_number));
        Ok(domains.fold(0, |flags, domain| flags | self.tx.apps().mask(&domain.name)))
    }

    /// The bits of a received object: those of the domains in which a session with the feature
    /// `relay` sends it on. A public object has none, except the record of an identity that this
    /// node sent before: its former peers learn the new home from it.
    pub(super) fn received_flags(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        (object, existing): (&Object, Option<&ParentRow>),
    ) -> Result<i64, StoreError> {
        if schema.visibility == Visibility::Public {
            let is_listed = object.first(identities::LISTED).and_then(Value::as_integer) != Some(0);
            let is_record = object.app == identities::APP && is_listed;
            let sent = existing.map_or(0, |row| row.sync_flags);
            return Ok(match is_record && sent != 0 {
                true => sent | RECEIVED_FLAG,
                false => 0,
            });
        }
        Ok(match self.sync_flags(app, schema, object, None)? {
            0 => 0,
            domains => domains | RECEIVED_FLAG,
        })
    }

    /// The mode in which objects of this type travel. Objects of core types never change.
    pub(super) fn mode_of(&self, object: &Object) -> Option<Mode> {
        if is_core_type(object.type_number) {
            return Some(Mode::NoUpdate);
        }
        let domain = self.schemas().domain_of(&object.app, object.type_number);
        domain.map(|domain| domain.mode)
    }
}

/// The row of an object. [`GraphManager::commit_row`] fills in ids and sequence numbers.
pub(super) fn new_row(
    object: &Object,
    signed: &SignedObject,
    origin: Option<i64>,
    sync_flags: i64,
) -> ParentRow {
    let salt = match object.proof {
        OidProof::Genesis => None,
        OidProof::Bound { salt, .. } => Some(salt),
    };
    ParentRow {
        id: 0,
        oid: object.oid,
        type_number: object.type_number,
        owner: object.owner,
        scope_id: ScopeId::LOCAL,
        rev: object.rev,
        deleted: object.is_deleted(),
        key_id: signed.key_id(),
        signature: *signed.signature(),
        origin,
        salt,
        rights_id: None,
        created_seq: 0,
        change_seq: 0,
        sync_flags,
        account: Account::Own,
    }
}

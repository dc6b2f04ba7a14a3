//! Local writes: what a person or an app of this node makes, changes or deletes (docs/STORY.md 3, 6.1).
//!
//! Never writes in the name of an identity that does not live here. Invariant: what is saved is signed by its owner
//! over exactly the bytes that will be sent.

use keys::vault::UnknownIdentity;
use keys::{Oid, SignedObject};

use super::place::{NoPlace, Place};
use super::record::{IdentityRecord, RecordFault};
use super::{GraphManager, load_object};
use crate::acl::{AclManager, Denied, Existing, Granted, LocalFacts, ScopeRight};
use crate::object::{Attrs, Object, Value};
use crate::op_context::OpContext;
use crate::schema::{SchemaViolation, TypeSchema, Visibility, identities};
use crate::store::{AppTable, ParentRow, StoreError, WriteMode};

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Slug of the app.
    pub app: String,
    /// The schema's number of the type.
    pub type_number: u16,
    /// The object to change; none makes a new one.
    pub oid: Option<Oid>,
    /// In whose name.
    pub owner: Oid,
    /// Its values; none deletes it.
    pub attrs: Option<Attrs>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The object.
    pub oid: Oid,
    /// Its revision.
    pub rev: u64,
    /// The `change_seq` of its change group.
    pub change_seq: u64,
}

/// Why a local write did not happen. All but `Store` are the caller's.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// No installed app has that type.
    #[error("no installed app has this type")]
    UnknownType,
    /// The values do not fit the schema.
    #[error(transparent)]
    Schema(#[from] SchemaViolation),
    /// The rules say no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The object, or one that it refers to, is not here.
    #[error("there is no object {0} here")]
    Missing(Oid),
    /// A reference leads to an object of another type.
    #[error("a reference leads to an object of another type")]
    WrongReference,
    /// The update would change who may read it.
    #[error("an update may not change who reads the object")]
    ScopeChanged,
    /// The object is larger than the limit.
    #[error("the object has {0} bytes, more than the limit {1}")]
    TooLong(usize, usize),
    /// More Attrs than the limit.
    #[error("the object has {0} attributes, more than the limit {1}")]
    TooManyAttrs(usize, usize),
    /// An identity that does not prove itself, which no peer would take. Identities are not deleted either.
    #[error("the identity proves nothing")]
    Record(#[from] RecordFault),
    /// The node was restored, and what exists may have changed after the backup.
    #[error(
        "this node was restored and has not asked all its peers yet for what they hold of it: until then nothing that \
         exists is changed, and no key (`postern recovery` shows whom it waits for)"
    )]
    Recovering,
    /// Another node signs with the same keys, or did.
    #[error(
        "this node is read-only: a peer has heard of another copy of it, or of a later one (`postern recovery` says what \
         to do)"
    )]
    ReadOnly,
    /// The node has no key for the owner.
    #[error(transparent)]
    UnknownIdentity(#[from] UnknownIdentity),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NoPlace> for SaveError {
    fn from(error: NoPlace) -> Self {
        match error {
            NoPlace::Missing(oid) => Self::Missing(oid),
            NoPlace::WrongReference => Self::WrongReference,
            NoPlace::Store(error) => Self::Store(error),
        }
    }
}

impl GraphManager<'_> {
    /// Makes, changes or deletes an object: checks it, signs it, stamps it with `change_seq` and `sync_flags`.
    /// Several calls without [`GraphManager::end_group`] between them share one `change_seq`.
    pub fn save_with_sync(
        &mut self,
        context: &OpContext,
        mut draft: Draft,
    ) -> Result<Saved, SaveError> {
        self.may_write(draft.oid.is_some())?;
        let schemas = self.schemas();
        let schema = schemas
            .type_(&draft.app, draft.type_number)
            .ok_or(SaveError::UnknownType)?;
        let app = self.table(&draft.app)?;
        if let Some(attrs) = &mut draft.attrs {
            // An attribute without values has no row, so it must not be among the signed bytes either.
            attrs.retain(|_, values| !values.is_empty());
            schema.check(attrs)?;
        }
        let (oid, existing) = self.find(app, draft.oid)?;
        let rev = existing.as_ref().map_or(1, |existing| existing.rev + 1);
        let (type_number, owner) = (draft.type_number, draft.owner);
        let object = Object {
            app: draft.app,
            type_number,
            oid,
            owner,
            rev,
            attrs: draft.attrs,
        };
        let place = self.place(app, schema, &object)?;
        let granted = self.may_save(context, &object, existing.as_ref(), place.right)?;
        if let (Some(existing), false) = (&existing, object.is_deleted()) {
            if existing.type_number != type_number {
                return Err(SaveError::WrongReference);
            }
            if self.moves_scope(app, existing, &place.scope)? {
                return Err(SaveError::ScopeChanged);
            }
        }
        self.sign_and_write(app, schema, &object, &place, existing, &granted)
    }

    /// Whether this node may write of its own now: something new, or a change of what exists.
    pub(super) fn may_write(&self, is_change: bool) -> Result<(), SaveError> {
        match self.env.write_mode {
            WriteMode::ReadOnly => Err(SaveError::ReadOnly),
            WriteMode::NewObjectsOnly if is_change => Err(SaveError::Recovering),
            WriteMode::NewObjectsOnly | WriteMode::ReadWrite => Ok(()),
        }
    }

    /// An oid to change must be here; a new one is made from time and chance.
    fn find(
        &mut self,
        app: &AppTable,
        oid: Option<Oid>,
    ) -> Result<(Oid, Option<ParentRow>), SaveError> {
        if let Some(oid) = oid {
            let existing = self.tx.parent(app, &oid)?.ok_or(SaveError::Missing(oid))?;
            return Ok((oid, Some(existing)));
        }
        let mut random = [0; 10];
        self.env.rng.fill_bytes(&mut random);
        Ok((Oid::time_ordered(self.env.now.0, random), None))
    }

    fn may_save(
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
        let domain = self.schemas().domain_of(&object.app, object.type_number);
        let facts = LocalFacts {
            oid: object.oid,
            owner: object.owner,
            requester: requester.map(|identity| identity.oid),
            owner_at_home: owner.is_some_and(|identity| identity.home == self.us),
            owner_retired: owner.is_some_and(|identity| identity.retired),
            owner_frozen: owner.is_some_and(|identity| identity.frozen),
            scope_right,
            mode: domain.map(|domain| domain.mode),
            existing: existing.map(|row| Existing {
                owner: row.owner,
                rev: row.rev,
                is_local: row.origin.is_none(),
                deleted: row.deleted,
                same: false,
            }),
        };
        Ok(AclManager::check_access(context, &facts)?)
    }

    pub(super) fn sign_and_write(
        &mut self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &Object,
        place: &Place<'_>,
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
        let signed = self.keys().sign_object(object.owner, bytes)?;
        let record = IdentityRecord::read(object, self.limits().key_events_max).transpose()?;
        if record
            .as_ref()
            .is_some_and(|record| record.chain().key_id() != signed.key_id())
        {
            return Err(RecordFault::OtherKey.into());
        }
        let sync_flags = self.sync_flags(schema, object, record.as_ref());
        let row = self.parent_row(object, &signed, None, sync_flags);
        let row = self.write(app, row, place, existing.as_ref(), granted)?;
        if let Some(record) = record {
            self.note_identity(&row, &record)?;
        }
        Ok(Saved {
            oid: row.oid,
            rev: row.rev,
            change_seq: row.change_seq,
        })
    }

    /// The bits of the domains in which this node exports an object of its own (docs/STORY.md 3 step 2).
    pub(super) fn sync_flags(
        &self,
        schema: &TypeSchema,
        object: &Object,
        identity: Option<&IdentityRecord>,
    ) -> i64 {
        let unlisted = identity.is_some()
            && object.first(identities::LISTED).and_then(Value::as_integer) == Some(0);
        if schema.visibility == Visibility::Local || unlisted {
            return 0;
        }
        let domains = self
            .schemas()
            .app(&object.app)
            .into_iter()
            .flat_map(|app| app.domains_of(object.type_number));
        domains.fold(0, |flags, domain| flags | self.tx.apps().mask(&domain.name))
    }

    /// The row of an object that is written now; id and scope come with the writing.
    pub(super) fn parent_row(
        &mut self,
        object: &Object,
        signed: &SignedObject,
        origin: Option<i64>,
        sync_flags: i64,
    ) -> ParentRow {
        ParentRow {
            id: 0,
            oid: object.oid,
            type_number: object.type_number,
            owner: object.owner,
            scope_id: None,
            rev: object.rev,
            deleted: object.is_deleted(),
            key_id: signed.key_id(),
            signature: *signed.signature(),
            origin,
            change_seq: self.stamp(),
            sync_flags,
        }
    }

    /// Whether a stored object equals `object`, byte by byte.
    pub(super) fn is_same(
        &self,
        app: &AppTable,
        existing: &ParentRow,
        object: &Object,
    ) -> Result<bool, StoreError> {
        let same_head = existing.rev == object.rev && existing.type_number == object.type_number;
        Ok(same_head && load_object(self.tx, app, existing)?.0 == *object)
    }
}

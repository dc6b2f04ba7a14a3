//! Local writes: what a person or an app of this node makes, changes or deletes (SEED 3, 6.1).
//!
//! Never writes in the name of an identity that does not live here. Invariant: what is saved is signed by its owner
//! over exactly the bytes that will be sent.

use keys::vault::UnknownIdentity;
use keys::{KeyChain, Oid, PeerId, Signature, SignedObject, VerifiedChain, codec};

use super::place::{NoPlace, Place, Scope};
use super::record::{IdentityRecord, RecordFault, chain_in};
use super::{GraphManager, identities, load_object};
use crate::acl::{AclManager, Denied, Existing, Granted, LocalFacts, ScopeRight};
use crate::object::{Attrs, Object, Value};
use crate::op_context::{OpContext, PubkeyAttrId};
use crate::schema::{SchemaViolation, TypeSchema, Visibility};
use crate::store::{AppTable, IdentityRow, ParentRow, StoreError, StoredValue};

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
    pub fn save_with_sync(&mut self, context: &OpContext, mut draft: Draft) -> Result<Saved, SaveError> {
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

    /// An oid to change must be here; a new one is made from time and chance.
    fn find(&mut self, app: &AppTable, oid: Option<Oid>) -> Result<(Oid, Option<ParentRow>), SaveError> {
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
        let requester = self.tx.identity_by_pubkey_attr(context.requester_pubkey_attr_id())?;
        let owner = self.identity(&object.owner)?;
        let mut domains = self.schemas().sync_domains();
        let domain = domains.find(|domain| domain.app == object.app && domain.has_type(object.type_number));
        let facts = LocalFacts {
            oid: object.oid,
            owner: object.owner,
            requester: requester.map(|identity| identity.oid),
            owner_at_home: owner.is_some_and(|identity| identity.home == self.us),
            scope_right,
            mode: domain.map(|domain| domain.mode),
            existing: existing.map(|row| Existing {
                owner: row.owner,
                rev: row.rev,
                made_here: row.origin.is_none(),
                deleted: row.deleted,
                same: false,
            }),
        };
        Ok(AclManager::check_access(context, &facts)?)
    }

    fn sign_and_write(
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
            self.note_identity(&row, record.chain(), record.home(), record.home_counter())?;
        }
        Ok(Saved {
            oid: row.oid,
            rev: row.rev,
            change_seq: row.change_seq,
        })
    }

    /// The bits of the domains in which this node exports an object of its own (SEED 3 step 2).
    fn sync_flags(&self, schema: &TypeSchema, object: &Object, identity: Option<&IdentityRecord>) -> i64 {
        let unlisted = identity.is_some() && object.first(identities::LISTED).and_then(Value::as_integer) == Some(0);
        if schema.visibility == Visibility::Local || unlisted {
            return 0;
        }
        let schemas = self.schemas();
        let domains = schemas
            .sync_domains()
            .filter(|domain| domain.app == object.app && domain.has_type(object.type_number));
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

    /// Writes the identity object of an identity that lives here: new, renamed, or with a new chain or home record.
    /// The record proves itself, so no other requester than this node is needed.
    pub fn save_identity(&mut self, identity: Oid, name: Option<&str>) -> Result<Saved, SaveError> {
        let chain = self.keys().identity_chain(identity).ok_or(UnknownIdentity(identity))?;
        let known = self.tx.identity(&identity)?;
        let home = self
            .keys()
            .home_record(identity, known.map_or(1, |row| row.home_counter))?;
        let max = self.limits().key_events_max;
        let verified = chain
            .verify(max)
            .map_err(|_| StoreError::Inconsistent("a key chain of our own"))?;
        let (app, schemas) = (self.table(identities::APP)?, self.schemas());
        let schema = schemas
            .type_(identities::APP, identities::IDENTITY)
            .ok_or(SaveError::UnknownType)?;
        let attrs = super::new_identity_attrs(&chain, &verified, &home, name);
        schema.check(&attrs)?;
        let existing = self.tx.parent(app, &identity)?;
        let rev = existing.as_ref().map_or(1, |row| row.rev + 1);
        let object = Object {
            app: identities::APP.into(),
            type_number: identities::IDENTITY,
            oid: identity,
            owner: identity,
            rev,
            attrs: Some(attrs),
        };
        let place = self.place(app, schema, &object)?;
        let granted = AclManager::check_self_certified(&verified);
        self.sign_and_write(app, schema, &object, &place, existing, &granted)
    }

    /// Notes a node's server identity in the graph: our own, or a peer's whose handshake proved its chain
    /// (SEED 1.1 step 4). Never leaves this node, so it carries no signature and no domain.
    /// `None` where another chain is known, or more of it: then nothing is written, and the node is not who it says.
    pub fn save_server(
        &mut self,
        chain: &KeyChain,
        verified: &VerifiedChain,
    ) -> Result<Option<PubkeyAttrId>, StoreError> {
        if let Some(known) = self.tx.identity(&verified.oid())? {
            if known.public_key == verified.current() {
                return Ok(Some(known.pubkey_attr_id));
            }
            if !self.known_chain(&known)?.is_some_and(|known| chain.continues(&known)) {
                return Ok(None);
            }
        }
        let app = self.table(identities::APP)?;
        let existing = self.tx.parent(app, &verified.oid())?;
        let key = Value::Bytes(verified.current().as_bytes().to_vec());
        let chain = Value::Bytes(codec::encode(chain));
        let attrs = vec![
            (identities::PUBLIC_KEY, 0, StoredValue::Plain(&key)),
            (identities::CHAIN, 0, StoredValue::Plain(&chain)),
        ];
        let place = Place {
            attrs,
            scope: Scope::None,
            right: ScopeRight::Open,
        };
        let row = ParentRow {
            id: 0,
            oid: verified.oid(),
            type_number: identities::SERVER,
            owner: verified.oid(),
            scope_id: None,
            rev: existing.as_ref().map_or(1, |row| row.rev + 1),
            deleted: false,
            key_id: verified.key_id(),
            signature: Signature::from_bytes([0; Signature::LEN]),
            origin: None,
            change_seq: self.stamp(),
            sync_flags: 0,
        };
        let granted = AclManager::check_self_certified(verified);
        let row = self.write(app, row, &place, existing.as_ref(), &granted)?;
        self.note_identity(&row, verified, verified.peer_id(), 0)
            .map(|identity| Some(identity.pubkey_attr_id))
    }

    /// The key chain of an identity or server that is known here.
    pub(super) fn known_chain(&self, known: &IdentityRow) -> Result<Option<KeyChain>, StoreError> {
        let attrs = self.tx.attrs(self.table(identities::APP)?, known.parent_id)?;
        let chain = attrs.iter().find(|(number, _)| *number == identities::CHAIN);
        Ok(chain.and_then(|(_, chain)| chain_in(chain, self.limits().key_events_max)))
    }

    /// Keeps the index of keys and homes beside an identity's or server's Parent.
    pub(super) fn note_identity(
        &self,
        parent: &ParentRow,
        chain: &VerifiedChain,
        home: PeerId,
        home_counter: u64,
    ) -> Result<IdentityRow, StoreError> {
        let app = self.table(identities::APP)?;
        let attr = self.tx.attr_id(app, parent.id, identities::PUBLIC_KEY)?;
        let row = IdentityRow {
            oid: parent.oid,
            parent_id: parent.id,
            pubkey_attr_id: PubkeyAttrId(attr.ok_or(StoreError::Inconsistent("an identity without a key"))?),
            key_id: chain.key_id(),
            public_key: chain.current(),
            home,
            home_counter,
        };
        self.tx.put_identity(&row)?;
        self.memory.borrow_mut().forget_identity(&row.oid);
        Ok(row)
    }

    /// Whether a stored object equals `object`, byte by byte.
    pub(super) fn is_same(&self, app: &AppTable, existing: &ParentRow, object: &Object) -> Result<bool, StoreError> {
        let same_head = existing.rev == object.rev && existing.type_number == object.type_number;
        Ok(same_head && load_object(self.tx, app, existing)?.0 == *object)
    }
}

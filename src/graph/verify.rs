//! From signed bytes to an object whose owner's signature is valid.
//!
//! Pure, so that it runs on every core concurrently with the writer. Whether the object may be
//! written is decided later. Invariant: a [`VerifiedObject`] was signed over exactly its bytes, by
//! the key that it names. Tested in `tests/core/remote_writes.rs`.

use std::collections::BTreeMap;

use keys::protocol::KEY_EVENTS_MAX;
use keys::{KeyChain, Oid, PeerId, PublicKey, SignedObject};

use super::error::{Fault, ObjectFault};
use super::limits::GraphLimits;
use super::record::{IdentityRecord, chain_in, is_identity};
use crate::object::{CoreRecord, Object, Place, RightsFault, is_core_type};
use crate::schema::{Schemas, identities};
use crate::store::Cause;

/// The current key of each known owner, with the key's number in its chain.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys(BTreeMap<Oid, (u32, PublicKey)>);

impl KnownKeys {
    /// Adds or replaces an owner's key.
    pub fn insert(&mut self, owner: Oid, key_id: u32, key: PublicKey) {
        self.0.insert(owner, (key_id, key));
    }

    /// Adds the keys that identity records among these objects prove. They replace known ones.
    pub fn add_own_keys<'o>(&mut self, objects: impl Iterator<Item = &'o DecodedObject>) {
        self.0.extend(objects.filter_map(DecodedObject::own_key));
    }

    fn get(&self, owner: &Oid) -> Option<(u32, PublicKey)> {
        self.0.get(owner).copied()
    }
}

/// The full name of an object's type; of a core type `messages.rights`, for example.
fn type_name(object: &Object, schemas: &Schemas) -> Option<String> {
    let schema = schemas.type_(&object.app, object.type_number)?;
    Some(match is_core_type(object.type_number) {
        true => format!("{}.{}", object.app, schema.name),
        false => schema.name.clone(),
    })
}

/// An object that was decoded; its owner's signature is not verified yet.
#[derive(Debug)]
pub struct DecodedObject {
    object: Object,
    signed: SignedObject,
    record: Option<IdentityRecord>,
}

/// An object whose owner's signature is valid.
#[derive(Debug)]
pub struct VerifiedObject {
    pub(super) object: Object,
    pub(super) signed: SignedObject,
    /// The key that signed it.
    pub(super) by: PublicKey,
    pub(super) record: Option<IdentityRecord>,
}

/// Decodes an object, checks its oid, and verifies its record if it is an identity.
pub fn decode_object(
    signed: SignedObject,
    limits: &GraphLimits,
) -> Result<DecodedObject, ObjectFault> {
    let object = Object::from_bytes(signed.bytes(), &limits.object)?;
    // The key chain of an identity proves its oid, and nothing else may have an unbound one.
    if !object
        .is_oid_proved()
        .unwrap_or_else(|| is_identity(&object))
    {
        return Err(ObjectFault::Oid(object.oid));
    }
    let record = IdentityRecord::read(&object)
        .transpose()
        .map_err(|source| ObjectFault::Record {
            oid: object.oid,
            source,
        })?;
    let oid = object.oid;
    rights_fault(&object).map_err(|source| ObjectFault::Rights { oid, source })?;
    Ok(DecodedObject {
        object,
        signed,
        record,
    })
}

/// Owner and revision of an object that was decoded and verified before. Verifies nothing again.
pub fn owner_and_rev(signed: &SignedObject, limits: &GraphLimits) -> Option<(Oid, u64)> {
    let object = Object::from_bytes(signed.bytes(), &limits.object).ok()?;
    Some((object.owner, object.rev))
}

/// Checks the content of a core type, and whether the object may name a rights list.
fn rights_fault(object: &Object) -> Result<(), RightsFault> {
    if object.rights.is_some() && object.scope().is_none() {
        return Err(RightsFault("only an object in a scope names a rights list"));
    }
    CoreRecord::read(object).transpose().map(drop)
}

impl DecodedObject {
    /// The oid that the object claims.
    pub fn oid(&self) -> Oid {
        self.object.oid
    }

    /// The owner, whose key must have signed the object.
    pub fn owner(&self) -> Oid {
        self.object.owner
    }

    /// The revision.
    pub fn rev(&self) -> u64 {
        self.object.rev
    }

    /// Number of the owner's key that signed it.
    pub fn key_id(&self) -> u32 {
        self.signed.key_id()
    }

    /// The scope in which the object lies, if any.
    pub fn scope(&self) -> Option<Oid> {
        self.object.scope()
    }

    /// The decoded object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The full name of the object's type. `None`: no enabled app has the type.
    pub fn type_name(&self, schemas: &Schemas) -> Option<String> {
        type_name(&self.object, schemas)
    }

    /// The owner's key that the object's own record proves, if the object is an identity.
    pub fn own_key(&self) -> Option<(Oid, (u32, PublicKey))> {
        self.record.as_ref().map(|record| {
            (
                record.chain().oid(),
                (record.chain().key_id(), record.chain().current()),
            )
        })
    }

    /// The home that the object's own record proves, if the object is an identity.
    pub fn home(&self) -> Option<PeerId> {
        self.record.as_ref().map(IdentityRecord::home)
    }

    /// The key chain in the object's own record, if the object is an identity.
    pub fn own_chain(&self) -> Option<KeyChain> {
        self.record.as_ref()?;
        chain_in(self.object.first(identities::CHAIN)?)
    }

    /// Verifies the owner's signature. The object has to wait ([`Cause::KeyKnown`]) if the owner,
    /// or the owner's key of that number, is not known yet.
    #[expect(
        clippy::result_large_err,
        reason = "both variants hold an object, and each is moved once"
    )]
    pub fn verify(self, known: &KnownKeys) -> Result<VerifiedObject, (Fault, Self)> {
        let own = self.own_key().map(|(_, key)| key);
        let waits = Cause::KeyKnown(self.object.owner, self.signed.key_id());
        if self.signed.key_id() as usize > KEY_EVENTS_MAX {
            return Err((Fault::KeyNumber, self));
        }
        let Some((key_id, by)) = own.or_else(|| known.get(&self.object.owner)) else {
            return Err((Fault::Waits(waits), self));
        };
        if key_id < self.signed.key_id() && own.is_none() {
            // The domains of a node are pulled concurrently, so the rotation may still arrive.
            return Err((Fault::Waits(waits), self));
        }
        if key_id != self.signed.key_id() {
            return Err((Fault::OldKey, self));
        }
        match self.signed.verify(&by) {
            Ok(()) => Ok(VerifiedObject {
                object: self.object,
                signed: self.signed,
                by,
                record: self.record,
            }),
            Err(_) => Err((Fault::BadSignature, self)),
        }
    }

    /// The object as the peer sent it.
    pub fn into_signed(self) -> SignedObject {
        self.signed
    }
}

/// Bytes that one entry of a rights list counts besides those that were sent.
pub(super) const ENTRY_CHARGE: usize = 64;

/// The bytes that a stored object counts for its sender. Those are the bytes that were sent, and 64
/// for each entry of a rights list, which is a row.
pub(super) fn charged_bytes(object: &Object, signed: &SignedObject) -> usize {
    signed.bytes().len() + ENTRY_CHARGE * rights_entries(object)
}

/// The number of entries of a rights list; 0 for other objects.
fn rights_entries(object: &Object) -> usize {
    match CoreRecord::read(object) {
        Some(Ok(record)) => record.entries(),
        _ => 0,
    }
}

impl VerifiedObject {
    /// The full name of the object's type. `None`: no enabled app has the type.
    pub fn type_name(&self, schemas: &Schemas) -> Option<String> {
        type_name(&self.object, schemas)
    }

    /// The decoded object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The bytes that the object counts for its sender.
    pub fn charged_bytes(&self) -> usize {
        charged_bytes(&self.object, &self.signed)
    }

    /// The scope in which the object lies, or that it is; `None`: it lies in none.
    pub fn own_or_outer_scope(&self) -> Option<Oid> {
        match self.object.place() {
            Place::Public => None,
            Place::In(scope) => Some(scope),
            Place::Founds(_) => Some(self.object.oid),
        }
    }

    /// The verified record, if the object is an identity.
    pub fn record(&self) -> Option<&IdentityRecord> {
        self.record.as_ref()
    }

    /// The object as the peer sent it.
    pub fn into_signed(self) -> SignedObject {
        self.signed
    }
}

//! From a signed byte string to an object whose owner's signature held.
//!
//! Pure, so that it can run on every core beside the writer. Never decides whether the object may be written.
//! Invariant: a [`VerifiedObject`] was signed by the key that it names, over exactly its bytes.

use std::collections::BTreeMap;

use keys::{KeyChain, Malformed, Oid, PublicKey, SignedObject};

use super::record::{IdentityRecord, RecordFault, chain_in};
use super::{Fault, GraphLimits};
use crate::object::Object;
use crate::schema::identities;

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

/// An object that was read but not verified.
#[derive(Debug)]
pub struct DecodedObject {
    object: Object,
    signed: SignedObject,
    record: Option<IdentityRecord>,
}

/// Why an object of a package goes no further.
#[derive(Debug, thiserror::Error)]
pub enum ObjectFault {
    /// Its bytes are no object.
    #[error("the object's bytes are malformed")]
    Malformed(#[from] Malformed),
    /// It claims to be an identity and does not prove it.
    #[error("the identity record of {oid} proves nothing")]
    Record {
        /// The object.
        oid: Oid,
        /// What is wrong with it.
        source: RecordFault,
    },
}

impl ObjectFault {
    /// A short stable word for records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Record { .. } => "identity_record",
        }
    }

    /// The object's name, where it could be read.
    pub fn oid(&self) -> Option<Oid> {
        match self {
            Self::Malformed(_) => None,
            Self::Record { oid, .. } => Some(*oid),
        }
    }
}

/// An object that its owner signed.
#[derive(Debug)]
pub struct VerifiedObject {
    pub(super) object: Object,
    pub(super) signed: SignedObject,
    pub(super) by: PublicKey,
    pub(super) record: Option<IdentityRecord>,
}

/// Reads an object; checks an identity's own record.
pub fn decode_object(
    signed: SignedObject,
    limits: &GraphLimits,
) -> Result<DecodedObject, ObjectFault> {
    let object = Object::from_bytes(signed.bytes(), &limits.object)?;
    let record = IdentityRecord::read(&object, limits.key_events_max)
        .transpose()
        .map_err(|source| ObjectFault::Record {
            oid: object.oid,
            source,
        })?;
    Ok(DecodedObject {
        object,
        signed,
        record,
    })
}

impl DecodedObject {
    /// Its name.
    pub fn oid(&self) -> Oid {
        self.object.oid
    }

    /// Its owner, whose key must have signed it.
    pub fn owner(&self) -> Oid {
        self.object.owner
    }

    /// The key that its own identity record proves, where it is one.
    pub fn own_key(&self) -> Option<(Oid, (u32, PublicKey))> {
        self.record.as_ref().map(|record| {
            (
                record.chain().oid(),
                (record.chain().key_id(), record.chain().current()),
            )
        })
    }

    /// The key chain in its own identity record, where it is one.
    pub fn own_chain(&self, key_events_max: usize) -> Option<KeyChain> {
        self.record.as_ref()?;
        chain_in(self.object.first(identities::CHAIN)?, key_events_max)
    }

    /// Verifies the owner's signature. An owner that is not known, or whose key of that number is not known yet, makes it
    /// wait ([`Fault::Missing`]).
    #[expect(
        clippy::result_large_err,
        reason = "an object that fails is as large as one that holds, and both are moved once"
    )]
    pub fn verify(self, known: &KnownKeys) -> Result<VerifiedObject, (Fault, Self)> {
        let own = self.own_key().map(|(_, key)| key);
        let Some((key_id, by)) = own.or_else(|| known.get(&self.object.owner)) else {
            return Err((Fault::Missing(self.object.owner), self));
        };
        if key_id < self.signed.key_id() && own.is_none() {
            // The domains of a node are pulled side by side: the rotation is on its way.
            return Err((Fault::Missing(self.object.owner), self));
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

    /// The object as it was sent.
    pub fn into_signed(self) -> SignedObject {
        self.signed
    }
}

impl VerifiedObject {
    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// How long its signed bytes are.
    pub fn signed_len(&self) -> usize {
        self.signed.bytes().len()
    }

    /// What it proves of itself, where it is an identity's own record.
    pub fn record(&self) -> Option<&IdentityRecord> {
        self.record.as_ref()
    }

    /// The object as it was sent.
    pub fn into_signed(self) -> SignedObject {
        self.signed
    }
}

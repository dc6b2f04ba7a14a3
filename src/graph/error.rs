//! Errors of the graph: why a local write did not happen, and why a peer's object was not applied.
//!
//! Invariant: `Store` variants are failures of the database; every other variant is caused by the
//! caller ([`SaveError`]) or by the peer ([`Fault`]).

use keys::vault::UnknownIdentity;
use keys::{Malformed, Oid};

use super::record::RecordFault;
use super::resolve::ResolveError;
use crate::acl::Denied;
use crate::object::RightsFault;
use crate::schema::SchemaViolation;
use crate::store::{Cause, StoreError};

/// Why a local write failed. The caller causes every variant except `Store`.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// No installed app has that type.
    #[error("no installed app has this type")]
    UnknownType,
    /// The app was enabled once, and is disabled now.
    #[error("the app `{0}` is disabled: list it in `node.apps`")]
    Disabled(String),
    /// The values violate the schema.
    #[error(transparent)]
    Schema(#[from] SchemaViolation),
    /// A rule of `acl` denies the write.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The owner was invited to the scope with this oid, and did not accept.
    #[error(
        "the identity was invited to {oid} and has not accepted yet: `postern conversation accept \
         {oid}`", oid = .0.to_hex()
    )]
    NotAccepted(Oid),
    /// This node does not store the object, or one to which a new reference leads.
    #[error("there is no object {} on this node", .0.short())]
    Missing(Oid),
    /// A new reference leads to an object of another type.
    #[error("a reference leads to an object of another type")]
    WrongReference,
    /// The update would move the object to another scope, and so to other readers.
    #[error("an update may not change who reads the object")]
    ScopeChanged,
    /// The encoded object exceeds [`ObjectLimits::bytes_max`](crate::object::ObjectLimits).
    #[error("the object has {0} bytes, more than the limit {1}")]
    TooLong(usize, usize),
    /// The object exceeds [`ObjectLimits::attrs_max`](crate::object::ObjectLimits).
    #[error("the object has {0} attributes, more than the limit {1}")]
    TooManyAttrs(usize, usize),
    /// The identity's record is not valid, so every peer would reject it. A deletion of an identity
    /// has no record and fails in the same way.
    #[error("the identity record is not valid")]
    Record(#[from] RecordFault),
    /// The rights list would not be valid.
    #[error("the rights list is not valid")]
    Rights(#[from] RightsFault),
    /// The node was restored, and its objects may have changed after the backup.
    #[error(
        "this node was restored and has not yet reclaimed its objects from all peers; until then \
         existing objects and keys cannot be changed (`postern recovery` lists the missing peers)"
    )]
    Recovering,
    /// A peer has proof of another copy of this node, or of a later state of it.
    #[error(
        "this node is read-only, because a peer has seen another copy of it or a later state of it \
         (`postern recovery` explains what to do)"
    )]
    ReadOnly,
    /// The owner moves to another node.
    #[error(
        "the identity {} moves to another node, so that it writes nothing here: `postern identity \
         receive` on that node", .0.to_hex()
    )]
    Moves(Oid),
    /// The vault has no key for the owner.
    #[error(transparent)]
    UnknownIdentity(#[from] UnknownIdentity),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ResolveError> for SaveError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Missing(_, oid) => Self::Missing(oid),
            ResolveError::WrongReference => Self::WrongReference,
            // A local object names the place that its values gave when it was created.
            ResolveError::WrongScope => Self::ScopeChanged,
            ResolveError::Rights(fault) => Self::Rights(fault),
            ResolveError::MissingRights(_) => {
                StoreError::Inconsistent("a list in force that counts as absent").into()
            }
            ResolveError::Store(error) => Self::Store(error),
        }
    }
}

/// Why one object of a package was not applied. The object is rejected or waits; the other objects
/// of the package are applied.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A rule of `acl` denies the write.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The values violate the schema.
    #[error(transparent)]
    Schema(#[from] SchemaViolation),
    /// The bytes are malformed, or the identity record is not valid.
    #[error(transparent)]
    Object(#[from] ObjectFault),
    /// No installed app has that type.
    #[error("no installed app has this type")]
    UnknownType,
    /// The reference that decides the scope leads to an object of another type.
    #[error("the scope of the object has another type")]
    WrongReference,
    /// The object is not in the scope that its type or its values give.
    #[error("the object is not in the scope that its values give")]
    WrongScope,
    /// The object may not name the rights list that it names.
    #[error("the rights list of the object is not valid")]
    Rights(#[from] RightsFault),
    /// The owner's signature is not valid.
    #[error("the owner's signature is not valid")]
    BadSignature,
    /// The signing key is not the owner's current one.
    #[error("the object is not signed with its owner's current key")]
    OldKey,
    /// The owner's key chain forks from the known one: a stolen key signed it, or the owner made a
    /// mistake.
    #[error("the key chain does not continue the known one")]
    ChainForked,
    /// Another home was claimed under the same key and counter; the identity is frozen now.
    #[error("the home record contradicts the known one")]
    HomeConflict,
    /// The home record is older than the known one.
    #[error("the home record is older than the known one")]
    OldHome,
    /// The key number is larger than that of any key of a valid chain.
    #[error("no key chain has a key of this number")]
    KeyNumber,
    /// The operator removed the scope of the object with the peer that sent it.
    #[error("the operator removed the object's scope with the peer that sent it")]
    ScopeRemoved,
    /// The object needs something that this node lacks, and is tried again when it is here.
    #[error("the object waits for {0:?}")]
    Waits(Cause),
}

impl Fault {
    /// The stable code that is stored with a reject.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Schema(_) => "schema",
            Self::Object(fault) => fault.code(),
            Self::UnknownType => "unknown_type",
            Self::WrongReference => "wrong_reference",
            Self::WrongScope => "wrong_scope",
            Self::Rights(_) => "bad_rights",
            Self::BadSignature => "bad_signature",
            Self::OldKey => "old_key",
            Self::ChainForked => "chain_forked",
            Self::HomeConflict => "home_conflict",
            Self::OldHome => "old_home",
            Self::KeyNumber => "key_number",
            Self::ScopeRemoved => "scope_removed",
            Self::Waits(_) => "waits",
        }
    }
}

/// Why [`GraphManager::apply_message`](super::GraphManager::apply_message) failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The object is rejected or waits.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The database failed, which undoes the whole package.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ResolveError> for ApplyError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Missing(app, oid) => Self::Fault(Fault::Waits(Cause::Arrived(app, oid))),
            ResolveError::WrongReference => Self::Fault(Fault::WrongReference),
            ResolveError::WrongScope => Self::Fault(Fault::WrongScope),
            ResolveError::Rights(fault) => Self::Fault(Fault::Rights(fault)),
            ResolveError::MissingRights(list) => Self::Fault(Fault::Waits(Cause::Rights(list))),
            ResolveError::Store(error) => Self::Store(error),
        }
    }
}

/// Why an object of a package could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectFault {
    /// The bytes do not encode an object.
    #[error("the object's bytes are malformed")]
    Malformed(#[from] Malformed),
    /// The oid does not cover owner, app, type, place and salt.
    #[error("the oid {} is not that of its owner, type and place", .0.short())]
    Oid(Oid),
    /// The object is an identity, and its record is not valid.
    #[error("the identity record of {} is not valid", .oid.short())]
    Record {
        /// The oid of the object.
        oid: Oid,
        /// The invalid part of the record.
        source: RecordFault,
    },
    /// The object is a rights list or a `leave` and is not valid, or it may not name a list.
    #[error("the rights list of {} is not valid", .oid.short())]
    Rights {
        /// The oid of the object.
        oid: Oid,
        /// The reason.
        source: RightsFault,
    },
}

impl ObjectFault {
    /// The stable code that is stored with a reject.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Oid(_) => "oid",
            Self::Record { .. } => "identity_record",
            Self::Rights { .. } => "bad_rights",
        }
    }

    /// The oid, if the bytes could be decoded.
    pub fn oid(&self) -> Option<Oid> {
        match self {
            Self::Malformed(_) => None,
            Self::Oid(oid) | Self::Record { oid, .. } | Self::Rights { oid, .. } => Some(*oid),
        }
    }
}

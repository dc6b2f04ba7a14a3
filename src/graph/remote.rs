//! A peer's writes: one object of a verified package at a time (docs/STORY.md 2.1 step 8, 6.3).
//!
//! Gathers the facts, asks `AclManager::check_remote_write`, writes or says why not. Never touches an object that was
//! made here. Invariant: what is written was signed by its owner's current key, and the owner lives at the sender.

use keys::Oid;

use super::place::{NoPlace, Place, Scope};
use super::record::{IdentityRecord, chain_in};
use super::verify::VerifiedObject;
use super::{GraphManager, ObjectFault, load_object};
use crate::acl::{AclManager, Denied, Existing, Home, RemoteFacts, RemoteWrite, ScopeRight};
use crate::object::Object;
use crate::op_context::OpContext;
use crate::schema::{SchemaViolation, identities};
use crate::store::{AppTable, IdentityRow, ParentRow, StoreError};

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Written.
    Written {
        /// How long the signed bytes of the revision were that it replaced, where the same peer had sent that one.
        replaced: Option<usize>,
    },
    /// It was here already.
    AlreadyHere,
    /// A later revision was here.
    Older,
}

/// A fault of one object: it is refused or waits, and the rest of the package goes on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The rules say no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The values do not fit the schema.
    #[error(transparent)]
    Schema(#[from] SchemaViolation),
    /// It could not be read, or proves nothing.
    #[error(transparent)]
    Object(#[from] ObjectFault),
    /// No installed app has that type.
    #[error("no installed app has this type")]
    UnknownType,
    /// A reference leads to an object of another type.
    #[error("a reference leads to an object of another type")]
    WrongReference,
    /// The update would change who may read it.
    #[error("the update changes who reads the object")]
    ScopeChanged,
    /// The owner's signature does not hold.
    #[error("the owner's signature does not hold")]
    BadSignature,
    /// Signed with another key than the owner's current one.
    #[error("the object is not signed with its owner's current key")]
    OldKey,
    /// The owner's key chain branches off from the one that is known: a thief's, or its owner's own mistake.
    #[error("the key chain does not go on from the one that is known")]
    ChainForked,
    /// Another home record of the same counter: its identity is frozen.
    #[error("the home record contradicts one that is known: whose key is it?")]
    HomeConflict,
    /// A home record from before the one that is known.
    #[error("the home record is older than the one that is known")]
    OldHome,
    /// Two homes were claimed for the owner: nothing of it is taken until its key is rotated.
    #[error("its owner is frozen")]
    OwnerFrozen,
    /// It waits for another object.
    #[error("it waits for {0}")]
    Missing(Oid),
    /// It should wait, and there is no room to.
    #[error("it waits for another object and there is no room for more waiting ones")]
    NoRoom,
}

impl Fault {
    /// A short stable word for records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Schema(_) => "schema",
            Self::Object(fault) => fault.code(),
            Self::UnknownType => "unknown_type",
            Self::WrongReference => "wrong_reference",
            Self::ScopeChanged => "scope_changed",
            Self::BadSignature => "bad_signature",
            Self::OldKey => "old_key",
            Self::ChainForked => "chain_forked",
            Self::HomeConflict => "home_conflict",
            Self::OldHome => "old_home",
            Self::OwnerFrozen => "owner_frozen",
            Self::Missing(_) => "missing",
            Self::NoRoom => "no_room",
        }
    }
}

/// Why an object was not applied: its own fault, or the database's, which undoes the whole package.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The object's.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NoPlace> for ApplyError {
    fn from(error: NoPlace) -> Self {
        match error {
            NoPlace::Missing(oid) => Self::Fault(Fault::Missing(oid)),
            NoPlace::WrongReference => Self::Fault(Fault::WrongReference),
            NoPlace::Store(error) => Self::Store(error),
        }
    }
}

/// What decides between two records of one identity: the later key, then the higher counter. A thief of a key may have
/// counted up as far as he liked; the next key is its owner's alone.
pub(super) fn order(record: &IdentityRecord) -> (u32, u64) {
    (record.chain().key_id(), record.home_counter())
}

/// What an object is taken for before it is looked for.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Not here yet. Writing it fails with [`StoreError::Exists`] where it is.
    New,
    /// Perhaps here.
    Known,
}

impl GraphManager<'_> {
    /// Applies one object of a package in a change group of its own. `origin` is the sending peer's local number.
    pub fn apply_message(
        &mut self,
        context: &OpContext,
        verified: &VerifiedObject,
        origin: i64,
    ) -> Result<Applied, ApplyError> {
        // Most objects are new, and writing one finds out; only where that fails is it looked for. A deletion is never new.
        if !verified.object.is_deleted() {
            match self.apply_as(context, verified, origin, Expected::New) {
                Err(ApplyError::Fault(_) | ApplyError::Store(StoreError::Exists)) => {}
                done => return done,
            }
        }
        self.apply_as(context, verified, origin, Expected::Known)
    }

    fn apply_as(
        &mut self,
        context: &OpContext,
        verified: &VerifiedObject,
        origin: i64,
        expected: Expected,
    ) -> Result<Applied, ApplyError> {
        let OpContext::Remote {
            sync_domain, peer, ..
        } = context
        else {
            return Err(Fault::Denied(Denied::WrongContext("local")).into());
        };
        let (object, schemas) = (&verified.object, self.schemas());
        let schema = schemas
            .type_(&object.app, object.type_number)
            .ok_or(Fault::UnknownType)?;
        let app = self.table(&object.app)?;
        if let Some(attrs) = &object.attrs {
            schema.check(attrs).map_err(Fault::Schema)?;
        }
        let owner_home = self.owner_home(verified, peer)?;
        let existing = match expected {
            Expected::New => None,
            Expected::Known => self.tx.parent(app, &object.oid)?,
        };
        let place = match &existing {
            // A deletion names no scope: it stays where the object is.
            Some(row) if object.is_deleted() => self.place_of_deleted(app, row, object)?,
            _ => self.place(app, schema, object)?,
        };
        let domain = schemas
            .domain(sync_domain)
            .filter(|domain| domain.app == object.app && domain.has_type(object.type_number));
        let facts = RemoteFacts {
            oid: object.oid,
            owner: object.owner,
            rev: object.rev,
            deleted: object.is_deleted(),
            mode: domain.map(|domain| domain.mode),
            owner_home,
            scope_right: place.right,
            has_local_reader: self.read_here(app, &place.scope)?,
            existing: self.standing_before(app, existing.as_ref(), verified)?,
        };
        let granted =
            match AclManager::check_remote_write(context, &facts).map_err(Fault::Denied)? {
                RemoteWrite::AlreadyHere => {
                    if let Some(row) = &existing {
                        self.note_later_signature(app, row, verified, origin)?;
                    }
                    return Ok(Applied::AlreadyHere);
                }
                RemoteWrite::Older => return Ok(Applied::Older),
                RemoteWrite::Apply(granted) => granted,
            };
        if let Some(row) = &existing
            && (row.type_number != object.type_number
                || self.moves_scope(app, row, &place.scope)?)
        {
            return Err(Fault::ScopeChanged.into());
        }
        if let Some(record) = &verified.record
            && let Some(known) = self.identity(&object.oid)?
            && order(record) < (known.key_id, known.home_counter)
        {
            return Err(Fault::OldHome.into());
        }
        let replaced = match &existing {
            Some(row) if row.origin == Some(origin) => {
                Some(load_object(self.tx, app, row)?.1.bytes().len())
            }
            _ => None,
        };
        self.end_group();
        let row = self.parent_row(object, &verified.signed, Some(origin), 0);
        let row = self.write(app, row, &place, existing.as_ref(), &granted)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(Applied::Written { replaced })
    }

    /// The same object under a later key of its owner: the sender signed it again after a rotation. Kept, so that its owner
    /// can have it back in a form that it takes.
    fn note_later_signature(
        &self,
        app: &AppTable,
        row: &ParentRow,
        verified: &VerifiedObject,
        origin: i64,
    ) -> Result<(), StoreError> {
        let signed = &verified.signed;
        if row.origin != Some(origin) || signed.key_id() <= row.key_id {
            return Ok(());
        }
        self.tx
            .put_signature(app, row.id, signed.key_id(), signed.signature())
    }

    /// Where the owner lives. An identity's own record says it; for others a verified record did before.
    /// The key that signed must still be the owner's current one.
    fn owner_home(
        &self,
        verified: &VerifiedObject,
        peer: &keys::PeerId,
    ) -> Result<Home, ApplyError> {
        let known = self.identity(&verified.object.owner)?;
        let home = match (&verified.record, known) {
            (Some(record), Some(known)) => self.home_by_record(verified, record, &known)?,
            (Some(record), None) => record.home(),
            (None, Some(known)) if known.frozen => return Err(Fault::OwnerFrozen.into()),
            (None, Some(known)) if known.public_key != verified.by => {
                return Err(Fault::OldKey.into());
            }
            (None, Some(known)) => known.home,
            (None, None) => return Err(Fault::Missing(verified.object.owner).into()),
        };
        Ok(if home == self.us {
            Home::Local
        } else if home == *peer {
            Home::Sender
        } else {
            Home::Elsewhere
        })
    }

    /// Where an identity lives that shows a record beside the one that is known. The later key's record wins, under one
    /// key the higher counter. Two homes under one key and counter are signed by somebody else than the owner, or by an
    /// owner that is confused: the identity is frozen. So is one of our own for which any other home is claimed.
    fn home_by_record(
        &self,
        verified: &VerifiedObject,
        record: &IdentityRecord,
        known: &IdentityRow,
    ) -> Result<keys::PeerId, ApplyError> {
        if known.home == self.us && record.home() == self.us {
            return Ok(self.us);
        }
        if record.chain().key_id() < known.key_id {
            return Err(Fault::OldKey.into());
        }
        let chain = verified.object.first(identities::CHAIN);
        let chain = chain.and_then(|chain| chain_in(chain, self.limits().key_events_max));
        let goes_on = self.known_chain(known)?.zip(chain);
        if !goes_on.is_some_and(|(known, chain)| chain.continues(&known)) {
            return Err(Fault::ChainForked.into());
        }
        let claimed = order(record);
        let present = (known.key_id, known.home_counter);
        let contradicts = claimed == present && record.home() != known.home;
        if contradicts || (known.home == self.us && claimed > present) {
            self.freeze(&known.oid)?;
            return Err(Fault::HomeConflict.into());
        }
        if known.frozen && record.chain().key_id() == known.key_id {
            return Err(Fault::OwnerFrozen.into());
        }
        Ok(if claimed < present {
            known.home
        } else {
            record.home()
        })
    }

    /// What is here before an object of a peer's. What a later key of its owner signs stands above any revision under an
    /// earlier one, deletions too: whoever had stolen that one may have counted up as far as it liked, or deleted. The owner
    /// signs everything again after a rotation, so that this loses nothing of its own.
    fn standing_before(
        &self,
        app: &AppTable,
        row: Option<&ParentRow>,
        verified: &VerifiedObject,
    ) -> Result<Option<Existing>, StoreError> {
        let existing = self.existing(app, row, &verified.object)?;
        let (Some(existing), Some(row)) = (existing, row) else {
            return Ok(existing);
        };
        if row.origin.is_none() || existing.same || verified.signed.key_id() <= row.key_id {
            return Ok(Some(existing));
        }
        Ok(Some(Existing {
            rev: 0,
            deleted: false,
            ..existing
        }))
    }

    pub(super) fn existing(
        &self,
        app: &AppTable,
        row: Option<&ParentRow>,
        object: &Object,
    ) -> Result<Option<Existing>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Existing {
            owner: row.owner,
            rev: row.rev,
            is_local: row.origin.is_none(),
            deleted: row.deleted,
            same: self.is_same(app, row, object)?,
        }))
    }

    pub(super) fn place_of_deleted(
        &self,
        app: &AppTable,
        row: &ParentRow,
        object: &Object,
    ) -> Result<Place<'static>, StoreError> {
        let (scope, right) = match row.scope_id {
            None => (Scope::None, ScopeRight::Open),
            Some(scope_id) if scope_id == row.id => (
                Scope::This(self.readers(app, scope_id)?.to_vec()),
                ScopeRight::Open,
            ),
            Some(scope_id) if self.readers(app, scope_id)?.contains(&object.owner) => {
                (Scope::Other(scope_id), ScopeRight::Participant)
            }
            Some(scope_id) => (Scope::Other(scope_id), ScopeRight::Outsider),
        };
        Ok(Place {
            attrs: Vec::new(),
            scope,
            right,
        })
    }
}

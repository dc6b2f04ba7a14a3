//! Remote writes: the objects of a verified package, one at a time (docs/STORY.md 2.1 step 8, 6.3).
//!
//! Gathers the facts, asks `AclManager::check_remote_write`, and writes the object or returns a
//! [`Fault`]. Invariants: a local object is never changed; a written object was signed by its
//! owner's current key, and the owner's home is the sender. Tested in
//! `tests/core/remote_writes.rs`, `tests/core/remote_identities.rs` and `tests/core/thieves.rs`.

use super::error::{ApplyError, Fault};
use super::load::load_object;
use super::manager::GraphManager;
use super::record::{IdentityRecord, chain_in};
use super::resolve::Resolved;
use super::verify::VerifiedObject;
use crate::acl::{AclManager, Denied, Existing, Home, RemoteFacts, RemoteWrite};
use crate::object::Object;
use crate::op_context::OpContext;
use crate::schema::{TypeSchema, identities};
use crate::store::{AppTable, IdentityRow, ParentRow, StoreError};

/// Result for one object of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The object was written.
    Written {
        /// Signed bytes of the replaced revision, if the same peer had sent that one.
        replaced: Option<usize>,
    },
    /// The same revision was stored already.
    AlreadyStored,
    /// A later revision was stored already.
    Older,
}

/// Whether [`GraphManager::apply_as`] looks for a stored revision of the object.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// Assumes a new object; the insert fails with [`StoreError::Exists`] otherwise.
    New,
    /// Looks up a stored revision.
    Known,
}

impl<'e> GraphManager<'e> {
    /// Applies one object of a package in a change group of its own. `origin` is the sending peer's
    /// local number.
    pub fn apply_message(
        &mut self,
        context: &OpContext,
        verified: &VerifiedObject,
        origin: i64,
    ) -> Result<Applied, ApplyError> {
        // Most objects are new, so the first try inserts without a lookup (an optimisation,
        // measured by `bench sync`). Only if it fails is the object looked up. A tombstone is never
        // new.
        if !verified.object.is_deleted() {
            match self.apply_as(context, verified, origin, Expected::New) {
                Err(ApplyError::Fault(_) | ApplyError::Store(StoreError::Exists)) => {}
                done => return done,
            }
        }
        self.apply_as(context, verified, origin, Expected::Known)
    }

    /// Applies one object: facts, rule, write.
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
        let object = &verified.object;
        let (app, schema) = self.schema_of(object)?;
        let owner_home = self.owner_home(verified, peer)?;
        let existing = match expected {
            Expected::New => None,
            Expected::Known => self.tx.parent(app, &object.oid)?,
        };
        let resolved = self.resolve_over(app, schema, object, existing.as_ref())?;
        let domain = self
            .schemas()
            .domain(sync_domain)
            .filter(|domain| domain.app == object.app && domain.has_type(object.type_number));
        let facts = RemoteFacts {
            oid: object.oid,
            owner: object.owner,
            rev: object.rev,
            deleted: object.is_deleted(),
            mode: domain.map(|domain| domain.mode),
            owner_home,
            scope_right: resolved.right,
            has_local_reader: self.read_here(&resolved.scope)?,
            existing: self.existing_before(app, existing.as_ref(), verified)?,
        };
        let granted =
            match AclManager::check_remote_write(context, &facts).map_err(Fault::Denied)? {
                RemoteWrite::AlreadyHere => {
                    if let Some(row) = &existing {
                        self.note_later_signature(app, row, verified, origin)?;
                    }
                    return Ok(Applied::AlreadyStored);
                }
                RemoteWrite::Older => return Ok(Applied::Older),
                RemoteWrite::Apply(granted) => granted,
            };
        self.refuse_move(existing.as_ref(), object, &resolved)?;
        if let Some(record) = &verified.record
            && let Some(known) = self.identity(&object.oid)?
            && record.precedence() < (known.key_id, known.home_counter)
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
        let row = self.write(app, row, &resolved, existing.as_ref(), &granted)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(Applied::Written { replaced })
    }

    /// The schema and tables of an object, whose Attrs are checked.
    pub(super) fn schema_of(
        &self,
        object: &Object,
    ) -> Result<(&'e AppTable, &'e TypeSchema), ApplyError> {
        let schema = self.schemas().type_(&object.app, object.type_number);
        let schema = schema.ok_or(Fault::UnknownType)?;
        let app = self.table(&object.app)?;
        if let Some(attrs) = &object.attrs {
            schema.check(attrs).map_err(Fault::Schema)?;
        }
        Ok((app, schema))
    }

    /// Resolves an object that is new or replaces `existing`.
    pub(super) fn resolve_over<'o>(
        &self,
        app: &AppTable,
        schema: &TypeSchema,
        object: &'o Object,
        existing: Option<&ParentRow>,
    ) -> Result<Resolved<'o>, ApplyError> {
        Ok(match existing {
            Some(row) if object.is_deleted() => self.resolve_deletion(row, object)?,
            _ => self.resolve(app, schema, object)?,
        })
    }

    /// Fails if an object would change the type or the scope of the one that it replaces.
    pub(super) fn refuse_move(
        &self,
        existing: Option<&ParentRow>,
        object: &Object,
        resolved: &Resolved<'_>,
    ) -> Result<(), ApplyError> {
        if let Some(row) = existing
            && (row.type_number != object.type_number || self.moves_scope(row, &resolved.scope)?)
        {
            return Err(Fault::ScopeChanged.into());
        }
        Ok(())
    }

    /// Stores the later signature of an object that the sender re-signed after a rotation. The
    /// sender accepts only this form when it reclaims the object.
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

    /// The home of the owner: from the object's own record if it is an identity, else from the
    /// index. Fails if the signing key is not the owner's current one.
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
        Ok(if home == self.this_node {
            Home::Local
        } else if home == *peer {
            Home::Sender
        } else {
            Home::Elsewhere
        })
    }

    /// The home of an identity for which a second record arrives. The record with the later key
    /// applies; under one key, the one with the higher counter.
    ///
    /// Two homes under one key and counter freeze the identity, because a thief signed one of them
    /// or the owner made a mistake. A later record that claims another home for a local identity
    /// freezes it too.
    fn home_by_record(
        &self,
        verified: &VerifiedObject,
        record: &IdentityRecord,
        known: &IdentityRow,
    ) -> Result<keys::PeerId, ApplyError> {
        if known.home == self.this_node && record.home() == self.this_node {
            return Ok(self.this_node);
        }
        if record.chain().key_id() < known.key_id {
            return Err(Fault::OldKey.into());
        }
        let chain = verified.object.first(identities::CHAIN);
        let chain = chain.and_then(chain_in);
        let both = self.known_chain(known)?.zip(chain);
        if !both.is_some_and(|(known, chain)| chain.continues(&known)) {
            return Err(Fault::ChainForked.into());
        }
        let claimed = record.precedence();
        let present = (known.key_id, known.home_counter);
        let contradicts = claimed == present && record.home() != known.home;
        if contradicts || (known.home == self.this_node && claimed > present) {
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

    /// The stored object's state for conflict resolution.
    ///
    /// An object under a later key of its owner replaces any revision under an earlier key,
    /// tombstones included. The reason is that the thief of the earlier key could sign any
    /// revision. The owner loses nothing, because it re-signs all its objects after a rotation.
    fn existing_before(
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

    /// The stored object's state as `acl` needs it.
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
}

//! Remote writes: the objects of a verified package, one at a time (docs/STORY.md 2.1 step 8, 6.3).
//!
//! Gathers the facts, asks `AclManager::check_remote_write`, and writes the object or returns a
//! [`Fault`]. Invariants: a local object is never changed; a written object was signed by its
//! owner's current key; a public one came from its owner's home. Tested in `tests/core/arrival.rs`,
//! `tests/core/remote_writes.rs`, `tests/core/remote_identities.rs` and `tests/core/thieves.rs`.

use keys::protocol::RIGHTS_TYPE;

use super::charge::{Arrival, Freed};
use super::commit::Change;
use super::error::{ApplyError, Fault};
use super::fitting::Trial;
use super::local::new_row;
use super::manager::GraphManager;
use super::resolve::Scope;
use super::verify::{VerifiedObject, charged_bytes};
use crate::acl::{
    AclManager, Denied, Existing, Granted, Home, Precedence, RemoteFacts, RemoteWrite,
};
use crate::domain::Mode;
use crate::object::is_core_type;
use crate::op_context::OpContext;
use crate::schema::Visibility;
use crate::store::{Account, AppTable, Cause, ParentRow, StoreError};

/// Result for one object of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The object was written.
    Written {
        /// The revision that is no longer stored, if a peer had sent it.
        replaced: Option<Freed>,
        /// The account of the sender in which it counts.
        account: Account,
        /// Whether the replaced one had the same key and revision: a fork, to be recorded.
        forked: bool,
    },
    /// The same or a later version was stored already, or the scope of the object ended or was
    /// declined, or a ban refuses the object.
    AlreadyStored,
    /// The account in which it would count has no room. Nothing was written.
    NoRoom,
    /// Other content with the same key and revision stays: a fork, to be recorded.
    Forked {
        /// The account in which a rights list or a `leave` counts that the object holds and that
        /// was not known. Such a list or `leave` was stored, and is charged like an object.
        kept: Option<Account>,
    },
}

impl Applied {
    /// The stable code to record; `None` unless the object forked.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Written { forked: true, .. } | Self::Forked { .. } => Some("fork"),
            _ => None,
        }
    }
}

/// The use of a peer's record of an identity that lives at a third node.
#[derive(Debug, Clone, Copy)]
enum PassedOn {
    /// The record has a later key, and counts for the peer like one of its own.
    Later,
    /// The record changes nothing here.
    Useless,
}

/// Whether [`GraphManager::apply_as`] looks for a stored revision of the object.
#[derive(Debug, Clone, Copy)]
enum Presence {
    /// Assumes a new object; the insert fails with [`StoreError::Exists`] otherwise.
    New,
    /// Looks up a stored revision.
    Known,
}

impl<'e> GraphManager<'e> {
    /// Applies one object of a package in a change group of its own.
    pub fn apply_message(
        &mut self,
        context: &OpContext,
        verified: &VerifiedObject,
        from: Arrival,
    ) -> Result<Applied, ApplyError> {
        if let Some(outcome) = self.judge_purged(context, verified)? {
            return Ok(outcome);
        }
        // Most objects are new, so the first try inserts without a lookup (an optimisation,
        // measured by `bench sync`). Only if it fails is the object looked up. A tombstone is never
        // new, and neither is an object of this node.
        if !verified.object.is_deleted() && !self.is_local(&verified.object.owner)? {
            match self.apply_as(context, verified, from, Presence::New) {
                Ok(Applied::NoRoom)
                | Err(ApplyError::Fault(_) | ApplyError::Store(StoreError::Exists)) => {}
                done => return done,
            }
        }
        self.apply_as(context, verified, from, Presence::Known)
    }

    /// Applies one object: facts, rule, write.
    fn apply_as(
        &mut self,
        context: &OpContext,
        verified: &VerifiedObject,
        arrival: Arrival,
        presence: Presence,
    ) -> Result<Applied, ApplyError> {
        let OpContext::Remote {
            sync_domain, peer, ..
        } = context
        else {
            return Err(Fault::Denied(Denied::WrongContext("local")).into());
        };
        let (object, trial) = (&verified.object, arrival.trial);
        let passed_on = match trial {
            Trial::Arrived => self.passed_on(verified, peer)?,
            _ => None,
        };
        if let Some(PassedOn::Useless) = passed_on {
            return Ok(Applied::AlreadyStored);
        }
        let domain = self.schemas().domain(sync_domain);
        let domain = domain.filter(|domain| domain.app == object.app);
        let domain = domain.ok_or(Fault::Denied(Denied::TypeNotInDomain))?;
        let (app, schema) = self.schema_of(object, (peer, trial))?;
        let existing = match presence {
            Presence::New => None,
            Presence::Known => self.tx.parent(app, &object.oid)?,
        };
        let stored = self.existing(app, existing.as_ref(), verified)?;
        if Self::brings_nothing(existing.as_ref(), stored, verified) {
            return Ok(Applied::AlreadyStored);
        }
        if trial == Trial::Relayed && !self.brings_relayed(verified)? {
            return Ok(Applied::AlreadyStored);
        }
        let Some(owner_home) = self.owner_home(verified, (peer, arrival.origin))? else {
            return Ok(Applied::AlreadyStored);
        };
        let owner_home = match (owner_home, trial) {
            // The record proves itself.
            (Home::Elsewhere, Trial::Relayed) => Home::Sender,
            (Home::Elsewhere, _) if passed_on.is_some() => Home::Sender,
            (home, _) => home,
        };
        let is_relayed = self.is_relayed(object, (peer, trial))?;
        let of = (object.type_number, &object.owner);
        if is_relayed && self.is_refused_by_ban(schema, of)? {
            return Ok(Applied::AlreadyStored);
        }
        let is_public = schema.visibility == Visibility::Public;
        if existing.is_none() && owner_home == Home::Local && !is_public {
            // Acknowledged before its scope is looked up, so that it does not wait for the scope.
            return Ok(Applied::AlreadyStored);
        }
        let resolved = self.resolve(app, schema, object, existing.as_ref())?;
        let serves_others = resolved.core.is_some() || resolved.founding.is_some();
        if let Scope::Stored(scope) = resolved.scope
            && self.is_declined(scope, serves_others)?
        {
            return Ok(Applied::AlreadyStored);
        }
        let is_in_domain = domain.has_type(self.travel_type(app, object)?);
        if !is_in_domain && schema.visibility != Visibility::Local {
            let fault = Fault::Denied(Denied::TypeNotInDomain);
            return Err(self.unless_later(app, (peer, trial), fault)?.into());
        }
        let facts = RemoteFacts {
            oid: object.oid,
            rev: object.rev,
            deleted: object.is_deleted(),
            mode: is_in_domain.then_some(match is_core_type(object.type_number) {
                true => Mode::NoUpdate,
                false => domain.mode,
            }),
            owner_home,
            is_public,
            scope_right: resolved.right,
            existing: stored,
        };
        let (granted, forked) = match AclManager::check_remote_write(context, &facts)
            .map_err(|denied| fault_of(denied, facts.owner_home, verified, *peer))?
        {
            RemoteWrite::AlreadyHere(granted) => {
                if let Some(row) = existing {
                    self.note_later_signature(&granted, app, row, verified)?;
                }
                return Ok(Applied::AlreadyStored);
            }
            RemoteWrite::Acknowledge => return Ok(Applied::AlreadyStored),
            RemoteWrite::ForkLost => {
                let key_number = verified.signed.key_id();
                let account = self.account(object, &resolved, is_relayed)?;
                let bytes = verified.charged_bytes();
                if resolved.core.is_some() && !arrival.has_room(account, bytes, None) {
                    return Ok(Applied::NoRoom);
                }
                let is_kept = match &existing {
                    Some(stored) => self.keep_forked(stored, key_number, &resolved)?,
                    None => false,
                };
                let kept = is_kept.then_some(account);
                return Ok(Applied::Forked { kept });
            }
            RemoteWrite::ForkWon(granted) => (granted, true),
            RemoteWrite::Apply(granted) => (granted, false),
        };
        if let Some(record) = &verified.record
            && let Some(known) = self.identity(&object.oid)?
            && record.precedence() < (known.key_id, known.home_counter)
        {
            return Err(Fault::OldHome.into());
        }
        let is_core = resolved.core.is_some();
        let replaced = match &existing {
            Some(row) => self.freed(app, row, is_core)?,
            None => None,
        };
        let account = self.account(object, &resolved, is_relayed)?;
        if !arrival.has_room(account, verified.charged_bytes(), replaced.as_ref()) {
            return Ok(Applied::NoRoom);
        }
        self.end_group();
        let flags = self.received_flags(app, schema, (object, existing.as_ref()))?;
        let row = ParentRow {
            account,
            ..new_row(object, &verified.signed, Some(arrival.origin), flags)
        };
        let change = Change::Content(&resolved, existing.as_ref());
        let row = self.commit_row(&granted, app, row, change)?;
        if let Some(record) = &verified.record {
            self.note_identity(&row, record)?;
        }
        Ok(Applied::Written {
            replaced,
            account,
            forked,
        })
    }

    /// The bytes of a stored object that its replacement frees of the quota of its sender.
    pub(super) fn freed(
        &self,
        app: &AppTable,
        row: &ParentRow,
        is_core: bool,
    ) -> Result<Option<Freed>, StoreError> {
        let Some(origin) = row.origin else {
            return Ok(None);
        };
        let bytes = match row.rev {
            // Values that were dropped are not charged, but the object is.
            0 => 0,
            // The list or `leave` of the replaced object stays, and so does its charge.
            _ if is_core => return Ok(None),
            _ => {
                let (object, signed) = self.load(app, row)?;
                charged_bytes(&object, &signed)
            }
        };
        Ok(Some(Freed {
            origin,
            account: row.account,
            bytes,
        }))
    }

    /// Whether an object is stored already, in this or a later version, under this or a later key.
    /// Such an object is acknowledged before its owner's home and its scope are judged, so that it
    /// never waits for one of them. An older record is judged, because it may prove that two homes
    /// are claimed.
    fn brings_nothing(
        row: Option<&ParentRow>,
        stored: Option<Existing>,
        verified: &VerifiedObject,
    ) -> bool {
        let (Some(row), Some(stored)) = (row, stored) else {
            return false;
        };
        match stored.precedence {
            Precedence::Same => verified.signed.key_id() <= row.key_id,
            Precedence::Older => verified.record.is_none(),
            _ => false,
        }
    }

    /// A record of another node's identity that a peer passes on: an earlier home does. `None`: the
    /// record is judged as one that the peer sends for itself.
    ///
    /// Under the known key such a record counts for nothing. Its home signs no name and no
    /// revision, so that a thief of the identity's key alone could write both.
    fn passed_on(
        &self,
        verified: &VerifiedObject,
        peer: &keys::PeerId,
    ) -> Result<Option<PassedOn>, StoreError> {
        let Some(record) = &verified.record else {
            return Ok(None);
        };
        if record.home() == *peer || record.home() == self.this_node {
            return Ok(None);
        }
        let Some(known) = self.identity(&verified.object.oid)? else {
            // Only a record that was asked for introduces an identity.
            return Ok(Some(PassedOn::Useless));
        };
        if self.brings_relayed(verified)? {
            return Ok(Some(PassedOn::Later));
        }
        let pending = self.tx.pending_home(&known.oid)?;
        let mut homes = [Some(known.home), pending.map(|it| it.home)]
            .into_iter()
            .flatten();
        let is_useless = record.precedence() < (known.key_id, known.home_counter)
            || homes.any(|home| home == record.home());
        Ok((is_useless && known.home != self.this_node).then_some(PassedOn::Useless))
    }

    /// Whether a relayed record introduces an identity, or brings a later key of one that lives
    /// elsewhere. Under the same key, only its home may move or contradict a known one. Otherwise
    /// any peer could freeze an identity with what a thief of its key signed.
    fn brings_relayed(&self, verified: &VerifiedObject) -> Result<bool, StoreError> {
        let Some(record) = &verified.record else {
            return Ok(false);
        };
        let (known, key_id) = (
            self.identity(&verified.object.oid)?,
            record.chain().key_id(),
        );
        Ok(record.home() != self.this_node
            && known.is_none_or(|known| {
                let is_elsewhere =
                    known.home != self.this_node || self.leaves_under(&known, key_id);
                is_elsewhere && key_id > known.key_id
            }))
    }

    /// Stores the later signature of an object that its owner re-signed after a rotation. Any peer
    /// may send it. The owner accepts only this form when it reclaims the object, and nodes that
    /// receive the object from this one need it too.
    pub(super) fn note_later_signature(
        &mut self,
        granted: &Granted,
        app: &AppTable,
        row: ParentRow,
        verified: &VerifiedObject,
    ) -> Result<(), StoreError> {
        let signed = &verified.signed;
        let is_later = |row: &ParentRow| signed.key_id() > row.key_id;
        if !is_later(&row) {
            return Ok(());
        }
        let mut row = row;
        if self.decides_readers(&row)? {
            if !self.resign_list_in_force(app, row.scope_id, signed.key_id())? {
                return Ok(());
            }
            // The object may be the list that was just re-signed.
            match self.tx.parent(app, &row.oid)?.filter(is_later) {
                Some(now) => row = now,
                None => return Ok(()),
            }
        }
        self.end_group();
        let resigned = ParentRow {
            key_id: signed.key_id(),
            signature: *signed.signature(),
            ..row
        };
        self.commit_row(granted, app, resigned, Change::Signature)?;
        Ok(())
    }

    /// Whether an object is a rights list, or the Parent that is its scope.
    fn decides_readers(&self, row: &ParentRow) -> Result<bool, StoreError> {
        let scope = self.tx.scope(row.scope_id)?;
        let is_scope = scope.is_some_and(|scope| scope.parent_id == row.id);
        Ok(is_scope || row.type_number == RIGHTS_TYPE)
    }

    /// The home of the owner: from the object's own record if it is an identity, else from the
    /// index. Fails if the signing key is not the owner's current one. Returns `None` if a record
    /// was put aside for the operator.
    fn owner_home(
        &self,
        verified: &VerifiedObject,
        (peer, origin): (&keys::PeerId, i64),
    ) -> Result<Option<Home>, ApplyError> {
        let known = self.identity(&verified.object.owner)?;
        let home = match (&verified.record, known) {
            (Some(record), Some(known)) => {
                match self.home_by_record((verified, record), &known, (peer, origin))? {
                    Some(home) => home,
                    None => return Ok(None),
                }
            }
            (Some(record), None) => {
                self.check_forgotten(verified, record)?;
                record.home()
            }
            (None, Some(known)) if known.frozen => {
                return Err(Fault::Waits(Cause::Unfrozen(known.oid)).into());
            }
            (None, Some(known)) if known.public_key != verified.by => {
                return Err(Fault::OldKey.into());
            }
            (None, Some(known)) => known.home,
            (None, None) => {
                let cause = Cause::KeyKnown(verified.object.owner, verified.signed.key_id());
                return Err(Fault::Waits(cause).into());
            }
        };
        Ok(Some(if home == self.this_node {
            Home::Local
        } else if home == *peer {
            Home::Sender
        } else {
            Home::Elsewhere
        }))
    }
}

/// The fault of a denied object. A public object that another node than its owner's home sent waits
/// until that node is the home. The record of a move may arrive later. A record proves its home
/// itself.
fn fault_of(
    denied: Denied,
    owner_home: Home,
    verified: &VerifiedObject,
    peer: keys::PeerId,
) -> Fault {
    let is_elsewhere = denied == Denied::OwnerNotAtSender && owner_home == Home::Elsewhere;
    if is_elsewhere && verified.record.is_none() {
        return Fault::Waits(Cause::Home(verified.object.owner, peer));
    }
    Fault::Denied(denied)
}

//! Objects of an identity that moves: at its new home they become objects of this node, at its old
//! home received ones (docs/DECISIONS.md 10).
//!
//! Nothing is signed here; the rotation signs the objects at the new home afterwards. Invariants:
//! an object of a moved identity is stored at the old home as before. No lower version replaces a
//! higher one. Tested in `tests/core/moves.rs`.

use keys::protocol::RIGHTS_TYPE;
use keys::{Oid, PeerId};

use super::commit::Change;
use super::error::{ApplyError, Fault, SaveError};
use super::fitting::Trial;
use super::local::new_row;
use super::manager::GraphManager;
use super::resolve::Scope;
use super::travel::travel_type;
use super::verify::VerifiedObject;
use crate::acl::{AclManager, Denied, Granted, Precedence, ScopeRight};
use crate::object::CoreRecord;
use crate::schema::identities;
use crate::store::{
    Account, AppTable, NewRights, ParentRow, RECEIVED_FLAG, ScopeId, StoreError, Usage,
};

/// Most objects of one portion at the old home.
const PORTION_OBJECTS_MAX: usize = 128;
/// Most scopes of one portion at the new home.
const PORTION_SCOPES_MAX: usize = 64;
/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
const SPENT_MAX: usize = 1024;

/// Result for one object of an identity that moves here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOver {
    /// The object was missing, or stored in an earlier version or as a received one.
    Written,
    /// The object is stored as one of this node already, or its scope has ended.
    AlreadyHere,
}

impl GraphManager<'_> {
    /// Takes an object of an identity whose keys move here, as the old home stored it. `origin` is
    /// the number of the old home.
    pub fn take_over(
        &mut self,
        verified: &VerifiedObject,
        moving: &Oid,
        (old_home, origin): (&PeerId, i64),
    ) -> Result<TakenOver, ApplyError> {
        let object = &verified.object;
        let granted = AclManager::check_moved(object.oid, object.owner == *moving);
        let granted = granted.map_err(Fault::Denied)?;
        if verified.record.is_some() {
            return self.take_record(verified, origin);
        }
        let (app, schema) = self.schema_of(object, (old_home, Trial::Arrived))?;
        let existing = self.tx.parent(app, &object.oid)?;
        let stored = self.existing(app, existing.as_ref(), verified)?;
        let precedence = stored.map(|stored| stored.precedence);
        let resolved = self.resolve(app, schema, object, existing.as_ref())?;
        let is_core = resolved.core.is_some();
        match (precedence, &existing) {
            (Some(Precedence::Conflict), _) => {
                return Err(Fault::Denied(Denied::OidConflict).into());
            }
            (Some(Precedence::Same | Precedence::Older), Some(row)) => {
                return Ok(self.adopt((app, row.clone()), verified, &granted)?);
            }
            (Some(Precedence::Fork { wins: false }), Some(row)) => {
                self.keep_forked(row, verified.signed.key_id(), &resolved)?;
                return Ok(self.adopt((app, row.clone()), verified, &granted)?);
            }
            _ => {}
        }
        match resolved.right {
            ScopeRight::Ended => return Ok(TakenOver::AlreadyHere),
            ScopeRight::OtherOwner => return Err(Fault::Denied(Denied::NotScopeOwner).into()),
            ScopeRight::ScopeOwner => return Err(Fault::Denied(Denied::ScopeOwnerStays).into()),
            ScopeRight::Open | ScopeRight::Participant | ScopeRight::Outsider => {}
        }
        if let Some(row) = &existing
            && let Some(freed) = self.freed(app, row, is_core)?
        {
            self.charge(freed.origin, freed.account, &-Usage::one(freed.bytes))?;
        }
        let flags = unsigned_flags(self.sync_flags(app, schema, object, None)?);
        let row = new_row(object, &verified.signed, None, flags);
        self.end_group();
        if let Scope::Stored(scope) = resolved.scope
            && resolved.founding.is_some()
        {
            self.tx.scope_arrives(scope)?;
        }
        let change = Change::Content(&resolved, existing.as_ref());
        self.commit_row(&granted, app, row, change)?;
        Ok(TakenOver::Written)
    }

    /// Takes the record that an identity had at its old home, as a received one. The record with
    /// the present key follows when all objects are here.
    fn take_record(
        &mut self,
        verified: &VerifiedObject,
        origin: i64,
    ) -> Result<TakenOver, ApplyError> {
        let Some(record) = &verified.record else {
            return Ok(TakenOver::AlreadyHere);
        };
        if self.identity(&verified.object.oid)?.is_some() {
            return Ok(TakenOver::AlreadyHere);
        }
        let object = &verified.object;
        let app = self.table(&object.app)?;
        let schemas = self.schemas();
        let schema = schemas.type_(&object.app, object.type_number);
        let schema = schema.ok_or(Fault::UnknownType)?;
        let resolved = self.resolve(app, schema, object, None)?;
        let granted = AclManager::check_self_certified(record.chain());
        self.charge(origin, Account::Own, &Usage::one(verified.charged_bytes()))?;
        self.end_group();
        let row = new_row(object, &verified.signed, Some(origin), 0);
        let row = self.commit_row(&granted, app, row, Change::Content(&resolved, None))?;
        self.note_identity(&row, record)?;
        Ok(TakenOver::Written)
    }

    /// Turns a received object into one of this node, with the later of two signatures.
    fn adopt(
        &mut self,
        (app, mut row): (&AppTable, ParentRow),
        verified: &VerifiedObject,
        granted: &Granted,
    ) -> Result<TakenOver, StoreError> {
        if row.origin.is_none() {
            return Ok(TakenOver::AlreadyHere);
        }
        if let Some(freed) = self.freed(app, &row, false)? {
            self.charge(freed.origin, freed.account, &-Usage::one(freed.bytes))?;
        }
        (row.origin, row.account) = (None, Account::Own);
        self.note_own(&row.oid)?;
        row.sync_flags = unsigned_flags(app.flags_of(travel_type(self.tx, app, &row)?));
        self.parents(app)?.change_origin(&row, granted)?;
        self.cache.borrow_mut().invalidate_parent(app.id, &row);
        let scope = self.tx.scope(row.scope_id)?;
        if scope.is_some_and(|scope| scope.parent_id == row.id) {
            self.tx.scope_arrives(row.scope_id)?;
        }
        if row.type_number == RIGHTS_TYPE {
            self.adopt_list(app, &row)?;
        }
        if verified.signed.key_id() > row.key_id {
            self.note_later_signature(granted, app, row, verified)?;
        }
        Ok(TakenOver::Written)
    }

    /// Notes which lists a stored list replaces and merges, as the owner's node does.
    fn adopt_list(&mut self, app: &AppTable, row: &ParentRow) -> Result<(), StoreError> {
        let (object, _) = self.load(app, row)?;
        let Some(Ok(CoreRecord::Rights(list))) = CoreRecord::read(&object) else {
            return Ok(());
        };
        let digest = list.digest();
        let named = object.rights;
        let (scope, key_number, parent_id) = (row.scope_id, row.key_id, row.id);
        self.change_list(row, &digest, |graph| {
            let new = NewRights {
                scope,
                digest,
                key_number,
                version: list.version,
                parent_id,
                list: &list.list,
            };
            graph.name_lists(&new, (&list, named), true)?;
            Ok(true)
        })
    }

    /// Turns some objects of an identity that moved to another node into received ones. Peers that
    /// read them find them under the same numbers. Afterwards the scopes that it read follow: other
    /// identities here may have declined them. `after` is the last scope that is done. Returns how
    /// far it got; `None`: all is done.
    pub fn depart_some(
        &mut self,
        identity: &Oid,
        after: ScopeId,
    ) -> Result<Option<ScopeId>, SaveError> {
        let Some(known) = self.identity(identity)? else {
            return Ok(None);
        };
        if known.home == self.this_node {
            return Ok(None);
        }
        let app = self.table(identities::APP)?;
        let record = self.tx.parent_by_id(app, known.parent_id)?;
        let Some(origin) = record.and_then(|record| record.origin) else {
            return Ok(None);
        };
        let (apps, start) = (self.tx.apps(), (0, 0, 0));
        let mut left = PORTION_OBJECTS_MAX;
        for app in apps.iter() {
            for row in self.tx.own_page(app, identity, start, left)? {
                if self.spent() > SPENT_MAX {
                    return Ok(Some(after));
                }
                left -= 1;
                self.depart(app, row, origin)?;
            }
        }
        if left == 0 {
            return Ok(Some(after));
        }
        self.each_scope_read_by(identity, after, |graph, scope| {
            Ok(graph.follow_wanted(scope, false)?)
        })
    }

    /// Does work for some of the scopes that an identity reads, or could. Returns how far it got;
    /// `None`: all are done.
    fn each_scope_read_by(
        &mut self,
        identity: &Oid,
        after: ScopeId,
        mut work: impl FnMut(&mut Self, ScopeId) -> Result<(), SaveError>,
    ) -> Result<Option<ScopeId>, SaveError> {
        let scopes = self
            .tx
            .some_scopes_read_by(identity, after, PORTION_SCOPES_MAX)?;
        let is_all = scopes.len() < PORTION_SCOPES_MAX;
        let mut done = after;
        for scope in scopes {
            if self.spent() > SPENT_MAX {
                return Ok(Some(done));
            }
            self.look_at(1);
            work(self, scope.id)?;
            done = scope.id;
        }
        Ok((!is_all).then_some(done))
    }

    fn depart(&mut self, app: &AppTable, row: ParentRow, origin: i64) -> Result<(), SaveError> {
        let granted = AclManager::check_moved(row.oid, !self.is_local(&row.owner)?)?;
        let sync_flags = match row.sync_flags {
            0 => 0,
            flags if row.scope_id.has_readers() => flags | RECEIVED_FLAG,
            _ => 0,
        };
        let row = ParentRow {
            origin: Some(origin),
            account: Account::Unmetered,
            sync_flags,
            ..row
        };
        self.parents(app)?.change_origin(&row, &granted)?;
        self.cache.borrow_mut().invalidate_parent(app.id, &row);
        let scope = self.tx.scope(row.scope_id)?;
        if scope.is_some_and(|scope| scope.parent_id == row.id) {
            self.tx.scope_departs(row.scope_id)?;
        } else if scope.is_some() && self.live_parent(row.scope_id)?.is_none() {
            // Values of other received objects in an ended scope are dropped already.
            self.tx.drop_values_again(row.scope_id, row.change_seq)?;
        }
        if sync_flags < 0 {
            let memory = self.env.memory;
            memory.raise(app.id, row.scope_id, row.change_seq, false);
        }
        Ok(())
    }

    /// Lets an identity that moved here be asked about some of the scopes of others that it reads.
    /// In its own scopes, lists that the old home could not write any more are due. `after` is the
    /// last scope that is done. Returns how far it got; `None`: all is done.
    pub fn arrive_some(
        &mut self,
        identity: &Oid,
        after: ScopeId,
    ) -> Result<Option<ScopeId>, SaveError> {
        if !self.is_local(identity)? {
            return Ok(None);
        }
        self.each_scope_read_by(identity, after, |graph, scope| {
            graph.arrive_in(identity, scope)
        })
    }

    fn arrive_in(&mut self, identity: &Oid, scope: ScopeId) -> Result<(), SaveError> {
        let Some(parent) = self.live_parent(scope)? else {
            return Ok(());
        };
        if parent.owner == *identity {
            let change_seq = self.stamp();
            self.note_heads(scope, change_seq)?;
            self.note_left(scope, identity)?;
        } else if self.tx.is_reader(scope, identity)? {
            let was_unwanted = self.tx.is_unwanted(scope, &self.this_node)?;
            self.invite(&parent, identity, Some(0))?;
            self.follow_wanted(scope, was_unwanted)?;
        }
        Ok(())
    }
}

/// The bits of an object of this node that is not signed under the present key yet. Sessions with
/// the feature `relay` get it, as they got it from the old home. Signing it sets its own bits.
fn unsigned_flags(flags: i64) -> i64 {
    match flags {
        0 => 0,
        flags => flags | RECEIVED_FLAG,
    }
}

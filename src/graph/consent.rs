//! Invitations: an identity takes part in a scope of others only by its own decision
//! (docs/DECISIONS.md 10).
//!
//! The rights list of another identity lets it read, and the node stores what it may read. Until
//! the operator or the configuration accepts, the scope is hidden. A decision to decline writes
//! nothing that another node receives. Invariants: no receiver judges an object by an `accept`.
//! Sending, founding and being named accept nothing. Tested in `tests/core/consent.rs`.

use keys::Oid;
use keys::protocol::ACCEPT_TYPE;

use super::error::SaveError;
use super::limits::AcceptPolicy;
use super::local::Saved;
use super::manager::GraphManager;
use crate::object::Attrs;
use crate::op_context::OpContext;
use crate::store::{
    EndedScope, Invitation, InvitationState, MemberAnswer, ParentRow, ScopeId, StoreError,
};

/// Entries of a rights list that names its owner and one other identity.
const OF_TWO: usize = 2;

impl GraphManager<'_> {
    /// Notes that an identity begins to read a scope, of which it saw what was stored up to
    /// `from_seq`. Returns whether the rest is hidden from it.
    ///
    /// A scope that was founded for this identity and its owner alone needs no decision, and
    /// neither does one that only both read now. Their owner could found such a scope at any time.
    /// A scope that was declined stays declined, so that an owner cannot ask again and again.
    pub(super) fn invite(
        &self,
        parent: &ParentRow,
        identity: &Oid,
        from_seq: Option<u64>,
    ) -> Result<bool, StoreError> {
        if *identity == parent.owner || !self.is_local(identity)? {
            return Ok(false);
        }
        let scope = parent.scope_id;
        for list in [self.tx.founding_list(scope)?, self.tx.list_in_force(scope)?] {
            let list = self.tx.rights(list.id)?;
            self.look_at(1 + list.entries());
            if list.of(identity).is_some() && list.entries() <= OF_TWO {
                return Ok(false);
            }
        }
        let before = self.tx.invitation(scope, identity)?;
        let state = match before.map(|it| it.state) {
            Some(InvitationState::Declined) => InvitationState::Declined,
            None | Some(InvitationState::Accepted) if self.has_accepted(scope, identity)? => {
                InvitationState::Accepted
            }
            _ if self.accepts(parent, identity)? => InvitationState::Due,
            _ => InvitationState::Open,
        };
        let was_hidden = before.is_some_and(|it| it.state.is_hidden());
        self.tx.put_invitation(&Invitation {
            identity: *identity,
            scope,
            state,
            from_seq: match before.filter(|_| was_hidden) {
                Some(before) => before.from_seq,
                None => from_seq,
            },
            at: self.env.now,
        })?;
        Ok(state.is_hidden())
    }

    /// Whether the configuration accepts an invitation. Of a scope that an identity left, the
    /// operator decides, because a contact could undo the `leave` otherwise. Only one identity
    /// takes part without asking, so that a contact does not learn which ones live together.
    fn accepts(&self, parent: &ParentRow, identity: &Oid) -> Result<bool, StoreError> {
        // The operator of this node founded it.
        if self.is_local(&parent.owner)? {
            return Ok(true);
        }
        let scope = parent.scope_id;
        Ok(match self.limits().accept {
            AcceptPolicy::All => true,
            AcceptPolicy::Ask => false,
            AcceptPolicy::Contacts => {
                let (left, _) = self.tx.answered(MemberAnswer::Leave, scope, identity)?;
                left.is_none()
                    && self.tx.contact(&parent.owner)?.is_some()
                    && !self.tx.is_accepted_by_any(scope)?
            }
        })
    }

    /// Stores the answer of an object to the list that it names. Returns whether it was unknown.
    pub(super) fn put_answer(
        &self,
        answer: MemberAnswer,
        row: &ParentRow,
        named: Option<i64>,
    ) -> Result<bool, StoreError> {
        let list = match named {
            Some(list) => list,
            None => self.tx.founding_list(row.scope_id)?.id,
        };
        self.tx.put_answer(answer, row.scope_id, &row.owner, list)
    }

    /// Stores an `accept`. One of an identity of this node may have come back after a restore.
    pub(super) fn note_accept(
        &mut self,
        row: &ParentRow,
        named: Option<i64>,
    ) -> Result<bool, StoreError> {
        let scope = row.scope_id;
        let is_new = self.put_answer(MemberAnswer::Accept, row, named)?;
        if let Some(invitation) = self.tx.invitation(scope, &row.owner)?
            && invitation.state != InvitationState::Accepted
            && self.has_accepted(scope, &row.owner)?
        {
            self.open_invitation(&invitation, row.change_seq)?;
        }
        Ok(is_new)
    }

    /// Whether an identity takes part in a scope: it reads the scope, and stated so after its last
    /// `leave`.
    pub(super) fn has_accepted(&self, scope: ScopeId, identity: &Oid) -> Result<bool, StoreError> {
        self.look_at(1);
        self.tx.has_accepted(scope, identity)
    }

    /// Shows a scope to the identity of an invitation, by the write `opened_seq`. Objects that were
    /// dropped while the scope was declined come again.
    fn open_invitation(
        &mut self,
        invitation: &Invitation,
        opened_seq: u64,
    ) -> Result<(), StoreError> {
        let Invitation { scope, state, .. } = *invitation;
        let was_unwanted = self.tx.is_unwanted(scope, &self.this_node)?;
        self.tx.put_invitation(&Invitation {
            state: InvitationState::Accepted,
            at: self.env.now,
            ..*invitation
        })?;
        if state.is_hidden() {
            let opening = (invitation.from_seq, opened_seq);
            self.tx.put_opening(scope, &invitation.identity, opening)?;
        }
        self.follow_wanted(scope, was_unwanted)
    }

    /// Drops the values of a scope that no identity of this node wants any more. A scope that one
    /// wants now is pulled again. `was_unwanted`: before this write.
    pub(super) fn follow_wanted(
        &self,
        scope: ScopeId,
        was_unwanted: bool,
    ) -> Result<(), StoreError> {
        let mut cache = self.cache.borrow_mut();
        cache.declined.remove(&scope);
        cache.read_here.remove(&scope);
        drop(cache);
        let is_unwanted = self.tx.is_unwanted(scope, &self.this_node)?;
        match (was_unwanted, is_unwanted) {
            (false, true) => {
                let after_seq = self.tx.seen_before_decline(scope)?;
                let id = scope;
                self.tx.put_ended_scope(&EndedScope { id, after_seq })
            }
            (true, false) => {
                self.tx.remove_ended_scope(scope)?;
                self.want_again(scope)
            }
            _ => Ok(()),
        }
    }

    /// Writes the `accept` of an identity of this node that reads a scope.
    pub fn save_accept(
        &mut self,
        context: &OpContext,
        app: &str,
        scope: &Oid,
        identity: Oid,
    ) -> Result<Saved, SaveError> {
        self.save_answer(context, app, scope, (ACCEPT_TYPE, identity))
    }

    /// Writes the `accept` of an invitation that the configuration accepts. An invitation of an
    /// identity that does not read the scope any more is put off.
    pub fn accept_due(&mut self, invitation: &Invitation) -> Result<bool, SaveError> {
        let Invitation {
            scope, identity, ..
        } = *invitation;
        let parent = self.live_parent(scope)?;
        let (Some(known), Some(parent)) = (self.tx.scope(scope)?, parent) else {
            return Ok(false);
        };
        let may_sign = self
            .identity(&identity)?
            .is_some_and(|owner| !owner.retired && !owner.frozen);
        if !may_sign || !self.tx.is_reader(scope, &identity)? {
            return Ok(false);
        }
        let app = self.tx.apps().iter().find(|app| app.id == known.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let named = self.name_of_list_in_force(scope)?;
        let kind = (ACCEPT_TYPE, identity);
        self.write_core(None, app, kind, named, Attrs::new(), &parent.oid)?;
        Ok(true)
    }

    /// Puts off the `accept` of an invitation.
    pub fn hold_accept(&self, invitation: &Invitation) -> Result<(), StoreError> {
        self.tx.put_invitation(&Invitation {
            state: InvitationState::Held,
            ..*invitation
        })
    }

    /// Declines an invitation that is open. The values of what peers sent in the scope are dropped,
    /// unless another identity of this node reads it. No object is written.
    pub fn decline(&self, invitation: &Invitation) -> Result<(), StoreError> {
        let was_unwanted = self.tx.is_unwanted(invitation.scope, &self.this_node)?;
        self.tx.put_invitation(&Invitation {
            state: InvitationState::Declined,
            at: self.env.now,
            ..*invitation
        })?;
        self.follow_wanted(invitation.scope, was_unwanted)
    }

    /// Whether this node keeps nothing of an object, because the identities here that read its
    /// scope declined. Objects that other members need are kept.
    pub(super) fn is_declined(
        &self,
        scope: ScopeId,
        serves_others: bool,
    ) -> Result<bool, StoreError> {
        if serves_others || !scope.has_readers() {
            return Ok(false);
        }
        if let Some(known) = self.cache.borrow().declined.get(&scope) {
            return Ok(*known);
        }
        self.look_at(1);
        let is_declined = self.tx.is_unwanted(scope, &self.this_node)?;
        self.cache.borrow_mut().declined.insert(scope, is_declined);
        Ok(is_declined)
    }

    /// Whether an identity of this node may write a new object in a scope.
    pub(super) fn check_takes_part(
        &self,
        (scope, oid): (ScopeId, &Oid),
        owner: &Oid,
    ) -> Result<(), SaveError> {
        match self.tx.invitation(scope, owner)? {
            Some(invitation) if invitation.state.is_hidden() => Err(SaveError::NotAccepted(*oid)),
            _ => Ok(()),
        }
    }
}

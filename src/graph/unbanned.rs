//! Bans and relayed objects: objects of a banned node's identities are refused from every relay.
//! They are pulled again when the ban ends (docs/DECISIONS.md 10).
//!
//! Parents that are scopes, rights lists, `leave` and records are taken, because objects of other
//! members need them. Work is done in portions, and the position is stored. Tested in
//! `tests/core/relayed_bans.rs`.

use keys::{Oid, PeerId};

use super::manager::GraphManager;
use crate::object::is_core_type;
use crate::schema::TypeSchema;
use crate::store::{EndedBan, IdentityRow, ScopeId, StoreError, Unbanned};

/// Most that a portion spends ([`GraphManager::spent`]), besides its last scope.
const SPENT_MAX: usize = 256;
/// Most scopes that one query reads.
const SCOPES_READ_MAX: usize = 64;

impl GraphManager<'_> {
    /// Whether a node is banned now.
    fn is_banned(&self, node: &PeerId) -> Result<bool, StoreError> {
        let known = self.cache.borrow().banned.get(node).copied();
        if let Some(is_banned) = known {
            return Ok(is_banned);
        }
        let is_banned = self.tx.is_banned(node, self.env.now)?;
        self.cache.borrow_mut().banned.insert(*node, is_banned);
        Ok(is_banned)
    }

    /// Whether a ban refuses a relayed object: its owner lives at a banned node, and no object of
    /// another member needs it.
    pub(super) fn is_refused_by_ban(
        &self,
        schema: &TypeSchema,
        (type_number, owner): (u16, &Oid),
    ) -> Result<bool, StoreError> {
        if is_core_type(type_number) || schema.visibility.founds_scopes() {
            return Ok(false);
        }
        let home = self.identity(owner)?.map(|owner| owner.home);
        home.map_or(Ok(false), |home| self.is_banned(&home))
    }

    /// Notes that an identity moved. If its earlier home is banned and the present one is not, what
    /// was refused is wanted again. The same holds for scopes that were declined here.
    pub(super) fn note_moved(&self, before: &IdentityRow, home: &PeerId) -> Result<(), StoreError> {
        let was_refused = self.is_banned(&before.home)? && !self.is_banned(home)?;
        // Other identities of this node may have declined what this one reads.
        let is_wanted = *home == self.this_node && self.tx.is_any_declined()?;
        if was_refused || is_wanted {
            let moved = Unbanned::Identity(before.oid);
            self.tx.note_unbanned(&moved, self.env.now)?;
        }
        Ok(())
    }

    /// Lets one portion of the scopes of an ended ban be pulled again. Returns `false` if there is
    /// none.
    pub fn pull_unbanned(&mut self) -> Result<bool, StoreError> {
        let Some(mut ban) = self.tx.next_ended_ban(self.env.now)? else {
            return Ok(false);
        };
        while let Some(identity) = self.tx.next_unbanned(&ban)? {
            if ban.identity != Some(identity) {
                ban.identity = Some(identity);
                ban.after_scope = ScopeId::LOCAL;
            }
            if !self.pull_scopes_of(&identity, &mut ban)? {
                return self.tx.put_ended_ban(&ban).map(|()| true);
            }
            ban.after_scope = EndedBan::DONE;
            if self.spent() > SPENT_MAX {
                return self.tx.put_ended_ban(&ban).map(|()| true);
            }
        }
        self.tx.remove_ended_ban(&ban.of).map(|()| true)
    }

    /// Notes the scopes of an identity. Returns `false` if the portion ended before the last one.
    fn pull_scopes_of(&self, identity: &Oid, ban: &mut EndedBan) -> Result<bool, StoreError> {
        self.look_at(1);
        loop {
            let after = ban.after_scope;
            let scopes = self
                .tx
                .some_scopes_read_by(identity, after, SCOPES_READ_MAX)?;
            if scopes.is_empty() {
                return Ok(true);
            }
            for scope in scopes {
                if self.spent() > SPENT_MAX {
                    return Ok(false);
                }
                self.look_at(1);
                self.want_again(scope.id)?;
                ban.after_scope = scope.id;
            }
        }
    }
}

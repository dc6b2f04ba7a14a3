//! The account of its sender in which an object of a peer counts (docs/DECISIONS.md 10).
//!
//! A relayed object lies in a scope, and its owner lives at another node than the sender. A record
//! that was fetched with such objects is one too. Invariant: no relayed object counts in the
//! sender's own account. Tested in `tests/core/relayed_quotas.rs`.

use keys::{Oid, PeerId};

use super::fitting::Trial;
use super::manager::GraphManager;
use super::resolve::{Resolved, Scope};
use crate::object::{CoreRecord, Object, Place, RightsList};
use crate::store::{Account, ScopeId, StoreError, Usage};

/// Objects and bytes that the accounts of a sender have left for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountRoom {
    /// The sender's own account.
    pub own: Usage,
    /// The account of the object's owner.
    pub author: Usage,
    /// The account of scopes that no identity of this node reads.
    pub shared: Usage,
}

impl AccountRoom {
    /// No account bounds the object, or the caller checks its bounds afterwards.
    pub const UNLIMITED: Self = Self {
        own: Usage::MAX,
        author: Usage::MAX,
        shared: Usage::MAX,
    };

    /// Whether a change of an account fits. Less always fits, so that an update that takes no more
    /// than it frees is never refused.
    pub fn fits(&self, account: Account, change: Usage) -> bool {
        let left = match account {
            Account::Own => self.own,
            Account::Author(_) => self.author,
            Account::Shared => self.shared,
            Account::Unmetered => Usage::MAX,
        };
        let is_within = |change: i64, left: i64| change <= 0 || change <= left;
        is_within(change.objects, left.objects) && is_within(change.bytes, left.bytes)
    }
}

/// A revision of a peer that another one replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Local number of the peer that had sent it.
    pub origin: i64,
    /// The account of that peer.
    pub account: Account,
    /// The bytes that it counted for that peer.
    pub bytes: usize,
}

/// How an object of a peer arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Local number of the sending peer.
    pub origin: i64,
    /// How the object came to be judged.
    pub trial: Trial,
    /// Room that the sender's accounts have for it.
    pub room: AccountRoom,
}

impl Arrival {
    /// Whether a new revision fits the account, with the room that it frees there.
    pub(super) fn has_room(&self, account: Account, bytes: usize, freed: Option<&Freed>) -> bool {
        let mut change = Usage::one(bytes);
        if let Some(freed) = freed.filter(|it| (it.origin, it.account) == (self.origin, account)) {
            change += -Usage::one(freed.bytes);
        }
        self.room.fits(account, change)
    }
}

impl GraphManager<'_> {
    /// Whether a peer relayed an object. The home of an unknown owner is elsewhere if the object
    /// was fetched, because the owners that live at the sender are known then.
    pub fn is_relayed(
        &self,
        object: &Object,
        (peer, trial): (&PeerId, Trial),
    ) -> Result<bool, StoreError> {
        if trial == Trial::Relayed || object.place() == Place::Public {
            return Ok(trial == Trial::Relayed);
        }
        let home = self.identity(&object.owner)?.map(|owner| owner.home);
        Ok(match home {
            Some(home) => home != *peer && home != self.this_node,
            None => trial == Trial::Fetched,
        })
    }

    /// The account of an object that waits or is refused. Its scope may be missing.
    pub fn account_aside(
        &self,
        object: &Object,
        from: (&PeerId, Trial),
    ) -> Result<Account, StoreError> {
        if !self.is_relayed(object, from)? {
            return Ok(Account::Own);
        }
        let app = self.tx.apps().get(&object.app);
        let parent = match (object.place(), app) {
            (Place::In(scope), Some(app)) => self.referenced(app, &scope)?,
            _ => None,
        };
        let is_read = match parent {
            Some(parent) => self.is_read_here(parent.scope_id)?,
            None => false,
        };
        Ok(account_of(object, is_read))
    }

    /// The account of an object that is about to be written.
    pub(super) fn account(
        &self,
        object: &Object,
        resolved: &Resolved<'_>,
        is_relayed: bool,
    ) -> Result<Account, StoreError> {
        if !is_relayed {
            return Ok(Account::Own);
        }
        let list = match &resolved.core {
            Some(CoreRecord::Rights(list)) => Some(&list.list),
            _ => resolved.founding.as_ref().and_then(|it| it.list.as_ref()),
        };
        // A list may be the first that lets an identity of this node read.
        let is_read = match resolved.scope {
            Scope::Stored(scope) => self.is_read_here(scope)?,
            Scope::New => false,
        };
        let is_read = is_read || self.names_a_reader_here(list)?;
        Ok(account_of(object, is_read))
    }

    fn names_a_reader_here(&self, list: Option<&RightsList>) -> Result<bool, StoreError> {
        for reader in list.into_iter().flat_map(RightsList::readers) {
            self.look_at(1);
            if self.is_local(reader)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an identity of this node reads a scope. One that stopped in this transaction may
    /// count.
    pub(super) fn is_read_here(&self, scope: ScopeId) -> Result<bool, StoreError> {
        if !scope.has_readers() {
            return Ok(false);
        }
        if let Some(known) = self.cache.borrow().read_here.get(&scope) {
            return Ok(*known);
        }
        self.look_at(1);
        let is_read = self.tx.is_read_at(scope, &self.this_node)?;
        self.cache.borrow_mut().read_here.insert(scope, is_read);
        Ok(is_read)
    }
}

/// The account of a relayed object. A record lies in no scope, and counts for its identity.
fn account_of(object: &Object, is_read: bool) -> Account {
    let owner: Oid = object.owner;
    match is_read || object.place() == Place::Public {
        true => Account::Author(owner),
        false => Account::Shared,
    }
}

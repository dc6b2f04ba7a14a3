//! Dropping the values of received objects whose scope ended, because its Parent was deleted, and
//! pulling them again if that deletion is overruled. Objects of this node keep their values, which
//! no other node may have then; `store::Sight` hides them.
//!
//! Work is done in portions, each in a transaction of its own, and the position is stored. A row
//! without values has revision 0 and counts as absent. Tested in `tests/core/scopes.rs`.

use std::collections::BTreeMap;

use keys::{Oid, PeerId};

use super::load::load_object;
use super::manager::GraphManager;
use crate::acl::{AclManager, ScopeRight};
use crate::op_context::AppId;
use crate::store::{
    Cursor, Direction, EndedScope, PullAgainCause, PullAgainNote, ScopeId, StoreError, Usage,
};

/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
const DROPPED_SPENT_MAX: usize = 2048;
/// Most peers of a portion that notes a scope at every peer, and most that it spends besides its
/// last peer.
const NOTED_MAX: usize = 256;

impl GraphManager<'_> {
    /// Drops the values of one portion of the received objects of an ended scope: at most `most`.
    /// Returns whether there may be more to drop. Their senders stay charged for the objects, whose
    /// rows remain, and for the entries of rights lists. Only the bytes of the values are released.
    pub fn drop_ended(&mut self, most: usize) -> Result<bool, StoreError> {
        let Some(ended) = self.tx.ended_scope()? else {
            return Ok(false);
        };
        let scope = self.tx.scope(ended.id)?;
        let scope = scope.ok_or(StoreError::Inconsistent("a fixed scope that ended"))?;
        let app = self.tx.apps().iter().find(|app| app.id == scope.app);
        let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
        let parent = self.tx.parent_by_id(app, scope.parent_id)?;
        let right = if parent.is_some_and(|parent| parent.deleted) {
            ScopeRight::Ended
        } else {
            ScopeRight::Open
        };
        let rows = self
            .tx
            .received_in_scope(app, ended.id, ended.after_seq, most)?;
        let mut freed: BTreeMap<i64, Usage> = BTreeMap::new();
        let mut is_all = rows.len() < most;
        let mut after_seq = ended.after_seq;
        for row in &rows {
            if self.spent() > DROPPED_SPENT_MAX {
                is_all = false;
                break;
            }
            after_seq = row.change_seq;
            if let Some(origin) = row.origin {
                let (_, signed) = load_object(self.tx, app, row)?;
                let bytes = Usage::one(signed.bytes().len()).bytes;
                self.tx.count_bytes(signed.bytes().len());
                *freed.entry(origin).or_default() += Usage {
                    objects: 0,
                    bytes: -bytes,
                };
            }
            let granted = AclManager::check_drop(row.oid, right)
                .map_err(|_| StoreError::Inconsistent("an ended scope with a live Parent"))?;
            self.parents(app)?.drop_values(row, &granted)?;
            self.cache.borrow_mut().invalidate_parent(app.id, row);
        }
        for (origin, usage) in freed {
            if let Some(peer) = self.tx.peer_by_number(origin)? {
                self.tx.add_usage(&peer, &usage)?;
            }
        }
        if is_all {
            self.tx.remove_ended_scope(ended.id)?;
        } else {
            self.tx
                .put_ended_scope(&EndedScope { after_seq, ..ended })?;
        }
        Ok(true)
    }

    /// Lets a scope whose deletion was overruled be pulled again from every peer. Objects that
    /// arrived meanwhile were dropped, and so were the values of stored ones.
    pub(super) fn pull_scope_again(&self, scope: ScopeId) -> Result<(), StoreError> {
        match self.tx.scope(scope)? {
            Some(row) => self.tx.note_pull_scope(row.app, scope),
            None => Ok(()),
        }
    }

    /// Notes at some peers that a scope is pulled again, or all scopes of the app if it is the
    /// local or public one. `span` is the last peer that is done, and the last that is to be done.
    /// Returns how far it got; `None`: all is done.
    pub fn pull_scope_portion(
        &mut self,
        (app, scope): (AppId, ScopeId),
        (after, until): (i64, i64),
    ) -> Result<Option<i64>, StoreError> {
        let scope = self.tx.scope(scope)?.map(|scope| scope.oid);
        let app = self.schemas().apps().find(|known| {
            let table = self.tx.apps().get(&known.slug);
            table.is_some_and(|table| table.id == app)
        });
        let domains: Vec<&str> = app
            .iter()
            .flat_map(|app| &app.domains)
            .map(|domain| domain.name.as_str())
            .collect();
        let mut position = after;
        for (number, peer) in self.tx.peers_between(after, until, NOTED_MAX)? {
            if self.spent() > NOTED_MAX {
                return Ok(Some(position));
            }
            for domain in domains.iter().filter(|it| peer.has_domain(it)) {
                self.look_at(1);
                self.pull_from(&peer.peer_id, domain, scope)?;
            }
            position = number;
        }
        Ok((position > after).then_some(position))
    }

    fn pull_from(&self, peer: &PeerId, domain: &str, scope: Option<Oid>) -> Result<(), StoreError> {
        let direction = Direction::In;
        let cursor = Cursor {
            peer,
            domain,
            direction,
        };
        // Without a cursor the domain starts at 0 anyway.
        let Some(state) = self.tx.sync_state(cursor)? else {
            return Ok(());
        };
        let note = PullAgainNote {
            peer,
            domain,
            scope,
            epoch: state.epoch,
            until_seq: state.last_seq,
            cause: PullAgainCause::Named,
            is_again: false,
        };
        self.tx.note_pull_again(&note, self.env.now)
    }
}

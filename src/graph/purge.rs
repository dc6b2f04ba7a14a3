//! Purges: removes what a peer sent, in portions (docs/DECISIONS.md 10).
//!
//! Objects of the peer's own identities are removed and remembered, so that they do not come back.
//! Relayed objects of others go only from scopes in which no identity of this node takes part, and
//! may come back. Objects of this node are never removed. `purge_scopes.rs` removes scopes, and
//! `forgetting.rs` identities. The transactions of a purge check no foreign keys. SQLite
//! would read a whole table for each removed row, because the referring columns have no index.
//!
//! Invariant: no row refers to a removed one. Tested in `tests/core/purge.rs`.

use std::collections::BTreeMap;

use keys::{Oid, PeerId};

use super::manager::GraphManager;
use super::verify::charged_bytes;
use crate::acl::AclManager;
use crate::schema::identities;
use crate::store::{
    Account, AppTable, ParentRow, PurgeRow, PurgeStep, Purged, PurgedScope, ScopeId, StoreError,
    Usage,
};

/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
pub(super) const PORTION_SPENT_MAX: usize = 1024;
/// Local ids whose objects one query looks at.
const IDS_AT_ONCE: i64 = 1024;
/// Looking at so many objects takes as long as a search.
const OBJECTS_PER_LOOK: usize = 8;
/// Most objects that one query returns.
const ROWS_AT_ONCE: usize = 64;
/// Most identities that one portion notes.
const IDENTITIES_NOTED: usize = 256;
/// Most oids that one portion forgets.
const OIDS_FORGOTTEN: usize = 512;

/// The objects that a portion has removed so far, by peer.
#[derive(Debug, Default)]
pub(super) struct RemovedObjects {
    usage: BTreeMap<(i64, Account), Usage>,
    pub(super) identities: BTreeMap<i64, u64>,
    /// Whether the highest numbers were kept.
    numbers_kept: bool,
    /// Scopes that were noted to be pulled again.
    wanted: Option<ScopeId>,
}

impl RemovedObjects {
    /// Adds what an account of a peer does not store any more.
    pub(super) fn add(&mut self, account: (i64, Account), usage: Usage) {
        *self.usage.entry(account).or_default() += usage;
    }
}

impl GraphManager<'_> {
    /// Does one portion of the purges that were ordered. Returns `false` if nothing is left.
    pub fn purge_some(&mut self) -> Result<bool, StoreError> {
        let Some(step) = self.tx.purge_step()? else {
            let is_begun = self.tx.start_purges()?;
            return Ok(is_begun || self.tx.forget_purged(self.env.now, OIDS_FORGOTTEN)?);
        };
        let mut removed = RemovedObjects::default();
        let is_done = match step {
            PurgeStep::Identities => self.note_identities()?,
            PurgeStep::Objects => self.purge_objects(&mut removed)?,
            PurgeStep::KeptScopes | PurgeStep::KeptOwners => self.keep_up(step)?,
            PurgeStep::Scopes => self.purge_scopes(&mut removed)?,
            PurgeStep::Forgetting => self.forget_identities(&mut removed)?,
        };
        self.count_removed(removed)?;
        if is_done {
            self.tx.end_purge_step(step)?;
        }
        Ok(true)
    }

    /// Notes the identities whose home is a purged peer.
    fn note_identities(&self) -> Result<bool, StoreError> {
        for purge in self.tx.running_purges()? {
            if !self.tx.note_purged_identities(&purge, IDENTITIES_NOTED)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes one portion of the objects that purged peers sent.
    fn purge_objects(&mut self, removed: &mut RemovedObjects) -> Result<bool, StoreError> {
        let purges = self.tx.running_purges()?;
        let purges: BTreeMap<i64, PurgeRow> =
            purges.into_iter().map(|it| (it.peer_no, it)).collect();
        let takes_any = purges.values().any(|purge| purge.order.takes_objects);
        for app in self.tx.apps().iter() {
            // The records of identities are noted, and not removed yet.
            let is_records = app.slug == identities::APP;
            if !is_records && !takes_any {
                continue;
            }
            let (mut after, last) = (self.tx.purge_position(app.id)?, self.tx.last_parent(app)?);
            while after < last {
                let until = last.min(after + IDS_AT_ONCE);
                let (range, rows_max) = ((after, until), ROWS_AT_ONCE);
                let rows = self.tx.sent_by_purged(app, range, !is_records, rows_max)?;
                self.look_at(IDS_AT_ONCE as usize / OBJECTS_PER_LOOK);
                let is_all = rows.len() < rows_max;
                for row in rows {
                    after = row.id;
                    if let Some(purge) = row.origin.and_then(|origin| purges.get(&origin)) {
                        self.purge_object(app, &row, purge, removed)?;
                    }
                    if self.spent() > PORTION_SPENT_MAX {
                        return self.tx.put_purge_position(app.id, after).map(|()| false);
                    }
                }
                if is_all {
                    after = until;
                }
                self.tx.put_purge_position(app.id, after)?;
                if self.spent() > PORTION_SPENT_MAX {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Removes an object of a purged peer, or notes its scope or its identity.
    fn purge_object(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        purge: &PurgeRow,
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        self.look_at(1);
        if app.slug == identities::APP && row.oid == row.owner {
            return self.tx.put_purged_identity(&row.oid, purge.peer_no);
        }
        // An object of a core type goes with its scope.
        if !purge.order.takes_objects || row.is_core() {
            return Ok(());
        }
        let scope = self.tx.scope(row.scope_id)?;
        if scope.is_some_and(|scope| scope.parent_id == row.id) {
            return self.tx.put_purged_scope(&PurgedScope {
                scope: row.scope_id,
                peer_no: purge.peer_no,
                is_going: false,
            });
        }
        let home = self.identity(&row.owner)?.map(|owner| owner.home);
        if home == Some(self.this_node) {
            return Ok(());
        }
        if home == Some(purge.peer) {
            self.remove_object(app, row, removed)?;
            return self
                .tx
                .remember_purged(purge.peer_no, &row.oid, Purged::Object);
        }
        // A public object of an owner that moved does not come again.
        if scope.is_none() || self.is_read_here(row.scope_id)? {
            return Ok(());
        }
        self.remove_object(app, row, removed)?;
        if removed.wanted != Some(row.scope_id) {
            removed.wanted = Some(row.scope_id);
            self.want_again(row.scope_id)?;
        }
        Ok(())
    }

    /// Removes one object, and notes what its sender does not store any more.
    fn remove_object(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        let bytes = self.bytes_of(app, row)?;
        self.remove_charged(app, row, bytes, removed)
    }

    /// Removes one object that counts `bytes` for its sender.
    pub(super) fn remove_charged(
        &mut self,
        app: &AppTable,
        row: &ParentRow,
        bytes: usize,
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        self.keep_numbers(removed)?;
        let own = "an object of this node that a purge removes";
        let origin = row.origin.ok_or(StoreError::Inconsistent(own))?;
        self.tx.count_bytes(bytes);
        let granted = AclManager::check_drop(row.oid, !self.is_local(&row.owner)?)
            .map_err(|_| StoreError::Inconsistent(own))?;
        self.parents(app)?.remove(row, &granted)?;
        self.cache.borrow_mut().invalidate_parent(app.id, row);
        removed.add((origin, row.account), Usage::one(bytes));
        Ok(())
    }

    /// The bytes that a stored object counts for its sender, without the entries of a rights list
    /// whose values were dropped.
    pub(super) fn bytes_of(&self, app: &AppTable, row: &ParentRow) -> Result<usize, StoreError> {
        if row.rev == 0 {
            return Ok(0);
        }
        let (object, signed) = self.load(app, row)?;
        Ok(charged_bytes(&object, &signed))
    }

    /// Keeps the highest numbers before the first removal of a portion. The portion takes a number
    /// too, so that the sets of scopes in memory are read again.
    pub(super) fn keep_numbers(&mut self, removed: &mut RemovedObjects) -> Result<u64, StoreError> {
        let change_seq = self.stamp();
        if !removed.numbers_kept {
            removed.numbers_kept = true;
            self.tx.keep_numbers(change_seq)?;
        }
        Ok(change_seq)
    }

    /// Releases what was removed from the accounts of its senders, and counts it.
    fn count_removed(&self, removed: RemovedObjects) -> Result<(), StoreError> {
        for ((peer_no, account), usage) in removed.usage {
            if let Some(peer) = self.tx.peer_by_number(peer_no)? {
                self.tx.add_usage(&peer, account, &-usage)?;
            }
            self.tx.count_purged(peer_no, &usage, 0)?;
        }
        for (peer_no, identities) in removed.identities {
            self.tx
                .count_purged(peer_no, &Usage::default(), identities)?;
        }
        Ok(())
    }

    /// Looks at one portion of all objects, and keeps the scopes or the identities of which one is
    /// kept. Returns whether all objects were looked at. Later ones have higher local ids.
    pub(super) fn keep_up(&self, step: PurgeStep) -> Result<bool, StoreError> {
        let of_scopes = matches!(step, PurgeStep::KeptScopes | PurgeStep::Scopes);
        let is_any = match of_scopes {
            true => self.tx.next_purged_scope()?.is_some(),
            false => self.tx.next_purged_identity()?.is_some(),
        };
        if !is_any {
            return Ok(true);
        }
        for app in self.tx.apps().iter() {
            let (mut after, last) = (self.tx.purge_position(app.id)?, self.tx.last_parent(app)?);
            if after >= last {
                continue;
            }
            while after < last {
                if self.spent() > PORTION_SPENT_MAX {
                    return self.tx.put_purge_position(app.id, after).map(|()| false);
                }
                let range = (after, last.min(after + IDS_AT_ONCE));
                match of_scopes {
                    true => self.tx.keep_scopes(app, range)?,
                    false => self.tx.keep_owners(app, range)?,
                }
                self.look_at(IDS_AT_ONCE as usize / OBJECTS_PER_LOOK);
                after = range.1;
            }
            self.tx.put_purge_position(app.id, after)?;
        }
        Ok(true)
    }

    /// The peer with a local number.
    pub(super) fn purged_peer(&self, peer_no: i64) -> Result<PeerId, StoreError> {
        let peer = self.tx.peer_by_number(peer_no)?;
        peer.ok_or(StoreError::Inconsistent("a purge of an unknown peer"))
    }

    /// Whether an identity lives at a node. An unknown one does not.
    pub(super) fn lives_at(&self, identity: &Oid, home: &PeerId) -> Result<bool, StoreError> {
        let known = self.identity(identity)?;
        Ok(known.is_some_and(|known| known.home == *home))
    }
}

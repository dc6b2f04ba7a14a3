//! Dropping the values of received objects whose scope ended, because its Parent was deleted. The
//! same is done if the identities of this node that read the scope declined their invitations.
//! Objects of this node keep their values, which no other node may have then; `store::Sight` hides
//! them. If the deletion is overruled, `overruled.rs` lets the values come again.
//!
//! Work is done in portions, each in a transaction of its own, and the position is stored. A row
//! without values has revision 0 and counts as absent. Tested in `tests/core/scopes.rs`.

use std::collections::BTreeMap;

use super::load::load_object;
use super::manager::GraphManager;
use crate::acl::AclManager;
use crate::store::{Account, EndedScope, StoreError, Usage};

/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
const DROPPED_SPENT_MAX: usize = 2048;

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
        let is_ended = parent.is_some_and(|parent| parent.deleted);
        let is_permitted = is_ended || self.tx.is_unwanted(ended.id, &self.this_node)?;
        if !is_permitted {
            // An identity that reads the scope moved to this node.
            self.follow_wanted(ended.id, true)?;
            return Ok(true);
        }
        let rows = self
            .tx
            .received_in_scope(app, ended.id, ended.after_seq, most)?;
        let mut freed: BTreeMap<(i64, Account), Usage> = BTreeMap::new();
        let mut is_all = rows.len() < most;
        let mut after_seq = ended.after_seq;
        for row in &rows {
            if self.spent() > DROPPED_SPENT_MAX {
                is_all = false;
                break;
            }
            after_seq = row.change_seq;
            // Objects of other members need them.
            if !is_ended && (row.is_core() || row.id == scope.parent_id) {
                continue;
            }
            if let Some(origin) = row.origin {
                let (_, signed) = load_object(self.tx, app, row)?;
                let bytes = Usage::one(signed.bytes().len()).bytes;
                self.tx.count_bytes(signed.bytes().len());
                *freed.entry((origin, row.account)).or_default() += Usage {
                    objects: 0,
                    bytes: -bytes,
                };
            }
            let granted = AclManager::check_drop(row.oid, is_permitted)
                .map_err(|_| StoreError::Inconsistent("an ended scope that is wanted"))?;
            self.parents(app)?.drop_values(row, &granted)?;
            self.cache.borrow_mut().invalidate_parent(app.id, row);
        }
        for ((origin, account), usage) in freed {
            if let Some(peer) = self.tx.peer_by_number(origin)? {
                self.tx.add_usage(&peer, account, &usage)?;
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
}

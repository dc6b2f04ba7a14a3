//! Opening the scopes that a recovery closed, in portions (docs/DECISIONS.md 4).
//!
//! Invariant: a scope opens in the transaction that notes its objects to be restamped, because the
//! cursors of peers have passed them. Tested in `tests/core/late_readers.rs`.

use keys::{Oid, PeerId};

use super::manager::GraphManager;
use super::touched::READERS_NOTED_MAX;
use crate::store::{ScopeId, SettlingWork, StoreError};

/// Most rights to read that one portion examines. A scope may have 256 readers, and each may have
/// to be looked up for each other one.
const EXAMINED_MAX: usize = 64;
/// Most that a portion spends ([`GraphManager::spent`]), besides its last scope.
const OPENED_SPENT_MAX: usize = 2048;

impl GraphManager<'_> {
    /// Opens some of the scopes that were closed because of a peer that was asked. Returns whether
    /// more are left.
    pub fn open_some(&mut self, peer: &PeerId) -> Result<bool, StoreError> {
        for _ in 0..EXAMINED_MAX {
            let Some(before) = self.tx.asked_position(peer)? else {
                return Ok(false);
            };
            let next = self.tx.next_asked_position(peer, &before)?;
            self.tx.put_asked_position(peer, next.as_ref())?;
            let is_same = next.as_ref().map(|next| &next.identity) == Some(&before.identity);
            if !is_same {
                self.tx.remove_recovery_home(peer, &before)?;
            }
            if let Some(next) = next {
                self.open_scope(next.scope)?;
            }
            if self.spent() > OPENED_SPENT_MAX {
                break;
            }
        }
        Ok(true)
    }

    /// Lets peers read a scope of this node, unless another peer closes it.
    pub(super) fn open_scope(&mut self, scope: ScopeId) -> Result<(), StoreError> {
        let Some(row) = self.tx.scope(scope)?.filter(|row| row.is_local) else {
            return Ok(());
        };
        if self.tx.is_closed(scope)? {
            return Ok(());
        }
        self.end_group();
        let change_seq = self.stamp();
        let work = SettlingWork::Restamp(row.app, scope);
        self.tx.note_span(&work, change_seq)?;
        self.note_closed_or_open(scope, change_seq)
    }

    /// Notes that a scope of this node closed or opened. Nodes of former readers read a part of it,
    /// so that they count too.
    pub(super) fn note_closed_or_open(
        &mut self,
        scope: ScopeId,
        change_seq: u64,
    ) -> Result<(), StoreError> {
        let Some(readers) = self.tx.readers_ever(scope, READERS_NOTED_MAX)? else {
            self.look_at(READERS_NOTED_MAX);
            self.touch_all_readers(change_seq);
            return Ok(());
        };
        self.look_at(readers.len());
        self.note_changed(scope, readers.iter(), change_seq)
    }

    /// Notes that identities began or ended to read a scope. One of which the recovery waits for a
    /// home closes it.
    pub(super) fn note_new_readers(
        &mut self,
        scope: ScopeId,
        identities: &[Oid],
        change_seq: u64,
    ) -> Result<(), StoreError> {
        for identity in identities {
            if self.tx.has_recovery_home(identity)? {
                return self.note_closed_or_open(scope, change_seq);
            }
        }
        self.note_changed(scope, identities.iter(), change_seq)
    }
}

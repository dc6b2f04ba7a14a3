//! [`ScopeMemory`]: the newest change of each scope, and of the readers of each peer, in memory.
//!
//! The writer raises the numbers before it commits. A reader of the database looks at them after
//! its snapshot is open. Rows that were received count apart, because only some sessions get them.
//! Invariants: no number is too low for any snapshot, and a scope without an exported row has the
//! number 0. Otherwise a write that was undone leaves numbers that are too high, which costs time
//! only. The id of an undone scope is used again, and the first exported row
//! of the new scope is told to its readers. Tested below and in `tests/core/undone_writes.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use keys::PeerId;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::op_context::AppId;
use crate::store::ScopeId;

/// Most peers whose changes of readers are kept apart, at some 50 bytes each.
const PEERS_MAX: usize = 65_536;

/// The newest changes, shared by the writer and all readers.
#[derive(Debug, Default)]
pub struct ScopeMemory {
    newest: RwLock<Newest>,
    readers: RwLock<ReaderChanges>,
    /// Scopes of which the write in progress made the first exported row. Whether it is its own.
    begun: Mutex<Vec<(ScopeId, bool)>>,
    /// No row that was made here and stored before has a higher number.
    restamped: AtomicU64,
}

/// The rows that a session sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// Those that were made on this node.
    Own,
    /// Those of scopes that were received too.
    All,
}

/// The newest exported change of each scope.
#[derive(Debug, Default)]
pub struct Newest {
    /// By scope id: the app of the scope, and the newest changes of its own and of its received
    /// rows. 24 bytes for each scope.
    scopes: Vec<(AppId, [u64; 2])>,
    /// Of the public rows of each app.
    public: BTreeMap<AppId, u64>,
}

/// The newest change of the readers by which each peer reads.
#[derive(Debug, Default)]
struct ReaderChanges {
    peers: BTreeMap<PeerId, u64>,
    /// The newest one of peers that are not in `peers`, and of all peers together.
    others: u64,
}

impl Newest {
    /// The newest exported change in a scope; 0 without one, and for a scope of another app.
    pub fn of(&self, app: AppId, scope: ScopeId, exported: Exported) -> u64 {
        if scope == ScopeId::PUBLIC {
            return self.public.get(&app).copied().unwrap_or(0);
        }
        let index = usize::try_from(scope.0).ok();
        let known = index.and_then(|index| self.scopes.get(index));
        match (known, exported) {
            (Some((of, [own, _])), Exported::Own) if *of == app => *own,
            (Some((of, [own, received])), Exported::All) if *of == app => *own.max(received),
            _ => 0,
        }
    }

    /// Returns whether the scope had no number for rows like this one.
    fn raise(&mut self, app: AppId, scope: ScopeId, change_seq: u64, is_own: bool) -> bool {
        let newest = if scope == ScopeId::PUBLIC {
            self.public.entry(app).or_default()
        } else {
            let Ok(index) = usize::try_from(scope.0) else {
                return false;
            };
            if index >= self.scopes.len() {
                self.scopes.resize(index + 1, (AppId(0), [0; 2]));
            }
            let Some((of, [own, received])) = self.scopes.get_mut(index) else {
                return false;
            };
            *of = app;
            if is_own { own } else { received }
        };
        let is_first = *newest == 0;
        *newest = (*newest).max(change_seq);
        is_first
    }

    fn forget(&mut self, scope: ScopeId, is_own: bool) {
        let index = usize::try_from(scope.0).ok();
        if let Some((_, [own, received])) = index.and_then(|index| self.scopes.get_mut(index)) {
            *(if is_own { own } else { received }) = 0;
        }
    }
}

impl ScopeMemory {
    /// Notes a change in a scope of an app. Call it before the commit, and
    /// [`ScopeMemory::end_write`] after it. Returns whether the scope had no such exported row
    /// before: one that was made here, or one that was received.
    pub fn raise(&self, app: AppId, scope: ScopeId, change_seq: u64, is_own: bool) -> bool {
        let is_first = self.newest.write().raise(app, scope, change_seq, is_own);
        if is_first && scope != ScopeId::PUBLIC {
            self.begun.lock().push((scope, is_own));
        }
        is_first
    }

    /// Ends a write. One that was undone leaves no number for scopes that it began.
    pub fn end_write(&self, is_durable: bool) {
        let begun = std::mem::take(&mut *self.begun.lock());
        if !is_durable && !begun.is_empty() {
            let mut newest = self.newest.write();
            for (scope, is_own) in begun {
                newest.forget(scope, is_own);
            }
        }
    }

    /// Notes that a peer may read other scopes from `change_seq` on. Call it before the commit.
    pub fn raise_readers(&self, peer: PeerId, change_seq: u64) {
        let mut readers = self.readers.write();
        if readers.peers.len() >= PEERS_MAX && !readers.peers.contains_key(&peer) {
            let newest = readers.peers.values().copied().max().unwrap_or(0);
            readers.others = readers.others.max(newest);
            readers.peers.clear();
        }
        let newest = readers.peers.entry(peer).or_default();
        *newest = (*newest).max(change_seq);
    }

    /// Notes that every peer may read other scopes from `change_seq` on. Call it before the commit.
    pub fn raise_all_readers(&self, change_seq: u64) {
        let mut readers = self.readers.write();
        readers.others = readers.others.max(change_seq);
    }

    /// Notes that a row which was made here and stored before has the number `change_seq` now. Call
    /// it before the commit.
    pub fn raise_restamped(&self, change_seq: u64) {
        self.restamped.fetch_max(change_seq, Ordering::SeqCst);
    }

    /// The highest number of a row that was made here and stored before. Higher than any such
    /// number if the node has not written one since its start.
    pub fn restamped(&self) -> u64 {
        self.restamped.load(Ordering::SeqCst)
    }

    /// The newest change of each scope. Call it after the snapshot is open.
    pub fn newest(&self) -> RwLockReadGuard<'_, Newest> {
        self.newest.read()
    }

    /// The newest change of the readers by which a peer reads. Call it after the snapshot is open.
    pub fn readers_changed(&self, peer: &PeerId) -> u64 {
        let readers = self.readers.read();
        let newest = readers.peers.get(peer).copied().unwrap_or(0);
        newest.max(readers.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_rise_and_public_rows_count_for_their_app() {
        let memory = ScopeMemory::default();
        let newest = |app, scope| {
            memory
                .newest()
                .of(AppId(app), ScopeId(scope), Exported::Own)
        };
        assert_eq!((newest(1, 7), newest(1, 1)), (0, 0));
        memory.raise(AppId(1), ScopeId(7), 5, true);
        memory.raise(AppId(1), ScopeId(7), 4, true);
        memory.raise(AppId(1), ScopeId::PUBLIC, 6, true);
        assert_eq!((newest(1, 7), newest(1, 6), newest(1, 8)), (5, 0, 0));
        assert_eq!(newest(2, 7), 0, "a scope of another app");
        assert_eq!((newest(1, 1), newest(2, 1)), (6, 0));
    }

    #[test]
    fn undone_write_leaves_no_number_for_a_scope_that_it_began() {
        let memory = ScopeMemory::default();
        let newest = |scope| memory.newest().of(AppId(1), ScopeId(scope), Exported::Own);
        assert!(memory.raise(AppId(1), ScopeId(7), 5, true));
        memory.end_write(true);
        assert!(!memory.raise(AppId(1), ScopeId(7), 6, true));
        assert!(memory.raise(AppId(1), ScopeId(8), 6, true));
        memory.end_write(false);
        assert_eq!((newest(7), newest(8)), (6, 0));
        assert!(memory.raise(AppId(1), ScopeId(8), 7, true));
    }

    #[test]
    fn received_rows_count_apart_and_an_undone_one_leaves_the_number_of_own_rows() {
        let memory = ScopeMemory::default();
        let newest = |exported| memory.newest().of(AppId(1), ScopeId(7), exported);
        memory.raise(AppId(1), ScopeId(7), 5, true);
        memory.end_write(true);
        assert!(memory.raise(AppId(1), ScopeId(7), 6, false));
        assert_eq!((newest(Exported::Own), newest(Exported::All)), (5, 6));
        memory.end_write(false);
        assert_eq!((newest(Exported::Own), newest(Exported::All)), (5, 5));
        assert!(memory.raise(AppId(1), ScopeId(7), 7, false));
    }

    #[test]
    fn readers_of_forgotten_peers_count_as_changed() {
        let memory = ScopeMemory::default();
        let peer = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        for number in 0..PEERS_MAX {
            memory.raise_readers(peer(number), 3);
        }
        assert_eq!(memory.readers_changed(&peer(PEERS_MAX)), 0);
        memory.raise_readers(peer(PEERS_MAX), 2);
        assert_eq!(memory.readers_changed(&peer(0)), 3);
        assert_eq!(memory.readers_changed(&peer(PEERS_MAX)), 3);
        assert_eq!(memory.readers.read().peers.len(), 1);
    }
}

//! [`PeerScopes`]: the scopes that a peer reads, with the bounds of each, in memory.
//!
//! Built from the readers and the homes of identities, and kept for the peer's next request.
//! Invariant: the scopes that a request uses are those of its own snapshot. Tested below and in
//! `tests/core/late_readers.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::PeerId;
use parking_lot::Mutex;

use super::scope_set::ScopeSet;
use crate::graph::ScopeMemory;
use crate::store::{PeerReader, Rows, ScopeId, StoreError};

/// Most bytes of all kept [`PeerScopes`] together.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The part of a scope that a peer may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Changes above this number. Earlier ones come by a pull that names the scope.
    After(u64),
    /// Only deletions and rights lists of objects that were created up to this number.
    Until(u64),
}

/// The scopes that a peer reads.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PeerScopes {
    scopes: ScopeSet,
    /// The scopes that are not read whole.
    bounds: BTreeMap<ScopeId, Reading>,
    /// The scopes of which a peer must ask for earlier changes, by the number of the write that
    /// made them readable.
    late: Vec<(u64, ScopeId)>,
}

impl PeerScopes {
    /// Reads the scopes of a peer from the database, without those that a recovery closes.
    pub(super) fn load(rows: &Rows<'_>, peer: &PeerId) -> Result<Self, StoreError> {
        let (mut loaded, mut moved) = (Self::default(), BTreeMap::new());
        let closed = rows.closed_scopes()?;
        rows.readers_at(peer, |reader| {
            if !closed.contains(&reader.scope) {
                loaded.add(reader);
                // The new home of an identity may have passed what ended its right.
                if reader.until_seq.is_some_and(|it| it < reader.since_seq) {
                    let since: &mut u64 = moved.entry(reader.scope).or_default();
                    *since = reader.since_seq.max(*since);
                }
            }
        })?;
        let late = loaded.bounds.iter().filter_map(|(scope, reading)| {
            let since = match reading {
                Reading::After(since) => Some(since),
                Reading::Until(_) => moved.get(scope),
            };
            since.map(|since| (*since, *scope))
        });
        loaded.late = late.collect();
        loaded.late.sort_unstable();
        Ok(loaded)
    }

    /// Adds one identity's right to read a scope. An identity that may still read decides before
    /// one that may not, and of two the one that reads more.
    fn add(&mut self, reader: PeerReader) {
        let new = match reader.until_seq {
            Some(until) => Reading::Until(until),
            None => Reading::After(reader.since_seq),
        };
        let known = self
            .scopes
            .contains(reader.scope)
            .then(|| self.bound(reader.scope));
        let reading = match (known, new) {
            (None, new) => new,
            (Some(Reading::After(known)), Reading::After(new)) => Reading::After(known.min(new)),
            (Some(Reading::Until(known)), Reading::Until(new)) => Reading::Until(known.max(new)),
            (Some(open @ Reading::After(_)), Reading::Until(_)) => open,
            (Some(Reading::Until(_)), open @ Reading::After(_)) => open,
        };
        self.scopes.insert(reader.scope);
        if reading == Reading::After(0) {
            self.bounds.remove(&reader.scope);
        } else {
            self.bounds.insert(reader.scope, reading);
        }
    }

    fn bound(&self, scope: ScopeId) -> Reading {
        let bound = self.bounds.get(&scope).copied();
        bound.unwrap_or(Reading::After(0))
    }

    /// The part of a scope that the peer reads; `None`: nothing.
    pub(super) fn reading(&self, scope: ScopeId) -> Option<Reading> {
        self.scopes.contains(scope).then(|| self.bound(scope))
    }

    /// The scopes, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = ScopeId> {
        self.scopes.iter()
    }

    /// Scopes of which the peer must ask for earlier changes. Each follows the number of the write
    /// that made them readable. Only those with a number in the window, ascending.
    pub(super) fn late_in(&self, after: u64, to: u64) -> impl Iterator<Item = (u64, ScopeId)> {
        let start = self.late.partition_point(|(since, _)| *since <= after);
        let late = self.late.iter().skip(start).copied();
        late.take_while(move |(since, _)| *since <= to)
    }

    fn bytes(&self) -> usize {
        self.scopes.bytes() + self.bounds.len() * 80 + 256
    }
}

/// The scopes of the peers that asked last.
#[derive(Debug, Default)]
pub(super) struct PeerScopesCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    peers: BTreeMap<PeerId, (u64, Arc<PeerScopes>)>,
    bytes: usize,
}

impl PeerScopesCache {
    /// The scopes of a peer in a snapshot whose highest `change_seq` is `head`.
    ///
    /// Every change of readers is part of a change group, and commit order is `change_seq` order.
    /// So what was read at one snapshot holds in another one, if no change of the peer's readers is
    /// newer than the older of both.
    pub(super) fn get(
        &self,
        rows: &Rows<'_>,
        memory: &ScopeMemory,
        peer: &PeerId,
        head: u64,
    ) -> Result<Arc<PeerScopes>, StoreError> {
        let changed = memory.readers_changed(peer);
        let kept = self.0.lock().peers.get(peer).cloned();
        if let Some((read_at, scopes)) = &kept
            && changed <= head.min(*read_at)
        {
            return Ok(scopes.clone());
        }
        let scopes = Arc::new(PeerScopes::load(rows, peer)?);
        if kept.is_none_or(|(read_at, _)| read_at < head) {
            self.0.lock().put(*peer, head, scopes.clone());
        }
        Ok(scopes)
    }
}

impl Kept {
    /// Keeps the scopes of a peer, and forgets those of others without room for all.
    fn put(&mut self, peer: PeerId, head: u64, scopes: Arc<PeerScopes>) {
        self.remove(&peer);
        let bytes = scopes.bytes();
        while self.bytes + bytes > KEPT_BYTES_MAX {
            let next = self.peers.range(peer..).next().or(self.peers.iter().next());
            let Some(other) = next.map(|(other, _)| *other) else {
                return;
            };
            self.remove(&other);
        }
        self.bytes += bytes;
        self.peers.insert(peer, (head, scopes));
    }

    fn remove(&mut self, peer: &PeerId) {
        if let Some((_, scopes)) = self.peers.remove(peer) {
            self.bytes -= scopes.bytes();
        }
    }
}

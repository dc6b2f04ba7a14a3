//! [`Elsewhere`]: whether a lacking object may arrive from another peer meanwhile.
//!
//! Inputs are the live sessions and the fetches in progress. Invariant: an object is fetched by one
//! session at a time, as long as no session has spent its waits.

use std::collections::BTreeSet;

use keys::{Oid, PeerId};
use parking_lot::Mutex;

use super::registry::SessionRegistry;

/// The other ways by which objects reach this node, shared by all sessions.
pub(super) struct Elsewhere {
    registry: SessionRegistry,
    fetching: Mutex<BTreeSet<Oid>>,
}

impl Elsewhere {
    pub(super) fn new(registry: SessionRegistry) -> Self {
        Self {
            registry,
            fetching: Mutex::default(),
        }
    }

    /// Whether a session other than the one with `peer` may bring an object. The session with its
    /// owner's home may, and one that fetches the object now.
    pub(super) fn may_bring(
        &self,
        peer: &PeerId,
        (oid, home): (&Oid, &Option<PeerId>),
        domain: &str,
    ) -> bool {
        let home = home.filter(|home| home != peer);
        home.is_some_and(|home| self.registry.shares_now(&home, domain))
            || self.fetching.lock().contains(oid)
    }

    /// Notes objects that a session fetches, until the guard is dropped.
    pub(super) fn begin(&self, oids: &[Oid]) -> InProgress<'_> {
        let mut fetching = self.fetching.lock();
        let begun = oids.iter().filter(|oid| fetching.insert(**oid));
        let oids = begun.copied().collect();
        drop(fetching);
        InProgress { of: self, oids }
    }
}

/// Objects that a session fetches.
pub(super) struct InProgress<'e> {
    of: &'e Elsewhere,
    oids: Vec<Oid>,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        let mut fetching = self.of.fetching.lock();
        for oid in &self.oids {
            fetching.remove(oid);
        }
    }
}

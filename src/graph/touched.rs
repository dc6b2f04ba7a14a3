//! [`Touched`]: which peers may find something new after a commit.
//!
//! The graph notes each row that this node exports, and each identity whose home changed. Received
//! rows of scopes are apart, because only some sessions get them. Rows that are not exported touch
//! no peer. Invariant: a peer for which a commit holds something new is
//! touched; a peer that is touched may find nothing.

use std::collections::BTreeSet;

use keys::PeerId;

use crate::op_context::AppId;

/// Most entries. Beyond them every peer counts as touched, so that a write that touches many scopes
/// costs bounded memory.
const ENTRIES_MAX: usize = 4096;

/// Most readers and former readers of a scope that are looked up one by one. Beyond them every peer
/// counts as touched.
pub(super) const READERS_NOTED_MAX: usize = 1024;

/// The peers for which commits since the last [`Touched::take`] may hold something new.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Touched {
    everything: bool,
    public: BTreeSet<AppId>,
    scopes: BTreeSet<(AppId, PeerId)>,
    received: BTreeSet<(AppId, PeerId)>,
    readers: BTreeSet<PeerId>,
}

impl Touched {
    /// Notes a public row of an app: every peer may read it.
    pub(super) fn add_public(&mut self, app: AppId) {
        self.public.insert(app);
    }

    /// Notes a row of an app in a scope that a peer reads.
    pub(super) fn add_scope_of(&mut self, app: AppId, peer: PeerId) {
        if self.has_room() {
            self.scopes.insert((app, peer));
        }
    }

    /// Notes a received row of an app in a scope that a peer reads.
    pub(super) fn add_received_of(&mut self, app: AppId, peer: PeerId) {
        if self.has_room() {
            self.received.insert((app, peer));
        }
    }

    /// Notes that a peer may read other scopes than before.
    pub(super) fn add_readers_of(&mut self, peer: PeerId) {
        if self.has_room() {
            self.readers.insert(peer);
        }
    }

    /// Notes that every peer may find something new, in every app.
    pub(super) fn add_everything(&mut self) {
        self.everything = true;
        self.scopes.clear();
        self.received.clear();
        self.readers.clear();
    }

    fn has_room(&mut self) -> bool {
        let entries = self.scopes.len() + self.received.len() + self.readers.len();
        if entries >= ENTRIES_MAX {
            self.add_everything();
        }
        !self.everything
    }

    /// Returns what was noted, and forgets it.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Whether no peer was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a peer may find something new in an app.
    pub fn is_news(&self, app: AppId, peer: &PeerId) -> bool {
        self.everything
            || self.public.contains(&app)
            || self.scopes.contains(&(app, *peer))
            || self.readers.contains(peer)
    }

    /// Whether all peers count as touched, in every app.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Apps of which a public row changed.
    pub fn public(&self) -> impl Iterator<Item = AppId> {
        self.public.iter().copied()
    }

    /// Apps of which a row changed that only some peers read, each with such a peer.
    pub fn scopes(&self) -> impl Iterator<Item = (AppId, PeerId)> {
        self.scopes.iter().copied()
    }

    /// Apps of which a row was received that only some peers read, each with such a peer.
    pub fn received(&self) -> impl Iterator<Item = (AppId, PeerId)> {
        self.received.iter().copied()
    }

    /// Peers that may read other scopes than before.
    pub fn readers(&self) -> impl Iterator<Item = PeerId> {
        self.readers.iter().copied()
    }
}

#[cfg(test)]
impl Touched {
    pub(crate) fn of_scope(app: AppId, peer: PeerId) -> Self {
        let mut touched = Self::default();
        touched.add_scope_of(app, peer);
        touched
    }

    pub(crate) fn of_received(app: AppId, peer: PeerId) -> Self {
        let mut touched = Self::default();
        touched.add_received_of(app, peer);
        touched
    }

    pub(crate) fn of_public(app: AppId) -> Self {
        let mut touched = Self::default();
        touched.add_public(app);
        touched
    }

    pub(crate) fn of_readers(peer: PeerId) -> Self {
        let mut touched = Self::default();
        touched.add_readers_of(peer);
        touched
    }

    pub(crate) fn of_everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn touches_everything_beyond_the_bound() {
        let mut touched = Touched::default();
        assert!(touched.is_empty());
        for number in 0..ENTRIES_MAX {
            touched.add_scope_of(AppId(1), peer(number));
        }
        assert!(!touched.is_everything());
        touched.add_readers_of(peer(ENTRIES_MAX));
        assert!(touched.is_everything());
        touched.add_scope_of(AppId(1), peer(0));
        assert_eq!(touched.scopes().count() + touched.readers().count(), 0);
        assert!(touched.take().is_everything());
        assert!(touched.is_empty());
    }
}

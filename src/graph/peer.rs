//! Admitted peers: the domains that both nodes share, and which of them start again.
//!
//! Invariant: a domain starts again if more of it became readable because another domain is shared
//! now. Tested in `tests/core/late_readers.rs`.

use super::manager::GraphManager;
use crate::store::{PeerRow, StoreError};

impl GraphManager<'_> {
    /// Stores an admitted peer. A domain that the peer did not share before may hold the scopes of
    /// objects in other domains. The cursors of those domains start again, in both directions. All
    /// start again when the feature `relay` enters the sessions, because they passed the objects
    /// that were received.
    pub fn save_peer(&mut self, peer: &PeerRow) -> Result<(), StoreError> {
        let known = self.tx.peer(&peer.peer_id)?;
        let relays_now = peer.relays && known.as_ref().is_some_and(|known| !known.relays);
        let shared_before = known.map(|known| known.domains).unwrap_or_default();
        let is_entered = |it: &&String| relays_now || !shared_before.contains(it);
        for domain in peer.domains.iter().filter(is_entered) {
            for within in self.schemas().domains_within(domain) {
                self.tx.restart_sync(&peer.peer_id, &within.name)?;
            }
        }
        self.tx.put_peer(peer)?;
        self.saved_peer = Some(peer.clone());
        Ok(())
    }
}

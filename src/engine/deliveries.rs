//! [`Deliveries`]: announces that a peer applied objects of this node.
//!
//! Input is what a receipt changed; output is a [`DeliveryChange`] for each subscriber. Invariant:
//! a subscriber that is too slow learns that it missed changes. Nothing waits for it.

use keys::PeerId;
use tokio::sync::broadcast;

use crate::state_engine::Delivered;

/// Changes that are kept for a slow subscriber.
const KEPT_MAX: usize = 256;

/// A peer applied objects of this node, so that their delivery state changed. Names no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryChange {
    /// The peer.
    pub peer: PeerId,
    /// The scopes of the objects, such as conversations.
    pub delivered: Delivered,
}

/// The audience of such changes. All clones share one.
#[derive(Debug, Clone)]
pub(super) struct Deliveries(broadcast::Sender<DeliveryChange>);

impl Default for Deliveries {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT_MAX))
    }
}

impl Deliveries {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<DeliveryChange> {
        self.0.subscribe()
    }

    /// Announces a change. One that nothing receives is dropped.
    pub(super) fn announce(&self, change: DeliveryChange) {
        let _ = self.0.send(change);
    }
}

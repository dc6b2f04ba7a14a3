//! The events that a running node reports to its starter, and the state of its network.
//!
//! The state goes through a `watch` channel, which `control.rs` reads for the API. [`forward`]
//! turns its changes into events. Invariant: a node that was reachable stays so; late reports of
//! the bootstrap do not undo it.

use std::convert::Infallible;
use std::net::SocketAddr;

use keys::{OnionAddr, PeerId};
use tokio::sync::{mpsc, watch};

use crate::store::Migration;

/// The sending half of the channel of events. Unbounded: a node sends a few dozen of them.
pub type Events = mpsc::UnboundedSender<Event>;

/// A step of a node's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The vault is open and the database is ready.
    Opened {
        /// This node's identity in the protocol.
        peer_id: PeerId,
        /// The address of its onion service.
        onion: OnionAddr,
    },
    /// The database had the tables of an earlier version, and was migrated.
    Migrated(Migration),
    /// The local API listens on this address.
    ApiReady(SocketAddr),
    /// The network's state changed.
    Network(NetworkState),
    /// The node is shutting down.
    Stopping,
}

/// The progress of joining the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkState {
    /// The database and the API come first.
    Starting,
    /// The Tor client joins the network.
    Bootstrapping {
        /// 0 to 100.
        percent: u8,
        /// The obstacle that arti reports, if any.
        blocked: Option<String>,
    },
    /// The network is joined; the onion service is being published.
    Publishing,
    /// A dial of this node's own address did not succeed in time; the next one is under way.
    NotReachable(String),
    /// A dial of this node's own address succeeded.
    Reachable,
}

impl NetworkState {
    /// The state as the API shows it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Starting => "starting".into(),
            Self::Bootstrapping { percent, .. } => format!("bootstrapping {percent} %"),
            Self::Publishing | Self::NotReachable(_) => "publishing".into(),
            Self::Reachable => "reachable".into(),
        }
    }
}

/// Sets the network's state, unless it is [`NetworkState::Reachable`] already.
pub(super) fn set_state(network: &watch::Sender<NetworkState>, state: NetworkState) {
    network.send_if_modified(|now| {
        let is_open = *now != NetworkState::Reachable;
        if is_open {
            *now = state;
        }
        is_open
    });
}

/// Sends an event. One that nothing receives is dropped: a node runs without a reader of its events
/// too.
pub(super) fn send(events: &Events, event: Event) {
    let _ = events.send(event);
}

/// Sends each change of the network's state as an event, for as long as it is polled. Changes in
/// quick succession become one event.
pub(super) async fn forward(
    mut network: watch::Receiver<NetworkState>,
    events: &Events,
) -> Infallible {
    while network.changed().await.is_ok() {
        let state = network.borrow_and_update().clone();
        send(events, Event::Network(state));
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_bootstrap_report_leaves_a_reachable_node_reachable() {
        let (network, state) = watch::channel(NetworkState::Starting);
        let bootstrapping = |percent| NetworkState::Bootstrapping {
            percent,
            blocked: None,
        };
        set_state(&network, bootstrapping(80));
        assert_eq!(state.borrow().label(), "bootstrapping 80 %");
        set_state(&network, NetworkState::Reachable);
        set_state(&network, bootstrapping(100));
        assert_eq!(*state.borrow(), NetworkState::Reachable);
    }

    #[tokio::test]
    async fn forwards_each_change_of_the_network_as_an_event() {
        let (network, state) = watch::channel(NetworkState::Starting);
        let (events, mut received) = mpsc::unbounded_channel();
        let reading = async {
            for state in [NetworkState::Publishing, NetworkState::Reachable] {
                set_state(&network, state.clone());
                assert_eq!(received.recv().await, Some(Event::Network(state)));
            }
        };
        tokio::select! {
            never = forward(state, &events) => match never {},
            () = reading => {}
        }
    }
}

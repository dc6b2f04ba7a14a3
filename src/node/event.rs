//! The events that a running node reports to its starter.

use std::net::SocketAddr;

use keys::{OnionAddr, PeerId};

/// What a running node tells whoever started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The vault is open and the database is ready.
    Opened {
        /// This node.
        peer_id: PeerId,
        /// Where it will be reached.
        onion: OnionAddr,
    },
    /// The local API answers here.
    ApiReady(SocketAddr),
    /// Joining the Tor network.
    Bootstrapping {
        /// 0 to 100.
        percent: u8,
        /// What is in the way, if anything.
        blocked: Option<String>,
    },
    /// The network is joined; the onion service is being published.
    Publishing,
    /// A dial of our own address succeeded: others can reach this node.
    Reachable,
    /// The service was not reachable in time; trying goes on.
    NotReachable(String),
    /// Stopping.
    Stopping,
}

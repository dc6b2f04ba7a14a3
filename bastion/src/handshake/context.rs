//! The arguments that the states of a handshake share.

use std::sync::Arc;

use keys::KeyManager;

use crate::config::GateConfig;
use crate::puzzle::ChallengeSealer;
use crate::ticket::Tickets;

/// This node's limits and keys, shared by all handshakes of either side.
pub struct HandshakeContext {
    /// Limits, efforts and deadlines.
    pub config: GateConfig,
    /// The node key, the onion key and the key chain.
    pub keys: Arc<KeyManager>,
}

/// Recognises the challenges and tickets that this node issued. The server keeps nothing else for
/// an unadmitted node.
pub struct ServerState {
    /// Seals challenges and opens the cookies that clients return.
    pub sealer: ChallengeSealer,
    /// Issues and opens tickets.
    pub tickets: Tickets,
}

/// The time and the load under which the server handles one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Effort that the current load demands, in expected evaluations.
    pub effort: u64,
    /// Current time in Unix seconds.
    pub now: u64,
}

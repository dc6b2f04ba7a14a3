//! The arguments that the states of a handshake share.

use std::sync::Arc;

use keys::KeyManager;

use crate::claims::{NodeProfile, encode_claims};
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

impl HandshakeContext {
    /// Returns this node's claims, as in [`encode_claims`], with the features that it offers.
    pub(super) fn encode_claims(&self, profile: NodeProfile, bytes_max: usize) -> Vec<u8> {
        let features = self.config.features.clone();
        encode_claims(profile, features, &self.keys, bytes_max)
    }
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

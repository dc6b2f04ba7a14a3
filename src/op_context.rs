//! OpContext: who asks for an operation, and over which way in (docs/STORY.md 2.1 step 8, docs/DECISIONS.md 4).
//!
//! Never says what is allowed: `acl` does. Invariant: a remote operation always names its peer and its sync domain.

use keys::{PeerId, TraceId};

/// Milliseconds since 1970, UTC. Read once at the edge and handed down: nothing below `engine` has a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Local id of the `public_key` Attr of whoever asks: an identity at home here, or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubkeyAttrId(pub i64);

/// Local number of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppId(pub i64);

/// Under whose authority, and over which way in, an operation comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpContext {
    /// A person of this node, through the local API.
    Local {
        /// Whose key.
        requester_pubkey_attr_id: PubkeyAttrId,
        /// For which app.
        app_id: AppId,
        /// For the logs.
        trace_id: TraceId,
    },
    /// A peer, through a verified package.
    Remote {
        /// The sending server's key.
        requester_pubkey_attr_id: PubkeyAttrId,
        /// For which app.
        app_id: AppId,
        /// For the logs.
        trace_id: TraceId,
        /// The sending node.
        peer: PeerId,
        /// The package's domain.
        sync_domain: String,
    },
}

impl OpContext {
    /// Whether it comes from a peer (the story's `is_remote`).
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }

    /// Whose key stands behind it.
    pub fn requester_pubkey_attr_id(&self) -> PubkeyAttrId {
        match self {
            Self::Local {
                requester_pubkey_attr_id,
                ..
            }
            | Self::Remote {
                requester_pubkey_attr_id,
                ..
            } => *requester_pubkey_attr_id,
        }
    }
}

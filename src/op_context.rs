//! `OpContext`: under whose authority an operation runs, and by which path it arrived
//! (docs/STORY.md 2.1 step 8, docs/DECISIONS.md 4).
//!
//! Plain values. `acl` decides what is allowed. Invariant: a remote operation always names its peer
//! and its sync domain.

use keys::{PeerId, TraceId};

/// Milliseconds since 1970, UTC. The caller of `engine` reads the clock once and passes the value
/// down, because nothing below `engine` has a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Local id of the `public_key` Attr of the requester: an identity of this node, or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubkeyAttrId(pub i64);

/// Local number of an app. Other nodes number their apps differently; the slug travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppId(pub i64);

/// The authority under which an operation runs, and the path by which it arrived.
///
/// The rules of `acl` read the requester, the peer and the domain. The story also requires `app_id`
/// and `trace_id`, which are fields of log events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpContext {
    /// An identity of this node, through the local API.
    Local {
        /// Key of the identity that requests the operation.
        requester_pubkey_attr_id: PubkeyAttrId,
        /// App whose objects the operation reads or writes.
        app_id: AppId,
        /// Connects the log lines of one operation.
        trace_id: TraceId,
    },
    /// A peer, through a verified package.
    Remote {
        /// Key of the sending node's server identity.
        requester_pubkey_attr_id: PubkeyAttrId,
        /// App of the package's domain.
        app_id: AppId,
        /// Connects the log lines of one operation.
        trace_id: TraceId,
        /// The node that sent the package.
        peer: PeerId,
        /// Sync domain of the package.
        sync_domain: String,
    },
}

impl OpContext {
    /// Whether the operation arrived from a peer (the story's `is_remote`).
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }

    /// Key of the requester.
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

    /// App that the operation is for.
    pub fn app_id(&self) -> AppId {
        match self {
            Self::Local { app_id, .. } | Self::Remote { app_id, .. } => *app_id,
        }
    }

    /// Request or session that caused the operation.
    pub fn trace_id(&self) -> TraceId {
        match self {
            Self::Local { trace_id, .. } | Self::Remote { trace_id, .. } => *trace_id,
        }
    }
}

//! The errors of a handshake, sorted by whose fault they are.
//!
//! The other side receives a [`RefusalCode`] at most; the detail stays in the local log. The errors
//! contain no peer id, no onion address and no bytes of a message.

use std::io;

use keys::protocol::PROTOCOL_VERSION;
use keys::{ChainError, Malformed};

use crate::frames::FrameError;
use crate::messages::{HandshakeMessage, Refusal, RefusalCode};
use crate::transport::DialError;

/// A rule that a well-formed message breaks. The other side is broken or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The cookie was changed, sealed by another node, or sealed with a key that has rolled over.
    #[error("the cookie was not sealed by this node, or its key has rolled over")]
    CookieUnknown,
    /// The cookie is past its expiry, or it was issued while idle and the gate is now under load.
    #[error("the cookie has expired")]
    CookieExpired,
    /// A solution for this cookie was verified before.
    #[error("the cookie has been used")]
    CookieUsed,
    /// The challenge names another onion service than the dialled one, so it may be relayed.
    #[error("the challenge names another onion service than the dialled one")]
    CookieForAnotherOnion,
    /// The challenge demands no work although the client showed no ticket.
    #[error("the challenge is invalid")]
    InvalidChallenge,
    /// The ticket was not issued by this node to this peer, or it has expired.
    #[error("the ticket is invalid or has expired")]
    InvalidTicket,
    /// The nonce fails the inner condition.
    #[error("the nonce fails the inner condition")]
    InnerCondition,
    /// The nonce fails the work function's condition.
    #[error("the nonce does not solve the puzzle")]
    Work,
    /// The signature over the message does not verify.
    #[error("the message is not signed by its sender")]
    Signature,
    /// The sender's key chain does not verify.
    #[error("the sender's key chain is invalid")]
    KeyChain(#[source] ChainError),
    /// The claimed onion address is not signed by that onion service's key.
    #[error("the claimed onion address is not proved")]
    OnionUnproved,
    /// The server claims another onion address than the dialled one.
    #[error("the server claims another onion address than the dialled one")]
    OnionNotDialled,
    /// The other side presents this node's own peer id.
    #[error("the other side presents this node's peer id")]
    OwnPeerId,
    /// A list in the claims is unsorted, has repeats or is too long, or a name breaks the grammar.
    #[error("the claims break a rule: {0}")]
    Claims(&'static str),
    /// The welcome lists other sync domains than the intersection of both claims.
    #[error("the welcome lists other sync domains than the intersection of the claims")]
    DomainsDiffer,
    /// The welcome lists other features than those of both claims.
    #[error("the welcome lists other features than those of both claims")]
    FeaturesDiffer,
    /// A message of another kind than the expected one arrived.
    #[error("expected {awaited}, received {got}")]
    OutOfOrder {
        /// Name of the expected kind.
        awaited: &'static str,
        /// Name of the received kind.
        got: &'static str,
    },
}

/// A mismatch between two honest nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatibility {
    /// The nodes have no protocol version in common.
    #[error("no protocol version in common")]
    Version,
    /// The challenge names a work function that this version does not know.
    #[error("the challenge names an unknown work function")]
    Algorithm,
    /// The challenge demands more effort than this node accepts (`effort_accept_max`).
    #[error("the challenge demands an effort of {asked}, above the limit of {limit}")]
    Effort {
        /// Demanded effort, in evaluations at 13 inner bits.
        asked: u64,
        /// `effort_accept_max`.
        limit: u64,
    },
    /// The challenge demands more inner bits than this node accepts (`inner_bits_accept_max`).
    #[error("the challenge demands {asked} inner bits, above the limit of {limit}")]
    InnerBits {
        /// Demanded bits.
        asked: u8,
        /// `inner_bits_accept_max`.
        limit: u8,
    },
}

/// A step of the handshake, for errors and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeStep {
    /// The client opens a stream.
    #[error("dialling")]
    Dial,
    /// The server waits for hello, or for a solution in its place.
    #[error("waiting for hello")]
    Hello,
    /// The client waits for the challenge.
    #[error("waiting for the challenge")]
    Challenge,
    /// The client solves the puzzle.
    #[error("solving")]
    Solve,
    /// The server waits for the solution.
    #[error("waiting for the solution")]
    Solution,
    /// The server verifies the solution and asks the policy.
    #[error("deciding")]
    Decision,
    /// The client waits for the welcome.
    #[error("waiting for the welcome")]
    Welcome,
    /// Either side writes a message.
    #[error("sending")]
    Send,
}

/// A fault of this node or one of its components.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal: {0}")]
pub struct Internal(pub String);

/// The reason why a handshake ended without admission.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The frame is not a canonical message within the limits.
    #[error("malformed message")]
    Malformed(#[source] Malformed),
    /// The other side broke a rule.
    #[error("peer misbehaved: {0}")]
    PeerMisbehaved(#[source] Misbehaviour),
    /// The nodes do not fit together.
    #[error("peer incompatible: {0}")]
    PeerIncompatible(Incompatibility),
    /// The client could not open a stream.
    #[error("could not dial")]
    Dial(#[source] DialError),
    /// The server refused this client.
    #[error("refused by the peer: {}", refusal_text(*code, versions))]
    Refused {
        /// The code that the server sent.
        code: RefusalCode,
        /// Seconds after which the client may retry, if the server sent them.
        retry_s: Option<u32>,
        /// Protocol versions that the server supports, if it sent them.
        versions: Vec<u64>,
    },
    /// Another node than the expected one serves the onion address.
    #[error("another node answered at this onion address")]
    AnotherNode,
    /// The policy of this node refused the peer.
    #[error("not admitted by this node's policy: {0}")]
    NotAdmitted(RefusalCode),
    /// No slot is free, or the verification queue is full.
    #[error("busy")]
    Busy,
    /// The slot went to another client. A client that has solved its challenge can send the
    /// solution on any later stream.
    #[error("evicted in favour of another client")]
    Evicted,
    /// A step exceeded its deadline.
    #[error("timed out while {0}")]
    Timeout(HandshakeStep),
    /// The stream ended before the handshake did.
    #[error("the stream ended while {0}")]
    HungUp(HandshakeStep),
    /// The stream failed.
    #[error("the stream failed while {step}")]
    Io {
        /// The step at which it failed.
        step: HandshakeStep,
        /// The error of the transport.
        source: io::Error,
    },
    /// This node failed.
    #[error(transparent)]
    Internal(Internal),
}

/// Returns the code of a refusal, and for `version` which node is the older one.
pub fn refusal_text(code: RefusalCode, versions: &[u64]) -> String {
    let Some(highest) = versions.iter().max() else {
        return code.to_string();
    };
    let listed: Vec<_> = versions.iter().map(u64::to_string).collect();
    let older = match *highest > PROTOCOL_VERSION {
        true => "this node",
        false => "the peer",
    };
    let peers = listed.join(", ");
    format!(
        "{code}: the peer speaks protocol versions {peers}, this node {PROTOCOL_VERSION}: \
         update {older}"
    )
}

impl HandshakeError {
    /// Returns the code that the other side receives. None when the stream is lost, or when the
    /// other side has refused.
    pub fn code(&self) -> Option<RefusalCode> {
        match self {
            Self::Malformed(_) => Some(RefusalCode::Malformed),
            Self::PeerMisbehaved(misbehaviour) => Some(misbehaviour.code()),
            Self::PeerIncompatible(Incompatibility::Version) => Some(RefusalCode::Version),
            Self::PeerIncompatible(_) => None,
            Self::NotAdmitted(code) => Some(*code),
            Self::Busy | Self::Timeout(HandshakeStep::Decision) => Some(RefusalCode::Busy),
            Self::Internal(_) => Some(RefusalCode::Internal),
            Self::Dial(_)
            | Self::AnotherNode
            | Self::Refused { .. }
            | Self::Evicted
            | Self::Timeout(_)
            | Self::HungUp(_)
            | Self::Io { .. } => None,
        }
    }

    /// Converts a refusal that the server sent.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        Self::Refused {
            code: refusal.code,
            retry_s: refusal.retry_s,
            versions: refusal.versions.clone().unwrap_or_default(),
        }
    }

    /// Returns the error for a message of another kind than the expected one.
    pub(crate) fn out_of_order(awaited: &'static str, got: &HandshakeMessage) -> Self {
        let got = got.kind();
        Self::PeerMisbehaved(Misbehaviour::OutOfOrder { awaited, got })
    }

    /// Returns whether only a hostile or broken client causes this error. The caller then closes
    /// the client's circuit with all its streams. An expired or used cookie, or this node's own
    /// peer id, may be an accident.
    pub fn is_abuse(&self) -> bool {
        use RefusalCode::{Expired, OwnPeerId, Used};
        match self {
            Self::Malformed(_) => true,
            Self::PeerMisbehaved(misbehaviour) => {
                !matches!(misbehaviour.code(), Expired | OwnPeerId | Used)
            }
            _ => false,
        }
    }

    /// Converts an error of reading or writing a frame during `step`.
    pub(crate) fn from_frame(error: FrameError, step: HandshakeStep) -> Self {
        match error {
            FrameError::TooLong { declared, .. } => Self::Malformed(Malformed::TooLong(declared)),
            FrameError::Empty => Self::Malformed(Malformed::Truncated),
            FrameError::Truncated => Self::HungUp(step),
            FrameError::Io(source) => Self::Io { step, source },
        }
    }
}

impl Misbehaviour {
    fn code(&self) -> RefusalCode {
        match self {
            Self::CookieUnknown | Self::CookieExpired | Self::InvalidTicket => RefusalCode::Expired,
            Self::CookieUsed => RefusalCode::Used,
            Self::InnerCondition | Self::Work => RefusalCode::Work,
            Self::Signature | Self::KeyChain(_) => RefusalCode::Signature,
            Self::OnionUnproved | Self::OnionNotDialled => RefusalCode::Onion,
            Self::OwnPeerId => RefusalCode::OwnPeerId,
            Self::CookieForAnotherOnion
            | Self::InvalidChallenge
            | Self::Claims(_)
            | Self::DomainsDiffer
            | Self::FeaturesDiffer
            | Self::OutOfOrder { .. } => RefusalCode::Malformed,
        }
    }
}

impl From<Misbehaviour> for HandshakeError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::PeerMisbehaved(misbehaviour)
    }
}

impl From<Incompatibility> for HandshakeError {
    fn from(incompatibility: Incompatibility) -> Self {
        Self::PeerIncompatible(incompatibility)
    }
}

impl From<Malformed> for HandshakeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

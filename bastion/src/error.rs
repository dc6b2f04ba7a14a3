//! What can go wrong in a handshake, sorted by whose fault it is.
//!
//! The other side learns a [`RefusalCode`] and nothing else; the detail stays in our log. Never holds a peer id, an
//! onion address or bytes of a message. Invariant: every variant says what the reader should do about it.

use std::io;

use keys::{ChainError, Malformed};
use serde::{Deserialize, Serialize};

use crate::frames::FrameError;
use crate::messages::Refused;
use crate::transport::DialError;

/// All that a refused side is told. Travels as lower-case text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum RefusalCode {
    /// The peer id is banned.
    #[error("banned")]
    Banned,
    /// No slot or no turn: try later.
    #[error("busy")]
    Busy,
    /// The cookie is too old, too cheap by now, or was not sealed here, or the ticket does not hold: ask for a new
    /// challenge.
    #[error("expired")]
    Expired,
    /// Our fault: try later.
    #[error("internal")]
    Internal,
    /// Not a message, not the one awaited, or one that breaks a rule.
    #[error("malformed")]
    Malformed,
    /// The onion address claimed is not proved.
    #[error("onion")]
    Onion,
    /// The operator has to approve the peer first: try again much later.
    #[error("pending")]
    Pending,
    /// This node's policy does not admit the peer (now).
    #[error("policy")]
    Policy,
    /// The peer id is the receiver's own.
    #[serde(rename = "self")]
    #[error("self")]
    OwnPeerId,
    /// A signature or key chain does not hold.
    #[error("signature")]
    Signature,
    /// This challenge was answered before.
    #[error("used")]
    Used,
    /// No protocol version in common.
    #[error("version")]
    Version,
    /// The nonce does not solve the puzzle.
    #[error("work")]
    Work,
}

/// A message was well formed but is forbidden: the other side is broken or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The cookie was changed, sealed by another node, or sealed before our keys rolled over.
    #[error("the cookie was not sealed here, or too long ago")]
    CookieNotOurs,
    /// The cookie's time is over, or it is one of calm times and calm is over.
    #[error("the cookie has expired")]
    CookieExpired,
    /// A solution was presented before for this cookie.
    #[error("the cookie has been used")]
    CookieUsed,
    /// The challenge names another onion service than the one that was dialled: it belongs to somebody else.
    #[error("the challenge names another onion service than the one dialled")]
    CookieOfAnotherOnion,
    /// A challenge without any work for one who showed no ticket, or one that would not fit beside our claims.
    #[error("the challenge makes no sense")]
    CookieAbsurd,
    /// The ticket that is to stand in for the work was not issued here to this peer, or its time is over.
    #[error("the ticket does not hold")]
    Ticket,
    /// The nonce fails the cheap inner condition.
    #[error("the nonce fails the inner condition")]
    InnerCondition,
    /// The nonce fails the work function's condition.
    #[error("the nonce does not solve the puzzle")]
    Work,
    /// The signature over the message does not hold.
    #[error("the message is not signed by its sender")]
    Signature,
    /// The sender's key chain does not hold.
    #[error("the sender's key chain does not hold")]
    KeyChain(#[source] ChainError),
    /// The onion address claimed is not signed by that onion service's key.
    #[error("the onion address claimed is not proved")]
    OnionUnproved,
    /// The node that answers claims another onion address than the one dialled.
    #[error("the node that answers claims another onion address than the one dialled")]
    OnionNotDialled,
    /// The other side presents our own peer id.
    #[error("the other side presents our own peer id")]
    OwnPeerId,
    /// A list is unsorted or repeats itself, a name breaks the grammar, or there are too many.
    #[error("the claims break a rule: {0}")]
    Claims(&'static str),
    /// The intersection of domains is not what the claims give.
    #[error("the intersection of sync domains is not what the claims give")]
    DomainsDiffer,
    /// A message of another kind than the handshake awaits.
    #[error("awaited {awaited}, got {got}")]
    OutOfOrder {
        /// The kind awaited.
        awaited: &'static str,
        /// The kind that came.
        got: &'static str,
    },
}

/// The other side is honest, but we cannot go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatibility {
    /// No protocol version in common.
    #[error("no protocol version in common")]
    Version,
    /// A work function that this version does not know.
    #[error("the challenge names an unknown work function")]
    Algorithm,
    /// More effort than we are willing to spend (`effort_accept_max`).
    #[error("the challenge asks an effort of {asked}, above our limit of {limit}")]
    Effort {
        /// Evaluations asked.
        asked: u64,
        /// Our limit.
        limit: u64,
    },
    /// A harder inner condition than we accept (`inner_bits_accept_max`).
    #[error("the challenge asks {asked} inner bits, above our limit of {limit}")]
    InnerBits {
        /// Bits asked.
        asked: u8,
        /// Our limit.
        limit: u8,
    },
}

/// Where in the handshake we were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// Reaching the onion service.
    #[error("dialling")]
    Dial,
    /// Waiting for hello, or a solution in its place.
    #[error("awaiting hello")]
    Hello,
    /// Waiting for the challenge.
    #[error("awaiting the challenge")]
    Challenge,
    /// Working.
    #[error("solving")]
    Solve,
    /// Waiting for the solution.
    #[error("awaiting the solution")]
    Solution,
    /// Verifying and deciding.
    #[error("deciding")]
    Decision,
    /// Waiting for the welcome.
    #[error("awaiting the welcome")]
    Welcome,
    /// Writing a message.
    #[error("sending")]
    Send,
}

/// Our own fault or a component's: the node could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal: {0}")]
pub struct Internal(pub String);

/// Why a handshake ended without admission.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// What came is no canonical message within limits.
    #[error("malformed message")]
    Malformed(#[source] Malformed),
    /// The other side broke a rule.
    #[error("peer misbehaved: {0}")]
    PeerMisbehaved(Misbehaviour),
    /// The other side is honest, but we cannot go together.
    #[error("peer incompatible: {0}")]
    PeerIncompatible(Incompatibility),
    /// No stream to the other side could be had.
    #[error("could not dial")]
    Dial(#[source] DialError),
    /// The other side refused us and said this much.
    #[error("refused by the peer: {code}")]
    Refused {
        /// Why.
        code: RefusalCode,
        /// Seconds after which to come again, where it said so.
        retry_s: Option<u32>,
    },
    /// Our own policy refused the other side.
    #[error("not admitted by our policy: {0}")]
    NotAdmitted(RefusalCode),
    /// We have no slot or turn to give.
    #[error("busy")]
    Busy,
    /// Another stranger got the place. Nothing is lost: a solution is taken on any stream.
    #[error("made to go for others")]
    Shed,
    /// A step took longer than its deadline.
    #[error("timed out while {0}")]
    Timeout(Step),
    /// The stream ended before the handshake did.
    #[error("the stream ended while {0}")]
    HungUp(Step),
    /// The stream failed.
    #[error("the stream failed while {step}")]
    Io {
        /// Where we were.
        step: Step,
        /// What the transport said.
        source: io::Error,
    },
    /// Our own fault.
    #[error(transparent)]
    Internal(Internal),
}

impl HandshakeError {
    /// What the other side is told, if anything: nothing when the stream is gone or it has already refused us.
    pub fn code(&self) -> Option<RefusalCode> {
        match self {
            Self::Malformed(_) => Some(RefusalCode::Malformed),
            Self::PeerMisbehaved(what) => Some(what.code()),
            Self::PeerIncompatible(Incompatibility::Version) => Some(RefusalCode::Version),
            Self::PeerIncompatible(_) => None,
            Self::NotAdmitted(code) => Some(*code),
            Self::Busy | Self::Timeout(Step::Decision) => Some(RefusalCode::Busy),
            Self::Internal(_) => Some(RefusalCode::Internal),
            Self::Dial(_)
            | Self::Refused { .. }
            | Self::Shed
            | Self::Timeout(_)
            | Self::HungUp(_)
            | Self::Io { .. } => None,
        }
    }

    /// What a refusal of the other side means here.
    pub(crate) fn refused(refused: &Refused) -> Self {
        Self::Refused {
            code: refused.code,
            retry_s: refused.retry_s,
        }
    }

    /// Whether only a hostile or broken program does this: then what else came on the same circuit goes too. A cookie
    /// that is old or used, or our own id, may be an accident.
    pub fn is_abuse(&self) -> bool {
        use RefusalCode::{Expired, OwnPeerId, Used};
        match self {
            Self::Malformed(_) => true,
            Self::PeerMisbehaved(what) => !matches!(what.code(), Expired | OwnPeerId | Used),
            _ => false,
        }
    }

    /// A frame that could not be read or written during `step`.
    pub(crate) fn from_frame(error: FrameError, step: Step) -> Self {
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
            Self::CookieNotOurs | Self::CookieExpired | Self::Ticket => RefusalCode::Expired,
            Self::CookieUsed => RefusalCode::Used,
            Self::InnerCondition | Self::Work => RefusalCode::Work,
            Self::Signature | Self::KeyChain(_) => RefusalCode::Signature,
            Self::OnionUnproved | Self::OnionNotDialled => RefusalCode::Onion,
            Self::OwnPeerId => RefusalCode::OwnPeerId,
            Self::CookieOfAnotherOnion
            | Self::CookieAbsurd
            | Self::Claims(_)
            | Self::DomainsDiffer
            | Self::OutOfOrder { .. } => RefusalCode::Malformed,
        }
    }
}

impl From<Misbehaviour> for HandshakeError {
    fn from(what: Misbehaviour) -> Self {
        Self::PeerMisbehaved(what)
    }
}

impl From<Incompatibility> for HandshakeError {
    fn from(what: Incompatibility) -> Self {
        Self::PeerIncompatible(what)
    }
}

impl From<Malformed> for HandshakeError {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

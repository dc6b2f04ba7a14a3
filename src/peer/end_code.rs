//! [`EndCode`]: why this node ends a session, as `bye` tells the peer.

/// The code of a `bye` that this node sends. `docs/ERRORS.md` explains each one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCode {
    /// No session slot is free, or the slot went to a peer with higher priority.
    Busy,
    /// Another session with the same peer stays.
    Duplicate,
    /// The session ended without a more specific reason.
    End,
    /// The peer broke the protocol.
    Misbehaviour,
    /// The operator refused or banned the peer.
    Refused,
    /// This node's key was rotated. The next handshake shows the new key.
    Rotated,
    /// This node stops.
    Shutdown,
    /// No whole frame arrived in time.
    Silence,
}

impl EndCode {
    /// The stable code on the wire (`docs/ERRORS.md`).
    pub fn code(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Duplicate => "duplicate",
            Self::End => "end",
            Self::Misbehaviour => "misbehaviour",
            Self::Refused => "refused",
            Self::Rotated => "rotated",
            Self::Shutdown => "shutdown",
            Self::Silence => "silence",
        }
    }
}

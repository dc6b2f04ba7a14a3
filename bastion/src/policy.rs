//! The node's part in a handshake: its own profile, and the decision about an applicant.
//!
//! [`LocalProfile`] is needed on both sides of a handshake, [`AdmissionPolicy`] only on the server
//! side. The node implements both; this crate holds no policy.

use futures::future::BoxFuture;
use keys::TraceId;

use crate::claims::{NodeProfile, PeerClaims};
use crate::error::Internal;
use crate::messages::RefusalCode;
use crate::ticket::Tier;

/// A peer whose claims are verified, and whose proof of work or ticket is valid.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// The peer's verified claims.
    pub claims: &'a PeerClaims,
    /// Effort of the solved puzzle in expected evaluations; 0 with a ticket.
    pub effort: u64,
    /// Unix seconds at which the ticket was issued, if the peer used one. A later ban of the peer
    /// voids the ticket.
    pub ticket_issued: Option<u64>,
    /// Trace id of the handshake's span, which writes of the policy carry too.
    pub trace: TraceId,
}

/// The decision of an [`AdmissionPolicy`] about an [`Applicant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Admit the peer in this tier.
    Admit(Tier),
    /// Refuse the peer and send it this code: `policy`, `pending`, `banned`, `expired`, `busy`,
    /// `signature` or `internal`.
    Refuse(RefusalCode),
}

/// Provides the profile that this node claims in a handshake.
pub trait LocalProfile: Send + Sync + 'static {
    /// Returns the profile to claim now. Called once for each handshake.
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>>;
}

/// Decides whether an applicant is admitted.
pub trait AdmissionPolicy: Send + Sync + 'static {
    /// Decides about an applicant by bans, admission policy and free session slots.
    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision>;
}

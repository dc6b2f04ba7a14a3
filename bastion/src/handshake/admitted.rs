//! [`Admitted`]: the proof of a completed handshake.

use std::time::Duration;

use crate::claims::PeerClaims;
use crate::features::Features;
use crate::ticket::{Ticket, Tier};

/// A peer that this node admitted, or that admitted this node.
///
/// Only a completed handshake constructs this type. On the server side the peer's work or ticket,
/// signature and onion address were verified. On the client side the peer's signature and onion
/// address were verified.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub(super) claims: PeerClaims,
    pub(super) domains: Vec<String>,
    pub(super) features: Features,
    pub(super) tier: Tier,
    pub(super) ticket: Option<Ticket>,
    pub(super) we_dialled: bool,
    pub(super) effort: u64,
    pub(super) solving_time: Duration,
}

impl Admitted {
    /// Returns the peer's verified claims.
    pub fn claims(&self) -> &PeerClaims {
        &self.claims
    }

    /// Returns the names of the sync domains that both nodes have, sorted.
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// Returns the features that both nodes offer.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Returns the peer's tier. A peer that this node dialled is trusted.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Returns the ticket that replaces the work in the next handshake with this peer. Only the
    /// client side has one.
    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    /// Returns whether this node opened the stream. In that case the peer is known to be reachable
    /// at its onion address.
    pub fn we_dialled(&self) -> bool {
        self.we_dialled
    }

    /// Returns the effort of the puzzle that the client solved, in expected evaluations; 0 with a
    /// ticket.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// Returns how long this node solved; zero on the server side.
    pub fn solving_time(&self) -> Duration {
        self.solving_time
    }
}

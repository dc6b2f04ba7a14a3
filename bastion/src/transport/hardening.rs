//! What makes an onion service hard to drown, and what an operator sees of it. Plain values, also without Tor.
//!
//! Never says who is at a circuit's other end: there is nothing to say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What Tor itself is asked to do for the service. The operator's words for each field are in the node's config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardening {
    /// Introduction points, 3 to 20.
    pub intro_points: u8,
    /// Requests a second that each introduction point is asked to let through; 0 asks for no limit.
    pub intro_rate_per_s: u32,
    /// Requests that each may let through at once, at least the rate.
    pub intro_burst: u32,
    /// How the relays next to the guard are chosen.
    pub vanguards: Vanguards,
    /// Requests that may wait, the greatest effort first, when Tor's own proof of work is on; `None`: it is off.
    pub pow_queue_max: Option<usize>,
}

impl Hardening {
    /// The defaults; their reasons stand in the node's config.
    pub const DEFAULT: Self = Self {
        intro_points: 3,
        intro_rate_per_s: 10,
        intro_burst: 100,
        vanguards: Vanguards::Lite,
        pow_queue_max: None,
    };
}

impl Default for Hardening {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Relays that are kept for long as second (and third) hops, so that an attacker who makes us build circuits without
/// end does not get to see who our guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vanguards {
    /// Second hops are kept.
    Lite,
    /// Second and third hops are kept; circuits are one hop longer.
    Full,
}

impl Vanguards {
    /// The word in config, status and arti.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lite => "lite",
            Self::Full => "full",
        }
    }
}

/// An onion service at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TorStatus {
    /// What Tor was asked to do.
    pub hardening: Hardening,
    /// Streams at once on one circuit.
    pub streams_per_circuit_max: u32,
    /// Rendezvous circuits at once.
    pub circuits_max: usize,
    /// Rendezvous circuits being built at once.
    pub accepts_max: usize,
    /// Circuits now.
    pub circuits: CircuitCounts,
    /// Tor's own proof of work.
    pub pow: Extra,
    /// Bridges.
    pub bridges: Extra,
}

/// Circuits to one service: now, and since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitCounts {
    /// Open now.
    pub open: usize,
    /// Being built now.
    pub building: usize,
    /// Requests that wait to be built now.
    pub waiting: usize,
    /// Built so far.
    pub built_total: u64,
    /// Given up while being built, by Tor or after the deadline.
    pub failed_total: u64,
    /// Ended to make room: the longest without a stream, or the slowest to be built.
    pub shed_total: u64,
    /// Requests and streams turned away for want of room.
    pub refused_total: u64,
    /// Shut on abuse.
    pub abused_total: u64,
}

/// Something that only some builds have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extra {
    /// This build has it.
    pub built_in: bool,
    /// It is in use.
    pub on: bool,
}

/// Tells how an onion service does. Never blocks for long.
pub type TorWatch = Arc<dyn Fn() -> TorStatus + Send + Sync>;

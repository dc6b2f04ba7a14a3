//! Settings that protect an onion service against floods, and its status. Plain values, also in
//! builds without Tor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Tor's own protection of the service. docs/CONFIG.md describes the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardening {
    /// Introduction points, 3 to 20.
    pub intro_points: u8,
    /// Requests per second that each introduction point forwards; 0 is no limit.
    pub intro_rate_per_s: u32,
    /// Burst of requests that each introduction point forwards; at least the rate.
    pub intro_burst: u32,
    /// Selection of the relays next to the guard.
    pub vanguards: Vanguards,
    /// Requests that wait under Tor's own proof of work, greatest effort first; `None`: off.
    pub pow_queue_max: Option<usize>,
}

impl Hardening {
    /// The defaults. docs/CONFIG.md has the reasons.
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

/// Vanguards: relays kept for long as second (and third) hops.
///
/// They prevent an attacker who makes this node build many circuits from discovering its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vanguards {
    /// Second hops are kept.
    Lite,
    /// Second and third hops are kept; circuits are one hop longer.
    Full,
}

impl Vanguards {
    /// The name in configuration, status and arti.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lite => "lite",
            Self::Full => "full",
        }
    }
}

/// The status of an onion service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TorStatus {
    /// Tor's own protection.
    pub hardening: Hardening,
    /// Most concurrent streams on one circuit.
    pub streams_per_circuit_max: u32,
    /// Most concurrent rendezvous circuits.
    pub circuits_max: usize,
    /// Most concurrent builds of rendezvous circuits.
    pub accepts_max: usize,
    /// Current counts.
    pub circuits: CircuitCounts,
    /// Tor's own proof of work.
    pub pow: OptionalFeature,
    /// Bridges.
    pub bridges: OptionalFeature,
}

/// Circuits of one service: current counts, and totals since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitCounts {
    /// Open circuits.
    pub open: usize,
    /// Circuits being built.
    pub building: usize,
    /// Requests that wait for a build.
    pub waiting: usize,
    /// Circuits built.
    pub built_total: u64,
    /// Builds that failed in Tor or missed the deadline.
    pub failed_total: u64,
    /// Evicted circuits: the longest without a stream, or the slowest build.
    pub evicted_total: u64,
    /// Requests and streams refused for lack of slots.
    pub refused_total: u64,
    /// Circuits shut for abuse.
    pub abused_total: u64,
}

/// A feature that only some builds have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalFeature {
    /// Whether this build contains the feature.
    pub built_in: bool,
    /// Whether the feature is in use.
    pub on: bool,
}

/// Returns the current status of an onion service. Does not block.
pub type TorWatch = Arc<dyn Fn() -> TorStatus + Send + Sync>;

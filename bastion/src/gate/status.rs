//! [`GateStatus`]: a snapshot of the gate for the local API.

use super::slots::HandshakeCounts;

/// The gate's load and counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateStatus {
    /// Effort that the next client without a ticket has to spend, in expected evaluations.
    pub effort: u64,
    /// Load in thousandths; 1000 is full.
    pub load_permille: u64,
    /// Open handshakes by stage.
    pub handshakes: HandshakeCounts,
    /// Solutions with work that wait for a worker.
    pub queue: usize,
    /// Solutions that are being verified.
    pub verifying: usize,
    /// Invalid solutions, counted over about a minute.
    pub failures_per_minute: u64,
    /// Verified solutions, admitted or not, counted over about a minute.
    pub admissions_per_minute: u64,
    /// Replies in the reply cache.
    pub cached_replies: usize,
    /// Peers admitted since the start.
    pub admitted_total: u64,
    /// Peers admitted with a ticket since the start.
    pub by_ticket_total: u64,
    /// Handshakes that ended without admission since the start.
    pub refused_total: u64,
    /// Handshakes that ended with `busy` or by eviction since the start.
    pub busy_total: u64,
}

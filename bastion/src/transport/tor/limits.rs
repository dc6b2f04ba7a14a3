//! This node's limits on circuits, streams and deadlines.

use std::time::Duration;

/// Limits on circuits, streams and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TorLimits {
    /// Deadline of the bootstrap. 10 min, because the first one loads some megabytes over a
    /// possibly slow link.
    pub bootstrap_deadline: Duration,
    /// Deadline of one dial. 60 s, because a dial builds three circuits, and each may need a retry.
    pub dial_deadline: Duration,
    /// Most concurrent builds of rendezvous circuits. 16, because a request costs a client one cell
    /// and this node a circuit.
    pub accepts_max: usize,
    /// Deadline of one build. 30 s, because unreachable relays make builds slow.
    pub accept_deadline: Duration,
    /// Age from which a build may be evicted for a waiting request. 10 s, because rendezvous points
    /// that never reply would otherwise hold all slots.
    pub accept_deadline_pressed: Duration,
    /// Most waiting requests; a further one drops the oldest. 64 take a few seconds to build.
    pub requests_waiting_max: usize,
    /// Longest wait of a request. 10 s, because the client also waits for the build.
    pub request_wait: Duration,
    /// Most open rendezvous circuits; a further one evicts the longest without a stream. 1024: all
    /// sessions, handshakes and arrivals on separate circuits, with a margin.
    pub circuits_max: usize,
    /// Longest time of a circuit without a stream. 60 s, because a peer that dials again reuses it.
    pub circuit_idle: Duration,
    /// Most concurrent streams on one circuit; a further one shuts it. 8, because a node needs two.
    pub streams_per_circuit_max: u32,
    /// Most stream requests on one circuit within a minute; a further one shuts it. 30 is what a
    /// dial needs at most if it receives `busy` repeatedly.
    pub streams_per_minute_max: u32,
    /// Most accepted streams that wait for the gate. 32; further ones wait in Tor.
    pub arrivals_max: usize,
}

impl TorLimits {
    /// The defaults. Each field documents its reason.
    pub const DEFAULT: Self = Self {
        bootstrap_deadline: Duration::from_secs(600),
        dial_deadline: Duration::from_secs(60),
        accepts_max: 16,
        accept_deadline: Duration::from_secs(30),
        accept_deadline_pressed: Duration::from_secs(10),
        requests_waiting_max: 64,
        request_wait: Duration::from_secs(10),
        circuits_max: 1024,
        circuit_idle: Duration::from_secs(60),
        streams_per_circuit_max: 8,
        streams_per_minute_max: 30,
        arrivals_max: 32,
    };
}

impl Default for TorLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

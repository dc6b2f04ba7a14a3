//! The limits that the node runs with: those of the file, the fixed ones and the derived ones.
//!
//! One struct for each part of the node; `limits.rs` fills them from the tables of the file. All
//! numbers are fields, so that tests can set them. The values that an operator cannot decide
//! better are fixed here.
//!
//! Invariant: for all values that `check.rs` accepts, every wait is finite and every buffer is
//! bounded.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use keys::{OnionAddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::op_context::Timestamp;

/// Which peers are admitted after the puzzle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Every peer that solves the puzzle.
    Open,
    /// Peers that the operator approved; others wait for approval.
    Approve,
    /// Peers that the operator listed, approved, or dials.
    Allowlist,
}

impl Policy {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approve => "approve",
            Self::Allowlist => "allowlist",
        }
    }
}

/// Which invitations to scopes of other owners the node accepts without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvitationPolicy {
    /// Those of owners that the address book names.
    Contacts,
    /// None.
    Ask,
    /// All.
    All,
}

/// Whether the node becomes known to the nodes of other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntroducePolicy {
    /// To those of members of conversations in which an identity of this node takes part.
    Members,
    /// Never.
    Never,
}

/// Limits of the local HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Loopback address and port; see `[api]` in `docs/CONFIG.md`.
    pub listen: SocketAddr,
    /// Longest request body, in bytes.
    ///
    /// Default 1,048,576: above the largest object in base64.
    pub body_bytes_max: usize,
    /// Requests in progress at the same time, waiting ones included.
    ///
    /// Default 64: a few frontends with a few tabs each.
    pub requests_max: usize,
    /// Time for a request, in seconds, a dial and its puzzle included.
    ///
    /// Default 600: a puzzle under load takes minutes.
    pub request_deadline_s: u64,
}

/// Which peers are admitted, and how long requests and verdicts last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Which peers are admitted after the puzzle.
    pub policy: Policy,
    /// Peers that are admitted under every policy, and trusted.
    pub allow: Vec<PeerId>,
    /// Days after which an absent untrusted peer is forgotten; 0 is never.
    pub untrusted_idle_days: u64,
    /// Pending requests under [`Policy::Approve`]. When all are taken, a request of higher effort
    /// replaces the one of lowest effort.
    ///
    /// Default 256: at most about 2 MiB of claims, and more than an operator reads.
    pub pending_max: usize,
    /// Days after its last attempt for which a pending request is kept.
    ///
    /// Default 14: the operator may be on holiday.
    pub pending_days: u64,
    /// Days for which a refusal holds if the operator gives no time.
    ///
    /// Default 30: a refusal is temporary; a ban has no end.
    pub refused_days: u64,
}

/// When and how much is exchanged with peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Seconds between two pulls of one domain from one peer; 0 is off. Scopes and domains
    /// that are to be pulled again do not depend on it.
    pub pull_interval_s: u64,
    /// Seconds between two pushes of one domain to one peer; 0 is off.
    pub push_interval_s: u64,
    /// Seconds that a pull asks the peer to wait for changes; 0 is off.
    pub pull_wait_s: u64,
    /// Pulls of all peers that wait for changes; further ones are answered at once.
    ///
    /// Derived: 2 × `sessions_max`. Each takes a few hundred bytes.
    pub waiting_pulls_max: usize,
    /// Sessions at the same time.
    pub sessions_max: usize,
    /// Sessions of untrusted peers at the same time, fewer than `sessions_max`, so that trusted
    /// peers find a slot without an eviction.
    ///
    /// Derived: `sessions_max` / 2.
    pub sessions_untrusted_max: usize,
    /// Requests of one peer in progress at the same time.
    ///
    /// Default 64: a waiting pull for each of 63 domains, and a push.
    pub requests_in_flight_max: usize,
    /// Time for a peer's reply to a request, in seconds, beyond the wait that was requested.
    ///
    /// Default 180: a full package over a circuit of 6 kB per second.
    pub reply_deadline_s: u64,
    /// Domains of which a change is pushed at once, by the onion address of the peer; see
    /// `[[peer]]` in `docs/CONFIG.md`.
    pub outbox: BTreeMap<OnionAddr, Vec<String>>,
    /// Silence after which a session is pinged, in seconds.
    ///
    /// Default 30: keeps circuits open.
    pub ping_interval_s: u64,
    /// Time without a complete frame after which a session ends, in seconds.
    ///
    /// Derived: `reply_deadline_s` + 2 × `ping_interval_s`, because a package in transit is not
    /// silence.
    pub silence_s_max: u64,
    /// Dials at the same time.
    pub dials_max: usize,
    /// Delay before a failed dial is repeated, in seconds; doubles with each failure.
    ///
    /// Default 30: within less, Tor's directories return the old descriptor.
    pub backoff_s_min: u64,
    /// Longest delay between two dials of one peer, in seconds.
    ///
    /// Default 1,800: a peer that returns is dialled within half an hour.
    pub backoff_s_max: u64,
    /// Whether this node is introduced to the nodes of other members; see `[sync]` in
    /// `docs/CONFIG.md`.
    pub introduces: bool,
    /// Time between two looks for members' nodes that this node does not know, in milliseconds.
    ///
    /// Default 15,000: short beside the time that members need to write.
    pub introduce_look_ms: u64,
    /// Longest delay of the first dial to a node that was introduced, in milliseconds. Chance
    /// chooses the delay.
    ///
    /// Default 60,000: an observer of Tor traffic does not see which message caused the dial.
    pub introduce_delay_ms_max: u64,
    /// Longest time after which a peer is asked for the addresses of members again, in seconds.
    ///
    /// Default 3,600: a member may have returned.
    pub introduce_repeat_s_max: u64,
    /// Whether chance shortens each delay, so that peers that failed together do not retry
    /// together.
    ///
    /// Default true. Without it a simulation can be repeated.
    pub has_jitter: bool,
}

/// See [`AdmissionConfig::pending_max`].
pub(super) const PENDING_MAX: usize = 256;
/// See [`AdmissionConfig::pending_days`].
pub(super) const PENDING_DAYS: u64 = 14;
/// See [`AdmissionConfig::refused_days`].
pub(super) const REFUSED_DAYS: u64 = 30;

impl ApiConfig {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        listen: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8470),
        body_bytes_max: 1 << 20,
        requests_max: 64,
        request_deadline_s: 600,
    };
}

impl AdmissionConfig {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        policy: Policy::Open,
        allow: Vec::new(),
        untrusted_idle_days: 30,
        pending_max: PENDING_MAX,
        pending_days: PENDING_DAYS,
        refused_days: REFUSED_DAYS,
    };

    /// Earliest last attempt of a pending request that is still kept.
    pub fn pending_since(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(days_ms(self.pending_days)))
    }

    /// Default duration of a refusal, in milliseconds.
    pub fn refused_ms(&self) -> u64 {
        days_ms(self.refused_days)
    }
}

impl SyncConfig {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        pull_interval_s: 30,
        push_interval_s: 0,
        pull_wait_s: 30,
        waiting_pulls_max: 2 * 256,
        outbox: BTreeMap::new(),
        sessions_max: 256,
        sessions_untrusted_max: 256 / 2,
        requests_in_flight_max: 64,
        reply_deadline_s: 180,
        ping_interval_s: 30,
        silence_s_max: 180 + 2 * 30,
        dials_max: 4,
        backoff_s_min: 30,
        backoff_s_max: 1800,
        introduces: true,
        introduce_look_ms: 15_000,
        introduce_delay_ms_max: 60_000,
        introduce_repeat_s_max: 3600,
        has_jitter: true,
    };

    /// Sets `sessions_max` and the limits that are derived from it.
    #[must_use]
    pub fn with_sessions_max(mut self, sessions_max: usize) -> Self {
        self.sessions_max = sessions_max;
        self.sessions_untrusted_max = sessions_max / 2;
        self.waiting_pulls_max = 2 * sessions_max;
        self
    }

    /// Interval between two pulls; `None` is off.
    pub fn pull_interval(&self) -> Option<Duration> {
        interval(self.pull_interval_s)
    }

    /// Interval between two pushes; `None` is off.
    pub fn push_interval(&self) -> Option<Duration> {
        interval(self.push_interval_s)
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn days_ms(days: u64) -> u64 {
    days.saturating_mul(24 * 60 * 60 * 1000)
}

fn interval(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_peers_have_a_slot_for_every_number_of_sessions() {
        for sessions_max in [2, 3, 256, 1_000_000] {
            let sync = SyncConfig::DEFAULT.with_sessions_max(sessions_max);
            assert!(sync.sessions_untrusted_max >= 1);
            assert!(sync.sessions_untrusted_max < sync.sessions_max);
        }
    }

    #[test]
    fn session_stays_open_while_a_reply_is_due() {
        let sync = SyncConfig::DEFAULT;
        let pings_s = 2 * sync.ping_interval_s;
        assert_eq!(sync.silence_s_max, sync.reply_deadline_s + pings_s);
    }
}

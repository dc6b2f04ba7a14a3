//! The keys of earlier versions, under their old names.
//!
//! Plain data for `removed.rs`. Numbers come from the defaults of the structs where these can be
//! imported; tests of `core_limits` and `limits.rs` compare the others.

use bastion::GateConfig;
use keys::protocol;

use crate::config::settings::{ApiConfig, PENDING_DAYS, PENDING_MAX, REFUSED_DAYS, SyncConfig};

/// The number that replaces a removed key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Now {
    /// A fixed number.
    Fixed(u64),
    /// Computed from keys, as the text says.
    Derived(&'static str),
}

const GATE: &GateConfig = &GateConfig::DEFAULT;
const SYNC: &SyncConfig = &SyncConfig::DEFAULT;
const API: ApiConfig = ApiConfig::DEFAULT;

/// Renamed tables and keys: the old path, and the new last part of it.
pub(crate) static RENAMED: &[(&str, &str)] = &[
    ("admission.worked_idle_days", "untrusted_idle_days"),
    ("quota.worked", "untrusted"),
];

/// Removed tables. An empty one is left behind by a file in which all keys are comments.
pub(super) static REMOVED_TABLES: &[&str] = &["limits"];

/// Removed keys, under the names that earlier versions gave them and their tables.
#[rustfmt::skip]
pub(crate) static REMOVED: &[(&str, Now)] = &[
    ("api.body_bytes_max", Now::Fixed(API.body_bytes_max as u64)),
    ("api.requests_max", Now::Fixed(API.requests_max as u64)),
    ("api.request_deadline_s", Now::Fixed(API.request_deadline_s)),
    ("admission.pending_max", Now::Fixed(PENDING_MAX as u64)),
    ("admission.pending_days", Now::Fixed(PENDING_DAYS)),
    ("admission.refused_days", Now::Fixed(REFUSED_DAYS)),
    ("bastion.effort_calm", Now::Derived("8, or effort_max if that is lower")),
    ("bastion.effort_base", Now::Derived("1024, or effort_max if that is lower")),
    ("bastion.effort_calm_percent", Now::Fixed(GATE.idle_load_percent as u64)),
    ("bastion.effort_doubling_s", Now::Fixed(GATE.effort_doubling_s)),
    ("bastion.effort_halving_s", Now::Fixed(GATE.effort_halving_s)),
    ("bastion.failures_per_minute_max", Now::Fixed(GATE.failures_per_minute_max)),
    ("bastion.admissions_per_minute_max", Now::Fixed(GATE.admissions_per_minute_max)),
    ("bastion.inner_bits", Now::Fixed(GATE.inner_bits as u64)),
    ("bastion.inner_bits_accept_max", Now::Fixed(GATE.inner_bits_accept_max as u64)),
    ("bastion.cookie_lifetime_s", Now::Fixed(GATE.cookie_lifetime_s)),
    ("bastion.serials_max", Now::Fixed(GATE.serials_max as u64)),
    ("bastion.stranger_frame_bytes_max", Now::Fixed(protocol::UNADMITTED_FRAME_BYTES_MAX as u64)),
    ("bastion.frame_bytes_max", Now::Fixed(protocol::FRAME_BYTES_MAX as u64)),
    ("bastion.known_handshakes_max", Now::Derived("open_handshakes_max / 8, at least 1")),
    ("bastion.trusted_handshakes_max", Now::Derived("open_handshakes_max / 8, at least 1")),
    ("bastion.verify_niceness", Now::Fixed(GATE.verify_niceness as u64)),
    ("bastion.verify_queue_max", Now::Fixed(GATE.verify_queue_max as u64)),
    ("bastion.answers_max", Now::Derived("open_handshakes_max / 2, at least 1")),
    ("bastion.ticket_lifetime_s", Now::Fixed(GATE.ticket_lifetime_s)),
    ("bastion.ticket_uses_per_minute_max", Now::Fixed(GATE.ticket_uses_per_minute_max as u64)),
    ("bastion.ticket_peers_max", Now::Fixed(GATE.ticket_peers_max as u64)),
    ("bastion.hello_deadline_s", Now::Fixed(GATE.hello_deadline_s)),
    ("bastion.solution_deadline_s", Now::Fixed(GATE.solution_deadline_s)),
    ("bastion.decision_deadline_s", Now::Fixed(GATE.decision_deadline_s)),
    ("bastion.send_deadline_s", Now::Fixed(GATE.send_deadline_s)),
    ("bastion.dial_deadline_s", Now::Fixed(GATE.dial_deadline_s)),
    ("bastion.answer_deadline_s", Now::Fixed(GATE.reply_deadline_s)),
    ("bastion.solve_deadline_s", Now::Fixed(GATE.solve_deadline_s)),
    ("bastion.presentations_max", Now::Fixed(GATE.attempts_max as u64)),
    ("bastion.busy_wait_s_max", Now::Fixed(GATE.retry_delay_s_max)),
    ("bastion.identities_max", Now::Fixed(protocol::CLAIMED_IDENTITIES_MAX as u64)),
    ("bastion.apps_max", Now::Fixed(protocol::CLAIMED_APPS_MAX as u64)),
    ("bastion.sync_domains_max", Now::Fixed(protocol::CLAIMED_DOMAINS_MAX as u64)),
    ("bastion.key_events_max", Now::Fixed(protocol::KEY_EVENTS_MAX as u64)),
    ("sync.wait_s_max", Now::Fixed(protocol::PULL_WAIT_S_MAX)),
    ("sync.waiting_pulls_max", Now::Derived("2 × sessions_max")),
    ("sync.package_bytes_max", Now::Fixed(protocol::PACKAGE_BYTES_MAX as u64)),
    ("sync.package_objects_max", Now::Fixed(protocol::PACKAGE_OBJECTS_MAX as u64)),
    ("sync.sessions_worked_max", Now::Derived("sessions_max / 2")),
    ("sync.requests_in_flight_max", Now::Fixed(SYNC.requests_in_flight_max as u64)),
    ("sync.reply_deadline_s", Now::Fixed(SYNC.reply_deadline_s)),
    ("sync.ping_interval_s", Now::Fixed(SYNC.ping_interval_s)),
    ("sync.silence_s_max", Now::Fixed(SYNC.silence_s_max)),
    ("sync.backoff_s_min", Now::Fixed(SYNC.backoff_s_min)),
    ("sync.backoff_s_max", Now::Fixed(SYNC.backoff_s_max)),
    ("quota.worked.stored_objects_max", Now::Derived("stored_bytes_max / 1638, at least 4096")),
    ("quota.worked.total_objects_max", Now::Derived("total_bytes_max / 1638, at least 4096")),
    ("quota.worked.requests_per_minute_max", Now::Fixed(120)),
    ("quota.trusted.stored_objects_max", Now::Derived("stored_bytes_max / 1638, at least 4096")),
    ("quota.trusted.total_objects_max", Now::Derived("total_bytes_max / 1638, at least 4096")),
    ("quota.trusted.requests_per_minute_max", Now::Fixed(6000)),
    ("limits.object_bytes_max", Now::Fixed(protocol::OBJECT_BYTES_MAX as u64)),
    ("limits.object_attrs_max", Now::Fixed(protocol::OBJECT_ATTRS_MAX as u64)),
    ("limits.key_events_max", Now::Fixed(protocol::KEY_EVENTS_MAX as u64)),
    ("limits.parked_per_peer_max", Now::Fixed(1000)),
    ("limits.rejects_per_peer_max", Now::Fixed(1000)),
    ("transport.bootstrap_deadline_s", Now::Fixed(600)),
    ("transport.accepts_max", Now::Fixed(16)),
    ("transport.accept_deadline_s", Now::Fixed(30)),
    ("transport.accept_deadline_pressed_s", Now::Fixed(10)),
    ("transport.requests_waiting_max", Now::Fixed(64)),
    ("transport.request_wait_s", Now::Fixed(10)),
    ("transport.circuits_max", Now::Derived("sessions_max + all handshake slots + 128")),
    ("transport.circuit_idle_s", Now::Fixed(60)),
    ("transport.streams_per_circuit_max", Now::Fixed(8)),
    ("transport.streams_per_minute_max", Now::Fixed(30)),
    ("transport.arrivals_max", Now::Fixed(32)),
    ("transport.intro_burst", Now::Derived("100, or intro_rate_per_s if that is higher")),
    ("transport.tor_pow_queue_max", Now::Fixed(2048)),
];

impl std::fmt::Display for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(number) => write!(f, "fixed at {number}"),
            Self::Derived(rule) => write!(f, "derived: {rule}"),
        }
    }
}

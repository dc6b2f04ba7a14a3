//! Values that are well-formed and still make no sense, alone or beside others.
//!
//! Pure: touches no file and no network. Invariant: what passes keeps every wait finite, every buffer bounded and the
//! API on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::{
    AdmissionConfig, ApiConfig, Config, LimitsConfig, NodeConfig, SyncConfig, TransportConfig,
    TransportKind,
};
use crate::schema::{Schemas, identities};
use crate::state_engine::PackageLimits;
use crate::toml_file::nearest;

/// A wait of more than a day is a slip, and far larger ones would overflow a clock.
const SECONDS_MAX: u64 = 24 * 60 * 60;
/// The protocol's limit on a waiting pull.
const WAIT_S_MAX: u64 = 60;
/// Room that a package's envelope and the message around it need in a frame.
const FRAME_ROOM_BYTES: usize = 4096;
/// Far above what a node can answer; what Tor can carry in a cell is a billion.
const INTRO_RATE_MAX: u32 = 1_000_000;
/// Largest number that the database counts to.
const STORED_MAX: u64 = i64::MAX as u64;
const NAME_BYTES_MAX: usize = 64;
const PEERS_MAX: usize = 10_000;
/// Longest key chain: 154 bytes for each event, in an attribute of 8,192.
const KEY_EVENTS_MAX: usize = 48;
/// Longest wait after a restore, in hours: sixty days.
const HOURS_MAX: u64 = 1440;
/// Ten years: what is meant to last longer has no end.
const DAYS_MAX: u64 = 3650;

/// Takes the path of a key and what is wrong with it.
type Note<'n> = &'n mut dyn FnMut(&str, &str);

impl Config {
    /// Notes every value that makes no sense.
    pub(super) fn check(&self, note: Note<'_>) {
        self.node.check(note);
        self.api.check(note);
        self.admission.check(note);
        self.sync.check(note);
        self.limits.check(note);
        self.check_quotas(note);
        self.transport.check(note);
        self.check_peers(note);
        if let Err(bad) = self.bastion.check() {
            note(&format!("bastion.{}", bad.key), bad.why);
        }
        self.check_tor(note);
        if let Err(error) = EnvFilter::try_new(&self.log.filter) {
            note("log.filter", &error.to_string());
        }
        let frame_bytes_min = PackageLimits::PROTOCOL.bytes_max + FRAME_ROOM_BYTES;
        if self.bastion.frame_bytes_max < frame_bytes_min {
            let why =
                format!("must be at least {frame_bytes_min}: peers may send packages of that size");
            note("bastion.frame_bytes_max", &why);
        }
        // The largest change group is a conversation with its first message, and a group is never split.
        let object_room = self.sync.package_bytes_max.saturating_sub(FRAME_ROOM_BYTES) / 2;
        if self.limits.object_bytes_max > object_room {
            let why = format!(
                "two do not fit a package: at most half of sync.package_bytes_max less {FRAME_ROOM_BYTES}"
            );
            note("limits.object_bytes_max", &why);
        }
    }

    /// arti's own table, by arti's own words; a misspelt key is named with its place.
    #[cfg(feature = "tor")]
    fn check_tor(&self, note: Note<'_>) {
        use bastion::transport::tor::TorError;
        let folder = std::path::Path::new("tor");
        match self.tor_config(folder).check() {
            Ok(()) => {}
            Err(TorError::UnknownKey(key)) => note(
                &format!("tor.{key}"),
                "unknown key; arti's documentation names them all",
            ),
            Err(TorError::OwnKey(key)) => note(
                &format!("tor.{key}"),
                "is this program's own affair: leave it out",
            ),
            Err(TorError::Contradiction { key, ours }) => note(
                &format!("tor.{key}"),
                &format!(
                    "contradicts transport.vanguards, which says \"{ours}\": leave it out here"
                ),
            ),
            // Tor's proof of work is asked for in our own table, and named there.
            Err(TorError::NotBuiltIn("tor-pow")) => {}
            Err(TorError::NotBuiltIn(feature)) => note(
                &format!("tor.{feature}"),
                &format!("this program was built without the feature `{feature}`: see README"),
            ),
            Err(error) => note("tor", &error.to_string()),
        }
    }

    #[cfg(not(feature = "tor"))]
    fn check_tor(&self, _: Note<'_>) {}

    /// A package that is within the protocol must fit an empty quota, or a peer could never begin.
    fn check_quotas(&self, note: Note<'_>) {
        let PackageLimits {
            bytes_max,
            objects_max,
        } = PackageLimits::PROTOCOL;
        let quotas = self.quota.quotas();
        for (tier, quota) in [("untrusted", quotas.untrusted), ("trusted", quotas.trusted)] {
            for (key, value, least, total_key, total) in [
                (
                    "stored_bytes_max",
                    quota.stored_bytes_max,
                    bytes_max as u64,
                    "total_bytes_max",
                    quota.total_bytes_max,
                ),
                (
                    "stored_objects_max",
                    quota.stored_objects_max,
                    objects_max as u64,
                    "total_objects_max",
                    quota.total_objects_max,
                ),
            ] {
                if value < least {
                    note(
                        &format!("quota.{tier}.{key}"),
                        &format!("must be at least {least}: what one package holds"),
                    );
                }
                if total < value {
                    note(
                        &format!("quota.{tier}.{total_key}"),
                        &format!("is below {key}"),
                    );
                }
                if total > STORED_MAX {
                    note(
                        &format!("quota.{tier}.{total_key}"),
                        &format!("must be at most {STORED_MAX}"),
                    );
                }
            }
            count(
                note,
                &format!("quota.{tier}.requests_per_minute_max"),
                quota.requests_per_minute_max as usize,
            );
        }
    }

    fn check_peers(&self, note: Note<'_>) {
        if self.peers.len() > PEERS_MAX {
            note("peer", &format!("at most {PEERS_MAX}"));
        }
        let mut seen = BTreeSet::new();
        for (place, peer) in self.peers.iter().enumerate() {
            if !seen.insert(peer.onion) {
                note(&format!("peer.{place}.onion"), "this peer is there already");
            }
            name(note, &format!("peer.{place}.name"), &peer.name);
        }
    }
}

impl NodeConfig {
    fn check(&self, note: Note<'_>) {
        name(note, "node.name", &self.name);
        if self.data_dir.as_os_str().is_empty() {
            note(
                "node.data_dir",
                "must not be empty; \".\" is the file's own folder",
            );
        }
        let distinct: BTreeSet<_> = self.apps.iter().collect();
        if distinct.len() < self.apps.len() {
            note("node.apps", "names an app twice");
        }
        // Apps of the operator's own are known only once their folder was read.
        if self.schema_dir.is_none() {
            for app in distinct
                .iter()
                .filter(|app| !Schemas::built_in().any(|slug| slug == **app))
            {
                let near = nearest(app, Schemas::built_in())
                    .map(|slug| format!("; did you mean `{slug}`?"));
                note(
                    "node.apps",
                    &format!("there is no app `{app}`{}", near.unwrap_or_default()),
                );
            }
        }
        if !distinct.iter().any(|app| *app == identities::APP) {
            note(
                "node.apps",
                "`identities` must be there: all other apps need it",
            );
        }
        if !(1..=HOURS_MAX).contains(&self.recovery_hours) {
            note("node.recovery_hours", &format!("must be 1 to {HOURS_MAX}"));
        }
    }
}

impl ApiConfig {
    fn check(&self, note: Note<'_>) {
        loopback(note, "api.listen", self.listen);
        bytes(
            note,
            "api.body_bytes_max",
            self.body_bytes_max,
            1024..=64 << 20,
        );
        count(note, "api.requests_max", self.requests_max);
        seconds(note, "api.request_deadline_s", self.request_deadline_s);
    }
}

impl AdmissionConfig {
    fn check(&self, note: Note<'_>) {
        if self.allow.len() > PEERS_MAX {
            note("admission.allow", &format!("at most {PEERS_MAX}"));
        }
        count(note, "admission.pending_max", self.pending_max);
        for (key, value) in [
            ("admission.pending_days", self.pending_days),
            ("admission.refused_days", self.refused_days),
        ] {
            if !(1..=DAYS_MAX).contains(&value) {
                note(key, &format!("must be 1 to {DAYS_MAX}"));
            }
        }
        if self.untrusted_idle_days > DAYS_MAX {
            note(
                "admission.untrusted_idle_days",
                &format!("must be at most {DAYS_MAX}; 0 is never"),
            );
        }
    }
}

impl SyncConfig {
    fn check(&self, note: Note<'_>) {
        for (key, value) in [
            ("sync.pull_interval_s", self.pull_interval_s),
            ("sync.push_interval_s", self.push_interval_s),
        ] {
            if value != 0 {
                seconds(note, key, value);
            }
        }
        for (key, value) in [
            ("sync.reply_deadline_s", self.reply_deadline_s),
            ("sync.ping_interval_s", self.ping_interval_s),
            ("sync.silence_s_max", self.silence_s_max),
            ("sync.backoff_s_min", self.backoff_s_min),
            ("sync.backoff_s_max", self.backoff_s_max),
        ] {
            seconds(note, key, value);
        }
        for (key, value) in [
            ("sync.pull_wait_s", self.pull_wait_s),
            ("sync.wait_s_max", self.wait_s_max),
        ] {
            if value > WAIT_S_MAX {
                note(key, &format!("the protocol allows {WAIT_S_MAX} at most"));
            }
        }
        for (key, value) in [
            ("sync.sessions_max", self.sessions_max),
            ("sync.sessions_untrusted_max", self.sessions_untrusted_max),
            ("sync.requests_in_flight_max", self.requests_in_flight_max),
            ("sync.waiting_pulls_max", self.waiting_pulls_max),
            ("sync.dials_max", self.dials_max),
        ] {
            count(note, key, value);
        }
        let PackageLimits {
            bytes_max,
            objects_max,
        } = PackageLimits::PROTOCOL;
        bytes(
            note,
            "sync.package_bytes_max",
            self.package_bytes_max,
            8192..=bytes_max,
        );
        if !(2..=objects_max).contains(&self.package_objects_max) {
            note(
                "sync.package_objects_max",
                &format!("must be 2 to {objects_max}"),
            );
        }
        if self.silence_s_max <= self.ping_interval_s {
            note(
                "sync.silence_s_max",
                "must be above ping_interval_s, or no ping is ever answered in time",
            );
        }
        if self.sessions_untrusted_max >= self.sessions_max {
            note(
                "sync.sessions_untrusted_max",
                "must be below sessions_max, or trusted peers find no room",
            );
        }
        if self.backoff_s_max < self.backoff_s_min {
            note("sync.backoff_s_max", "is below backoff_s_min");
        }
    }
}

impl LimitsConfig {
    fn check(&self, note: Note<'_>) {
        bytes(
            note,
            "limits.object_bytes_max",
            self.object_bytes_max,
            4096..=16 << 20,
        );
        count(note, "limits.object_attrs_max", self.object_attrs_max);
        if !(1..=KEY_EVENTS_MAX).contains(&self.key_events_max) {
            note(
                "limits.key_events_max",
                &format!("must be 1 to {KEY_EVENTS_MAX}: longer chains fit into no record"),
            );
        }
        for (key, value) in [
            ("limits.parked_per_peer_max", self.parked_per_peer_max),
            ("limits.rejects_per_peer_max", self.rejects_per_peer_max),
        ] {
            if value == 0 {
                note(key, "must be at least 1");
            }
        }
    }
}

impl TransportConfig {
    fn check(&self, note: Note<'_>) {
        for (key, value) in [
            ("transport.bootstrap_deadline_s", self.bootstrap_deadline_s),
            ("transport.accept_deadline_s", self.accept_deadline_s),
            (
                "transport.accept_deadline_pressed_s",
                self.accept_deadline_pressed_s,
            ),
            ("transport.request_wait_s", self.request_wait_s),
            ("transport.circuit_idle_s", self.circuit_idle_s),
        ] {
            seconds(note, key, value);
        }
        for (key, value) in [
            ("transport.accepts_max", self.accepts_max),
            ("transport.requests_waiting_max", self.requests_waiting_max),
            ("transport.circuits_max", self.circuits_max),
            (
                "transport.streams_per_circuit_max",
                self.streams_per_circuit_max as usize,
            ),
            (
                "transport.streams_per_minute_max",
                self.streams_per_minute_max as usize,
            ),
            ("transport.arrivals_max", self.arrivals_max),
            ("transport.tor_pow_queue_max", self.tor_pow_queue_max),
        ] {
            count(note, key, value);
        }
        self.check_service(note);
        loopback(note, "transport.loopback_listen", self.loopback_listen);
        for addr in self.loopback_directory.values() {
            loopback(note, "transport.loopback_directory", *addr);
        }
        if self.kind == TransportKind::Tor && !self.loopback_directory.is_empty() {
            note(
                "transport.loopback_directory",
                "has no effect with kind = \"tor\"",
            );
        }
    }
}

impl TransportConfig {
    /// What Tor itself is asked to do.
    fn check_service(&self, note: Note<'_>) {
        if !(3..=20).contains(&self.intro_points) {
            note("transport.intro_points", "must be 3 to 20, as Tor has it");
        }
        if self.intro_rate_per_s > INTRO_RATE_MAX {
            note(
                "transport.intro_rate_per_s",
                &format!("must be 0 to {INTRO_RATE_MAX}; 0 asks for no limit"),
            );
        }
        if self.intro_burst < self.intro_rate_per_s || self.intro_burst > INTRO_RATE_MAX {
            let why =
                format!("must be intro_rate_per_s to {INTRO_RATE_MAX}, or relays ignore both");
            note("transport.intro_burst", &why);
        }
        if self.tor_pow && cfg!(not(feature = "tor-pow")) {
            note(
                "transport.tor_pow",
                "this program was built without the feature `tor-pow`: see README",
            );
        }
    }
}

fn name(note: Note<'_>, key: &str, value: &str) {
    if value.len() > NAME_BYTES_MAX || value.chars().any(char::is_control) {
        note(
            key,
            &format!("at most {NAME_BYTES_MAX} bytes, without control characters"),
        );
    }
}

fn loopback(note: Note<'_>, key: &str, value: SocketAddr) {
    if !value.ip().is_loopback() {
        note(
            key,
            "must be a loopback address, such as 127.0.0.1: nothing here may be reached from another machine",
        );
    }
}

fn seconds(note: Note<'_>, key: &str, value: u64) {
    if !(1..=SECONDS_MAX).contains(&value) {
        note(key, &format!("must be 1 to {SECONDS_MAX}"));
    }
}

/// Counts of things held in memory: none makes no sense, a million does not fit.
fn count(note: Note<'_>, key: &str, value: usize) {
    if !(1..=1_000_000).contains(&value) {
        note(key, "must be 1 to 1000000");
    }
}

fn bytes(note: Note<'_>, key: &str, value: usize, possible: std::ops::RangeInclusive<usize>) {
    if !possible.contains(&value) {
        note(
            key,
            &format!("must be {} to {}", possible.start(), possible.end()),
        );
    }
}

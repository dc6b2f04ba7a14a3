//! Values that are well-formed and still make no sense, alone or beside others.
//!
//! Pure: touches no file and no network. Invariant: what passes keeps every wait finite, every buffer bounded and the
//! API on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::{AdmissionConfig, ApiConfig, Config, LimitsConfig, NodeConfig, SyncConfig, TransportConfig, TransportKind};
use crate::schema::{IDENTITIES, Schemas};
use crate::state_engine::PackageLimits;
use crate::toml_file::nearest;

/// A wait of more than a day is a slip, and far larger ones would overflow a clock.
const SECONDS_MAX: u64 = 24 * 60 * 60;
/// The protocol's limit on a waiting pull.
const WAIT_S_MAX: u64 = 60;
/// Room that a package's envelope and the message around it need in a frame.
const FRAME_ROOM_BYTES: usize = 4096;
const NAME_BYTES_MAX: usize = 64;
const PEERS_MAX: usize = 10_000;
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
            let why = format!("must be at least {frame_bytes_min}: peers may send packages of that size");
            note("bastion.frame_bytes_max", &why);
        }
        // The largest change group is a conversation with its first message, and a group is never split.
        let object_room = self.sync.package_bytes_max.saturating_sub(FRAME_ROOM_BYTES) / 2;
        if self.limits.object_bytes_max > object_room {
            let why =
                format!("two do not fit a package: at most half of sync.package_bytes_max less {FRAME_ROOM_BYTES}");
            note("limits.object_bytes_max", &why);
        }
    }

    /// arti's own table, by arti's own words; a misspelt key is named with its place.
    #[cfg(feature = "tor")]
    fn check_tor(&self, note: Note<'_>) {
        use bastion::transport::tor::{TorConfig, TorError};
        let mut tor = TorConfig::new("state", "cache");
        tor.arti = self.tor.clone();
        match tor.check() {
            Ok(()) => {}
            Err(TorError::UnknownKey(key)) => note(
                &format!("tor.{key}"),
                "unknown key; arti's documentation names them all",
            ),
            Err(TorError::OwnKey(key)) => note(&format!("tor.{key}"), "is this program's own affair: leave it out"),
            Err(error) => note("tor", &error.to_string()),
        }
    }

    #[cfg(not(feature = "tor"))]
    fn check_tor(&self, _: Note<'_>) {}

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
            note("node.data_dir", "must not be empty; \".\" is the file's own folder");
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
                let near = nearest(app, Schemas::built_in()).map(|slug| format!("; did you mean `{slug}`?"));
                note(
                    "node.apps",
                    &format!("there is no app `{app}`{}", near.unwrap_or_default()),
                );
            }
        }
        if !distinct.iter().any(|app| *app == IDENTITIES) {
            note("node.apps", "`identities` must be there: all other apps need it");
        }
    }
}

impl ApiConfig {
    fn check(&self, note: Note<'_>) {
        loopback(note, "api.listen", self.listen);
        bytes(note, "api.body_bytes_max", self.body_bytes_max, 1024..=64 << 20);
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
            ("sync.requests_in_flight_max", self.requests_in_flight_max),
            ("sync.waiting_pulls_max", self.waiting_pulls_max),
            ("sync.dials_max", self.dials_max),
        ] {
            count(note, key, value);
        }
        let PackageLimits { bytes_max, objects_max } = PackageLimits::PROTOCOL;
        bytes(note, "sync.package_bytes_max", self.package_bytes_max, 8192..=bytes_max);
        if !(2..=objects_max).contains(&self.package_objects_max) {
            note("sync.package_objects_max", &format!("must be 2 to {objects_max}"));
        }
        if self.silence_s_max <= self.ping_interval_s {
            note(
                "sync.silence_s_max",
                "must be above ping_interval_s, or no ping is ever answered in time",
            );
        }
        if self.backoff_s_max < self.backoff_s_min {
            note("sync.backoff_s_max", "is below backoff_s_min");
        }
    }
}

impl LimitsConfig {
    fn check(&self, note: Note<'_>) {
        bytes(note, "limits.object_bytes_max", self.object_bytes_max, 4096..=16 << 20);
        count(note, "limits.object_attrs_max", self.object_attrs_max);
        count(note, "limits.key_events_max", self.key_events_max);
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
        seconds(note, "transport.bootstrap_deadline_s", self.bootstrap_deadline_s);
        count(note, "transport.accepts_max", self.accepts_max);
        count(note, "transport.circuits_max", self.circuits_max);
        loopback(note, "transport.loopback_listen", self.loopback_listen);
        for addr in self.loopback_directory.values() {
            loopback(note, "transport.loopback_directory", *addr);
        }
        if self.kind == TransportKind::Tor && !self.loopback_directory.is_empty() {
            note("transport.loopback_directory", "has no effect with kind = \"tor\"");
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
        note(key, &format!("must be {} to {}", possible.start(), possible.end()));
    }
}

//! The tables of the config file. The comment on a field is what the operator reads beside the key in the file that
//! `init` writes: meaning, unit, default and reason.
//!
//! Plain values; never reads anything by itself. Invariant: a key's documentation names the default that it has
//! (tested), and unknown keys are fatal in every table.

use crate::op_context::Timestamp;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use keys::{OnionAddr, PeerId};
use serde::{Deserialize, Deserializer, Serialize};

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// A name for the operator's eyes, in status and console; never sent to anybody. Default "": the peer id says enough.
    pub name: String,
    /// Folder of the database and of Tor's state, from this file's folder on. Default ".": one folder to back up.
    pub data_dir: PathBuf,
    /// The apps that are turned on: what peers may sync and the local API offers. Default: all that are built in.
    /// `identities` is needed always.
    pub apps: Vec<String>,
    /// Folder of your own apps' schema files (`*.toml`), from this file's folder on. Default: none.
    pub schema_dir: Option<PathBuf>,
    /// File that holds the vault's passphrase, from this file's folder on; mode 0600. Default: none, it is asked for at
    /// the terminal. With it, whoever has the disk has the keys: better a systemd credential.
    pub passphrase_file: Option<PathBuf>,
    /// Hours after a restore for which changes of what exists wait for peers that were not asked yet for what they hold of
    /// this node's. Default 72: whoever is away over a weekend is back. `postern recovery finish` waits no longer.
    pub recovery_hours: u64,
}

/// The local HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Loopback address and port; port 0 takes any free one. Default "127.0.0.1:8470": no other machine gets in.
    pub listen: SocketAddr,
    /// Longest request body, in bytes. Default 1048576: above the largest object in base64.
    pub body_bytes_max: usize,
    /// Requests worked on at once, waiting ones among them. Default 64: a few frontends with a few tabs.
    pub requests_max: usize,
    /// Seconds for a request to be answered, a dial and its puzzle included. Default 600: a puzzle under load takes minutes.
    pub request_deadline_s: u64,
}

/// Who is let in after the puzzle. Read again on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// "open": who worked, with small quotas. "approve": a stranger waits until you say `postern peer approve`.
    /// "allowlist": only whom you know: listed here, approved, or dialled by us. `postern policy` changes it until the
    /// next start or SIGHUP, which reads this table again. Default "open": strangers can reach you, which is what an
    /// onion service is for.
    pub policy: Policy,
    /// Peer ids (64 hexadecimal digits) that are let in under every policy, and trusted. Default []: nobody.
    #[serde(with = "peer_ids")]
    pub allow: Vec<PeerId>,
    /// Days after which an untrusted peer that has not come back is forgotten: what it said of itself, where its sync stood and
    /// what waited of it; 0 is never. What it stored stays. Default 30: who comes once a month begins again at no loss.
    pub untrusted_idle_days: u64,
    /// Strangers that wait for your word under "approve". When all places are taken, who worked more takes the place of
    /// who worked least. Default 256: at most about 2 MiB of what they claim, and more than anybody reads through.
    pub pending_max: usize,
    /// Days after its last knock that a stranger is still remembered as waiting. Default 14: time for a holiday.
    pub pending_days: u64,
    /// Days that a refusal holds, where none are named with it. Default 30: longer than a whim; a ban is for good.
    pub refused_days: u64,
}

/// See [`AdmissionConfig::policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Who worked.
    Open,
    /// Whom the operator has approved.
    Approve,
    /// Who is known.
    Allowlist,
}

impl Policy {
    /// The word in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approve => "approve",
            Self::Allowlist => "allowlist",
        }
    }
}

/// Milliseconds of so many days.
fn days_ms(days: u64) -> u64 {
    days.saturating_mul(24 * 60 * 60 * 1000)
}

impl AdmissionConfig {
    /// Since when a stranger must have knocked to wait still.
    pub fn pending_since(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(days_ms(self.pending_days)))
    }

    /// How long a refusal holds by default, in milliseconds.
    pub fn refused_ms(&self) -> u64 {
        days_ms(self.refused_days)
    }
}

/// When and how much is exchanged with peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// Seconds between two pulls of the same domain from the same peer; 0 is off, then only `postern sync` pulls.
    /// Default 30: news within half a minute even without waiting pulls.
    pub pull_interval_s: u64,
    /// Seconds between two pushes of the same domain to the same peer; 0 is off. Default 0: a waiting pull is as quick.
    pub push_interval_s: u64,
    /// Seconds that our pulls ask a peer to wait for news; 0 is off, 60 the most. Default 30: a message arrives within a
    /// round trip of its writing.
    pub pull_wait_s: u64,
    /// Seconds that a peer's pull may wait here; 60 the most that the protocol allows. Default 60.
    pub wait_s_max: u64,
    /// Pulls waiting here at once, for all peers; further ones are answered at once. Default 512: each holds a few
    /// hundred bytes.
    pub waiting_pulls_max: usize,
    /// Longest package that we build, envelope included, in bytes. Default 983040: the most that the protocol allows.
    pub package_bytes_max: usize,
    /// Most objects in a package that we build. Default 4096: the most that the protocol allows.
    pub package_objects_max: usize,
    /// Sessions at once. Default 256: at two frames of 1 MiB each, half a GiB in the worst case.
    pub sessions_max: usize,
    /// Sessions of untrusted peers at once; below sessions_max, so that trusted peers find room without anybody being sent
    /// away. Default 128: half of all.
    pub sessions_untrusted_max: usize,
    /// Requests of one peer being answered at once. Default 64: a waiting pull for each of 63 domains, and a push.
    pub requests_in_flight_max: usize,
    /// Seconds for a peer's answer to a request, beyond the time that it was asked to wait. Default 180: a full package
    /// over a circuit of 6 kB a second.
    pub reply_deadline_s: u64,
    /// Seconds of silence after which a session is pinged. Default 30: keeps circuits alive.
    pub ping_interval_s: u64,
    /// Seconds without a whole frame after which a session ends. Default 240: above reply_deadline_s, so that a package
    /// on its way is no silence.
    pub silence_s_max: u64,
    /// Dials at once. Default 4: each builds three circuits.
    pub dials_max: usize,
    /// Seconds before a peer that could not be reached is dialled again; doubles each time. Default 30: sooner, Tor's
    /// directories would still give the old descriptor.
    pub backoff_s_min: u64,
    /// Most seconds between two dials of one peer. Default 1800: who comes back is met within half an hour, or dials us.
    pub backoff_s_max: u64,
}

/// A peer that this node dials by itself. Dialled peers are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its onion address.
    #[serde(deserialize_with = "onion")]
    pub onion: OnionAddr,
    /// A name for the operator's eyes.
    #[serde(default)]
    pub name: String,
}

/// What the node writes about itself, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// "human" or "json" (one object a line). Default "human".
    pub format: LogFormat,
    /// Which events: a level, or levels by module such as "info,postern::peer=debug". Default "info": starts, stops, peers,
    /// refusals; no line for each request.
    pub filter: String,
}

/// See [`LogConfig::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For eyes.
    Human,
    /// For machines.
    Json,
}

/// What may be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Longest object, in bytes of CBOR. Default 65536: a long message with room.
    pub object_bytes_max: usize,
    /// Attrs of one object. Default 256: more than any built-in type allows.
    pub object_attrs_max: usize,
    /// Rotations in a key chain. Default 32: one a month for more than two years.
    pub key_events_max: usize,
    /// Objects of one peer that wait for another object. Default 1000: enough to see what is wrong, too few to fill a disk.
    pub parked_per_peer_max: u64,
    /// Refused objects of one peer that are remembered. Default 1000: as above.
    pub rejects_per_peer_max: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: ".".into(),
            apps: ["identities", "contacts", "messages", "rides", "market"]
                .map(str::to_owned)
                .into(),
            schema_dir: None,
            passphrase_file: None,
            recovery_hours: 72,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8470)),
            body_bytes_max: 1 << 20,
            requests_max: 64,
            request_deadline_s: 600,
        }
    }
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            policy: Policy::Open,
            allow: Vec::new(),
            untrusted_idle_days: 30,
            pending_max: 256,
            pending_days: 14,
            refused_days: 30,
        }
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            pull_interval_s: 30,
            push_interval_s: 0,
            pull_wait_s: 30,
            wait_s_max: 60,
            waiting_pulls_max: 512,
            package_bytes_max: 960 * 1024,
            package_objects_max: 4096,
            sessions_max: 256,
            sessions_untrusted_max: 128,
            requests_in_flight_max: 64,
            reply_deadline_s: 180,
            ping_interval_s: 30,
            silence_s_max: 240,
            dials_max: 4,
            backoff_s_min: 30,
            backoff_s_max: 1800,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".into(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            object_bytes_max: 64 * 1024,
            object_attrs_max: 256,
            key_events_max: 32,
            parked_per_peer_max: 1000,
            rejects_per_peer_max: 1000,
        }
    }
}

/// In a config file, unlike on the wire, onion addresses are text.
fn onion<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OnionAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Peer ids as text, in full: the file is the operator's own.
mod peer_ids {
    use keys::PeerId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        ids: &[PeerId],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<_> = ids.iter().map(PeerId::to_hex).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PeerId>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parsed = texts.iter().map(|text| text.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

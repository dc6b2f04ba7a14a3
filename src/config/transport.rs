//! The table `[transport]` of the config file: how peers are reached, and what protects the onion service.
//!
//! Plain values, as in `sections`. Invariant: a key's documentation names the default that it has (tested).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bastion::Vanguards;
use keys::OnionAddr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How peers are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// "tor": onion services. "loopback": TCP on this machine, for tests and demonstrations only. Default "tor".
    pub kind: TransportKind,
    /// Seconds for joining the Tor network at start. Default 600: a first time over a slow link loads some megabytes.
    pub bootstrap_deadline_s: u64,
    /// Rendezvous circuits being built at once. Default 16: each costs a stranger one cell and us a circuit.
    pub accepts_max: usize,
    /// Seconds for building one. Default 30: slow relays need many; a stranger hardly waits longer.
    pub accept_deadline_s: u64,
    /// Seconds after which one that is still being built makes room for a stranger who waits. Default 10: meeting points
    /// that never answer would hold all places otherwise.
    pub accept_deadline_pressed_s: u64,
    /// Strangers' requests waiting to be built; one more turns away the oldest. Default 64: a few seconds' work.
    pub requests_waiting_max: usize,
    /// Seconds that a request may wait. Default 10: the stranger waits for the circuit itself, too.
    pub request_wait_s: u64,
    /// Rendezvous circuits at once; then the one that is longest without a stream makes room. Default 1024: every
    /// session, every handshake and every arrival on a circuit of its own, and some more.
    pub circuits_max: usize,
    /// Seconds that a circuit may stay without a stream. Default 60: a peer that dials again reuses it.
    pub circuit_idle_s: u64,
    /// Streams at once on one circuit; one more shuts the circuit. Default 8: a node needs one or two.
    pub streams_per_circuit_max: u32,
    /// Streams asked for on one circuit within a minute; one more shuts the circuit. Default 30: opening and closing in
    /// a circle costs a circuit each time; a node that is told `busy` again and again needs 15 for one challenge, and 30
    /// for the two that a dial may take.
    pub streams_per_minute_max: u32,
    /// Accepted streams waiting for the gate. Default 32: the gate takes them at once, unless the machine is very busy.
    pub arrivals_max: usize,
    /// Introduction points of the onion service, 3 to 20. Default 3: as everywhere in Tor; each further one is a circuit
    /// more, and lets as many more requests through.
    pub intro_points: u8,
    /// Requests a second that each introduction point is asked to let through; 0 asks for no limit. Default 10: three
    /// points let through about what this node can build circuits for, and a flood ends at the relays.
    pub intro_rate_per_s: u32,
    /// Requests that each may let through at once. Default 100: all peers may come back in the same second.
    pub intro_burst: u32,
    /// "lite": second hops are kept for long, so that circuits made for strangers do not give away our guard. "full":
    /// third hops too, against whoever runs relays for weeks; circuits are one hop longer. Default "lite".
    pub vanguards: Vanguards,
    /// Tor's own proof of work: under load, clients that did work go first at the introduction. Only in builds with the
    /// feature `tor-pow`. Default false: its code is LGPL-3.0, and this node has a puzzle of its own.
    pub tor_pow: bool,
    /// Requests that may wait under tor_pow, the greatest effort first. Default 2048: at some 4 KiB each, 8 MiB.
    pub tor_pow_queue_max: usize,
    /// Only for "loopback": address and port to listen on. Default "127.0.0.1:0": any free port.
    pub loopback_listen: SocketAddr,
    /// Only for "loopback": onion address to loopback address of each peer. Default {}: nobody can be dialled.
    #[serde(deserialize_with = "directory", serialize_with = "as_text")]
    pub loopback_directory: BTreeMap<OnionAddr, SocketAddr>,
}

/// See [`TransportConfig::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// Onion services.
    Tor,
    /// TCP on this machine.
    Loopback,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            kind: TransportKind::Tor,
            bootstrap_deadline_s: 600,
            accepts_max: 16,
            accept_deadline_s: 30,
            accept_deadline_pressed_s: 10,
            requests_waiting_max: 64,
            request_wait_s: 10,
            circuits_max: 1024,
            circuit_idle_s: 60,
            streams_per_circuit_max: 8,
            streams_per_minute_max: 30,
            arrivals_max: 32,
            intro_points: 3,
            intro_rate_per_s: 10,
            intro_burst: 100,
            vanguards: Vanguards::Lite,
            tor_pow: false,
            tor_pow_queue_max: 2048,
            loopback_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            loopback_directory: BTreeMap::new(),
        }
    }
}

#[cfg(feature = "tor")]
impl super::Config {
    /// What the Tor client and the onion service are to do, with its folders below this one.
    pub fn tor_config(&self, folder: &std::path::Path) -> bastion::transport::tor::TorConfig {
        use std::time::Duration;
        let ours = &self.transport;
        let mut tor =
            bastion::transport::tor::TorConfig::new(folder.join("state"), folder.join("cache"));
        tor.arti = self.tor.clone();
        tor.limits.bootstrap_deadline = Duration::from_secs(ours.bootstrap_deadline_s);
        tor.limits.dial_deadline = Duration::from_secs(self.bastion.dial_deadline_s);
        tor.limits.accepts_max = ours.accepts_max;
        tor.limits.accept_deadline = Duration::from_secs(ours.accept_deadline_s);
        tor.limits.accept_deadline_pressed = Duration::from_secs(ours.accept_deadline_pressed_s);
        tor.limits.requests_waiting_max = ours.requests_waiting_max;
        tor.limits.request_wait = Duration::from_secs(ours.request_wait_s);
        tor.limits.circuits_max = ours.circuits_max;
        tor.limits.circuit_idle = Duration::from_secs(ours.circuit_idle_s);
        tor.limits.streams_per_circuit_max = ours.streams_per_circuit_max;
        tor.limits.streams_per_minute_max = ours.streams_per_minute_max;
        tor.limits.arrivals_max = ours.arrivals_max;
        tor.hardening.intro_points = ours.intro_points;
        tor.hardening.intro_rate_per_s = ours.intro_rate_per_s;
        tor.hardening.intro_burst = ours.intro_burst;
        tor.hardening.vanguards = ours.vanguards;
        tor.hardening.pow_queue_max = ours.tor_pow.then_some(ours.tor_pow_queue_max);
        tor
    }
}

fn directory<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<OnionAddr, SocketAddr>, D::Error> {
    let entries = BTreeMap::<String, SocketAddr>::deserialize(deserializer)?;
    let parsed = entries
        .into_iter()
        .map(|(onion, addr)| Ok((onion.parse()?, addr)));
    parsed
        .collect::<Result<_, keys::ids::ParseIdError>>()
        .map_err(serde::de::Error::custom)
}

fn as_text<S: Serializer>(
    entries: &BTreeMap<OnionAddr, SocketAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        entries
            .iter()
            .map(|(onion, addr)| (onion.to_onion_string(), addr)),
    )
}

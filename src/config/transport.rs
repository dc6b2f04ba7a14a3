//! The table `[transport]` of the configuration file: how peers are reached.
//!
//! Plain values, as in `tables.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use bastion::{Hardening, Vanguards};
use keys::OnionAddr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Table `[transport]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// Network that connects the nodes.
    pub kind: TransportKind,
    /// Introduction points of the onion service.
    pub intro_points: u8,
    /// Requests per second that each introduction point lets through; 0 sets no limit.
    pub intro_rate_per_s: u32,
    /// Protection of the guard against circuits that clients cause.
    pub vanguards: Vanguards,
    /// Whether the onion service asks for Tor's own proof of work.
    pub tor_pow: bool,
    /// Address to listen on with [`TransportKind::Loopback`].
    pub loopback_listen: SocketAddr,
    /// Addresses of peers with [`TransportKind::Loopback`].
    #[serde(deserialize_with = "directory", serialize_with = "as_text")]
    pub loopback_directory: BTreeMap<OnionAddr, SocketAddr>,
}

/// Network that connects the nodes.
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
            intro_points: Hardening::DEFAULT.intro_points,
            intro_rate_per_s: Hardening::DEFAULT.intro_rate_per_s,
            vanguards: Hardening::DEFAULT.vanguards,
            tor_pow: Hardening::DEFAULT.pow_queue_max.is_some(),
            loopback_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            loopback_directory: BTreeMap::new(),
        }
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

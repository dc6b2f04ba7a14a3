//! Checks values that are well formed but out of range, alone or beside others.
//!
//! Inputs: a parsed [`Config`], and the apps that exist. Output: one note for each wrong value.
//! Ranges of numbers are those of `keys.rs`. Pure, except that [`check`] asks the Tor library about
//! its table. Invariant: for values that pass, every wait is finite, every buffer bounded, and the
//! API on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::keys::{KeyType, TABLES};
use super::outbox::check_outbox;
use super::tables::{AdmissionTable, Config, NodeConfig, PeerConfig};
use super::transport::{TransportConfig, TransportKind};
use crate::schema::{KnownApps, identities};
use crate::text::{self, NAME_BYTES_MAX};
use crate::toml_file::nearest;

/// Most peers in one file: each is a task, and a line of a status page.
const PEERS_MAX: usize = 10_000;

/// Takes the dotted path of a key, and what is wrong with it.
type Note<'n> = &'n mut dyn FnMut(&str, &str);

/// Notes every wrong value.
pub(super) fn check(config: &Config, known: Option<KnownApps>, note: Note<'_>) {
    check_ranges(config, note);
    check_node(&config.node, known.as_ref(), note);
    check_loopback(note, "api.listen", config.api.listen);
    check_admission(&config.admission, note);
    check_quotas(config, note);
    check_transport(&config.transport, note);
    check_peers(&config.peers, note);
    let schemas = known.and_then(|known| known.enable(&config.node.apps).ok());
    check_outbox(&config.peers, schemas.as_ref(), note);
    check_tor(config, note);
    if let Err(error) = EnvFilter::try_new(&config.log.filter) {
        note("log.filter", &keys::error_chain(&error));
    }
}

/// Checks the numbers against the ranges of the documentation.
fn check_ranges(config: &Config, note: Note<'_>) {
    let values = config.values();
    for table in TABLES {
        for key in table.keys {
            let KeyType::Integer { min, max, .. } = key.kind else {
                continue;
            };
            let value = values
                .get(table.name)
                .and_then(|values| values.get(key.name)?.as_integer());
            let in_range = |value| u64::try_from(value).is_ok_and(|v| (min..=max).contains(&v));
            if value.is_some_and(|value| !in_range(value)) {
                let range = key.kind.range().unwrap_or_default();
                let path = format!("{}.{}", table.name, key.name);
                note(&path, &format!("must be {range}"));
            }
        }
    }
}

fn check_node(node: &NodeConfig, known: Option<&KnownApps>, note: Note<'_>) {
    check_name(note, "node.name", &node.name);
    if node.data_dir.as_os_str().is_empty() {
        let why = "must not be empty; \".\" is the folder of this file";
        note("node.data_dir", why);
    }
    let apps: BTreeSet<_> = node.apps.iter().collect();
    if apps.len() < node.apps.len() {
        note("node.apps", "names an app twice");
    }
    if let Some(known) = known {
        let unknown = |app: &&&String| !known.slugs().any(|slug| slug == app.as_str());
        for app in apps.iter().filter(unknown) {
            let near = nearest(app, known.slugs());
            let near = near.map_or(String::new(), |slug| format!("; did you mean `{slug}`?"));
            note("node.apps", &format!("there is no app `{app}`{near}"));
        }
    }
    if !apps.iter().any(|app| *app == identities::APP) {
        let why = "`identities` is missing: all other apps need it";
        note("node.apps", why);
    }
}

fn check_admission(admission: &AdmissionTable, note: Note<'_>) {
    if admission.allow.len() > PEERS_MAX {
        note("admission.allow", &format!("at most {PEERS_MAX} peers"));
    }
}

/// A tier as a whole must be able to store what one of its peers may.
fn check_quotas(config: &Config, note: Note<'_>) {
    let (untrusted, trusted) = (&config.quota.untrusted, &config.quota.trusted);
    for (key, stored, total) in [
        (
            "quota.untrusted.total_bytes_max",
            untrusted.stored_bytes_max,
            untrusted.total_bytes_max,
        ),
        (
            "quota.trusted.total_bytes_max",
            trusted.stored_bytes_max,
            trusted.total_bytes_max,
        ),
    ] {
        if total < stored {
            note(key, "is below stored_bytes_max");
        }
    }
}

fn check_transport(transport: &TransportConfig, note: Note<'_>) {
    let key = "transport.loopback_directory";
    check_loopback(note, "transport.loopback_listen", transport.loopback_listen);
    for addr in transport.loopback_directory.values() {
        check_loopback(note, key, *addr);
    }
    if transport.kind == TransportKind::Tor && !transport.loopback_directory.is_empty() {
        note(key, "has no effect with kind = \"tor\"");
    }
    if transport.tor_pow && cfg!(not(feature = "tor-pow")) {
        note("transport.tor_pow", &not_built_in("tor-pow"));
    }
}

fn check_peers(peers: &[PeerConfig], note: Note<'_>) {
    if peers.len() > PEERS_MAX {
        note("peer", &format!("at most {PEERS_MAX} peers"));
    }
    let mut seen = BTreeSet::new();
    for (index, peer) in peers.iter().enumerate() {
        if !seen.insert(peer.onion) {
            let why = "this peer is listed twice";
            note(&format!("peer.{index}.onion"), why);
        }
        check_name(note, &format!("peer.{index}.name"), &peer.name);
    }
}

/// Checks arti's table with arti, which names the place of a misspelt key.
#[cfg(feature = "tor")]
fn check_tor(config: &Config, note: Note<'_>) {
    use bastion::transport::tor::TorError;
    let (key, why) = match config.tor_config(std::path::Path::new("tor")).check() {
        // Tor's own proof of work is a key of `[transport]`, and noted there.
        Ok(()) | Err(TorError::NotBuiltIn("tor-pow")) => return,
        Err(TorError::UnknownKey(key)) => (
            format!("tor.{key}"),
            "unknown key; arti's documentation names them all".to_owned(),
        ),
        Err(TorError::OwnKey(key)) => (
            format!("tor.{key}"),
            "the node sets this key itself: remove it".to_owned(),
        ),
        Err(TorError::Contradiction { key, configured }) => (
            format!("tor.{key}"),
            format!("contradicts transport.vanguards, which is \"{configured}\": remove it"),
        ),
        Err(TorError::NotBuiltIn(feature)) => (format!("tor.{feature}"), not_built_in(feature)),
        Err(error) => ("tor".to_owned(), keys::error_chain(&error)),
    };
    note(&key, &why);
}

#[cfg(not(feature = "tor"))]
fn check_tor(_: &Config, _: Note<'_>) {}

fn not_built_in(feature: &str) -> String {
    format!("this program was built without the feature `{feature}`: see README")
}

fn check_name(note: Note<'_>, key: &str, value: &str) {
    // Empty: no name.
    if !value.is_empty()
        && let Err(error) = text::check_name(value, NAME_BYTES_MAX)
    {
        note(key, &keys::error_chain(&error));
    }
}

fn check_loopback(note: Note<'_>, key: &str, value: SocketAddr) {
    if !value.ip().is_loopback() {
        let why = "must be a loopback address, such as 127.0.0.1, \
                   because other machines must not reach it";
        note(key, why);
    }
}

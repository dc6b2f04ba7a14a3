//! From the node's `[tor]` table to arti's configuration.
//!
//! The table is arti's own, so that bridges, guards or a private network can be had without a line of code here. What
//! concerns keys and folders is the node's alone and refused in the table. arti ignores keys that it does not know; here
//! they are errors, since a misspelt limit is no limit.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};

use arti_client::{
    TorClientConfig,
    config::{CfgPath, TorClientConfigBuilder},
};
use toml::{Table, Value};

use super::TorError;
use crate::transport::{CircuitCounts, Extra, Hardening, TorStatus};

/// Everything that a Tor client needs to know.
#[derive(Debug, Clone)]
pub struct TorConfig {
    /// Where arti keeps guards and the services' state; made with mode 0700. One process at a time.
    pub state_dir: PathBuf,
    /// Where arti keeps the network's directory; made with mode 0700.
    pub cache_dir: PathBuf,
    /// The node's `[tor]` table, in arti's own words, without `storage` (except `storage.permissions`).
    pub arti: Table,
    /// Limits of ours.
    pub limits: TorLimits,
    /// What Tor is asked to do for the services.
    pub hardening: Hardening,
}

/// Limits on Tor's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TorLimits {
    /// How long joining the network may take. 10 min: a first time over a slow link loads some megabytes.
    pub bootstrap_deadline: Duration,
    /// How long one dial may take. 60 s: three circuits are built for it, each of which may have to be tried again.
    pub dial_deadline: Duration,
    /// Rendezvous circuits being built at a time. 16: each costs a stranger one cell and us a circuit.
    pub accepts_max: usize,
    /// How long one of them may take. 30 s: dead relays make it slow, the stranger has long given up by then.
    pub accept_deadline: Duration,
    /// From when on one that is still being built makes room for a stranger who waits. 10 s: rendezvous points that
    /// never answer would hold all places otherwise.
    pub accept_deadline_pressed: Duration,
    /// Requests that may wait to be built; then the oldest is dropped for the newest. 64: a few seconds' work.
    pub requests_waiting_max: usize,
    /// How long one may wait. 10 s: the stranger waits for the circuit itself, too.
    pub request_wait: Duration,
    /// Rendezvous circuits at a time; then the one that is longest without a stream makes room. 1024: all sessions,
    /// all handshakes and all arrivals on circuits of their own, and some more.
    pub circuits_max: usize,
    /// How long a circuit may stay without a stream. 60 s: a peer that dials again reuses it.
    pub circuit_idle: Duration,
    /// Streams at a time on one circuit; the next one shuts it. 8: a node needs one or two.
    pub streams_per_circuit_max: u32,
    /// Streams asked for on one circuit within a minute; the next one shuts it. 30: what a dial needs at
    /// most that is told `busy` again and again.
    pub streams_per_minute_max: u32,
    /// Accepted streams that may wait for the gate. 32; the next ones wait in Tor.
    pub arrivals_max: usize,
}

impl TorLimits {
    /// The defaults, with the reasons beside each field.
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

impl TorConfig {
    /// arti's defaults and ours, with these folders.
    pub fn new(state_dir: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            cache_dir: cache_dir.into(),
            arti: Table::new(),
            limits: TorLimits::DEFAULT,
            hardening: Hardening::DEFAULT,
        }
    }

    /// Checks the table without starting anything.
    ///
    /// # Errors
    /// [`TorError::UnknownKey`], [`TorError::OwnKey`], [`TorError::Contradiction`], [`TorError::NotBuiltIn`] or
    /// [`TorError::BadConfig`].
    pub fn check(&self) -> Result<(), TorError> {
        self.to_arti().map(drop)
    }

    /// What a service with this config shows before it runs.
    pub fn status(&self) -> TorStatus {
        TorStatus {
            hardening: self.hardening,
            streams_per_circuit_max: self.limits.streams_per_circuit_max,
            circuits_max: self.limits.circuits_max,
            accepts_max: self.limits.accepts_max,
            circuits: CircuitCounts::default(),
            pow: Extra {
                built_in: cfg!(feature = "tor-pow"),
                on: self.hardening.pow_queue_max.is_some(),
            },
            bridges: Extra {
                built_in: cfg!(feature = "bridges"),
                on: self.wants_bridges(),
            },
        }
    }

    fn wants_bridges(&self) -> bool {
        let table = self.arti.get("bridges").and_then(Value::as_table);
        table.is_some_and(|bridges| bridges.get("enabled") != Some(&Value::Boolean(false)))
    }

    /// What this build cannot do is said in words of our own: arti would speak of its own features.
    fn check_features(&self) -> Result<(), TorError> {
        if self.arti.contains_key("bridges") && cfg!(not(feature = "bridges")) {
            return Err(TorError::NotBuiltIn("bridges"));
        }
        if self.hardening.pow_queue_max.is_some() && cfg!(not(feature = "tor-pow")) {
            return Err(TorError::NotBuiltIn("tor-pow"));
        }
        Ok(())
    }

    pub(super) fn to_arti(&self) -> Result<TorClientConfig, TorError> {
        let mut table = self.arti.clone();
        if let Some(Value::Table(storage)) = table.get("storage")
            && let Some(key) = storage.keys().find(|key| *key != "permissions")
        {
            return Err(TorError::OwnKey(format!("storage.{key}")));
        }
        self.check_features()?;
        let vanguards = self.hardening.vanguards.as_str();
        set_default(&mut table, &["vanguards", "mode"], vanguards)?;
        if value(&table, &["vanguards", "mode"]) != Some(vanguards) {
            return Err(TorError::Contradiction {
                key: "vanguards.mode",
                ours: vanguards,
            });
        }
        set_default(
            &mut table,
            &["storage", "keystore", "primary", "kind"],
            "ephemeral",
        )?;
        set_default(
            &mut table,
            &["circuit_timing", "hs_dir_requery_interval"],
            HS_DIR_REQUERY_INTERVAL,
        )?;

        let mut unknown = Vec::new();
        let mut builder: TorClientConfigBuilder =
            serde_ignored::deserialize(Value::Table(table), |path| unknown.push(path.to_string()))
                .map_err(|error: toml::de::Error| {
                    TorError::BadConfig(error.message().to_owned())
                })?;
        if let Some(key) = unknown.into_iter().next() {
            return Err(TorError::UnknownKey(key.replace(".?", "")));
        }
        builder
            .storage()
            .state_dir(CfgPath::new_literal(&self.state_dir))
            .cache_dir(CfgPath::new_literal(&self.cache_dir));
        builder
            .build()
            .map_err(|error| TorError::BadConfig(super::chain(&error)))
    }

    pub(super) fn create_folders(&self) -> Result<(), TorError> {
        for path in [&self.state_dir, &self.cache_dir] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| TorError::Folder {
                    path: path.clone(),
                    source,
                })?;
        }
        Ok(())
    }
}

/// Sets a value unless the table has one.
fn set_default(table: &mut Table, path: &[&str], value: &str) -> Result<(), TorError> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(());
    };
    let mut table = table;
    for parent in parents {
        let entry = table
            .entry(*parent)
            .or_insert_with(|| Value::Table(Table::new()));
        table = entry
            .as_table_mut()
            .ok_or_else(|| TorError::BadConfig(format!("{parent} is not a table")))?;
    }
    table
        .entry(*last)
        .or_insert_with(|| Value::String(value.to_owned()));
    Ok(())
}

fn value<'t>(table: &'t Table, path: &[&str; 2]) -> Option<&'t str> {
    let [parent, key] = path;
    table.get(*parent)?.get(*key)?.as_str()
}

/// How soon a directory may be asked again for a descriptor that turned out stale. arti's 15 minutes lock out a peer
/// that dials a service which has just restarted; nodes wait at least half a minute between two dials anyway.
const HS_DIR_REQUERY_INTERVAL: &str = "1 minute";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Vanguards;

    fn check(arti: &str) -> Result<(), TorError> {
        TorConfig {
            arti: arti.parse().unwrap(),
            ..TorConfig::new("/nonexistent/s", "/nonexistent/c")
        }
        .check()
    }

    #[test]
    fn artis_own_words_are_taken() {
        check("").unwrap();
        check("[path_rules]\nipv4_subnet_family_prefix = 33\n[circuit_timing]\nrequest_timeout = \"10 seconds\"")
            .unwrap();
        check("[storage.permissions]\ndangerously_trust_everyone = true").unwrap();
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_path() {
        for (table, path) in [
            ("path_rule = 1", "path_rule"),
            (
                "[path_rules]\nipv4_subnet_family_prefx = 33",
                "path_rules.ipv4_subnet_family_prefx",
            ),
            (
                "[tor_network.authorities]\nv3ident = []",
                "tor_network.authorities.v3ident",
            ),
            (
                "[storage.permissions]\ntrust = 1",
                "storage.permissions.trust",
            ),
        ] {
            match check(table) {
                Err(TorError::UnknownKey(key)) => assert_eq!(key, path),
                other => panic!("{table}: {other:?}"),
            }
        }
    }

    #[test]
    fn folders_and_keystore_are_the_nodes() {
        for table in [
            "[storage]\nstate_dir = \"/tmp/x\"",
            "[storage.keystore.primary]\nkind = \"native\"",
        ] {
            assert!(matches!(check(table), Err(TorError::OwnKey(_))), "{table}");
        }
    }

    #[test]
    fn vanguards_may_be_repeated_but_not_contradicted() {
        check("[vanguards]\nmode = \"lite\"").unwrap();
        for table in [
            "[vanguards]\nmode = \"full\"",
            "[vanguards]\nmode = \"disabled\"",
        ] {
            assert!(
                matches!(check(table), Err(TorError::Contradiction { .. })),
                "{table}"
            );
        }
        let mut full = TorConfig::new("/nonexistent/s", "/nonexistent/c");
        full.hardening.vanguards = Vanguards::Full;
        full.check().unwrap();
        full.arti = "[vanguards]\nmode = \"lite\"".parse().unwrap();
        assert!(matches!(full.check(), Err(TorError::Contradiction { .. })));
    }

    #[test]
    fn what_is_not_built_in_is_named() {
        let mut config = TorConfig::new("/nonexistent/s", "/nonexistent/c");
        config.hardening.pow_queue_max = Some(16);
        let pow = config.check();
        let bridges = check(
            "[bridges]\nbridges = [\"192.0.2.83:80 $0bac39417268b96b9f514ef763fa6fba1a788956\"]",
        );
        if cfg!(feature = "tor-pow") {
            pow.unwrap();
        } else {
            assert!(matches!(pow, Err(TorError::NotBuiltIn("tor-pow"))));
        }
        if cfg!(feature = "bridges") {
            bridges.unwrap();
        } else {
            assert!(matches!(bridges, Err(TorError::NotBuiltIn("bridges"))));
        }
    }

    #[test]
    fn a_bad_value_is_an_error() {
        for table in [
            "[path_rules]\nipv4_subnet_family_prefix = \"wide\"",
            "circuit_timing = 3",
            "storage = 3",
        ] {
            assert!(
                matches!(check(table), Err(TorError::BadConfig(_))),
                "{table}"
            );
        }
    }
}

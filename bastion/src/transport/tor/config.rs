//! From the node's `[tor]` table to arti's configuration.
//!
//! The table is arti's own, so that bridges, guards or a private network need no code here. Keys
//! and folders belong to the node and are refused in the table. Unknown keys, which arti ignores,
//! are errors here, because a misspelt limit would have no effect.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use arti_client::{
    TorClientConfig,
    config::{CfgPath, TorClientConfigBuilder},
};
use toml::{Table, Value};

use super::error::{TorError, chain};
use super::limits::TorLimits;
use crate::transport::{CircuitCounts, Hardening, OptionalFeature, TorStatus};

/// The configuration of a Tor client.
#[derive(Debug, Clone)]
pub struct TorConfig {
    /// Folder for guards and the services' state, created with mode 0700. One process at a time.
    pub state_dir: PathBuf,
    /// Folder for the network's directory, created with mode 0700.
    pub cache_dir: PathBuf,
    /// The node's `[tor]` table with arti's keys, without `storage` (except `storage.permissions`).
    pub arti: Table,
    /// This node's limits.
    pub limits: TorLimits,
    /// Tor's own protection of the services.
    pub hardening: Hardening,
}

impl TorConfig {
    /// The defaults of arti and this node, with these folders.
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
    /// [`TorError::UnknownKey`], [`TorError::OwnKey`], [`TorError::Contradiction`],
    /// [`TorError::NotBuiltIn`] or [`TorError::BadConfig`].
    pub fn check(&self) -> Result<(), TorError> {
        self.to_arti().map(drop)
    }

    /// The status of a service with this configuration before it runs.
    pub fn status(&self) -> TorStatus {
        TorStatus {
            hardening: self.hardening,
            streams_per_circuit_max: self.limits.streams_per_circuit_max,
            circuits_max: self.limits.circuits_max,
            accepts_max: self.limits.accepts_max,
            circuits: CircuitCounts::default(),
            pow: OptionalFeature {
                built_in: cfg!(feature = "tor-pow"),
                on: self.hardening.pow_queue_max.is_some(),
            },
            bridges: OptionalFeature {
                built_in: cfg!(feature = "bridges"),
                on: self.wants_bridges(),
            },
        }
    }

    fn wants_bridges(&self) -> bool {
        let table = self.arti.get("bridges").and_then(Value::as_table);
        table.is_some_and(|bridges| bridges.get("enabled") != Some(&Value::Boolean(false)))
    }

    /// Reports missing features by this program's names, because arti would name its own features.
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
                configured: vanguards,
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
            .map_err(|error| TorError::BadConfig(chain(&error)))
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

/// Shortest interval between two requests for a stale descriptor to one directory.
///
/// arti's default of 15 minutes locks out a peer that dials a service which has just restarted.
/// Nodes wait at least half a minute between two dials.
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
    fn tor_table_accepts_the_keys_of_arti() {
        check("").unwrap();
        check(
            "[path_rules]\nipv4_subnet_family_prefix = 33\n[circuit_timing]\nrequest_timeout = \
         \"10 seconds\"",
        )
        .unwrap();
        check("[storage.permissions]\ndangerously_trust_everyone = true").unwrap();
    }

    #[test]
    fn misspelt_key_is_reported_with_its_path() {
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
    fn tor_table_may_not_set_folders_or_keystore() {
        for table in [
            "[storage]\nstate_dir = \"/tmp/x\"",
            "[storage.keystore.primary]\nkind = \"native\"",
        ] {
            assert!(matches!(check(table), Err(TorError::OwnKey(_))), "{table}");
        }
    }

    #[test]
    fn vanguards_may_be_repeated_but_not_contradicted_in_the_table() {
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
    fn missing_feature_is_reported_by_name() {
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
    fn invalid_value_is_an_error() {
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

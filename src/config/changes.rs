//! Which keys differ between two configurations: what an operator changed while the node ran.
//!
//! Returns names only, because some values are addresses. Invariant: two configurations without
//! differences behave alike.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::keys::TABLES;
use super::tables::Config;

impl Config {
    /// The keys that differ, as `table.key`, in the order of the documentation. `peer` and `tor`
    /// are named as a whole.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (one, two) = (self.values(), other.values());
        let mut found = Vec::new();
        for table in TABLES {
            if let (Some(one), Some(two)) = (one.get(table.name), two.get(table.name)) {
                let differ = table
                    .keys
                    .iter()
                    .filter(|key| one.get(key.name) != two.get(key.name));
                found.extend(differ.map(|key| format!("{}.{}", table.name, key.name)));
            }
        }
        if self.peers != other.peers {
            found.push("peer".to_owned());
        }
        if self.tor != other.tor {
            found.push("tor".to_owned());
        }
        found
    }

    /// The values of all tables except `peer` and `tor`, by the table's name.
    pub(super) fn values(&self) -> BTreeMap<&'static str, Table> {
        BTreeMap::from([
            ("node", values(&self.node)),
            ("api", values(&self.api)),
            ("admission", values(&self.admission)),
            ("bastion", values(&self.bastion)),
            ("sync", values(&self.sync)),
            ("quota.untrusted", values(&self.quota.untrusted)),
            ("quota.trusted", values(&self.quota.trusted)),
            ("transport", values(&self.transport)),
            ("log", values(&self.log)),
        ])
    }
}

/// The values of a table; empty only if it has no TOML form, which a test excludes.
fn values(table: &impl Serialize) -> Table {
    match Value::try_from(table) {
        Ok(Value::Table(values)) => values,
        _ => Table::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("p"), text).unwrap()
    }

    #[test]
    fn names_exactly_the_keys_that_differ() {
        let defaults = parse("");
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(defaults.differences(&parse(text)), expected, "{text}");
            assert_eq!(parse(text).differences(&defaults), expected, "{text}");
        };
        check("", &[]);
        check("[sync]\ndials_max = 4\nbackoff_s_min = 7\n", &[]);
        check(
            "[admission]\npolicy = \"approve\"\n[sync]\ndials_max = 5\n[log]\nfilter = \"warn\"\n",
            &["admission.policy", "sync.dials_max", "log.filter"],
        );
        check("[node]\nschema_dir = \"apps\"\n", &["node.schema_dir"]);
        check(
            "[quota.untrusted]\nstored_bytes_max = 983040\n\
             [quota.trusted]\ntotal_bytes_max = 68719476737\n",
            &[
                "quota.untrusted.stored_bytes_max",
                "quota.trusted.total_bytes_max",
            ],
        );
        check(
            "[tor.path_rules]\nipv4_subnet_family_prefix = 33\n",
            &["tor"],
        );
        check(&format!("[[peer]]\nonion = \"{ONION}\"\n"), &["peer"]);
        check(
            &format!(
                "[transport]\nkind = \"loopback\"\n\
                 loopback_directory = {{ \"{ONION}\" = \"127.0.0.1:9\" }}\n"
            ),
            &["transport.kind", "transport.loopback_directory"],
        );
    }
}

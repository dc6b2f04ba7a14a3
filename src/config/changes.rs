//! What differs between two configs, key by key: what an operator changed in the file of a running node.
//!
//! Never shows a value: some are addresses. Invariant: two configs without differences behave alike.

use serde::Serialize;
use toml::Value;

use super::Config;

impl Config {
    /// The keys that differ, as `table.key`, in the order of the file. `peer` and `tor` are named as a whole.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        note(&mut found, "node", &self.node, &other.node);
        note(&mut found, "api", &self.api, &other.api);
        note(&mut found, "admission", &self.admission, &other.admission);
        note(&mut found, "bastion", &self.bastion, &other.bastion);
        note(&mut found, "sync", &self.sync, &other.sync);
        note(&mut found, "limits", &self.limits, &other.limits);
        note(
            &mut found,
            "quota.untrusted",
            &self.quota.untrusted,
            &other.quota.untrusted,
        );
        note(
            &mut found,
            "quota.trusted",
            &self.quota.trusted,
            &other.quota.trusted,
        );
        note(&mut found, "transport", &self.transport, &other.transport);
        note(&mut found, "log", &self.log, &other.log);
        if self.peers != other.peers {
            found.push("peer".to_owned());
        }
        if self.tor != other.tor {
            found.push("tor".to_owned());
        }
        found
    }
}

fn note<T: Serialize + PartialEq>(found: &mut Vec<String>, table: &str, one: &T, other: &T) {
    if one == other {
        return;
    }
    let (Ok(Value::Table(one)), Ok(Value::Table(other))) =
        (Value::try_from(one), Value::try_from(other))
    else {
        // What has no form in a file still differs.
        return found.push(table.to_owned());
    };
    let keys = one
        .keys()
        .chain(other.keys().filter(|key| !one.contains_key(*key)));
    let differ = keys.filter(|key| one.get(*key) != other.get(*key));
    found.extend(differ.map(|key| format!("{table}.{key}")));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("p"), text).unwrap()
    }

    #[test]
    fn keys_that_differ_are_named_and_no_others() {
        let defaults = parse("");
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(defaults.differences(&parse(text)), expected, "{text}");
            assert_eq!(parse(text).differences(&defaults), expected, "{text}");
        };
        check("", &[]);
        check("[sync]\ndials_max = 4\n", &[]);
        check(
            "[admission]\npolicy = \"approve\"\n[sync]\ndials_max = 5\n[log]\nfilter = \"warn\"\n",
            &["admission.policy", "sync.dials_max", "log.filter"],
        );
        check("[node]\nschema_dir = \"apps\"\n", &["node.schema_dir"]);
        check(
            "[quota.untrusted]\nstored_objects_max = 9999\n[quota.trusted]\nrequests_per_minute_max = 7\n",
            &[
                "quota.untrusted.stored_objects_max",
                "quota.trusted.requests_per_minute_max",
            ],
        );
        check(
            "[tor.path_rules]\nipv4_subnet_family_prefix = 33\n",
            &["tor"],
        );
        let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
        check(&format!("[[peer]]\nonion = \"{onion}\"\n"), &["peer"]);
        check(
            &format!(
                "[transport]\nkind = \"loopback\"\nloopback_directory = {{ \"{onion}\" = \"127.0.0.1:9\" }}\n"
            ),
            &["transport.kind", "transport.loopback_directory"],
        );
    }
}

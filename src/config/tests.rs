//! The file as a whole: its defaults, its documentation, and values that are set.

use std::path::Path;

use super::keys::{Key, KeyType, TABLES};
use super::*;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

/// Most keys of the file, the table `[tor]` counted as one. A new key needs an operator's choice
/// that the program cannot make; raise the number in the same commit.
const KEYS_MAX: usize = 40;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/p/postern.toml"), text)
        .map_err(|problems| problems.to_string().replace("/etc/p/postern.toml", "p"))
}

/// All keys of tables that are written once, with their table's name.
fn plain_keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    let tables = TABLES.iter().filter(|table| table.name != "peer");
    tables.flat_map(|table| table.keys.iter().map(|key| (table.name, key)))
}

/// A file that sets one key.
fn line(table: &str, key: &Key, value: &str) -> String {
    format!("[{table}]\n{} = {value}\n", key.name)
}

#[test]
fn file_has_at_most_forty_keys() {
    let keys: usize = TABLES.iter().map(|table| table.keys.len()).sum();
    assert!(keys < KEYS_MAX, "{keys} and `tor`");
}

#[test]
fn documented_defaults_equal_those_of_the_structs() {
    let mut values = Config::default().values();
    for (table, key) in plain_keys() {
        let value = values.get_mut(table).unwrap().remove(key.name);
        let documented = key.default.map(|text| {
            let text = format!("value = {text}");
            text.parse::<toml::Table>()
                .unwrap()
                .remove("value")
                .unwrap()
        });
        assert_eq!(value, documented, "{table}.{}", key.name);
    }
    let undocumented: Vec<_> = values.iter().filter(|(_, keys)| !keys.is_empty()).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[test]
fn every_documented_key_is_accepted() {
    let defaults = parse("").unwrap();
    for (table, key) in plain_keys() {
        let value = key.default.unwrap_or("\"x\"");
        let config = parse(&line(table, key, value)).unwrap();
        assert_eq!(
            config == defaults,
            key.default.is_some(),
            "{table}.{}",
            key.name
        );
    }
    let peer = format!("[[peer]]\nonion = \"{ONION}\"\nname = \"x\"\n[tor]\n");
    assert_eq!(parse(&peer).unwrap().peers.len(), 1);
}

#[test]
fn every_struct_field_is_documented() {
    let fields = |table: &str| {
        let text = parse(&format!("[{table}]\nzzzzzzzzzzzzzzzzzzzz = 1\n")).unwrap_err();
        let (_, names) = text.split_once("; possible: ").unwrap();
        names.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    for table in TABLES
        .iter()
        .filter(|table| table.keys.len() > 1 && table.name != "peer")
    {
        let mut documented: Vec<_> = table.keys.iter().map(|key| key.name).collect();
        let mut found = fields(table.name);
        documented.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, documented, "{}", table.name);
    }
}

#[test]
fn documented_ranges_are_enforced() {
    for (table, key) in plain_keys() {
        let KeyType::Integer { min, max, .. } = key.kind else {
            continue;
        };
        let problem = |value: i128| parse(&line(table, key, &value.to_string())).err();
        // A number within its range may still contradict a default beside it.
        let own = |text: &String| text.contains(&format!("{table}.{}: must be ", key.name));
        for inside in [min, max] {
            let problem = problem(inside.into()).filter(own);
            assert_eq!(problem, None, "{table}.{} = {inside}", key.name);
        }
        if min > 0 {
            let problem = problem(i128::from(min) - 1);
            assert!(
                problem.as_ref().is_some_and(own),
                "{table}.{}: {problem:?}",
                key.name
            );
        }
        if max < i64::MAX as u64 {
            let problem = problem(i128::from(max) + 1);
            assert!(
                problem.as_ref().is_some_and(own),
                "{table}.{}: {problem:?}",
                key.name
            );
        }
    }
}

#[test]
fn documented_names_are_the_accepted_ones() {
    for (table, key) in plain_keys() {
        let KeyType::OneOf(names) = key.kind else {
            continue;
        };
        for name in names {
            parse(&line(table, key, &format!("\"{name}\""))).unwrap();
        }
        let problem = parse(&line(table, key, "\"zzzzzzzzzzzzzzz\"")).unwrap_err();
        let expected = format!("possible: {}", names.join(", "));
        assert!(problem.ends_with(&expected), "{problem}");
    }
}

#[test]
fn new_file_holds_the_defaults_in_at_most_thirty_lines() {
    let text = new_file();
    assert!(text.lines().count() <= 30, "{text}");
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    assert_eq!(parse(&text).unwrap(), parse("").unwrap());
    assert!(parse(&text).unwrap().warnings().is_empty());
}

#[test]
fn keys_of_the_new_file_are_accepted_without_their_comment_signs() {
    let text = new_file();
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some("onion = \"...\"") => format!("onion = \"{ONION}\"\n"),
        Some(key) if key.contains(" = ") || key == "[[peer]]" => format!("{key}\n"),
        _ => format!("{line}\n"),
    });
    let config = parse(&lines.collect::<String>()).unwrap();
    assert_eq!(config.peers.len(), 1);
    assert_eq!(
        parse("").unwrap().differences(&config),
        ["node.passphrase_file", "peer"]
    );
}

/// After a change of the keys, run this test with `UPDATE_DOCS=1` to write the page again.
#[test]
fn page_of_the_keys_equals_the_table_of_the_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIG.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/CONFIG.md differs from src/config/keys: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn set_keys_are_used_and_paths_start_at_the_file() {
    let config = parse(&format!(
        "peer = [{{ onion = \"{ONION}\", name = \"Bob\" }}]\n\
         [node]\ndata_dir = \"data\"\nschema_dir = \"/srv/apps\"\n\
         [admission]\npolicy = \"allowlist\"\nallow = [\"{}\"]\n\
         [sync]\npull_interval_s = 0\n[bastion]\neffort_max = 2\n\
         [transport]\nkind = \"loopback\"\n\
         loopback_directory = {{ \"{ONION}\" = \"127.0.0.1:9\" }}\n\
         [tor.path_rules]\nipv4_subnet_family_prefix = 33\n\
         [log]\nformat = \"json\"\nfilter = \"warn,postern=debug\"\n",
        "ab".repeat(32)
    ))
    .unwrap();
    assert_eq!(config.data_dir(), Path::new("/etc/p/data"));
    assert_eq!(config.schema_dir().unwrap(), Path::new("/srv/apps"));
    assert_eq!(config.passphrase_file(), None);
    assert_eq!(config.sync_config().pull_interval(), None);
    assert_eq!(config.gate_config().effort_base, 2);
    assert_eq!(config.peers[0].onion.to_onion_string(), ONION);
    assert_eq!(config.admission.allow[0].to_hex(), "ab".repeat(32));
    assert_eq!(config.transport.loopback_directory.len(), 1);
    assert!(config.tor.contains_key("path_rules"));
    let debug = format!("{config:?}");
    assert!(!debug.contains(ONION) && !debug.contains(&"ab".repeat(32)));
}

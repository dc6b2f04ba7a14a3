//! Wrong files: one for each kind of mistake, with the text that the operator reads.

use std::path::Path;

use super::keys::TABLES;
use super::load::FILE_BYTES_MAX;
use super::*;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("p"), text).map_err(|problems| problems.to_string())
}

fn wrong(text: &str, expected: &str) {
    assert_eq!(parse(text).unwrap_err(), expected, "{text}");
}

#[test]
fn unknown_key_is_an_error_with_line_and_suggestion() {
    wrong(
        "[api]\n\nlisten_on = 1\nlisen = 1\n",
        "p:3: api.listen_on: unknown key; did you mean `listen`?\n\
         p:4: api.lisen: unknown key; did you mean `listen`?",
    );
    wrong("[snyc]\n", "p:1: snyc: unknown key; did you mean `sync`?");
    wrong(
        "[bastion]\neffort_mx = 1\n",
        "p:2: bastion.effort_mx: unknown key; did you mean `effort_max`?",
    );
    wrong(
        "[log]\ncolour = 1\n",
        "p:2: log.colour: unknown key; possible: format, filter",
    );
    wrong(
        "[quota.trusted]\nstored_byte_max = 1\n",
        "p:2: quota.trusted.stored_byte_max: unknown key; did you mean `stored_bytes_max`?",
    );
    wrong(
        &format!("[[peer]]\nonion = \"{ONION}\"\n[[peer]]\nonoin = \"x\"\n"),
        "p:3: peer: the key `onion` is missing\n\
         p:4: peer.onoin: unknown key; did you mean `onion`?",
    );
}

#[test]
fn removed_key_does_not_hide_other_mistakes() {
    wrong(
        "[bastion]\neffort_base = 1\neffort_mx = 1\n[sync]\ndials_max = 0\n",
        "p:3: bastion.effort_mx: unknown key; did you mean `effort_max`?\n\
         p:5: sync.dials_max: must be 1 to 1000000",
    );
}

#[test]
fn wrong_type_or_word_is_an_error() {
    wrong(
        "[sync]\ndials_max = \"4\"\n",
        "p:2: sync.dials_max: must be a whole number, not the text \"4\"",
    );
    wrong(
        "[sync]\ndials_max = -4\n",
        "p:2: sync.dials_max: must be a whole number of at least 0, not -4",
    );
    wrong(
        "[admission]\npolicy = \"opne\"\n",
        "p:2: admission.policy: `opne` is not a valid value; did you mean `open`?",
    );
    wrong(
        "[log]\nformat = \"xml\"\n",
        "p:2: log.format: `xml` is not a valid value; possible: human, json",
    );
    wrong(
        "[api]\nlisten = \"localhost\"\n",
        "p:2: api.listen: invalid socket address syntax",
    );
    wrong(
        "[sync]\ndials_max = 1\ndials_max = 2\n",
        "p:3: invalid TOML: duplicate key",
    );
    wrong("[sync\n", "p:1: invalid TOML: unclosed table, expected `]`");
}

/// Values of every type of TOML.
const VALUES: [&str; 7] = [
    "-4",
    "1.5",
    "true",
    "\"x\"",
    "[5]",
    "{ zzz = 1 }",
    "1979-05-27",
];

#[test]
fn no_message_names_a_type_of_the_program() {
    let keys = TABLES.iter().flat_map(|table| {
        let keys = table.keys.iter();
        keys.map(|key| format!("{}.{}", table.name, key.name))
    });
    let tables = TABLES.iter().map(|table| table.name.to_owned());
    for path in keys.chain(tables).filter(|path| path != "tor") {
        for value in VALUES {
            let Err(text) = parse(&format!("{path} = {value}\n")) else {
                continue;
            };
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let is_type = |word: &str| {
                let is_number = ["u8", "u16", "u32", "u64", "usize", "i64"].contains(&word);
                let humps = word.chars().skip(1).filter(char::is_ascii_uppercase);
                let is_camel = humps.count() > 0 && word.contains(|c: char| c.is_lowercase());
                is_number || is_camel || ["struct", "enum", "sequence", "map"].contains(&word)
            };
            let found: Vec<_> = words.filter(|word| is_type(word)).collect();
            assert!(found.is_empty(), "{path} = {value}: {text}");
        }
    }
}

#[test]
fn wrong_address_is_named_but_not_quoted() {
    let bent = ONION.replacen("2g", "2h", 1);
    wrong(
        &format!("[[peer]]\nname = \"x\"\nonion = \"{bent}\"\n"),
        "p:3: peer.onion: not a valid onion address: its checksum is wrong; \
         check for a typing error",
    );
    wrong(
        "[admission]\nallow = [\"abc\"]\n",
        "p:2: admission.allow: not a valid peer id: not lower-case hex",
    );
    wrong(
        "[transport]\nkind = \"loopback\"\n\
         loopback_directory = { \"x.onion\" = \"127.0.0.1:1\" }\n",
        "p:3: transport.loopback_directory: not a valid onion address: \
         a version 3 address has 56 characters before .onion",
    );
}

#[test]
fn all_values_out_of_range_are_reported_at_once() {
    wrong(
        "[api]\nlisten = \"0.0.0.0:80\"\n\
         [sync]\ndials_max = 0\nsessions_max = 1\npull_wait_s = 61\npull_interval_s = 86401\n",
        "p:2: api.listen: must be a loopback address, such as 127.0.0.1, \
         because other machines must not reach it\n\
         p:4: sync.dials_max: must be 1 to 1000000\n\
         p:5: sync.sessions_max: must be 2 to 1000000\n\
         p:6: sync.pull_wait_s: must be 0 to 60\n\
         p:7: sync.pull_interval_s: must be 0 to 86400",
    );
    wrong(
        "[bastion]\neffort_max = 0\neffort_accept_max = 1099511627777\nverify_workers = 1025\n",
        "p:2: bastion.effort_max: must be 1 to 1099511627776\n\
         p:3: bastion.effort_accept_max: must be 0 to 1099511627776\n\
         p:4: bastion.verify_workers: must be 1 to 1024",
    );
    wrong(
        "[transport]\nintro_points = 2\nintro_rate_per_s = 1000001\nvanguards = \"none\"\n",
        "p:2: transport.intro_points: must be 3 to 20\n\
         p:3: transport.intro_rate_per_s: must be 0 to 1000000\n\
         p:4: transport.vanguards: `none` is not a valid value; possible: lite, full",
    );
}

#[test]
fn quota_below_one_package_or_above_its_total_is_an_error() {
    wrong(
        "[quota.untrusted]\nstored_bytes_max = 983039\n",
        "p:2: quota.untrusted.stored_bytes_max: must be at least 983040",
    );
    wrong(
        "[quota.trusted]\nstored_bytes_max = 983041\ntotal_bytes_max = 983040\n",
        "p:3: quota.trusted.total_bytes_max: is below stored_bytes_max",
    );
}

#[test]
fn wrong_list_of_apps_is_an_error() {
    wrong(
        "[node]\napps = [\"messages\"]\n",
        "p:2: node.apps: `identities` is missing: all other apps need it",
    );
    wrong(
        "[node]\napps = [\"identities\", \"identities\"]\n",
        "p:2: node.apps: names an app twice",
    );
    wrong(
        "[node]\napps = [\"identities\", \"mesages\"]\n",
        "p:2: node.apps: there is no app `mesages`; did you mean `messages`?",
    );
}

#[test]
fn wrong_name_peer_or_filter_is_an_error() {
    wrong(
        "[node]\nname = \"a\\nb\"\n",
        "p:2: node.name: a name is one line without control, direction or invisible characters: \
         it has \\u{a}",
    );
    wrong(
        &format!("[[peer]]\nonion = \"{ONION}\"\n[[peer]]\nonion = \"{ONION}\"\n"),
        "p:4: peer.onion: this peer is listed twice",
    );
    let pushed =
        |domains: &str| format!("[[peer]]\nonion = \"{ONION}\"\npush_domains = {domains}\n");
    wrong(
        &pushed("[\"mesages\"]"),
        "p:3: peer.push_domains: there is no domain `mesages`; did you mean `messages`?",
    );
    wrong(
        &pushed("[\"messages\", \"messages\"]"),
        "p:3: peer.push_domains: names a domain twice",
    );
    wrong(
        &format!(
            "{}[node]\napps = [\"identities\"]\n",
            pushed("[\"messages\"]")
        ),
        "p:3: peer.push_domains: there is no domain `messages`",
    );
    let error = parse("[log]\nfilter = \"postern=loud\"\n").unwrap_err();
    assert!(error.starts_with("p:2: log.filter: "), "{error}");
}

#[test]
#[cfg(not(feature = "tor-pow"))]
fn missing_feature_is_named() {
    wrong(
        "[transport]\ntor_pow = true\n",
        "p:2: transport.tor_pow: this program was built without the feature `tor-pow`: see README",
    );
}

#[test]
#[cfg(feature = "tor")]
fn table_for_arti_must_not_contradict_other_keys_or_need_a_missing_feature() {
    parse("[transport]\nvanguards = \"full\"\n[tor.vanguards]\nmode = \"full\"\n").unwrap();
    wrong(
        "[tor.vanguards]\nmode = \"full\"\n",
        "p:2: tor.vanguards.mode: contradicts transport.vanguards, which is \"lite\": remove it",
    );
    #[cfg(not(feature = "bridges"))]
    wrong(
        "[tor.bridges]\n\
         bridges = [\"192.0.2.83:80 $0bac39417268b96b9f514ef763fa6fba1a788956\"]\n",
        "p:1: tor.bridges: this program was built without the feature `bridges`: see README",
    );
}

#[test]
fn value_that_is_wrong_beside_another_is_reported_at_its_table() {
    wrong(
        "[node]\nname = \"x\"\n\n[quota.untrusted]\nstored_bytes_max = 536870913\n",
        "p:4: quota.untrusted.total_bytes_max: is below stored_bytes_max",
    );
}

#[test]
fn unreadable_file_is_an_error_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    assert!(matches!(
        Config::load(&path),
        Err(ConfigError::Unreadable { .. })
    ));
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLong(_))));
    std::fs::write(&path, new_file()).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.data_dir(), dir.path().join("."));
}

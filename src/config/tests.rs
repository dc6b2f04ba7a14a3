//! One wrong file for each kind of fault, and the default file, which is made from the fields' documentation.

use super::*;
use std::fmt::Write as _;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/p/postern.toml"), text)
        .map_err(|problems| problems.to_string().replace("/etc/p/postern.toml", "p"))
}

fn wrong(text: &str, expected: &str) {
    assert_eq!(parse(text).unwrap_err(), expected, "{text}");
}

#[test]
fn an_empty_file_and_the_default_file_are_the_defaults() {
    let defaults = Config {
        file: "/etc/p/postern.toml".into(),
        ..Config::default()
    };
    assert_eq!(parse("").unwrap(), defaults);
    assert_eq!(parse(Config::default_toml()).unwrap(), defaults);
    assert!(
        Config::default_toml()
            .lines()
            .all(|line| line.is_empty() || line.starts_with(['#', '[']))
    );
}

#[test]
fn the_default_file_with_every_key_taken_in_is_the_defaults_too() {
    let lines = Config::default_toml().lines();
    let text: String = lines
        .map(
            |line| match line.strip_prefix("# ").filter(|rest| is_key_line(rest)) {
                Some(rest) if !rest.ends_with("\"...\"") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            },
        )
        .collect();
    assert!(text.contains("\ndials_max = 4\n"));
    assert_eq!(parse(&text).unwrap(), parse("").unwrap());
}

fn is_key_line(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

#[test]
fn what_is_set_is_taken_and_paths_begin_at_the_file() {
    let config = parse(&format!(
        "peer = [{{ onion = \"{ONION}\", name = \"Bob\" }}]\n\
         [node]\ndata_dir = \"data\"\nschema_dir = \"/srv/apps\"\n\
         [admission]\npolicy = \"allowlist\"\nallow = [\"{}\"]\n\
         [sync]\npull_interval_s = 0\n[bastion]\neffort_idle = 1\neffort_base = 2\n\
         [transport]\nkind = \"loopback\"\nloopback_directory = {{ \"{ONION}\" = \"127.0.0.1:9\" }}\n\
         [tor.path_rules]\nipv4_subnet_family_prefix = 33\n[log]\nformat = \"json\"\nfilter = \"warn,postern=debug\"\n",
        "ab".repeat(32)
    ))
    .unwrap();
    assert_eq!(config.data_dir(), Path::new("/etc/p/data"));
    assert_eq!(config.schema_dir().unwrap(), Path::new("/srv/apps"));
    assert_eq!(config.passphrase_file(), None);
    assert_eq!(config.sync.pull_interval(), None);
    assert_eq!(config.bastion.effort_base, 2);
    assert_eq!(config.peers[0].onion.to_onion_string(), ONION);
    assert_eq!(config.admission.allow[0].to_hex(), "ab".repeat(32));
    assert_eq!(config.transport.loopback_directory.len(), 1);
    assert!(config.tor.contains_key("path_rules"));
    let debug = format!("{config:?}");
    assert!(!debug.contains(ONION) && !debug.contains(&"ab".repeat(32)));
}

#[test]
fn unknown_keys_are_fatal_with_line_and_suggestion() {
    wrong(
        "[api]\n\nlisten_on = 1\nlisen = 1\n",
        "p:3: api.listen_on: unknown key; did you mean `listen`?\np:4: api.lisen: unknown key; did you mean `listen`?",
    );
    wrong("[snyc]\n", "p:1: snyc: unknown key; did you mean `sync`?");
    wrong(
        "[bastion]\neffort_bas = 1\n",
        "p:2: bastion.effort_bas: unknown key; did you mean `effort_base`?",
    );
    wrong(
        "[log]\ncolour = 1\n",
        "p:2: log.colour: unknown key; possible: format, filter",
    );
    wrong(
        &format!("[[peer]]\nonion = \"{ONION}\"\n[[peer]]\nonoin = \"x\"\n"),
        "p:3: peer: the key `onion` is missing\np:4: peer.onoin: unknown key; did you mean `onion`?",
    );
}

#[test]
fn wrong_types_and_words_are_named() {
    wrong(
        "[sync]\ndials_max = \"4\"\n",
        "p:2: sync.dials_max: invalid type: string \"4\", expected usize",
    );
    wrong(
        "[sync]\ndials_max = -4\n",
        "p:2: sync.dials_max: invalid value: integer `-4`, expected usize",
    );
    wrong(
        "[admission]\npolicy = \"opne\"\n",
        "p:2: admission.policy: `opne` is not possible here; did you mean `open`?",
    );
    wrong(
        "[log]\nformat = \"xml\"\n",
        "p:2: log.format: `xml` is not possible here; possible: human, json",
    );
    wrong(
        "[api]\nlisten = \"localhost\"\n",
        "p:2: api.listen: invalid socket address syntax",
    );
    wrong(
        "[sync]\ndials_max = 1\ndials_max = 2\n",
        "p:3: not TOML: duplicate key",
    );
    wrong("[sync\n", "p:1: not TOML: unclosed table, expected `]`");
}

#[test]
fn bad_addresses_are_named_without_being_quoted() {
    let bent = ONION.replacen("2g", "2h", 1);
    let error = parse(&format!("[[peer]]\nname = \"x\"\nonion = \"{bent}\"\n")).unwrap_err();
    assert_eq!(
        error,
        "p:3: peer.onion: not a valid onion address: its checksum is wrong; was it typed correctly?"
    );
    wrong(
        "[admission]\nallow = [\"abc\"]\n",
        "p:2: admission.allow: not a valid PeerId: not lower-case hex",
    );
    wrong(
        "[transport]\nkind = \"loopback\"\nloopback_directory = { \"x.onion\" = \"127.0.0.1:1\" }\n",
        "p:3: transport.loopback_directory: not a valid onion address: a version 3 address has 56 characters before .onion",
    );
}

#[test]
fn values_that_make_no_sense_are_named_all_at_once() {
    let only_loopback = "must be a loopback address, such as 127.0.0.1: nothing here may be reached from another machine";
    wrong(
        "[api]\nlisten = \"0.0.0.0:80\"\n[sync]\ndials_max = 0\nbackoff_s_min = 60\nbackoff_s_max = 59\npull_wait_s = 61\n",
        &format!(
            "p:2: api.listen: {only_loopback}\np:4: sync.dials_max: must be 1 to 1000000\n\
             p:6: sync.backoff_s_max: is below backoff_s_min\np:7: sync.pull_wait_s: the protocol allows 60 at most"
        ),
    );
    wrong(
        "[bastion]\neffort_idle = 0\n",
        "p:2: bastion.effort_idle: must be at least 1",
    );
    wrong(
        "[bastion]\neffort_base = 2\n",
        "p:2: bastion.effort_base: is below effort_idle",
    );
    wrong(
        "[sync]\npull_interval_s = 86401\n",
        "p:2: sync.pull_interval_s: must be 1 to 86400",
    );
    wrong(
        "[sync]\nsilence_s_max = 30\n",
        "p:2: sync.silence_s_max: must be above ping_interval_s, or no ping is ever answered in time",
    );
    wrong(
        "[sync]\npackage_bytes_max = 1048576\n",
        "p:2: sync.package_bytes_max: must be 8192 to 983040",
    );
    wrong(
        "[limits]\nobject_bytes_max = 983040\n",
        "p:2: limits.object_bytes_max: two do not fit a package: at most half of sync.package_bytes_max less 4096",
    );
    wrong(
        "[limits]\nparked_per_peer_max = 0\n",
        "p:2: limits.parked_per_peer_max: must be at least 1",
    );
    wrong(
        "[sync]\nsessions_max = 8\nsessions_untrusted_max = 8\n",
        "p:3: sync.sessions_untrusted_max: must be below sessions_max, or trusted peers find no room",
    );
    wrong(
        "[quota.untrusted]\nstored_bytes_max = 983039\ntotal_objects_max = 9999\nrequests_per_minute_max = 0\n",
        "p:2: quota.untrusted.stored_bytes_max: must be at least 983040: what one package holds\n\
         p:3: quota.untrusted.total_objects_max: is below stored_objects_max\n\
         p:4: quota.untrusted.requests_per_minute_max: must be 1 to 1000000",
    );
    wrong(
        "[quota.trusted]\nstored_byte_max = 1\n",
        "p:2: quota.trusted.stored_byte_max: unknown key; did you mean `stored_bytes_max`?",
    );
    wrong(
        "[admission]\nuntrusted_idle_days = 3651\n",
        "p:2: admission.untrusted_idle_days: must be at most 3650; 0 is never",
    );
    wrong(
        "[admission]\npending_max = 0\npending_days = 0\nrefused_days = 3651\n",
        "p:2: admission.pending_max: must be 1 to 1000000\np:3: admission.pending_days: must be 1 to 3650\n\
         p:4: admission.refused_days: must be 1 to 3650",
    );
    wrong(
        "[api]\nrequests_max = 0\n",
        "p:2: api.requests_max: must be 1 to 1000000",
    );
    wrong(
        "[node]\napps = [\"messages\"]\n",
        "p:2: node.apps: `identities` must be there: all other apps need it",
    );
    wrong(
        "[node]\napps = [\"identities\", \"identities\"]\n",
        "p:2: node.apps: names an app twice",
    );
    wrong(
        "[node]\nname = \"a\\nb\"\n",
        "p:2: node.name: at most 64 bytes, without control characters",
    );
    wrong(
        &format!("[[peer]]\nonion = \"{ONION}\"\n[[peer]]\nonion = \"{ONION}\"\n"),
        "p:4: peer.onion: this peer is there already",
    );
    let error = parse("[log]\nfilter = \"postern=loud\"\n").unwrap_err();
    assert!(error.starts_with("p:2: log.filter: "), "{error}");
}

#[test]
fn what_tor_is_asked_to_do_is_checked() {
    wrong(
        "[transport]\nintro_points = 2\nintro_rate_per_s = 200\nstreams_per_circuit_max = 0\nvanguards = \"none\"\n\
         request_wait_s = 0\n",
        "p:1: transport.intro_burst: must be intro_rate_per_s to 1000000, or relays ignore both\n\
         p:2: transport.intro_points: must be 3 to 20, as Tor has it\n\
         p:4: transport.streams_per_circuit_max: must be 1 to 1000000\n\
         p:5: transport.vanguards: `none` is not possible here; possible: lite, full\n\
         p:6: transport.request_wait_s: must be 1 to 86400",
    );
    let unlimited =
        parse("[transport]\nintro_rate_per_s = 0\nintro_burst = 0\nvanguards = \"full\"\n")
            .unwrap();
    assert_eq!(unlimited.transport.vanguards, bastion::Vanguards::Full);
}

#[test]
#[cfg(not(feature = "tor-pow"))]
fn what_this_build_lacks_is_said_with_the_feature_that_brings_it() {
    wrong(
        "[transport]\ntor_pow = true\n",
        "p:2: transport.tor_pow: this program was built without the feature `tor-pow`: see README",
    );
}

#[test]
#[cfg(feature = "tor")]
fn the_table_of_artis_own_words_may_not_contradict_ours_nor_ask_for_what_is_not_built_in() {
    parse("[transport]\nvanguards = \"full\"\n[tor.vanguards]\nmode = \"full\"\n").unwrap();
    wrong(
        "[tor.vanguards]\nmode = \"full\"\n",
        "p:2: tor.vanguards.mode: contradicts transport.vanguards, which says \"lite\": leave it out here",
    );
    #[cfg(not(feature = "bridges"))]
    wrong(
        "[tor.bridges]\nbridges = [\"192.0.2.83:80 $0bac39417268b96b9f514ef763fa6fba1a788956\"]\n",
        "p:1: tor.bridges: this program was built without the feature `bridges`: see README",
    );
}

/// Every limit that the node hands on reaches Tor: none is left at the default that happens to be the same.
#[test]
#[cfg(feature = "tor")]
fn what_is_set_reaches_tor() {
    let config = parse(
        "[transport]\naccepts_max = 1\naccept_deadline_s = 2\naccept_deadline_pressed_s = 3\n\
         requests_waiting_max = 4\nrequest_wait_s = 5\ncircuits_max = 6\ncircuit_idle_s = 7\n\
         streams_per_circuit_max = 9\nstreams_per_minute_max = 10\narrivals_max = 11\nbootstrap_deadline_s = 12\n\
         intro_points = 4\nintro_rate_per_s = 14\nintro_burst = 15\nvanguards = \"full\"\n",
    )
    .unwrap();
    let tor = config.tor_config(Path::new("t"));
    let seconds = |time: Duration| time.as_secs();
    let limits = tor.limits;
    assert_eq!(
        [
            limits.accepts_max,
            limits.requests_waiting_max,
            limits.circuits_max,
            limits.arrivals_max
        ],
        [1, 4, 6, 11]
    );
    assert_eq!(
        [
            limits.accept_deadline,
            limits.accept_deadline_pressed,
            limits.request_wait,
            limits.circuit_idle,
            limits.bootstrap_deadline
        ]
        .map(seconds),
        [2, 3, 5, 7, 12]
    );
    assert_eq!(
        (
            limits.streams_per_circuit_max,
            limits.streams_per_minute_max
        ),
        (9, 10)
    );
    let asked = bastion::Hardening {
        intro_points: 4,
        intro_rate_per_s: 14,
        intro_burst: 15,
        vanguards: bastion::Vanguards::Full,
        pow_queue_max: None,
    };
    assert_eq!(tor.hardening, asked);
    let defaults = parse("").unwrap().tor_config(Path::new("t"));
    let theirs = bastion::transport::tor::TorConfig::new("t/state", "t/cache");
    assert_eq!(
        (defaults.limits, defaults.hardening),
        (theirs.limits, theirs.hardening)
    );
}

#[test]
fn a_value_that_only_its_neighbour_makes_wrong_is_found_at_its_table() {
    wrong(
        "[node]\nname = \"x\"\n\n[sync]\nbackoff_s_min = 3600\n",
        "p:4: sync.backoff_s_max: is below backoff_s_min",
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    assert!(matches!(
        Config::load(&path),
        Err(ConfigError::Unreadable { .. })
    ));
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLong(_))));
    std::fs::write(&path, Config::default_toml()).unwrap();
    assert_eq!(
        Config::load(&path).unwrap().data_dir(),
        dir.path().join(".")
    );
}

/// The default file is made from the documentation of the fields, so that the two cannot differ. After a change run
/// this test with `POSTERN_WRITE_DEFAULT_TOML=1` to write the file anew.
#[test]
fn the_default_file_says_what_the_fields_say() {
    let text = default_toml();
    if std::env::var_os("POSTERN_WRITE_DEFAULT_TOML").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/default.toml");
        std::fs::write(path, &text).unwrap();
    } else {
        assert_eq!(Config::default_toml(), text);
    }
}

fn default_toml() -> String {
    let config = Config::default();
    let (ours, quota) = (include_str!("sections.rs"), include_str!("quota.rs"));
    let reached = include_str!("transport.rs");
    let gate = include_str!("../../bastion/src/config.rs");
    let mut text = String::from(
        "# The config of a Postern node. Every key is here with its default; take the `#` away to change one.\n\
         # Names end in their unit: _s seconds, _bytes bytes, _max the most. `postern check` says what is wrong here.\n",
    );
    let mut table = |name: &str, source: &str, of: &str, values: toml::Table| {
        write!(text, "\n[{name}]\n{}", keys(source, of, values)).unwrap();
    };
    fn values(section: &impl serde::Serialize) -> toml::Table {
        toml::Table::try_from(section).unwrap()
    }
    table("node", ours, "NodeConfig", values(&config.node));
    table("api", ours, "ApiConfig", values(&config.api));
    table(
        "admission",
        ours,
        "AdmissionConfig",
        values(&config.admission),
    );
    table("bastion", gate, "GateConfig", values(&config.bastion));
    table("sync", ours, "SyncConfig", values(&config.sync));
    table(
        "quota.untrusted",
        quota,
        "UntrustedQuota",
        values(&config.quota.untrusted),
    );
    table(
        "quota.trusted",
        quota,
        "TrustedQuota",
        values(&config.quota.trusted),
    );
    table("limits", ours, "LimitsConfig", values(&config.limits));
    table(
        "transport",
        reached,
        "TransportConfig",
        values(&config.transport),
    );
    table("log", ours, "LogConfig", values(&config.log));
    text += "\n# Peers that this node dials by itself, one table for each. Dialled peers are trusted.\n\
             # [[peer]]\n# onion = \"...\"\n# name = \"...\"\n\
             \n# Handed to arti as it is; arti's documentation names the keys. Folders and keystore are the node's own.\n[tor]\n";
    text
}

/// The keys of one struct: documentation, then the key with its default.
fn keys(source: &str, of: &str, values: toml::Table) -> String {
    let (_, body) = source.split_once(&format!("pub struct {of} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let (mut text, mut doc) = (String::new(), String::new());
    for line in body.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            writeln!(doc, "# {comment}").unwrap();
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (key, _) = field.split_once(':').unwrap();
            let value = values
                .get(key)
                .map_or("\"...\"".to_owned(), toml::Value::to_string);
            let flat = doc.replace("\n# ", " ");
            let said = flat.contains(&format!("Default {value}:"))
                || flat.contains(&format!("Default {value}."));
            assert!(
                said || flat.contains("Default:"),
                "the documentation of {of}.{key} must say: Default {value}"
            );
            write!(text, "\n{doc}# {key} = {value}\n").unwrap();
            doc.clear();
        }
    }
    text
}

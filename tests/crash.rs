//! The program killed after every step of what it writes: what is left is the old or the new, and both start.
//!
//! The binary of a build for tests ends itself at the call of `keys::crash_point` that `POSTERN_CRASH_AT` counts to. Every
//! command is run with 1, 2, 3, … until it ends by itself, in a fresh copy of the same folder each time.
// A release build has no crash points.
#![cfg(debug_assertions)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use keys::TraceId;
use keys::crash::CRASH_AT;
use keys::{ApiToken, KdfCost, KeyManager, Oid, Passphrase, PeerId};
use postern::config::Config;
use postern::data_dir::DataDir;
use postern::graph::{Draft, SaveError};
use postern::node;
use postern::object::Value;
use postern::op_context::{OpContext, Timestamp};
use postern::schema::Schemas;
use postern::services::identities;
use postern::state_engine::{CoreLimits, StateEngine};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;

/// More crash points than any command has.
const RUNS_MAX: u64 = 60;
/// SIGABRT, by which a crash point ends the process.
const ABORTED: i32 = 6;
const CONFIG: &str = "[transport]\nkind = \"loopback\"\n";

/// A place for a node, a second one, and files with passphrases.
struct Place {
    parent: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            parent: tempfile::tempdir().unwrap(),
        };
        for word in ["old", "new"] {
            let path = place.at(word);
            fs::write(&path, word).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    /// With a node whose vault costs nothing to open.
    fn with_node() -> (Self, PeerId, Oid) {
        let place = Self::new();
        let made = node::init(
            &place.at("node"),
            Some("Alice"),
            &passphrase("old"),
            KdfCost::TEST,
        )
        .unwrap();
        fs::write(&made.config, CONFIG).unwrap();
        (place, made.peer_id, made.identity)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.parent.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs the program. `{name}` in an argument is a path here. 0 crashes nowhere.
    fn postern(&self, arguments: &[&str], crash_at: u64) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command
            .stdin(Stdio::null())
            .env_remove("CREDENTIALS_DIRECTORY");
        for argument in arguments {
            match argument.strip_prefix('@') {
                Some(name) => command.arg(self.at(name)),
                None => command.arg(argument),
            };
        }
        match crash_at {
            0 => command.env_remove(CRASH_AT),
            at => command.env(CRASH_AT, at.to_string()),
        };
        command.output().unwrap()
    }

    fn must(&self, arguments: &[&str]) {
        let output = self.postern(arguments, 0);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn passphrase(word: &str) -> Passphrase {
    Passphrase::from_string(word.to_owned())
}

/// Runs a command until it ends by itself. `prepare` makes a place for each run, `check` sees what the run left: `true` where
/// it ended by itself. Tells how many times it was killed.
fn kill_everywhere<T>(
    arguments: &[&str],
    prepare: impl Fn() -> (Place, T),
    mut check: impl FnMut(&Place, &T, bool, &str),
) -> u64 {
    for crash_at in 1..RUNS_MAX {
        let (place, known) = prepare();
        let output = place.postern(arguments, crash_at);
        let text = said(&output);
        let ended = output.status.success();
        assert!(
            ended || output.status.signal() == Some(ABORTED),
            "{arguments:?}, crash {crash_at}: {text}"
        );
        check(&place, &known, ended, &format!("crash {crash_at}: {text}"));
        if ended {
            return crash_at - 1;
        }
    }
    panic!("{arguments:?} has more crash points than {RUNS_MAX}");
}

/// What a node's start does: vault, database, token. Gives its identities.
fn starts(folder: &Path, word: &str, what: &str) -> (PeerId, Vec<Oid>) {
    let config = Config::load(&folder.join("postern.toml"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let data = DataDir::of(&config);
    let keys = KeyManager::open(&data.keys(), &passphrase(word))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let keys = Arc::new(keys);
    let schemas =
        Arc::new(Schemas::load(&config.node.apps, config.schema_dir().as_deref()).unwrap());
    let rng = Box::new(ChaCha20Rng::from_seed([1; 32]));
    let (limits, now) = (CoreLimits::default(), Timestamp(1_700_000_000_000));
    let core = StateEngine::open(&data.database(), schemas, keys.clone(), limits, rng, now)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let token = ApiToken::read(&data.token()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        core.view().rows.has_token(&token.hash()).unwrap(),
        "{what}: the token"
    );
    let known = identities::known(&core.view()).unwrap();
    let here: Vec<_> = known
        .into_iter()
        .filter(|card| card.here)
        .map(|card| card.oid)
        .collect();
    assert_eq!(here, keys.identities(), "{what}");
    (keys.peer_id(), here)
}

#[test]
fn init() {
    let command = [
        "init",
        "@node",
        "--name",
        "Alice",
        "--passphrase-file",
        "@old",
    ];
    let killed = kill_everywhere(
        &command,
        || (Place::new(), ()),
        |place, (), ended, what| {
            let folder = place.at("node");
            if !folder.exists() {
                assert!(!ended, "{what}");
                place.must(&command);
            }
            assert_eq!(starts(&folder, "old", what).1.len(), 1, "{what}");
            assert_eq!(
                place.names(),
                ["new", "node", "old"],
                "{what}: what the kill left is gone"
            );
        },
    );
    assert!(killed >= 6, "{killed}");
}

#[test]
fn changing_the_passphrase() {
    let command = [
        "keys",
        "change-passphrase",
        "--config",
        "@node/postern.toml",
        "--passphrase-file",
        "@old",
        "--new-passphrase-file",
        "@new",
    ];
    let killed = kill_everywhere(
        &command,
        || {
            let (place, peer_id, identity) = Place::with_node();
            (place, (peer_id, identity))
        },
        |place, (peer_id, identity), ended, what| {
            let vault = DataDir::at(&place.at("node")).keys();
            let opens = |word| KeyManager::open(&vault, &passphrase(word)).is_ok();
            let (old, new) = (opens("old"), opens("new"));
            assert!(
                old != new && (new || !ended),
                "{what}: old {old}, new {new}"
            );
            let word = if new { "new" } else { "old" };
            assert_eq!(
                starts(&place.at("node"), word, what),
                (*peer_id, vec![*identity]),
                "{what}"
            );
        },
    );
    assert!(killed >= 3, "{killed}");
}

#[test]
fn rotating_a_key() {
    let command = [
        "keys",
        "rotate",
        "node",
        "--config",
        "@node/postern.toml",
        "--passphrase-file",
        "@old",
    ];
    let killed = kill_everywhere(
        &command,
        || {
            let (place, peer_id, identity) = Place::with_node();
            (place, (peer_id, identity))
        },
        |place, (peer_id, identity), ended, what| {
            let folder = place.at("node");
            let keys = KeyManager::open(&DataDir::at(&folder).keys(), &passphrase("old")).unwrap();
            let node = keys
                .holders()
                .into_iter()
                .find(|holder| holder.is_node)
                .unwrap();
            assert!(
                node.key_id <= 1 && (node.key_id == 1 || !ended),
                "{what}: key {}",
                node.key_id
            );
            assert!(node.has_next_key, "{what}");
            assert_eq!(
                starts(&folder, "old", what),
                (*peer_id, vec![*identity]),
                "{what}"
            );
            place.must(&command);
        },
    );
    assert!(killed >= 3, "{killed}");
}

#[test]
fn exporting_a_recovery_key() {
    let command = [
        "keys",
        "export-recovery",
        "node",
        "--config",
        "@node/postern.toml",
        "--passphrase-file",
        "@old",
        "--out",
        "@recovery",
    ];
    let rotate = [
        "keys",
        "rotate",
        "node",
        "--config",
        "@node/postern.toml",
        "--passphrase-file",
        "@old",
        "--recovery-file",
        "@recovery",
    ];
    let killed = kill_everywhere(
        &command,
        || {
            let (place, peer_id, identity) = Place::with_node();
            (place, (peer_id, identity))
        },
        |place, (peer_id, identity), ended, what| {
            let folder = place.at("node");
            let keys = KeyManager::open(&DataDir::at(&folder).keys(), &passphrase("old")).unwrap();
            let node = keys
                .holders()
                .into_iter()
                .find(|holder| holder.is_node)
                .unwrap();
            assert!(
                node.has_next_key || place.at("recovery").is_file(),
                "{what}: the key is nowhere"
            );
            assert!(!ended || !node.has_next_key, "{what}");
            drop(keys);
            // Taken up again, and then the file is what rotates.
            place.must(&command);
            place.must(&rotate);
            assert_eq!(
                starts(&folder, "old", what),
                (*peer_id, vec![*identity]),
                "{what}"
            );
        },
    );
    assert!(killed >= 6, "{killed}");
}

#[test]
fn a_backup_of_a_stopped_node() {
    let command = [
        "backup",
        "--out",
        "@backup",
        "--config",
        "@node/postern.toml",
        "--passphrase-file",
        "@old",
    ];
    let killed = kill_everywhere(
        &command,
        || {
            let (place, peer_id, identity) = Place::with_node();
            (place, (peer_id, identity))
        },
        |place, (peer_id, identity), ended, what| {
            let node = (*peer_id, vec![*identity]);
            assert_eq!(starts(&place.at("node"), "old", what), node, "{what}");
            let is_there = place.at("backup").exists();
            assert!(is_there || !ended, "{what}");
            if !is_there {
                place.must(&command);
            }
            // What has the name is whole, also where the kill came right behind.
            place.must(&[
                "restore",
                "@backup",
                "@elsewhere",
                "--passphrase-file",
                "@old",
            ]);
            assert_eq!(starts(&place.at("elsewhere"), "old", what), node, "{what}");
            // And the next one tidies up what the kill left.
            fs::remove_file(place.at("backup")).unwrap();
            place.must(&command);
            assert_eq!(
                place.names(),
                ["backup", "elsewhere", "new", "node", "old"],
                "{what}"
            );
            assert!(!place.at("node/postern.db.backup").exists(), "{what}");
        },
    );
    assert!(killed >= 5, "{killed}");
}

#[test]
fn a_restore() {
    let command = [
        "restore",
        "@backup",
        "@elsewhere",
        "--passphrase-file",
        "@old",
    ];
    let killed = kill_everywhere(
        &command,
        || {
            let (place, peer_id, identity) = Place::with_node();
            let config = place.at("node/postern.toml");
            let config = config.to_str().unwrap();
            place.must(&[
                "backup",
                "--out",
                "@backup",
                "--config",
                config,
                "--passphrase-file",
                "@old",
            ]);
            (place, (peer_id, identity))
        },
        |place, (peer_id, identity), ended, what| {
            if !place.at("elsewhere").exists() {
                assert!(!ended, "{what}");
                place.must(&command);
            }
            let node = (*peer_id, vec![*identity]);
            assert_eq!(starts(&place.at("elsewhere"), "old", what), node, "{what}");
            assert_eq!(
                place.names(),
                ["backup", "elsewhere", "new", "node", "old"],
                "{what}"
            );
        },
    );
    assert!(killed >= 8, "{killed}");
}

/// A node whose identity has more objects than one step signs again, and a vault that was rotated since.
fn with_much_to_sign() -> (Place, usize) {
    let (place, _, identity) = Place::with_node();
    let config = Config::load(&place.at("node/postern.toml")).unwrap();
    let data = DataDir::of(&config);
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase("old")).unwrap());
    let schemas = Arc::new(Schemas::load(&config.node.apps, None).unwrap());
    let rng = Box::new(ChaCha20Rng::from_seed([2; 32]));
    let now = Timestamp(1_700_000_000_000);
    let mut core = StateEngine::open(
        &data.database(),
        schemas,
        keys.clone(),
        CoreLimits::default(),
        rng,
        now,
    )
    .unwrap();
    let person = core
        .view()
        .rows
        .identity(&identity)
        .unwrap()
        .unwrap()
        .pubkey_attr_id;
    let cards = 300;
    core.write(now, |graph| {
        let context = OpContext::Local {
            requester_pubkey_attr_id: person,
            app_id: graph.tx().apps().get("contacts").unwrap().id,
            trace_id: TraceId(1),
        };
        for _ in 0..cards {
            let draft = Draft {
                app: "contacts".into(),
                type_number: 1,
                oid: None,
                owner: identity,
                attrs: Some(
                    [
                        (1, vec![Value::from(&identity)]),
                        (2, vec![Value::from("x")]),
                    ]
                    .into(),
                ),
            };
            graph.save_with_sync(&context, draft)?;
        }
        Ok::<_, SaveError>(())
    })
    .unwrap();
    keys.rotate(identity, &mut ChaCha20Rng::from_seed([3; 32]))
        .unwrap();
    (place, cards)
}

#[test]
fn a_start_that_makes_a_rotation_good() {
    let (mut kills, mut half) = (0, 0);
    for crash_at in 1..RUNS_MAX {
        let (place, cards) = with_much_to_sign();
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["run", "--config"])
            .arg(place.at("node/postern.toml"))
            .arg("--passphrase-file")
            .arg(place.at("old"))
            .env(CRASH_AT, crash_at.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says where its API is once the database is in order.
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.signal(), Some(ABORTED), "crash {crash_at}");
                break false;
            }
            if place.at("node/api.addr").exists() {
                child.kill().unwrap();
                child.wait().unwrap();
                break true;
            }
            std::thread::yield_now();
        };
        let signed = |what: &str| {
            let database = rusqlite::Connection::open(place.at("node/postern.db")).unwrap();
            let sql = "SELECT COUNT(*), COUNT(DISTINCT change_seq) FROM app_contacts_parent WHERE key_id = 1";
            let count: (usize, usize) = database.query_row(sql, [], |row| row.try_into()).unwrap();
            assert_eq!(
                count.0, count.1,
                "{what}: each in a change group of its own"
            );
            count.0
        };
        let before = signed("killed");
        half += usize::from(before > 0 && before < cards);
        assert!(!ended || before == cards);
        starts(&place.at("node"), "old", &format!("crash {crash_at}"));
        assert_eq!(signed("started again"), cards);
        if ended {
            assert!(
                kills > 5 && half > 0,
                "{kills} kills, {half} in the middle of the signing"
            );
            return;
        }
        kills += 1;
    }
    panic!("a start has more crash points than {RUNS_MAX}");
}

//! The program, crashed at every step of its writes: it leaves the old state or the new one, and
//! the node starts from either.
//!
//! A debug build ends itself at the call of `keys::crash_point` that `POSTERN_CRASH_AT` counts to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use harness::{card, context_of};
use keys::crash::CRASH_AT;
use keys::{ApiToken, KdfCost, KeyManager, Oid, Passphrase, PeerId};
use postern::config::Config;
use postern::data_dir::DataDir;
use postern::graph::{SaveError, WriteRequest};
use postern::node;
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::services::identities;
use postern::state_engine::{CoreLimits, StateEngine};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;

/// Upper bound of the crash points of a command.
const RUNS_MAX: u64 = 60;
/// SIGABRT, with which a crash point ends the process.
const ABORTED: i32 = 6;
const CONFIG: &str = "[transport]\nkind = \"loopback\"\n";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

const INIT: &str = "init @node --name Alice --passphrase-file @old";
const CHANGE_PASSPHRASE: &str = "keys change-passphrase --config @node/postern.toml \
     --passphrase-file @old --new-passphrase-file @new";
const ROTATE: &str = "keys rotate node --config @node/postern.toml --passphrase-file @old";
const EXPORT_RECOVERY: &str = "keys export-recovery node --config @node/postern.toml \
     --passphrase-file @old --out @recovery";
const ROTATE_BY_RECOVERY_FILE: &str = "keys rotate node --config @node/postern.toml \
     --passphrase-file @old --recovery-file @recovery";
const BACKUP: &str = "backup --out @backup --config @node/postern.toml --passphrase-file @old";
const RESTORE: &str = "restore @backup @elsewhere --passphrase-file @old";

/// A folder with a node, its backups, and two files with passphrases.
struct Place {
    parent: TempDir,
    /// The node's peer id and identity; none before `init`.
    node: Option<(PeerId, Vec<Oid>)>,
}

impl Place {
    fn empty() -> Self {
        let place = Self {
            parent: tempfile::tempdir().unwrap(),
            node: None,
        };
        for passphrase in ["old", "new"] {
            let path = place.at(passphrase);
            fs::write(&path, passphrase).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    /// With a node whose vault has the lowest cost.
    fn with_node() -> Self {
        let mut place = Self::empty();
        let (folder, passphrase) = (place.at("node"), passphrase("old"));
        let made = node::init(&folder, Some("Alice"), &passphrase, KdfCost::TEST).unwrap();
        fs::write(&made.config, CONFIG).unwrap();
        place.node = Some((made.peer_id, vec![made.identity]));
        place
    }

    fn with_backup() -> Self {
        let place = Self::with_node();
        place.must(BACKUP);
        place
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

    /// Runs the program. An argument that begins with `@` is a path in this folder. The process
    /// ends at the crash point of this number; 0 is no crash point.
    fn postern(&self, arguments: &str, crash_at: u64) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command
            .stdin(Stdio::null())
            .env_remove("CREDENTIALS_DIRECTORY")
            .env(CRASH_AT, crash_at.to_string());
        for argument in arguments.split_whitespace() {
            match argument.strip_prefix('@') {
                Some(name) => command.arg(self.at(name)),
                None => command.arg(argument),
            };
        }
        command.output().unwrap()
    }

    fn must(&self, arguments: &str) {
        let output = self.postern(arguments, 0);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {stderr}");
    }

    fn keys(&self) -> KeyManager {
        KeyManager::open(&DataDir::at(&self.at("node")).keys(), &passphrase("old")).unwrap()
    }

    /// Starts a folder's node as the program does (vault, database, token), and compares its
    /// identities.
    fn starts(&self, folder: &str, word: &str, what: &str) {
        let (core, keys) = open_core(&self.at(folder), word, what);
        let token = DataDir::at(&self.at(folder)).token();
        let token = ApiToken::read(&token).unwrap_or_else(|error| panic!("{what}: {error}"));
        let view = core.view();
        assert!(view.rows.has_token(&token.hash()).unwrap(), "{what}: token");
        let cards = identities::known(&view).unwrap().into_iter();
        let local = cards
            .filter(|card| card.is_local)
            .map(|card| card.person.oid);
        let local: Vec<_> = local.collect();
        assert_eq!(local, keys.identities(), "{what}");
        match &self.node {
            Some(node) => assert_eq!(*node, (keys.peer_id(), local), "{what}"),
            None => assert_eq!(local.len(), 1, "{what}"),
        }
    }
}

fn open_core(folder: &Path, word: &str, what: &str) -> (StateEngine, Arc<KeyManager>) {
    let config = Config::load(&folder.join("postern.toml"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let data = DataDir::of(&config);
    let keys = KeyManager::open(&data.keys(), &passphrase(word))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let keys = Arc::new(keys);
    let schemas = Schemas::load(&config.node.apps, config.schema_dir().as_deref()).unwrap();
    let rng = Box::new(ChaCha20Rng::from_seed([1; 32]));
    let limits = CoreLimits::default();
    let (database, schemas) = (data.database(), Arc::new(schemas));
    let core = StateEngine::open(&database, schemas, keys.clone(), limits, rng, NOW)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    (core, keys)
}

fn passphrase(word: &str) -> Passphrase {
    Passphrase::from_string(word.to_owned())
}

/// Runs a command with a crash at point 1, 2, 3, ... until it ends without one, each time in a
/// fresh place. `check` gets the place, whether the command ended, and a text for messages.
fn crash_everywhere(
    command: &str,
    crashes_min: u64,
    prepare: fn() -> Place,
    check: fn(&Place, bool, &str),
) {
    for crash_at in 1..RUNS_MAX {
        let place = prepare();
        let output = place.postern(command, crash_at);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_done = output.status.success();
        assert!(
            is_done || output.status.signal() == Some(ABORTED),
            "{command}, crash {crash_at}: {stderr}"
        );
        check(&place, is_done, &format!("crash {crash_at}: {stderr}"));
        if is_done {
            assert!(crash_at > crashes_min, "only {crash_at} crash points");
            return;
        }
    }
    panic!("{command} has more than {RUNS_MAX} crash points");
}

#[test]
fn crashed_init_leaves_a_whole_node_or_none() {
    crash_everywhere(INIT, 6, Place::empty, |place, is_done, what| {
        if !place.at("node").exists() {
            assert!(!is_done, "{what}");
            place.must(INIT);
        }
        place.starts("node", "old", what);
        let names = ["new", "node", "old"];
        assert_eq!(place.names(), names, "{what}: no temporary folder is left");
    });
}

#[test]
fn crashed_passphrase_change_leaves_one_valid_passphrase() {
    crash_everywhere(
        CHANGE_PASSPHRASE,
        3,
        Place::with_node,
        |place, is_done, what| {
            let vault = DataDir::at(&place.at("node")).keys();
            let opens = |word| KeyManager::open(&vault, &passphrase(word)).is_ok();
            let (old, new) = (opens("old"), opens("new"));
            assert!(old != new, "{what}: old {old}, new {new}");
            assert!(new || !is_done, "{what}");
            place.starts("node", if new { "new" } else { "old" }, what);
        },
    );
}

#[test]
fn crashed_rotation_leaves_the_old_or_the_new_key() {
    crash_everywhere(ROTATE, 3, Place::with_node, |place, is_done, what| {
        let holders = place.keys().holders();
        let node = holders.into_iter().find(|holder| holder.is_node).unwrap();
        let keys_after = if is_done { 1..=1 } else { 0..=1 };
        assert!(keys_after.contains(&node.key_id), "{what}: {}", node.key_id);
        assert!(node.has_next_key, "{what}");
        place.starts("node", "old", what);
        place.must(ROTATE);
    });
}

#[test]
fn crashed_recovery_export_loses_no_key() {
    crash_everywhere(
        EXPORT_RECOVERY,
        6,
        Place::with_node,
        |place, is_done, what| {
            let holders = place.keys().holders();
            let node = holders.into_iter().find(|holder| holder.is_node).unwrap();
            assert!(
                node.has_next_key || place.at("recovery").is_file(),
                "{what}: the next key is neither in the vault nor in the file"
            );
            assert!(!is_done || !node.has_next_key, "{what}");
            // The command can be repeated, and its file then rotates the key.
            place.must(EXPORT_RECOVERY);
            place.must(ROTATE_BY_RECOVERY_FILE);
            place.starts("node", "old", what);
        },
    );
}

#[test]
fn crashed_backup_leaves_a_whole_backup_or_none() {
    crash_everywhere(BACKUP, 5, Place::with_node, |place, is_done, what| {
        place.starts("node", "old", what);
        let is_there = place.at("backup").exists();
        assert!(is_there || !is_done, "{what}");
        if !is_there {
            place.must(BACKUP);
        }
        place.must(RESTORE);
        place.starts("elsewhere", "old", what);
        // The next backup removes the temporary files of the crashed one.
        fs::remove_file(place.at("backup")).unwrap();
        place.must(BACKUP);
        let names = ["backup", "elsewhere", "new", "node", "old"];
        assert_eq!(place.names(), names, "{what}");
        assert!(!place.at("node/postern.db.backup").exists(), "{what}");
    });
}

#[test]
fn crashed_restore_leaves_a_whole_node_or_none() {
    crash_everywhere(RESTORE, 8, Place::with_backup, |place, is_done, what| {
        if !place.at("elsewhere").exists() {
            assert!(!is_done, "{what}");
            place.must(RESTORE);
        }
        place.starts("elsewhere", "old", what);
        let names = ["backup", "elsewhere", "new", "node", "old"];
        assert_eq!(place.names(), names, "{what}");
    });
}

/// Objects of an identity, more than one step of a rotation signs.
const CARDS: usize = 300;

/// A node whose identity was rotated in the vault only: its next start must sign `CARDS` objects.
fn with_unfinished_rotation() -> Place {
    let place = Place::with_node();
    let (mut core, keys) = open_core(&place.at("node"), "old", "setup");
    let identity = keys.identities()[0];
    let context = context_of(&core.view(), identity, "contacts").unwrap();
    core.write(NOW, |graph| {
        for _ in 0..CARDS {
            let draft = WriteRequest {
                app: "contacts".into(),
                type_number: 1,
                oid: None,
                owner: identity,
                attrs: Some(card(identity, "x")),
            };
            graph.save_with_sync(&context, draft)?;
        }
        Ok::<_, SaveError>(())
    })
    .unwrap();
    keys.rotate(identity, &mut ChaCha20Rng::from_seed([3; 32]))
        .unwrap();
    place
}

/// Runs the node until its API is up or a crash point ends it. Returns whether the API came up.
fn run_until_up(place: &Place, crash_at: u64) -> bool {
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
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(ABORTED), "crash {crash_at}");
            return false;
        }
        // The node writes this file after it has finished the rotation.
        if place.at("node/api.addr").exists() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

#[test]
fn crashed_start_finishes_a_rotation_at_the_next_start() {
    let (mut crashes, mut halves) = (0, 0);
    for crash_at in 1..RUNS_MAX {
        let place = with_unfinished_rotation();
        let is_up = run_until_up(&place, crash_at);
        let signed = || {
            let database = rusqlite::Connection::open(place.at("node/postern.db")).unwrap();
            let sql = "SELECT COUNT(*), COUNT(DISTINCT change_seq) \
                       FROM app_contacts_parent WHERE key_id = 1";
            let row = database.query_row(sql, [], |row| row.try_into());
            let (objects, groups): (usize, usize) = row.unwrap();
            assert_eq!(objects, groups, "each object is a change group of its own");
            objects
        };
        let before = signed();
        halves += usize::from(before > 0 && before < CARDS);
        assert!(!is_up || before == CARDS);
        place.starts("node", "old", &format!("crash {crash_at}"));
        assert_eq!(signed(), CARDS, "after the next start");
        if is_up {
            assert!(crashes > 5, "{crashes} crashes");
            assert!(halves > 0, "no crash amid the signatures");
            return;
        }
        crashes += 1;
    }
    panic!("a start has more than {RUNS_MAX} crash points");
}

//! The commands of an operator while a node runs and after it was restored, over loopback.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::process::NodeProcess;
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = "[api]
listen = \"127.0.0.1:0\"
[transport]
kind = \"loopback\"
loopback_listen = \"127.0.0.1:0\"
";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("CREDENTIALS_DIRECTORY");
    command
}

/// Runs the program with arguments that a space separates.
fn run(line: &str) -> Output {
    let arguments: Vec<_> = line.split(' ').collect();
    command(&arguments).output().unwrap()
}

pub(crate) fn ok(line: &str) -> String {
    let output = run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn json_of(line: &str) -> Value {
    serde_json::from_str(&ok(line)).unwrap()
}

pub(crate) fn refused(line: &str, reason: &str) {
    let output = run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{line}");
    assert!(stderr.contains(reason), "{line}: {stderr}");
}

/// A node without a network, and the arguments that name it.
struct Operated {
    parent: TempDir,
    node: NodeProcess,
    /// `--config` with the file.
    config: String,
    /// `--config` and `--passphrase-file` with their files.
    vault: String,
}

impl Operated {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
        let node = NodeProcess::init(binary, parent.path(), "Alice", CONFIG);
        let config = format!("--config {}", node.config().display());
        let vault = format!("{config} --passphrase-file {}", node.passphrase().display());
        Self {
            parent,
            node,
            config,
            vault,
        }
    }

    fn at(&self, name: &str) -> String {
        let path = self.parent.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Restores a backup to a folder, as another node with the same passphrase.
    fn restored(&self, backup: &str, folder: &str) -> (Value, NodeProcess) {
        let passphrase = self.node.passphrase().display();
        let line = format!("restore {backup} {folder} --passphrase-file {passphrase} --json");
        (
            json_of(&line),
            NodeProcess::at(&self.node, Path::new(folder)),
        )
    }
}

#[test]
fn backup_of_a_running_node_restores_to_a_node_that_runs() {
    let mut operated = Operated::new();
    operated.node.start();
    let second = operated
        .node
        .post("/api/identities", json!({ "name": "Second" }));
    let (config, vault, file) = (&operated.config, &operated.vault, operated.at("backup"));

    let done = json_of(&format!("backup --out {file} {config} --json"));
    assert_eq!(done["path"], json!(file));
    assert_eq!(done["bytes"], json!(fs::metadata(&file).unwrap().len()));
    refused(&format!("backup --out {file} {config}"), "exists already");
    let no_folder = operated.at("none/x");
    refused(
        &format!("backup --out {no_folder} {config}"),
        "not a file name in an existing folder",
    );
    let state = operated.node.get("/api/backup")["backup"]["state"].clone();
    assert_eq!(state, json!("done"));

    // While the node runs, the vault can be read but not written.
    let list = format!("keys list --json {vault}");
    let listed = json_of(&list);
    let holders = listed["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 3);
    assert!(holders.iter().any(|holder| holder["oid"] == second["oid"]));
    let rotate = format!("keys rotate node {vault}");
    refused(&rotate, "the node is running");
    refused(
        &format!("keys change-passphrase {vault}"),
        "the node is running",
    );
    operated.node.stop();
    ok(&rotate);
    assert_eq!(json_of(&list)["holders"][0]["key_id"], json!(1));

    let (restored, mut again) = operated.restored(&file, &operated.at("restored"));
    assert_eq!(restored["peer_id"], listed["peer_id"]);
    assert_eq!(restored["identities"], json!(2));
    again.start();
    assert_eq!(again.get("/api/status")["peer_id"], listed["peer_id"]);
    let identities = again.get("/api/identities").to_string();
    assert!(identities.contains(second["oid"].as_str().unwrap()));
    // A node that stops during a backup leaves no temporary file.
    again.post("/api/backup", json!({ "path": operated.at("last") }));
    again.stop();
    assert!(!Path::new(&operated.at("last.new")).exists());
}

#[test]
fn onion_key_is_exported_to_c_tor_and_imported_again() {
    let (alice, bob) = (Operated::new(), Operated::new());
    let onion = |operated: &Operated| {
        let listed = json_of(&format!("keys list --json {}", operated.vault));
        listed["onion"].as_str().unwrap().to_owned()
    };
    let folder = alice.at("hidden_service");
    let export = format!("keys export-onion --out {folder} {}", bob.vault);
    ok(&export);
    refused(&export, "already exists");
    let hostname = fs::read_to_string(format!("{folder}/hostname")).unwrap();
    assert_eq!(hostname.trim(), onion(&bob));
    ok(&format!("keys import-onion {folder} {}", alice.vault));
    assert_eq!(onion(&alice), hostname.trim());
}

#[test]
fn exported_recovery_key_is_needed_for_the_next_rotation() {
    let operated = Operated::new();
    let (vault, file) = (&operated.vault, operated.at("recovery"));
    ok(&format!("keys export-recovery node --out {file} {vault}"));
    let rotate = format!("keys rotate node {vault}");
    refused(&rotate, "not in this vault");
    let with_file = format!("{rotate} --recovery-file {file}");
    ok(&with_file);
    refused(&with_file, "not the next key");
    // The rotation put a new next key into the vault.
    ok(&rotate);
}

#[test]
fn systemd_credential_opens_the_vault() {
    let operated = Operated::new();
    let credentials = operated.at("credentials");
    fs::create_dir(&credentials).unwrap();
    let credential = format!("{credentials}/postern-passphrase");
    fs::copy(operated.node.passphrase(), credential).unwrap();
    let line = format!("keys list {}", operated.config);
    let arguments: Vec<_> = line.split(' ').collect();
    let mut list = command(&arguments);
    let output = list.env("CREDENTIALS_DIRECTORY", &credentials).output();
    assert!(output.unwrap().status.success());
}

#[test]
fn operator_renames_retires_and_rotates_identities() {
    let mut operated = Operated::new();
    operated.node.start();
    let config = &operated.config;
    let done = |line: &str| ok(&format!("{line} {config}"));
    let fails = |line: &str, reason: &str| refused(&format!("{line} {config}"), reason);
    done("identity new Bob");
    done("identity rename Bob Robert");
    done("send --from Alice --to Robert Hi");
    fails(
        "send --from Alice --to Bob Hi",
        "no identity known here is named \"Bob\"",
    );
    done("identity retire Robert");
    assert!(done("identity list").contains("on this node, retired"));
    fails("send --from Alice --to Robert Hi", "is retired");
    fails("send --from Robert --to Alice Hi", "retired");
    done("identity retire Robert --undo");
    done("send --from Robert --to Alice Hi");
    fails("identity unfreeze Robert", "not frozen");
    assert!(done("identity rotate Robert").contains("number 1"));
    assert!(done("identity rotate --node").contains("number 1"));
    // A name is not a keyword.
    fails(
        "identity rotate node",
        "no identity of this node is named \"node\"",
    );
    done("identity new node");
    assert!(done("identity rotate node").contains("number 1"));
    fails("identity rotate node --node", "cannot be used with");
    fails("identity rotate", "--node");
    fails("identity new robert", "the name is taken");
    fails("identity rename Robert alice", "the name is taken");
    fails("identity new deadbeef", "stand for an oid");
    fails("contact remove Robert", "postern identity rename");
    fails("contact rename Robert Bob", "postern identity rename");
    fails(&format!("identity new {}", "x".repeat(65)), "64");
    fails("recovery resolve --no-such", "unexpected argument");
    assert!(done("recovery").contains("No recovery"));
    let identities = operated.node.get("/api/identities")["identities"].clone();
    let keys = identities.as_array().unwrap().iter();
    let mut keys: Vec<_> = keys
        .map(|card| (card["label"].as_str().unwrap(), card["key_id"].as_u64()))
        .collect();
    keys.sort_unstable();
    let expected = [("Alice", Some(0)), ("Robert", Some(1)), ("node", Some(1))];
    assert_eq!(keys, expected);
    operated.node.stop();
}

#[test]
fn people_found_conversations_and_change_their_members() {
    let mut operated = Operated::new();
    operated.node.start();
    let config = &operated.config;
    let done = |line: &str| ok(&format!("{line} {config}"));
    let fails = |line: &str, reason: &str| refused(&format!("{line} {config}"), reason);
    for name in ["Bob", "Carol", "Dora"] {
        done(&format!("identity new {name}"));
    }
    let made = done("conversation new --from Alice --to Bob --to Carol --title Hiking");
    let oid = made.trim().strip_prefix("conversation ").unwrap();
    // The last digits name a conversation too.
    let talk = &oid[24..];
    done(&format!("send --conversation {oid} --from Alice one"));
    done(&format!("send --conversation {talk} --from Carol two"));
    let added = done(&format!("conversation add {talk} Dora"));
    assert!(added.contains("read the whole history"), "{added}");
    let inbox = done("inbox --identity Dora");
    assert!(inbox.contains("(Hiking) Alice: one") && inbox.contains("(Hiking) Carol: two"));
    let removed = done(&format!("conversation remove {talk} Bob"));
    assert!(removed.contains("keeps what it has received"), "{removed}");
    done(&format!("conversation leave {talk} --as Carol"));
    let list = done("conversation list");
    assert!(list.contains("Hiking\n  members   "), "{list}");
    for text in [
        "Alice (owner)",
        "Bob (removed)",
        "Carol (left)",
        "2, newest 20",
    ] {
        assert!(list.contains(text), "{text}: {list}");
    }
    let shown = done(&format!("conversation show {oid}"));
    assert!(shown.contains("member, reads and writes"), "{shown}");
    let shown = json_of(&format!("conversation show {talk} --json {config}"));
    assert_eq!(
        (&shown["oid"], &shown["messages"]),
        (&json!(oid), &json!(2))
    );

    done("send --from Alice --to Bob Hi");
    let listed = json_of(&format!("conversation list --identity Bob --json {config}"));
    let cards = listed["conversations"].as_array().unwrap();
    let two = cards.iter().find(|card| card["of_two"] == json!(true));
    let two = two.unwrap()["oid"].as_str().unwrap();
    let larger = done(&format!("conversation add {two} Dora"));
    assert!(larger.contains("stays one of two"), "{larger}");
    assert!(!done("inbox --identity Bob").contains("(Alice"));

    fails("send --from Alice Hi", "--to");
    fails(
        &format!("send --from Alice --to Bob --conversation {oid} Hi"),
        "cannot be used with",
    );
    fails(
        &format!("conversation leave {talk}"),
        "choose one with --as",
    );
    fails(
        &format!("conversation leave {talk} --as Alice"),
        "neither leave nor be removed",
    );
    fails(&format!("conversation add {talk} Dora"), "member already");
    fails(
        &format!("send --conversation {talk} --from Bob Hi"),
        "not a member",
    );
    fails("conversation show 0123456", "last 8 or more digits");
    fails("conversation show 0123456789", "no conversation");
    fails("conversation new --from Alice", "--to");
    operated.node.stop();
}

#[test]
fn errors_of_conversations_say_what_is_wrong() {
    let mut operated = Operated::new();
    operated.node.start();
    let config = &operated.config;
    let done = |line: &str| ok(&format!("{line} {config}"));
    let fails = |line: &str, code, reason: &str| {
        let line = format!("{line} {config}");
        refused(&line, reason);
        assert_eq!(run(&line).status.code(), Some(code), "{line}");
    };
    let empty = done("conversation list");
    assert!(empty.contains("no conversations"), "{empty}");
    for name in ["Bob", "Carol"] {
        done(&format!("identity new {name}"));
    }
    let new = "conversation new --from Alice --to Bob";
    fails(&format!("{new} --to Bob"), 1, "is named twice");
    fails(&format!("{new} --to Alice"), 1, "is named twice");
    fails("identity new carol", 1, "the name is taken");
    fails(&format!("{new} --to Carl"), 1, "known here");
    fails("conversation new --from Dora --to Bob", 1, "of this node");
    fails("conversation new --from Alice --to ", 2, "an empty text");
    fails(
        "conversation new --from Alice --to Alice",
        1,
        "other identity",
    );
    fails(&format!("{new} --title "), 1, "one line");
    fails(&format!("{new} --title two\nlines"), 1, "one line");
    fails(
        &format!("{new} --title {}", "x".repeat(201)),
        1,
        "200 bytes",
    );
    let made = json_of(&format!("{new} --title Us --json {config}"));
    let oid = made["oid"].as_str().unwrap();
    let unknown = "f".repeat(32);
    let nowhere = "may read a conversation";
    fails(&format!("conversation show {unknown}"), 1, nowhere);
    fails(&format!("conversation add {unknown} Bob"), 1, nowhere);
    fails(
        &format!("conversation leave {unknown} --as Bob"),
        1,
        nowhere,
    );
    fails(
        &format!("send --conversation {unknown} --from Bob Hi"),
        1,
        nowhere,
    );
    fails("conversation show x", 2, "last 8 or more digits");
    fails("send --from Alice Hi", 2, "--conversation");
    fails("send --from Alice --to Bob ", 2, "message is empty");
    fails(
        &format!("conversation add {oid} {unknown}"),
        1,
        "is not known",
    );
    fails(&format!("conversation add {oid} Bob"), 1, "member already");
    fails(
        &format!("conversation remove {oid} Alice"),
        1,
        "always takes part",
    );
    assert_eq!(done("rejects"), "no refused objects\n");
    let none = json!({ "groups": [], "rejects": [] });
    assert_eq!(json_of(&format!("rejects --json {config}")), none);
    fails("rejects --peer x", 2, "peer id");
    fails("rejects --peer 0123", 1, "64 hexadecimal digits");
    operated.node.stop();
}

#[test]
fn restored_node_refuses_changes_until_its_recovery_ends() {
    let mut operated = Operated::new();
    operated.node.start();
    let file = operated.at("backup");
    ok(&format!("backup --out {file} {}", operated.config));
    operated.node.stop();
    let (_, mut restored) = operated.restored(&file, &operated.at("again"));
    restored.start();
    let config = format!("--config {}", restored.config().display());
    assert_eq!(
        restored.get("/api/recovery")["write_mode"],
        json!("new_objects_only")
    );
    let reason = "not yet reclaimed its objects";
    refused(&format!("identity rename Alice Al {config}"), reason);
    refused(&format!("identity rotate Alice {config}"), reason);
    restored.stop();
    let passphrase = restored.passphrase().display();
    let rotate = format!("keys rotate node {config} --passphrase-file {passphrase}");
    refused(&rotate, reason);
    restored.start();
    // New objects are allowed.
    ok(&format!("identity new Carol {config}"));
    ok(&format!("recovery finish {config}"));
    ok(&format!("identity rename Alice Al {config}"));
    restored.stop();
}

#[test]
fn check_warns_of_removed_keys_and_fails_on_unknown_keys() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("postern.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = run(&format!("check --config {}", path.display()));
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    assert_eq!(check("[sync]\ndials_max = 5\n"), (Some(0), String::new()));
    let (code, stderr) = check("[sync]\nbackoff_s_min = 5\n[limits]\nkey_events_max = 48\n");
    assert_eq!(code, Some(0), "{stderr}");
    let warnings: Vec<_> = stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{stderr}");
    assert!(warnings[0].ends_with(":2: sync.backoff_s_min: no longer a key; fixed at 30"));
    assert!(warnings[1].ends_with(":4: limits.key_events_max: no longer a key; fixed at 32"));
    let (code, stderr) = check("[sync]\ndails_max = 5\n");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("did you mean `dials_max`?"), "{stderr}");
}

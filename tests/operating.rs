//! What an operator types while a node runs and after it was restored: the program itself, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::disallowed_methods,
    reason = "shared by several test programs, each of which uses a part; other processes keep to the real clock"
)]
#[path = "common/process.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use process::NodeProcess;
use serde_json::{Value, json};

const CONFIG: &str = "[api]\nlisten = \"127.0.0.1:0\"\n[transport]\nkind = \"loopback\"\nloopback_listen = \"127.0.0.1:0\"\n";

fn postern(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(arguments)
        .env_remove("CREDENTIALS_DIRECTORY")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ok(arguments: &[&str]) -> String {
    let output = postern(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(arguments)).unwrap()
}

fn refused(arguments: &[&str], why: &str) {
    let output = postern(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(why), "{arguments:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_node_is_backed_up_while_it_runs_and_the_restored_one_runs() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    let mut node = NodeProcess::init(
        Path::new(env!("CARGO_BIN_EXE_postern")),
        parent.path(),
        "Alice",
        CONFIG,
    );
    node.start();
    let made = node.post("/api/identities", json!({ "name": "Second" }));
    let (config, word) = (node.config(), node.passphrase().to_owned());
    let (config, word) = (text(&config), text(&word));

    let file = at("backup");
    let done = json_of(&["backup", "--out", text(&file), "--config", config, "--json"]);
    assert_eq!(done["path"], json!(text(&file)));
    assert_eq!(done["bytes"], json!(fs::metadata(&file).unwrap().len()));
    refused(
        &["backup", "--out", text(&file), "--config", config],
        "exists already",
    );
    refused(
        &["backup", "--out", text(&at("none/x")), "--config", config],
        "not a file name in an existing folder",
    );
    assert_eq!(node.get("/api/backup")["backup"]["state"], json!("done"));

    // Beside a node that runs the vault is read, and not written.
    let known = json_of(&[
        "keys",
        "list",
        "--json",
        "--config",
        config,
        "--passphrase-file",
        word,
    ]);
    let holders = known["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 3);
    assert!(holders.iter().any(|holder| holder["oid"] == made["oid"]));
    let rotate = [
        "keys",
        "rotate",
        "node",
        "--config",
        config,
        "--passphrase-file",
        word,
    ];
    refused(&rotate, "the node runs");
    let change = [
        "keys",
        "change-passphrase",
        "--config",
        config,
        "--passphrase-file",
        word,
    ];
    refused(&change, "the node runs");
    node.stop();
    ok(&rotate);
    let known = json_of(&[
        "keys",
        "list",
        "--json",
        "--config",
        config,
        "--passphrase-file",
        word,
    ]);
    assert_eq!(known["holders"][0]["key_id"], json!(1));

    let elsewhere = at("restored");
    let restored = json_of(&[
        "restore",
        text(&file),
        text(&elsewhere),
        "--passphrase-file",
        word,
        "--json",
    ]);
    assert_eq!(restored["peer_id"], known["peer_id"]);
    assert_eq!(restored["identities"], json!(2));
    // The same program runs it: another folder, the same passphrase's file.
    let mut again = NodeProcess::at(&node, &elsewhere);
    again.start();
    assert_eq!(again.get("/api/status")["peer_id"], known["peer_id"]);
    let listed = again.get("/api/identities");
    assert!(listed.to_string().contains(made["oid"].as_str().unwrap()));
    // Asked to stop in the middle of a backup, a node stops, and leaves a whole one or none.
    again.post("/api/backup", json!({ "path": text(&at("last")) }));
    again.stop();
    assert!(!at("last.new").exists());
}

#[test]
fn onion_keys_go_to_c_tor_and_back_and_next_keys_to_paper() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
    let node = NodeProcess::init(binary, parent.path(), "Alice", CONFIG);
    let other = NodeProcess::init(binary, parent.path(), "Bob", CONFIG);
    let (config, word) = (node.config(), node.passphrase().to_owned());
    let (config, word) = (text(&config), text(&word));
    let onion = |config: &str| {
        let list = json_of(&[
            "keys",
            "list",
            "--json",
            "--config",
            config,
            "--passphrase-file",
            word,
        ]);
        list["onion"].as_str().unwrap().to_owned()
    };
    let bobs = node_config(&other);
    let folder = at("hidden_service");
    let export = [
        "keys",
        "export-onion",
        "--out",
        text(&folder),
        "--config",
        &bobs,
        "--passphrase-file",
        word,
    ];
    ok(&export);
    refused(&export, "exists already");
    let hostname = fs::read_to_string(folder.join("hostname")).unwrap();
    assert_eq!(hostname.trim(), onion(&bobs));
    ok(&[
        "keys",
        "import-onion",
        text(&folder),
        "--config",
        config,
        "--passphrase-file",
        word,
    ]);
    assert_eq!(onion(config), hostname.trim());

    let paper = at("paper");
    let export = [
        "keys",
        "export-recovery",
        "node",
        "--out",
        text(&paper),
        "--config",
        config,
        "--passphrase-file",
        word,
    ];
    ok(&export);
    let rotate = [
        "keys",
        "rotate",
        "node",
        "--config",
        config,
        "--passphrase-file",
        word,
    ];
    refused(&rotate, "not here");
    let with_paper = [&rotate[..], &["--recovery-file", text(&paper)]].concat();
    ok(&with_paper);
    refused(&with_paper, "not the next key");
    // A new successor lies in the vault now.
    ok(&rotate);
}

fn node_config(node: &NodeProcess) -> String {
    text(&node.config()).to_owned()
}

#[test]
fn a_credential_opens_the_vault_without_anybody_there() {
    let parent = tempfile::tempdir().unwrap();
    let node = NodeProcess::init(
        Path::new(env!("CARGO_BIN_EXE_postern")),
        parent.path(),
        "Alice",
        CONFIG,
    );
    let credentials = parent.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let list = |folder: &Path| {
        Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["keys", "list", "--config", &node_config(&node)])
            .env("CREDENTIALS_DIRECTORY", folder)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    fs::copy(node.passphrase(), credentials.join("postern-passphrase")).unwrap();
    assert!(list(&credentials).status.success());
}

#[test]
fn identities_are_named_retired_and_rotated_and_a_restored_node_waits_before_it_changes_them() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    let mut node = NodeProcess::init(
        Path::new(env!("CARGO_BIN_EXE_postern")),
        parent.path(),
        "Alice",
        CONFIG,
    );
    node.start();
    let config = node_config(&node);
    let of = |config: &str, words: &[&str]| {
        let all: Vec<_> = words.iter().copied().chain(["--config", config]).collect();
        postern(&all)
    };
    let done = |words: &[&str]| {
        let output = of(&config, words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let fails = |config: &str, words: &[&str], why: &str| {
        let output = of(config, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(why),
            "{words:?}: {said}"
        );
    };
    done(&["identity", "new", "Bob"]);
    done(&["identity", "rename", "Bob", "Robert"]);
    done(&["send", "--from", "Alice", "--to", "Robert", "Hi"]);
    fails(
        &config,
        &["send", "--from", "Alice", "--to", "Bob", "Hi"],
        "nobody called Bob",
    );
    done(&["identity", "retire", "Robert"]);
    assert!(done(&["identity", "list"]).contains("here, retired"));
    fails(
        &config,
        &["send", "--from", "Alice", "--to", "Robert", "Hi"],
        "is retired",
    );
    fails(
        &config,
        &["send", "--from", "Robert", "--to", "Alice", "Hi"],
        "retired",
    );
    done(&["identity", "retire", "Robert", "--undo"]);
    done(&["send", "--from", "Robert", "--to", "Alice", "Hi"]);
    fails(&config, &["identity", "unfreeze", "Robert"], "not frozen");
    assert!(done(&["identity", "rotate", "Robert"]).contains("number 1"));
    assert!(done(&["identity", "rotate", "node"]).contains("number 1"));
    let keys: Vec<_> = node.get("/api/identities")["identities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|card| (card["name"].clone(), card["key_id"].clone()))
        .collect();
    assert!(
        keys.contains(&(json!("Robert"), json!(1))) && keys.contains(&(json!("Alice"), json!(0)))
    );
    fails(
        &config,
        &["recovery", "resolve", "--no-such"],
        "unexpected argument",
    );
    assert!(done(&["recovery"]).contains("Nothing is in the way"));
    let long = "x".repeat(65);
    fails(&config, &["identity", "new", &long], "64");
    assert_eq!(
        node.get("/api/identities")["identities"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    done(&["backup", "--out", text(&at("backup"))]);
    node.stop();
    let again = at("again");
    let word = node.passphrase().to_owned();
    ok(&[
        "restore",
        text(&at("backup")),
        text(&again),
        "--passphrase-file",
        text(&word),
    ]);
    let mut restored = NodeProcess::at(&node, &again);
    restored.start();
    let config = node_config(&restored);
    assert_eq!(restored.get("/api/recovery")["state"], json!("recovering"));
    let waits = "has not asked all its peers yet";
    fails(&config, &["identity", "rename", "Alice", "Al"], waits);
    fails(&config, &["identity", "rotate", "Alice"], waits);
    restored.stop();
    let rotate = ["keys", "rotate", "node", "--passphrase-file", text(&word)];
    fails(&config, &rotate, waits);
    restored.start();
    assert!(
        of(&config, &["identity", "new", "Carol"]).status.success(),
        "what is new does not wait"
    );
    assert!(of(&config, &["recovery", "finish"]).status.success());
    assert!(
        of(&config, &["identity", "rename", "Alice", "Al"])
            .status
            .success()
    );
    restored.stop();
}

#[test]
fn check_warns_of_removed_keys_and_fails_on_unknown_ones() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("postern.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = postern(&["check", "--config", path.to_str().unwrap()]);
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), errors)
    };
    assert_eq!(check("[sync]\ndials_max = 5\n"), (Some(0), String::new()));
    let (code, errors) = check("[sync]\nbackoff_s_min = 5\n[limits]\nkey_events_max = 48\n");
    assert_eq!(code, Some(0), "{errors}");
    let warnings: Vec<_> = errors.lines().collect();
    assert_eq!(warnings.len(), 2, "{errors}");
    assert!(warnings[0].ends_with(":2: sync.backoff_s_min: no longer a key; fixed at 30"));
    assert!(warnings[1].ends_with(":4: limits.key_events_max: no longer a key; fixed at 32"));
    let (code, errors) = check("[sync]\ndails_max = 5\n");
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("did you mean `dials_max`?"), "{errors}");
}

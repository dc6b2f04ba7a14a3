//! Keys over onion services: rotated during a session, restored from a backup, exchanged with C
//! tor.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Two, binary, inbox, no_errors_in_logs, no_secrets_in_logs, reachable, start_network};
use harness::process::NodeProcess;

/// Runs a command of the program with the passphrase file of a node.
fn postern(node: &NodeProcess, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(arguments)
        .arg("--passphrase-file")
        .arg(node.passphrase())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rotated_and_restored_node_keeps_its_peers_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let live = json!({ "pull_interval_s": 1, "pull_wait_s": 30 });
    let mut two = Two::start(folder.path(), &tor, &live);
    two.b_dials_a();
    let (a_peer, a_identity, b_identity) = (
        two.a_peer.clone(),
        two.a_identity.clone(),
        two.b_identity.clone(),
    );
    let key_of_a = |node: &NodeProcess| {
        let known = node.get("/api/identities");
        let cards = known["identities"].as_array().unwrap().clone();
        cards
            .into_iter()
            .find(|card| card["oid"] == a_identity.as_str())
    };
    two.a
        .until("A knows B's identity", Duration::from_secs(60), |node| {
            node.get("/api/identities")
                .to_string()
                .contains(&b_identity)
                .then_some(())
        });
    two.send_from_a("before");
    let got = |many: usize| {
        let reader = b_identity.clone();
        move |node: &NodeProcess| (inbox(node, &reader).len() == many).then_some(())
    };
    two.b.until(
        "the first message has arrived",
        Duration::from_secs(60),
        got(1),
    );

    // Rotates the keys of the node and of its identity during a session. Peer id and cursors stay.
    two.a
        .post(&format!("/api/identities/{a_identity}/rotate"), json!({}));
    two.b
        .until("B knows the new key", Duration::from_secs(60), |node| {
            (key_of_a(node)?["key_id"] == 1).then_some(())
        });
    two.a.post("/api/keys/rotate-node", json!({}));
    two.b_dials_a_again();
    assert_eq!(
        two.b.get("/api/peers")["peers"][0]["peer_id"],
        a_peer.as_str()
    );
    two.send_from_a("under new keys");
    two.b.until(
        "B accepts objects under the new keys",
        Duration::from_secs(60),
        got(2),
    );
    assert_eq!(two.b.get("/api/v1/rejects")["rejects"], json!([]));

    // Backs up the running node, which then writes more and is lost.
    let backup = folder.path().join("backup");
    two.a.post("/api/backup", json!({ "path": backup }));
    two.a
        .until("the backup is made", Duration::from_secs(60), |node| {
            (node.get("/api/backup")["backup"]["state"] == "done").then_some(())
        });
    two.send_from_a("after the backup");
    two.b.until(
        "the last message has arrived",
        Duration::from_secs(60),
        got(3),
    );
    let before = two.a.get("/api/status");
    two.a.stop();
    let again = folder.path().join("again");
    let (from, to) = (backup.to_str().unwrap(), again.to_str().unwrap());
    postern(&two.a, &["restore", from, to]);
    let restored = NodeProcess::at(&two.a, &again);
    let lost = std::mem::replace(&mut two.a, restored);
    two.a.start();
    reachable(&mut two.a);
    // B may still have the old descriptor, whose introduction points are gone. A dial with it lasts
    // until its deadline.
    two.b_dials_a_again();
    two.a.until(
        "A has reclaimed its objects from B",
        Duration::from_secs(600),
        |node| (node.get("/api/recovery")["write_mode"] == "read_write").then_some(()),
    );
    let status = two.a.get("/api/status");
    assert_eq!(
        (&status["peer_id"], &status["onion"]),
        (&before["peer_id"], &before["onion"])
    );
    assert_ne!(status["epoch"], before["epoch"]);
    let bodies = |node: &NodeProcess, of: &str| {
        let messages = inbox(node, of).into_iter();
        messages.map(|(_, body)| body).collect::<BTreeSet<_>>()
    };
    let all = ["before", "under new keys", "after the backup"].map(str::to_owned);
    assert_eq!(bodies(&two.a, &a_identity), BTreeSet::from(all.clone()));
    two.send_from_a("from the restored node");
    two.b.until(
        "the message of the restored node has arrived",
        Duration::from_secs(120),
        got(4),
    );
    assert!(bodies(&two.b, &b_identity).is_superset(&BTreeSet::from(all)));
    assert_eq!(two.b.get("/api/v1/rejects")["rejects"], json!([]));

    no_onion_key_on_disk(&two.a, folder.path());
    two.a.stop();
    two.b.stop();
    no_onion_key_on_disk(&two.a, folder.path());
    no_secrets_in_logs(&two);
    no_errors_in_logs(&two);
    drop(lost);
}

/// Asserts that the onion key is in no file of the node's folder, Tor's state included.
fn no_onion_key_on_disk(node: &NodeProcess, parent: &Path) {
    let out = tempfile::Builder::new()
        .prefix("onion")
        .tempdir_in(parent)
        .unwrap();
    let exported = out.path().join("hidden_service");
    let config = node.config();
    postern(
        node,
        &[
            "keys",
            "export-onion",
            "--out",
            exported.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ],
    );
    let file = std::fs::read(exported.join("hs_ed25519_secret_key")).unwrap();
    let secret = &file[32..];
    assert_eq!(secret.len(), 64);
    let hex: String = secret[..32]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (mut folders, mut files) = (vec![node.folder.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                files += 1;
                let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
                let found = has(&secret[..32]) || has(&secret[32..]) || has(hex.as_bytes());
                assert!(!found, "the onion's key is in {}", path.display());
            }
        }
    }
    assert!(files > 5, "too few files were searched");
}

#[test]
fn c_tor_and_postern_accept_each_others_onion_keys() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let node = NodeProcess::init(binary(), folder.path(), "Alice", "");
    let config = node.config();
    let config = config.to_str().unwrap();
    let onion = || {
        let listed: Value = serde_json::from_str(&postern(
            &node,
            &["keys", "list", "--json", "--config", config],
        ))
        .unwrap();
        listed["onion"].as_str().unwrap().to_owned()
    };
    // C tor writes `hostname` into a folder with a key, and creates a key where there is none.
    let hostname = |service: &Path, data: &str| {
        let torrc = at(&format!("{data}.torrc"));
        std::fs::write(&torrc, "").unwrap();
        let mut tor = Command::new("tor")
            .arg("-f")
            .arg(torrc)
            .args([
                "--DisableNetwork",
                "1",
                "--SocksPort",
                "0",
                "--DataDirectory",
            ])
            .arg(at(data))
            .arg("--HiddenServiceDir")
            .arg(service)
            .args([
                "--HiddenServicePort",
                "80 127.0.0.1:9",
                "--Log",
                "notice stdout",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // C tor writes this line after the folder is complete, before it uses the network.
        let lines = BufReader::new(tor.stdout.take().unwrap()).lines();
        let lines: Vec<_> = lines
            .map_while(Result::ok)
            .take_while(|line| !line.contains("Delaying directory fetches"))
            .collect();
        let name = std::fs::read_to_string(service.join("hostname"));
        let name = name
            .unwrap_or_else(|error| panic!("{error}: {lines:?}"))
            .trim()
            .to_owned();
        tor.kill().unwrap();
        tor.wait().unwrap();
        name
    };
    let exported = at("exported");
    postern(
        &node,
        &[
            "keys",
            "export-onion",
            "--out",
            exported.to_str().unwrap(),
            "--config",
            config,
        ],
    );
    std::fs::remove_file(exported.join("hostname")).unwrap();
    assert_eq!(hostname(&exported, "data1"), onion());

    let created = at("created");
    let expected = hostname(&created, "data2");
    assert_ne!(expected, onion());
    postern(
        &node,
        &[
            "keys",
            "import-onion",
            created.to_str().unwrap(),
            "--config",
            config,
        ],
    );
    assert_eq!(onion(), expected);
}

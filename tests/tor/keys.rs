//! Keys over real onion services: rotated while peers are in a session, restored from a backup, exchanged with C tor.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::NodeProcess;
use super::{
    Two, binary, has_session, inbox, no_errors_in_logs, no_secrets_in_logs, reachable,
    start_network,
};

/// Runs the program to its end, with the passphrase's file of a node.
fn postern(node: &NodeProcess, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(arguments)
        .arg("--passphrase-file")
        .arg(node.passphrase())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn keys_change_and_a_node_comes_back_from_a_backup_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let live =
        json!({ "pull_interval_s": 1, "pull_wait_s": 30, "backoff_s_min": 1, "backoff_s_max": 5 });
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
    two.b
        .until("the first message is here", Duration::from_secs(60), got(1));

    // Both kinds of keys are rotated while B is in a session; the name and the session's history stay.
    two.a
        .post(&format!("/api/identities/{a_identity}/rotate"), json!({}));
    two.b
        .until("B knows the new key", Duration::from_secs(60), |node| {
            (key_of_a(node)?["key_id"] == 1).then_some(())
        });
    two.a.post("/api/keys/rotate-node", json!({}));
    two.b.until(
        "B is back in a session",
        Duration::from_secs(120),
        has_session,
    );
    assert_eq!(
        two.b.get("/api/peers")["peers"][0]["peer_id"],
        a_peer.as_str()
    );
    two.send_from_a("under new keys");
    two.b.until(
        "what the new keys sign is taken",
        Duration::from_secs(60),
        got(2),
    );
    assert_eq!(two.b.get("/api/rejects")["rejects"], json!([]));

    // A backup of the running node; then A goes on, and is lost.
    let backup = folder.path().join("backup");
    two.a.post("/api/backup", json!({ "path": backup }));
    two.a
        .until("the backup is made", Duration::from_secs(60), |node| {
            (node.get("/api/backup")["backup"]["state"] == "done").then_some(())
        });
    two.send_from_a("after the backup");
    two.b
        .until("the last message is here", Duration::from_secs(60), got(3));
    let before = two.a.get("/api/status");
    two.a.stop();
    let again = folder.path().join("again");
    let (from, to) = (backup.to_str().unwrap(), again.to_str().unwrap());
    postern(&two.a, &["restore", from, to]);
    let restored = NodeProcess::at(&two.a, &again);
    let lost = std::mem::replace(&mut two.a, restored);
    two.a.start();
    reachable(&mut two.a);
    // Usually seconds. B still has the descriptor from before the loss, whose introduction points are gone, and each dial
    // that begins with it may last its whole deadline.
    two.a
        .until("B was asked", Duration::from_secs(600), |node| {
            (node.get("/api/recovery")["state"] == "open").then_some(())
        });
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
    two.send_from_a("from the restored one");
    two.b.until(
        "the restored node is heard",
        Duration::from_secs(120),
        got(4),
    );
    assert!(bodies(&two.b, &b_identity).is_superset(&BTreeSet::from(all)));
    assert_eq!(two.b.get("/api/rejects")["rejects"], json!([]));

    no_onion_key_on_disk(&two.a, folder.path());
    two.a.stop();
    two.b.stop();
    no_onion_key_on_disk(&two.a, folder.path());
    no_secrets_in_logs(&two);
    no_errors_in_logs(&two);
    drop(lost);
}

/// The onion's key as it is exported lies nowhere in the node's folder, Tor's state included.
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
    assert!(files > 5, "there is something to search");
}

#[test]
fn c_tor_and_postern_take_each_others_onion_keys() {
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
    // Tor writes the file `hostname` of a folder with a key in it, and makes a key where there is none.
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
        // The last that it says before it would use a network; by then the folder is in order.
        let lines = BufReader::new(tor.stdout.take().unwrap()).lines();
        let said: Vec<_> = lines
            .map_while(Result::ok)
            .take_while(|line| !line.contains("Delaying directory fetches"))
            .collect();
        let name = std::fs::read_to_string(service.join("hostname"));
        let name = name
            .unwrap_or_else(|error| panic!("{error}: {said:?}"))
            .trim()
            .to_owned();
        tor.kill().unwrap();
        tor.wait().unwrap();
        name
    };
    let ours = at("ours");
    postern(
        &node,
        &[
            "keys",
            "export-onion",
            "--out",
            ours.to_str().unwrap(),
            "--config",
            config,
        ],
    );
    std::fs::remove_file(ours.join("hostname")).unwrap();
    assert_eq!(hostname(&ours, "data1"), onion());

    let theirs = at("theirs");
    let expected = hostname(&theirs, "data2");
    assert_ne!(expected, onion());
    postern(
        &node,
        &[
            "keys",
            "import-onion",
            theirs.to_str().unwrap(),
            "--config",
            config,
        ],
    );
    assert_eq!(onion(), expected);
}

//! The story over real onion services of a private Tor network, with the `postern` program as people run it, and a
//! node that is killed in the middle of its first pull.
//!
//! Fails, saying so, where C tor is not installed. Contacts 127.0.0.1 only.
#![cfg(feature = "tor")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on ends here; real processes take real time"
)]

#[path = "common/process.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several programs")]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::NodeProcess;
use serde_json::{Value, json};
use testnet::{Options, Testnet};

const REACHABLE_DEADLINE: Duration = Duration::from_secs(180);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_postern"))
}

fn config(apps: &[&str], sync: &Value, tor: &toml::Table) -> String {
    let table = json!({ "node": { "apps": apps }, "api": { "listen": "127.0.0.1:0" }, "sync": sync });
    let mut table: toml::Table = serde_json::from_value(table).unwrap();
    table.insert("tor".into(), tor.clone().into());
    toml::to_string(&table).unwrap()
}

/// Two nodes on one network; A seeded, B without market.
struct Two {
    a: NodeProcess,
    b: NodeProcess,
    a_peer: String,
    a_identity: String,
    b_identity: String,
}

impl Two {
    fn start(folder: &Path, tor: &toml::Table, sync: &Value) -> Self {
        let all = ["identities", "contacts", "messages", "market", "rides"];
        let mut a = NodeProcess::init(binary(), folder, "Alice", &config(&all, sync, tor));
        let mut b = NodeProcess::init(
            binary(),
            folder,
            "Bob",
            &config(&["identities", "contacts", "messages", "rides"], sync, tor),
        );
        a.start();
        b.start();
        for node in [&mut a, &mut b] {
            reachable(node);
        }
        let own = |node: &NodeProcess| {
            node.get("/api/identities")["identities"][0]["oid"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let (a_identity, b_identity) = (own(&a), own(&b));
        let a_peer = a.get("/api/status")["peer_id"].as_str().unwrap().to_owned();
        Self {
            a,
            b,
            a_peer,
            a_identity,
            b_identity,
        }
    }

    fn b_dials_a(&self) {
        let onion = self.a.get("/api/status")["onion"].clone();
        let dialled = self.b.post("/api/peers", json!({ "onion": onion }));
        assert_eq!(dialled["peer_id"], self.a_peer.as_str());
        let tor = self.a.get("/api/status")["tor"].clone();
        assert!(
            tor["circuits"].as_u64() >= Some(1) && tor["built_total"].as_u64() >= Some(1),
            "{tor}"
        );
        assert_eq!((&tor["intro_points"], &tor["vanguards"]), (&json!(3), &json!("lite")));
    }

    fn send_from_a(&self, body: &str) -> Value {
        let (from, to) = (&self.a_identity, &self.b_identity);
        self.a.post(
            "/api/messages/send",
            json!({ "sender_identity_oid": from, "recipient_identity_oid": to, "body": body }),
        )
    }

    fn sync(&self, domain: &str) -> Vec<Value> {
        let answer = self.b.post(
            "/api/sync",
            json!({ "peer": self.a_peer, "domain": domain, "direction": "pull" }),
        );
        answer["reports"].as_array().unwrap().clone()
    }
}

fn reachable(node: &mut NodeProcess) {
    node.until("its onion service is reachable", REACHABLE_DEADLINE, |node| {
        (node.get("/api/status")["network"] == "reachable").then_some(())
    });
}

fn inbox(node: &NodeProcess, identity: &str) -> Vec<(String, String)> {
    let inbox = node.get(&format!("/api/messages/inbox?identity={identity}&limit=5000"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages = inbox["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| (text(&message["oid"]), text(&message["body"])))
        .collect()
}

fn start_network() -> (tokio::runtime::Runtime, Testnet, toml::Table) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let network = runtime
        .block_on(Testnet::start(Options::default()))
        .unwrap_or_else(|error| panic!("{error}"));
    let tor = network.client_toml().parse().unwrap();
    (runtime, network, tor)
}

#[test]
fn the_story_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let by_hand = json!({ "pull_interval_s": 0, "pull_wait_s": 0, "backoff_s_min": 1, "backoff_s_max": 5 });
    let mut two = Two::start(folder.path(), &tor, &by_hand);
    two.b_dials_a();

    let first = two.send_from_a("first")["change_seq"].as_u64().unwrap();
    let reports = two.sync("messages");
    assert_eq!(reports[0]["window"], json!([0, first]));
    let second = two.send_from_a("Hi")["change_seq"].as_u64().unwrap();
    assert_eq!(second, first + 1);
    let reports = two.sync("messages");
    assert_eq!(
        (&reports[0]["window"], &reports[0]["written"]),
        (&json!([second, second]), &json!(1))
    );
    assert_eq!(two.sync("market.public_offers")[0]["window"], Value::Null);
    let bodies: Vec<_> = inbox(&two.b, &two.b_identity)
        .into_iter()
        .map(|(_, body)| body)
        .collect();
    assert_eq!(bodies, ["first", "Hi"]);

    two.a.stop();
    two.b.stop();
    no_secrets_in_logs(&two);
}

#[test]
fn who_gets_in_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let by_hand = json!({ "pull_interval_s": 0, "pull_wait_s": 0, "backoff_s_min": 1, "backoff_s_max": 5 });
    let mut two = Two::start(folder.path(), &tor, &by_hand);
    let onion = json!({ "onion": two.a.get("/api/status")["onion"] });
    let b_peer = two.b.get("/api/status")["peer_id"].clone();
    let named = json!({ "peer_id": b_peer });

    // A stranger waits for the operator's word, and goes on knocking.
    let changed = two.a.api("PUT", "/api/admission", Some(json!({ "policy": "approve" })));
    assert_eq!(changed.status, 200, "{}", changed.body);
    let told = two.b.api("POST", "/api/peers", Some(onion.clone()));
    assert_ne!(told.status, 200);
    assert_eq!(told.body["error"]["code"], "pending", "{}", told.body);
    let waiting = two.a.get("/api/admission/pending")["pending"].clone();
    assert_eq!(
        (waiting[0]["peer_id"].clone(), waiting[1].clone()),
        (b_peer, Value::Null)
    );
    two.a.post("/api/admission/approve", named.clone());
    two.b.until("it is let in", Duration::from_secs(90), has_session);

    // A ticket spares the work after both have started anew.
    for node in [&mut two.a, &mut two.b] {
        node.stop();
        node.start();
        reachable(node);
    }
    two.b.until("it is let in again", Duration::from_secs(180), has_session);
    let gate = two.a.get("/api/status")["gate"].clone();
    assert!(gate["by_ticket_total"].as_u64() >= Some(1), "{gate}");
    assert_eq!(gate["admissions_per_minute"], 0, "{gate}");

    // A ban ends the session, and neither ticket nor work helps.
    let banned = two.a.post("/api/admission/ban", named);
    assert_eq!(banned["session_ended"], true, "{banned}");
    let told = two.b.api("POST", "/api/peers", Some(onion));
    assert_ne!(told.status, 200);
    assert!(
        told.body["error"]["message"].as_str().unwrap().contains("banned"),
        "{}",
        told.body
    );
    assert_eq!(two.a.get("/api/status")["sessions"], json!([]));
    two.a.stop();
    two.b.stop();
    no_secrets_in_logs(&two);
    no_errors_in_logs(&two);
}

/// A restart is nothing to raise an alarm about.
fn no_errors_in_logs(two: &Two) {
    for node in [&two.a, &two.b] {
        let log = std::fs::read_to_string(node.log()).unwrap();
        let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(errors, Vec::<&str>::new());
    }
}

/// Neither full onion addresses nor peer ids nor what people wrote.
fn no_secrets_in_logs(two: &Two) {
    for node in [&two.a, &two.b] {
        let log = std::fs::read_to_string(node.log()).unwrap();
        let events = log
            .lines()
            .filter(|line| line.contains(" INFO ") || line.contains(" WARN ") || line.contains(" ERROR "));
        for line in events {
            assert!(!line.contains(&two.a_peer), "a whole peer id in a log: {line}");
            assert!(!line.contains("Hi"), "a message in a log: {line}");
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            let mut onions = words.filter(|word| word.len() == 56);
            assert_eq!(onions.next(), None, "a whole onion address in a log: {line}");
        }
    }
}

#[test]
fn a_node_that_is_killed_in_its_first_pull_finishes_it_after_a_restart() {
    const MESSAGES: usize = 1500;
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    // Small packages and a pull that goes on by itself: the kill falls between two of some fifty.
    let sync = json!({ "pull_interval_s": 1, "pull_wait_s": 30, "package_objects_max": 32, "backoff_s_min": 1, "backoff_s_max": 5 });
    let mut two = Two::start(folder.path(), &tor, &sync);
    let onion = two.a.get("/api/status")["onion"].clone();
    // A must know B's identity to write to it: B knocks, and is stopped before there is anything to pull.
    two.b_dials_a();
    let b_identity = two.b_identity.clone();
    two.a.until("A knows B's identity", Duration::from_secs(30), |node| {
        let known = node.get("/api/identities");
        known["identities"]
            .as_array()?
            .iter()
            .any(|card| card["oid"] == b_identity.as_str())
            .then_some(())
    });
    two.b.kill();
    for number in 0..MESSAGES {
        two.send_from_a(&format!("message {number}"));
    }

    two.b.start();
    reachable(&mut two.b);
    // The dialled peer is trusted, so B dials it again by itself and begins to pull.
    two.b
        .until("the first pull is under way", Duration::from_secs(120), |node| {
            (!inbox(node, &b_identity).is_empty()).then_some(())
        });
    two.b.kill();
    two.b.start();
    let before = inbox(&two.b, &b_identity).len();
    assert!(before > 0, "what was applied before the kill is there");
    assert!(before < MESSAGES, "the kill came in the middle");
    reachable(&mut two.b);
    assert_eq!(onion, two.a.get("/api/status")["onion"]);
    two.b.until("the pull is finished", Duration::from_secs(180), |node| {
        (inbox(node, &b_identity).len() >= MESSAGES).then_some(())
    });

    let (sent, got) = (inbox(&two.a, &two.a_identity), inbox(&two.b, &b_identity));
    assert_eq!(got.len(), MESSAGES, "nothing doubled");
    assert_eq!(
        got.iter().collect::<BTreeSet<_>>(),
        sent.iter().collect::<BTreeSet<_>>(),
        "nothing lost"
    );
    assert_eq!(two.b.get("/api/rejects")["rejects"], json!([]));
    two.a.stop();
    two.b.stop();
}

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

fn has_session(node: &NodeProcess) -> Option<()> {
    let status = node.get("/api/status");
    (!status["sessions"].as_array()?.is_empty()).then_some(())
}

#[test]
fn keys_change_and_a_node_comes_back_from_a_backup_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let live = json!({ "pull_interval_s": 1, "pull_wait_s": 30, "backoff_s_min": 1, "backoff_s_max": 5 });
    let mut two = Two::start(folder.path(), &tor, &live);
    two.b_dials_a();
    let (a_peer, a_identity, b_identity) = (two.a_peer.clone(), two.a_identity.clone(), two.b_identity.clone());
    let key_of_a = |node: &NodeProcess| {
        let known = node.get("/api/identities");
        let cards = known["identities"].as_array().unwrap().clone();
        cards.into_iter().find(|card| card["oid"] == a_identity.as_str())
    };
    two.a.until("A knows B's identity", Duration::from_secs(60), |node| {
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
    two.a.post(&format!("/api/identities/{a_identity}/rotate"), json!({}));
    two.b.until("B knows the new key", Duration::from_secs(60), |node| {
        (key_of_a(node)?["key_id"] == 1).then_some(())
    });
    two.a.post("/api/keys/rotate-node", json!({}));
    two.b
        .until("B is back in a session", Duration::from_secs(120), has_session);
    assert_eq!(two.b.get("/api/peers")["peers"][0]["peer_id"], a_peer.as_str());
    two.send_from_a("under new keys");
    two.b
        .until("what the new keys sign is taken", Duration::from_secs(60), got(2));
    assert_eq!(two.b.get("/api/rejects")["rejects"], json!([]));

    // A backup of the running node; then A goes on, and is lost.
    let backup = folder.path().join("backup");
    two.a.post("/api/backup", json!({ "path": backup }));
    two.a.until("the backup is made", Duration::from_secs(60), |node| {
        (node.get("/api/backup")["backup"]["state"] == "done").then_some(())
    });
    two.send_from_a("after the backup");
    two.b.until("the last message is here", Duration::from_secs(60), got(3));
    let before = two.a.get("/api/status");
    two.a.stop();
    let again = folder.path().join("again");
    let (from, to) = (backup.to_str().unwrap(), again.to_str().unwrap());
    postern(&two.a, &["restore", from, to]);
    let restored = NodeProcess::at(&two.a, &again);
    let lost = std::mem::replace(&mut two.a, restored);
    two.a.start();
    reachable(&mut two.a);
    two.a.until("B was asked", Duration::from_secs(240), |node| {
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
    two.b
        .until("the restored node is heard", Duration::from_secs(120), got(4));
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
    let out = tempfile::Builder::new().prefix("onion").tempdir_in(parent).unwrap();
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
    let hex: String = secret[..32].iter().map(|byte| format!("{byte:02x}")).collect();
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
        let listed: Value =
            serde_json::from_str(&postern(&node, &["keys", "list", "--json", "--config", config])).unwrap();
        listed["onion"].as_str().unwrap().to_owned()
    };
    // Tor writes the file `hostname` of a folder with a key in it, and makes a key where there is none.
    let hostname = |service: &Path, data: &str| {
        let mut tor = Command::new("tor")
            .args([
                "--quiet",
                "--DisableNetwork",
                "1",
                "--SocksPort",
                "0",
                "--DataDirectory",
            ])
            .arg(at(data))
            .arg("--HiddenServiceDir")
            .arg(service)
            .args(["--HiddenServicePort", "80 127.0.0.1:9"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let name = loop {
            match std::fs::read_to_string(service.join("hostname")) {
                Ok(name) if name.ends_with('\n') => break name.trim().to_owned(),
                _ if begun.elapsed() > Duration::from_secs(60) => break "tor wrote no hostname".to_owned(),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
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
        &["keys", "import-onion", theirs.to_str().unwrap(), "--config", config],
    );
    assert_eq!(onion(), expected);
}

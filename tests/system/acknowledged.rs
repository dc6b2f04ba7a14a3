//! Acknowledged writes survive kill -9: a message that the API confirmed is there after the next
//! start.
//!
//! Each round kills the program at an arbitrary instant, while further messages are being sent. A
//! power loss is not tested here: `src/store/tests.rs` checks `synchronous=FULL` for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use harness::process::NodeProcess;
use keys::{KdfCost, Passphrase};
use postern::node;
use serde_json::{Value, json};

const CONFIG: &str = "[api]
listen = \"127.0.0.1:0\"
[transport]
kind = \"loopback\"
loopback_listen = \"127.0.0.1:0\"
";
/// Times that the program is killed.
const ROUNDS: usize = 12;
/// Threads that send at once, so that the kill finds writes under way.
const SENDERS: usize = 3;

/// Sends messages until the API does not answer. Reports each acknowledged oid.
fn send_until_killed(node: &NodeProcess, message: &Value, acknowledged: &mpsc::Sender<String>) {
    while let Some(reply) = node.try_api("POST", "/api/messages/send", Some(message.clone())) {
        assert_eq!(reply.status, 200, "{}", reply.body);
        // A reply that was cut off is no acknowledgement.
        let Some(oid) = reply.body["oid"].as_str() else {
            return;
        };
        acknowledged.send(oid.to_owned()).unwrap();
    }
}

/// The oids of all messages in an inbox.
fn inbox(node: &NodeProcess, identity: &str) -> BTreeSet<String> {
    let (mut found, mut after) = (BTreeSet::new(), "0".to_owned());
    loop {
        let page = node.get(&format!(
            "/api/messages/inbox?identity={identity}&after={after}"
        ));
        let messages = page["messages"].as_array().unwrap();
        let oids = messages
            .iter()
            .map(|message| message["oid"].as_str().unwrap());
        found.extend(oids.map(str::to_owned));
        if page["more"] != json!(true) {
            return found;
        }
        after = page["after"].as_str().unwrap().to_owned();
    }
}

#[test]
fn acknowledged_messages_survive_kill_9() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, file) = (parent.path().join("node"), parent.path().join("passphrase"));
    fs::write(&file, "a passphrase\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let passphrase = Passphrase::from_string("a passphrase".into());
    let made = node::init(&folder, Some("Alice"), &passphrase, KdfCost::TEST).unwrap();
    fs::write(&made.config, CONFIG).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
    let mut node = NodeProcess::over(binary, "Alice", &folder, &file);
    node.start();
    let second = node.post("/api/identities", json!({ "name": "Second" }))["oid"].clone();
    let message = json!({
        "sender_identity_oid": made.identity.to_hex(),
        "recipient_identity_oid": second,
        "body": "Hi",
    });

    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let pid = node.pid().unwrap().to_string();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for sender in vec![sender; SENDERS] {
                let (node, message) = (&node, &message);
                scope.spawn(move || send_until_killed(node, message, &sender));
            }
            // The number of replies before the kill differs from round to round.
            acknowledged.extend(receiver.iter().take(1 + 3 * round));
            let killed = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
            assert!(killed.success());
            acknowledged.extend(receiver);
        });
        node.kill();
        node.start();
        let stored = inbox(&node, second.as_str().unwrap());
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "round {round} lost {lost:?}");
    }
    assert!(acknowledged.len() > ROUNDS);
    node.stop();
}

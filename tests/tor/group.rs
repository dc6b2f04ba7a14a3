//! A conversation of three over onion services, two of whose nodes are never online together. Then
//! an introduction, and a move of an identity to another node.

use std::path::Path;
use std::time::Duration;

use harness::process::NodeProcess;
use serde_json::{Value, json};

use crate::{REACHABLE_DEADLINE, binary, config, reachable, start_network};

/// Time limit for an object to travel, which includes building circuits to a node that restarted.
const TRAVEL_DEADLINE: Duration = Duration::from_secs(180);

/// The nodes of three people, and their conversation. Alice knows Bob and Carol. They do not know
/// each other.
struct Three {
    alice: NodeProcess,
    bob: NodeProcess,
    carol: NodeProcess,
    talk: String,
}

fn node(folder: &Path, name: &str, tor: &toml::Table) -> NodeProcess {
    let sync = json!({ "pull_interval_s": 1, "pull_wait_s": 30, "backoff_s_min": 1 });
    let config = config(&["identities", "messages"], &sync, tor);
    NodeProcess::init(binary(), folder, name, &config)
}

fn onion(node: &NodeProcess) -> String {
    let status = node.get("/api/status");
    status["onion"].as_str().unwrap().to_owned()
}

fn identity(node: &NodeProcess) -> String {
    let listed = node.json("identity list");
    listed["identities"][0]["oid"].as_str().unwrap().to_owned()
}

/// Starts a node, and waits until it is reachable.
fn start(node: &mut NodeProcess) {
    node.start();
    reachable(node);
}

/// The delivery state of a message for an identity.
fn state(node: &NodeProcess, sent: &Value, recipient: &str) -> String {
    let oid = sent["oid"].as_str().unwrap();
    let shown = node.get(&format!("/api/v1/messages/{oid}/delivery"));
    let recipients = shown["delivery"]["recipients"].as_array().unwrap();
    let of = recipients.iter().find(|it| it["identity_oid"] == recipient);
    of.unwrap()["state"].as_str().unwrap().to_owned()
}

impl Three {
    /// Bob's and Carol's nodes meet Alice's one after the other, and accept her invitation.
    fn found(folder: &Path, tor: &toml::Table) -> Self {
        let [mut alice, mut bob, mut carol] =
            ["Alice", "Bob", "Carol"].map(|name| node(folder, name, tor));
        start(&mut alice);
        for (node, name) in [(&mut bob, "Bob"), (&mut carol, "Carol")] {
            start(node);
            let line = format!("peer add {} --as {name}", onion(node));
            alice.until("the peer is reached", REACHABLE_DEADLINE, |alice| {
                alice.command(&line).status.success().then_some(())
            });
            node.stop();
        }
        let line = "conversation new --from Alice --to Bob --to Carol --title Hiking";
        let founded = alice.json(line);
        let talk = founded["oid"].as_str().unwrap().to_owned();
        Self {
            alice,
            bob,
            carol,
            talk,
        }
    }

    fn send(&self, node: &NodeProcess, from: &str, body: &str) -> Value {
        let talk = &self.talk;
        node.json(&format!("send --conversation {talk} --from {from} {body}"))
    }
}

fn accept(node: &mut NodeProcess, talk: &str) {
    node.until_shown("conversation invitations", "Hiking", TRAVEL_DEADLINE);
    node.ok(&format!("conversation accept {talk}"));
}

#[test]
fn members_that_are_never_online_together_are_introduced_and_one_moves() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let mut three = Three::found(folder.path(), &tor);
    let carol_oid = three.relayed();
    three.introduced(&carol_oid);
    three.moved();
    for node in [&mut three.alice, &mut three.bob, &mut three.carol] {
        node.stop();
    }
}

impl Three {
    /// Bob and Carol read each other, although their nodes are never online together. Returns the
    /// oid of Carol.
    fn relayed(&mut self) -> String {
        let talk = self.talk.clone();
        self.bob.start();
        accept(&mut self.bob, &talk);
        let first = self.send(&self.bob, "Bob", "first");
        self.alice.until_shown("inbox", "first", TRAVEL_DEADLINE);
        self.bob.stop();

        self.carol.start();
        accept(&mut self.carol, &talk);
        self.carol.until_shown("inbox", "first", TRAVEL_DEADLINE);
        self.send(&self.carol, "Carol", "second");
        self.alice.until_shown("inbox", "second", TRAVEL_DEADLINE);
        let (alice_oid, carol_oid) = (identity(&self.alice), identity(&self.carol));
        self.carol.stop();

        self.bob.start();
        self.bob.until_shown("inbox", "second", TRAVEL_DEADLINE);
        self.bob
            .until("Alice's node has the message", TRAVEL_DEADLINE, |bob| {
                (state(bob, &first, &alice_oid) == "delivered").then_some(())
            });
        // Bob's node cannot know that Carol has read it.
        assert_eq!(state(&self.bob, &first, &carol_oid), "queued");
        carol_oid
    }

    /// Bob's and Carol's nodes reach each other, and need Alice's no more.
    fn introduced(&mut self, carol_oid: &str) {
        start(&mut self.carol);
        let peer = self.carol.get("/api/status")["peer_id"].clone();
        self.bob
            .until("Bob is introduced to Carol", TRAVEL_DEADLINE, |bob| {
                let status = bob.get("/api/status");
                let mut sessions = status["sessions"].as_array()?.iter();
                sessions.any(|it| it["peer_id"] == peer).then_some(())
            });
        let peers = self.bob.get("/api/peers");
        let mut peers = peers["peers"].as_array().unwrap().iter();
        let carol = peers.find(|it| it["peer_id"] == peer).unwrap();
        assert_eq!(carol["tier"], "untrusted", "{carol}");
        self.alice.stop();
        let third = self.send(&self.bob, "Bob", "third");
        self.carol.until_shown("inbox", "third", TRAVEL_DEADLINE);
        self.bob
            .until("Carol's node has the message", TRAVEL_DEADLINE, |bob| {
                (state(bob, &third, carol_oid) == "delivered").then_some(())
            });
    }

    /// Bob moves to Alice's node, and goes on with the conversation there.
    fn moved(&mut self) {
        start(&mut self.alice);
        let (to, folder) = (onion(&self.alice), self.bob.folder.clone());
        let file = folder.with_extension("moved").display().to_string();
        self.bob
            .ok(&format!("identity move Bob --to {to} --file {file}"));
        let passphrase = self.bob.passphrase().display();
        let received = self.alice.ok(&format!(
            "identity receive {file} --passphrase-file {passphrase}"
        ));
        assert!(received.contains("lives on this node now"), "{received}");
        self.bob
            .until("the old home hears of it", TRAVEL_DEADLINE, |bob| {
                let done = bob.command("identity move Bob --done");
                done.status.success().then_some(())
            });
        self.bob.stop();
        self.send(&self.alice, "Bob", "fourth");
        self.carol.until_shown("inbox", "fourth", TRAVEL_DEADLINE);
        self.send(&self.carol, "Carol", "fifth");
        self.alice
            .until_shown("inbox --identity Bob", "fifth", TRAVEL_DEADLINE);
    }
}

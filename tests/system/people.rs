//! Names of people on nodes that are connected over loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use harness::process::NodeProcess;
use serde_json::Value;
use tempfile::TempDir;

use crate::operating::{json_of, ok, refused};

/// Time limit for an object to travel from one node to another.
const TRAVEL_DEADLINE: Duration = Duration::from_secs(60);

/// Nodes that reach each other.
struct Nodes {
    nodes: Vec<NodeProcess>,
    onions: Vec<String>,
    _parent: TempDir,
}

impl Nodes {
    /// Starts a node for each name of an identity.
    fn start(names: &[&str]) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_postern"));
        let kind = "[transport]\nkind = \"loopback\"\n";
        let init = |name: &&str| NodeProcess::init(binary, parent.path(), name, kind);
        let mut nodes: Vec<_> = names.iter().map(init).collect();
        // All ports are different, because all are taken at one time.
        let listen = |_: &NodeProcess| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken: Vec<_> = nodes.iter().map(listen).collect();
        let ports = taken.iter().map(|it| it.local_addr().unwrap());
        let ports: Vec<_> = ports.collect();
        let onion = |node: &NodeProcess| {
            let (config, passphrase) = (node.config(), node.passphrase().display().to_string());
            let (config, list) = (config.display(), "keys list --json");
            let listed = json_of(&format!(
                "{list} --config {config} --passphrase-file {passphrase}"
            ));
            listed["onion"].as_str().unwrap().to_owned()
        };
        let onions: Vec<_> = nodes.iter().map(onion).collect();
        let entries = onions.iter().zip(&ports);
        let directory: String = entries
            .map(|(onion, port)| format!("\"{onion}\" = \"{port}\"\n"))
            .collect();
        for (node, port) in nodes.iter().zip(&ports) {
            let config = format!(
                "[api]\nlisten = \"127.0.0.1:0\"\n[sync]\npull_interval_s = 1\nbackoff_s_min = 1\n\
                 [transport]\nkind = \"loopback\"\nloopback_listen = \"{port}\"\n\
                 [transport.loopback_directory]\n{directory}"
            );
            fs::write(node.config(), config).unwrap();
        }
        drop(taken);
        nodes.iter_mut().for_each(NodeProcess::start);
        Self {
            nodes,
            onions,
            _parent: parent,
        }
    }

    fn line(&self, node: usize, line: &str) -> String {
        format!("{line} --config {}", self.nodes[node].config().display())
    }

    fn ok(&self, node: usize, line: &str) -> String {
        ok(&self.line(node, line))
    }

    fn json(&self, node: usize, line: &str) -> Value {
        json_of(&self.line(node, &format!("{line} --json")))
    }

    fn refused(&self, node: usize, line: &str, reason: &str) {
        refused(&self.line(node, line), reason);
    }

    /// The oid of the first identity of a node.
    fn identity(&self, node: usize) -> String {
        let listed = self.json(node, "identity list");
        listed["identities"][0]["oid"].as_str().unwrap().to_owned()
    }

    /// Waits until what a command prints contains a text, and returns it.
    fn until(&mut self, node: usize, line: &str, text: &str) -> String {
        let line = self.line(node, line);
        self.nodes[node].until(text, TRAVEL_DEADLINE, |_| {
            let shown = ok(&line);
            shown.contains(text).then_some(shown)
        })
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nodes.iter_mut().for_each(NodeProcess::stop);
        }
    }
}

#[test]
fn other_identity_with_the_name_of_a_contact_is_told_apart_and_gets_nothing() {
    let mut nodes = Nodes::start(&["Alice", "Bob", "Eve"]);
    let (alice, bob, eve) = (0, 1, 2);
    let oids = [alice, bob, eve].map(|node| nodes.identity(node));
    let eves_label = format!("~Alice {}", &oids[eve][..12]);
    let onion = nodes.onions[bob].clone();
    let added = nodes.ok(alice, &format!("peer add {onion} --as Bob"));
    assert!(added.contains("Its identities:\n  Bob\n"), "{added}");
    nodes.ok(alice, "send --from Alice --to Bob at-nine");
    // Bob compared the digits with Alice.
    nodes.until(bob, "identity list", &oids[alice]);
    nodes.ok(
        bob,
        &format!("contact add {} Alice --note friend", &oids[alice][..8]),
    );

    nodes.ok(eve, "identity rename Eve Alice");
    let added = nodes.ok(eve, &format!("peer add {onion}"));
    let command = format!("postern contact add {} NAME", &oids[bob][..12]);
    assert!(
        added.contains("~Bob") && added.contains(&command),
        "{added}"
    );
    nodes.refused(eve, "send --from Alice --to Bob at-ten", &command);
    nodes.ok(
        eve,
        &format!("send --from Alice --to {} at-ten", &oids[bob][..8]),
    );
    let inbox = nodes.until(bob, "inbox", "at-ten");
    let inbox = format!("{inbox}{}", nodes.until(bob, "inbox", "at-nine"));
    assert!(inbox.contains("] Alice: at-nine"), "{inbox}");
    assert!(
        inbox.contains(&format!("] {eves_label}: at-ten")),
        "{inbox}"
    );
    let talks = nodes.ok(bob, "conversation list");
    assert!(talks.contains(&eves_label), "{talks}");
    let peers = nodes.ok(bob, "peer list");
    let people = [
        format!("people   {eves_label}\n"),
        "people   Alice\n".to_owned(),
    ];
    assert!(people.iter().all(|line| peers.contains(line)), "{peers}");

    // Alice takes another name, so that only Eve claims this one.
    nodes.ok(alice, "identity rename Alice Smith");
    nodes.until(bob, "contact list", "(~Smith)");
    nodes.ok(bob, "send --from Bob --to Alice the-code");
    nodes.until(alice, "inbox", "the-code");
    assert!(!nodes.ok(eve, "inbox").contains("the-code"));
    nodes.refused(bob, "send --from Bob --to Smith x", "is \"Alice\" here");
}

#[test]
fn name_for_a_node_with_several_identities_names_none() {
    let nodes = Nodes::start(&["Alice", "Bob"]);
    nodes.ok(1, "identity new Second");
    let line = format!("peer add {} --as Bob", nodes.onions[1]);
    nodes.refused(0, &line, "several identities");
    let added = nodes.ok(0, &format!("peer add {}", nodes.onions[1]));
    assert!(
        added.contains("~Bob ") && added.contains("~Second "),
        "{added}"
    );
    let book = nodes.json(0, "contact list");
    assert_eq!(book["contacts"].as_array().unwrap().len(), 1, "{book}");
    nodes.refused(
        0,
        &format!("peer add {} --as ~Bob", nodes.onions[1]),
        "cannot begin with",
    );
}

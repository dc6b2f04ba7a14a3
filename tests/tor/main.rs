//! The story over onion services of a private Tor network, with the `postern` program as an
//! operator runs it. One node is killed during its first pull.
//!
//! Fails with an explanation where C tor is not installed. Contacts 127.0.0.1 only.
#![cfg(feature = "tor")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on ends here; real processes take real time"
)]

mod first_sync;
mod group;
mod keys;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use harness::process::NodeProcess;
use serde_json::{Value, json};
use testnet::{Options, Testnet};

const REACHABLE_DEADLINE: Duration = Duration::from_secs(180);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_postern"))
}

fn config(apps: &[&str], sync: &Value, tor: &toml::Table) -> String {
    let table = json!({
        "node": { "apps": apps },
        "api": { "listen": "127.0.0.1:0" },
        "sync": sync,
    });
    let mut table: toml::Table = serde_json::from_value(table).unwrap();
    table.insert("tor".into(), tor.clone().into());
    toml::to_string(&table).unwrap()
}

/// Two nodes on one network: A with all apps, B without the market.
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
        assert_eq!(
            (&tor["intro_points"], &tor["vanguards"]),
            (&json!(3), &json!("lite"))
        );
    }

    /// Dials until A admits B, as an operator does who does not wait for the backoff.
    fn b_dials_a_again(&mut self) {
        let onion = json!({ "onion": self.a.get("/api/status")["onion"] });
        self.b
            .until("A admits B again", Duration::from_secs(300), |node| {
                let reply = node.api("POST", "/api/peers", Some(onion.clone()));
                (reply.status == 200).then_some(())
            });
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
    node.until(
        "the onion service is reachable",
        REACHABLE_DEADLINE,
        |node| (node.get("/api/status")["network"] == "reachable").then_some(()),
    );
}

fn inbox(node: &NodeProcess, identity: &str) -> Vec<(String, String)> {
    inbox_of(node, identity, 5000)
}

/// At most `limit` messages of an identity's inbox.
fn inbox_of(node: &NodeProcess, identity: &str, limit: usize) -> Vec<(String, String)> {
    let inbox = node.get(&format!(
        "/api/messages/inbox?identity={identity}&limit={limit}"
    ));
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
fn nodes_sync_messages_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let manual = json!({ "pull_interval_s": 0, "pull_wait_s": 0 });
    let mut two = Two::start(folder.path(), &tor, &manual);
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
fn admission_policy_ticket_and_ban_work_over_onion_services() {
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    let manual = json!({ "pull_interval_s": 0, "pull_wait_s": 0 });
    let mut two = Two::start(folder.path(), &tor, &manual);
    let onion = json!({ "onion": two.a.get("/api/status")["onion"] });
    let b_peer = two.b.get("/api/status")["peer_id"].clone();
    let named = json!({ "peer_id": b_peer });

    // An unadmitted node waits for the operator's verdict and repeats its request.
    let changed = two.a.api(
        "PUT",
        "/api/admission",
        Some(json!({ "policy": "approve" })),
    );
    assert_eq!(changed.status, 200, "{}", changed.body);
    let refused = two.b.api("POST", "/api/peers", Some(onion.clone()));
    assert_ne!(refused.status, 200);
    assert_eq!(refused.body["error"]["code"], "pending", "{}", refused.body);
    let waiting = two.a.get("/api/admission/pending")["pending"].clone();
    assert_eq!(
        (waiting[0]["peer_id"].clone(), waiting[1].clone()),
        (b_peer, Value::Null)
    );
    two.a.post("/api/admission/approve", named.clone());
    two.b
        .until("B is admitted", Duration::from_secs(90), has_session);

    // A ticket replaces the puzzle after both nodes have restarted.
    for node in [&mut two.a, &mut two.b] {
        node.stop();
        node.start();
        reachable(node);
    }
    two.b
        .until("B is admitted again", Duration::from_secs(180), has_session);
    let gate = two.a.get("/api/status")["gate"].clone();
    assert!(gate["by_ticket_total"].as_u64() >= Some(1), "{gate}");
    assert_eq!(gate["admissions_per_minute"], 0, "{gate}");

    // A ban ends the session and voids ticket and puzzle.
    let banned = two.a.post("/api/admission/ban", named);
    assert_eq!(banned["session_ended"], true, "{banned}");
    let refused = two.b.api("POST", "/api/peers", Some(onion));
    assert_ne!(refused.status, 200);
    assert!(
        refused.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("banned"),
        "{}",
        refused.body
    );
    assert_eq!(two.a.get("/api/status")["sessions"], json!([]));
    two.a.stop();
    two.b.stop();
    no_secrets_in_logs(&two);
    no_errors_in_logs(&two);
}

/// Asserts that no log has an error, because a restart is none.
fn no_errors_in_logs(two: &Two) {
    for node in [&two.a, &two.b] {
        let log = std::fs::read_to_string(node.log()).unwrap();
        let errors: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" ERROR "))
            .collect();
        assert_eq!(errors, Vec::<&str>::new());
    }
}

/// Asserts that no log has a full onion address, a full peer id or a text of a message.
fn no_secrets_in_logs(two: &Two) {
    for node in [&two.a, &two.b] {
        let log = std::fs::read_to_string(node.log()).unwrap();
        let events = log.lines().filter(|line| {
            line.contains(" INFO ") || line.contains(" WARN ") || line.contains(" ERROR ")
        });
        for line in events {
            assert!(
                !line.contains(&two.a_peer),
                "a full peer id in a log: {line}"
            );
            assert!(!line.contains("Hi"), "a message in a log: {line}");
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            let mut onions = words.filter(|word| word.len() == 56);
            assert_eq!(onions.next(), None, "a full onion address in a log: {line}");
        }
    }
}

/// Whether a node knows an identity of an untrusted peer.
fn knows_untrusted(node: &NodeProcess, identity: &str) -> Option<()> {
    let known = node.get("/api/identities");
    let mut cards = known["untrusted"].as_array()?.iter();
    cards.any(|card| card["oid"] == identity).then_some(())
}

#[test]
fn node_killed_during_its_first_pull_finishes_it_after_a_restart() {
    const MESSAGES: usize = 600;
    const BODY_BYTES: usize = 16_000;
    let (_runtime, _network, tor) = start_network();
    let folder = tempfile::tempdir().unwrap();
    // Long messages: the kill falls between two of about ten packages.
    let sync = json!({ "pull_interval_s": 1, "pull_wait_s": 30 });
    let mut two = Two::start(folder.path(), &tor, &sync);
    let onion = two.a.get("/api/status")["onion"].clone();
    // A must know B's identity to write to it, so B dials A once and is then killed.
    two.b_dials_a();
    let b_identity = two.b_identity.clone();
    two.a
        .until("A knows B's identity", Duration::from_secs(30), |node| {
            knows_untrusted(node, &b_identity)
        });
    two.b.kill();
    let mut last_seq = 0;
    for number in 0..MESSAGES {
        let sent = two.send_from_a(&format!("{number:0BODY_BYTES$}"));
        last_seq = sent["change_seq"].as_u64().unwrap();
    }

    two.b.start();
    // B trusts A, which it dialled before, so it dials A again and pulls before B itself is
    // reachable.
    two.b.until(
        "the first pull is under way",
        Duration::from_secs(120),
        |node| (!inbox_of(node, &b_identity, 1).is_empty()).then_some(()),
    );
    two.b.kill();
    two.b.start();
    let before = inbox(&two.b, &b_identity).len();
    assert!(before > 0, "applied packages survive the kill");
    assert!(before < MESSAGES, "the kill came during the pull");
    reachable(&mut two.b);
    assert_eq!(onion, two.a.get("/api/status")["onion"]);
    two.b
        .until("the pull is finished", Duration::from_secs(180), |node| {
            (pulled(node, "messages") >= last_seq).then_some(())
        });

    let (sent, got) = (inbox(&two.a, &two.a_identity), inbox(&two.b, &b_identity));
    assert_eq!(got.len(), MESSAGES, "an object is doubled");
    assert_eq!(
        got.iter().collect::<BTreeSet<_>>(),
        sent.iter().collect::<BTreeSet<_>>(),
        "an object is lost"
    );
    assert_eq!(two.b.get("/api/v1/rejects")["rejects"], json!([]));
    two.a.stop();
    two.b.stop();
}

/// The last sequence number of a domain that a node has pulled from its peers.
fn pulled(node: &NodeProcess, domain: &str) -> u64 {
    let status = node.get("/api/status");
    let peers = status["peers"].as_array().unwrap().iter();
    let states = peers.flat_map(|peer| peer["sync_state"].as_array().unwrap());
    states
        .filter(|state| state["domain"] == domain && state["direction"] == "in")
        .filter_map(|state| state["last_seq"].as_u64())
        .max()
        .unwrap_or_default()
}

fn has_session(node: &NodeProcess) -> Option<()> {
    let status = node.get("/api/status");
    (!status["sessions"].as_array()?.is_empty()).then_some(())
}

//! The two nodes and the steps of the story. Each step checks its result.
//!
//! Reads the state of a node through its local API only, as a frontend does.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{find_peer, number, short, text, wait_until_reachable};
use crate::conversation::{Side, three_identities};
use crate::hostile;
use crate::print::{detail, fact, section};
use harness::process::NodeProcess;

/// The last sequence number before the first pull (docs/STORY.md 2).
const SEEDED: u64 = 1432;

/// Returns a node's configuration. Automatic sync is off, so that each step happens at its place in
/// the story.
fn config(apps: &[&str], push_interval_s: u64, tor: &toml::Table) -> String {
    let table = json!({
        "node": { "apps": apps },
        "api": { "listen": "127.0.0.1:0" },
        "sync": {
            "pull_interval_s": 0,
            "pull_wait_s": 0,
            "push_interval_s": push_interval_s,
        },
    });
    let mut table: toml::Table = serde_json::from_value(table).unwrap();
    table.insert("tor".into(), tor.clone().into());
    toml::to_string(&table).unwrap()
}

const A_APPS: [&str; 5] = ["identities", "contacts", "messages", "market", "rides"];
const B_APPS: [&str; 4] = ["identities", "contacts", "messages", "rides"];

/// Two running nodes with their peer ids and identities.
pub(crate) struct Scenario {
    a: NodeProcess,
    b: NodeProcess,
    a_peer: String,
    b_peer: String,
    a_identity: String,
    b_identity: String,
}

impl Scenario {
    /// Runs `postern init` and `postern run` for both nodes and waits until both are reachable.
    pub(crate) fn start(binary: &Path, folder: &Path, tor: &toml::Table) -> Self {
        section("Two nodes");
        let mut a = NodeProcess::init(binary, folder, "Alice", &config(&A_APPS, 0, tor));
        let mut b = NodeProcess::init(binary, folder, "Bob", &config(&B_APPS, 0, tor));
        fact("node A has", A_APPS.join(", "));
        fact("node B has", B_APPS.join(", "));
        a.start();
        b.start();
        wait_until_reachable(&mut a);
        wait_until_reachable(&mut b);
        let own = |node: &NodeProcess| {
            let status = node.get("/api/status");
            let identities = node.get("/api/identities");
            fact(&format!("{}'s onion", node.name), text(&status["onion"]));
            fact(
                &format!("{}'s peer id", node.name),
                text(&status["peer_id"]),
            );
            (
                text(&status["peer_id"]),
                text(&identities["identities"][0]["oid"]),
            )
        };
        let (a_peer, a_identity) = own(&a);
        let (b_peer, b_identity) = own(&b);
        Self {
            a,
            b,
            a_peer,
            b_peer,
            a_identity,
            b_identity,
        }
    }

    /// Section 1: the handshake with the Bastion of A.
    pub(crate) fn handshake(&mut self) {
        section("1. Handshake: B requests a challenge from A's Bastion");
        let onion = text(&self.a.get("/api/status")["onion"]);
        let started = Instant::now();
        let dialled = self.b.post("/api/peers", json!({ "onion": onion }));
        assert_eq!(text(&dialled["peer_id"]), self.a_peer);
        fact(
            "puzzle",
            format!(
                "{} expected evaluations of Argon2id",
                number(&dialled["effort"])
            ),
        );
        fact(
            "solved in",
            format!(
                "{} ms, admitted after {} ms",
                number(&dialled["solving_ms"]),
                started.elapsed().as_millis()
            ),
        );
        let expected = json!(["contacts", "identities", "messages", "rides.offers"]);
        for (node, peer) in [(&mut self.b, &self.a_peer), (&mut self.a, &self.b_peer)] {
            let row = node.until(
                "the other node is its peer",
                Duration::from_secs(30),
                |node| find_peer(node, peer),
            );
            assert_eq!(
                row["domains"], expected,
                "the intersection at {}",
                node.name
            );
        }
        fact(
            "intersection",
            "contacts, identities, messages, rides.offers (stored on both sides)",
        );
        fact(
            "outside the intersection",
            "market.public_offers: B does not list it",
        );
        for (node, identity) in [(&self.a, &self.b_identity), (&self.b, &self.a_identity)] {
            // Those of a node that proof of work admitted are listed apart.
            let known = node.get("/api/identities").to_string();
            let is_known = known.contains(identity.as_str());
            assert!(is_known, "{} knows the other's identity", node.name);
        }
        detail("each node has stored the other's server and identity in its graph");
    }

    /// Section 2: real changes up to number 1432, then B's first pull. Returns the oids of one
    /// message and its conversation.
    pub(crate) fn first_pull(&mut self) -> (String, String) {
        section("2. Initial pull: messages");
        let mut sent = Value::Null;
        while number(&self.a.get("/api/status")["change_seq"]) < SEEDED {
            let left = SEEDED - number(&self.a.get("/api/status")["change_seq"]);
            for place in 0..left {
                sent = self.send_from_a(&format!(
                    "an older message, {} before the last",
                    left - place - 1
                ));
            }
        }
        assert_eq!(number(&sent["change_seq"]), SEEDED);
        fact("GLOBAL_CHANGE_SEQ on A", SEEDED);
        let started = Instant::now();
        let report = self.sync("messages");
        let took = started.elapsed();
        assert_eq!(report["window"], json!([0, SEEDED]), "{report}");
        assert_eq!(
            (number(&report["rejected"]), number(&report["waiting"])),
            (0, 0)
        );
        fact("window", format!("from_seq 0, to_seq {SEEDED}"));
        fact(
            "package",
            format!(
                "{} objects applied in {} ms, over Tor",
                number(&report["written"]),
                took.as_millis()
            ),
        );
        fact(
            "sync_state on A",
            format!(
                "('{}…', 'messages', {})",
                short(&self.b_peer),
                self.sent_to_b("messages")
            ),
        );
        assert_eq!(self.sent_to_b("messages"), SEEDED);
        assert_eq!(
            self.inbox_of_b().len() as u64,
            number(&report["written"]) - 1,
            "all but the conversation itself"
        );
        (text(&sent["oid"]), text(&sent["conversation_oid"]))
    }

    /// Sections 3 and 4: a local write, and a pull that transfers only this message.
    pub(crate) fn local_write_and_next_pull(&mut self) {
        section("3. A local write on A");
        let sent = self.send_from_a("Hi");
        assert_eq!(number(&sent["change_seq"]), SEEDED + 1);
        fact(
            "POST /api/messages/send",
            format!("\"Hi\" became change {}", SEEDED + 1),
        );
        section("4. Next pull from B");
        let report = self.sync("messages");
        assert_eq!(
            report["window"],
            json!([SEEDED + 1, SEEDED + 1]),
            "{report}"
        );
        assert_eq!(
            (number(&report["objects"]), number(&report["written"])),
            (1, 1)
        );
        fact(
            "window",
            format!(
                "from_seq {0}, to_seq {0}: one object, the new message",
                SEEDED + 1
            ),
        );
        let newest = self.inbox_of_b().pop().unwrap();
        assert_eq!(
            (text(&newest["body"]), newest["oid"].clone()),
            ("Hi".into(), sent["oid"].clone())
        );
        fact("B's inbox", "\"Hi\"");
        assert_eq!(self.sync("messages")["window"], Value::Null);
        detail("a third pull: up to date");
    }

    /// Section 7: A has an offer in a domain that B does not list. A's reply does not reveal it.
    pub(crate) fn pull_of_a_domain_outside_the_intersection(&mut self) {
        section("7. A domain outside the intersection");
        let offer = json!({ "type": "market.offer", "owner": self.a_identity,
            "attrs": { "title": "A bicycle", "description": "Rides well", "price": "40" } });
        self.a.post("/api/objects", offer);
        let (at_a, at_b) = (
            self.states(&self.a, &self.b_peer),
            self.states(&self.b, &self.a_peer),
        );
        let report = self.sync("market.public_offers");
        assert_eq!(
            (&report["window"], number(&report["objects"])),
            (&Value::Null, 0),
            "{report}"
        );
        assert_eq!(
            (
                self.states(&self.a, &self.b_peer),
                self.states(&self.b, &self.a_peer)
            ),
            (at_a, at_b)
        );
        fact(
            "pull of market.public_offers",
            "same reply as for an empty domain; no state changed on either side",
        );
    }

    /// Section 6.3: A rejects an edit of its message from a peer with B's keys.
    pub(crate) fn forged_edit(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        folder: &Path,
        tor: &toml::Table,
        sent: &(String, String),
    ) {
        section("6. A remote edit of a local object");
        let epoch = text(&self.b.get("/api/status")["epoch"]);
        let onion = text(&self.a.get("/api/status")["onion"]);
        self.b.stop();
        let attack = hostile::Attack {
            folder: &self.b.folder,
            passphrase: self.b.passphrase(),
            epoch: epoch.parse().unwrap(),
            victim: (self.a_peer.parse().unwrap(), onion.parse().unwrap()),
            message: sent.0.parse().unwrap(),
            conversation: sent.1.parse().unwrap(),
            tor: tor.clone(),
        };
        let answer = runtime
            .block_on(hostile::push_forged_edit(&attack, &folder.join("hostile")))
            .unwrap();
        detail(&format!(
            "a peer with B's real keys pushed a signed edit of A's message; \
             the package was {answer}"
        ));
        let rejects = self.a.get("/api/v1/rejects");
        let reject = &rejects["rejects"][0];
        assert_eq!(
            (text(&reject["oid"]), text(&reject["code"])),
            (sent.0.clone(), "oid".into())
        );
        fact("A's core", "rejected the object: oid");
        let inbox = self.a.get(&format!(
            "/api/messages/inbox?identity={}&limit=5000",
            self.a_identity
        ));
        let message = inbox["messages"]
            .as_array()
            .unwrap()
            .iter()
            .find(|message| message["oid"] == sent.0.as_str());
        assert!(text(&message.unwrap()["body"]).starts_with("an older message"));
        detail("the message on A is unchanged");
    }

    /// Section 5: B pushes by its timer, without a request from A.
    pub(crate) fn timer_push(&mut self, tor: &toml::Table) {
        section("5. Push by the timer");
        std::fs::write(self.b.config(), config(&B_APPS, 1, tor)).unwrap();
        self.b.start();
        wait_until_reachable(&mut self.b);
        let a_peer = self.a_peer.clone();
        self.b.until(
            "it has a new session with A",
            Duration::from_secs(120),
            |node| {
                let status = node.get("/api/status");
                status["sessions"]
                    .as_array()?
                    .iter()
                    .any(|session| session["peer_id"] == a_peer.as_str())
                    .then_some(())
            },
        );
        let body = "Hello Alice, this message was pushed";
        let sent = self.b.post(
            "/api/messages/send",
            json!({
                "sender_identity_oid": self.b_identity,
                "recipient_identity_oid": self.a_identity,
                "body": body,
            }),
        );
        let identity = self.a_identity.clone();
        let started = Instant::now();
        self.a.until(
            "the pushed message has arrived",
            Duration::from_secs(60),
            |node| {
                let inbox = node.get(&format!(
                    "/api/messages/inbox?identity={identity}&limit=5000"
                ));
                inbox["messages"]
                    .as_array()?
                    .iter()
                    .any(|message| message["oid"] == sent["oid"])
                    .then_some(())
            },
        );
        fact(
            "pushed by B's timer",
            format!(
                "\"{body}\" reached A {} ms after it was written",
                started.elapsed().as_millis()
            ),
        );
        let (a_peer, wanted) = (self.a_peer.clone(), number(&sent["change_seq"]));
        self.b.until(
            "the push is acknowledged",
            Duration::from_secs(30),
            |node| {
                let states = find_peer(node, &a_peer)?["sync_state"].clone();
                let out =
                    |state: &&Value| state["domain"] == "messages" && state["direction"] == "out";
                (number(&states.as_array()?.iter().find(out)?["acked_seq"]) >= wanted).then_some(())
            },
        );
        fact("acked_seq on B", wanted);
    }

    /// A conversation of three identities.
    pub(crate) fn conversation_of_three(&mut self) {
        let a = Side {
            node: &mut self.a,
            peer: &self.b_peer,
            identity: &self.a_identity,
        };
        let b = Side {
            node: &mut self.b,
            peer: &self.a_peer,
            identity: &self.b_identity,
        };
        three_identities(a, b);
    }

    /// Stops both nodes.
    pub(crate) fn end(mut self) {
        section("End");
        self.a.stop();
        self.b.stop();
        detail("both nodes stopped cleanly");
    }

    fn send_from_a(&self, body: &str) -> Value {
        self.a.post(
            "/api/messages/send",
            json!({
                "sender_identity_oid": self.a_identity,
                "recipient_identity_oid": self.b_identity,
                "body": body,
            }),
        )
    }

    /// Pulls once from A to B. The pull must need exactly one package.
    fn sync(&self, domain: &str) -> Value {
        let answer = self.b.post(
            "/api/sync",
            json!({ "peer": self.a_peer, "domain": domain, "direction": "pull" }),
        );
        let reports = answer["reports"].as_array().unwrap();
        assert_eq!(reports.len(), 1, "one package is enough: {answer}");
        reports[0].clone()
    }

    fn sent_to_b(&self, domain: &str) -> u64 {
        let peer = find_peer(&self.a, &self.b_peer).unwrap();
        let out = |state: &&Value| state["domain"] == domain && state["direction"] == "out";
        number(
            &peer["sync_state"]
                .as_array()
                .unwrap()
                .iter()
                .find(out)
                .unwrap()["last_seq"],
        )
    }

    fn states(&self, node: &NodeProcess, peer: &str) -> Value {
        find_peer(node, peer).unwrap()["sync_state"].clone()
    }

    fn inbox_of_b(&self) -> Vec<Value> {
        let inbox = self.b.get(&format!(
            "/api/messages/inbox?identity={}&limit=5000",
            self.b_identity
        ));
        inbox["messages"].as_array().unwrap().clone()
    }
}

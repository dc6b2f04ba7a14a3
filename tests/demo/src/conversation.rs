//! A conversation of three identities on two nodes: a late member, and a removed one.

use std::time::Duration;

use harness::process::NodeProcess;
use serde_json::{Value, json};

use crate::api::{number, text};
use crate::print::{detail, fact, section};

/// Time limit for an object to travel from one node to the other.
const TRAVEL_DEADLINE: Duration = Duration::from_secs(60);

/// A node, and the node from which it pulls.
pub(crate) struct Side<'n> {
    pub(crate) node: &'n mut NodeProcess,
    /// The other node's peer id.
    pub(crate) peer: &'n str,
    /// The node's first identity.
    pub(crate) identity: &'n str,
}

impl Side<'_> {
    fn pull(&self, domain: &str) {
        let request = json!({ "peer": self.peer, "domain": domain, "direction": "pull" });
        self.node.post("/api/sync", request);
    }

    fn texts(&self, identity: &str) -> Vec<String> {
        let path = format!("/api/messages/inbox?identity={identity}&limit=5000");
        let inbox = self.node.get(&path);
        let messages = inbox["messages"].as_array().unwrap().iter();
        messages.map(|message| text(&message["body"])).collect()
    }
}

/// A conversation on the node of its owner.
struct Talk<'t> {
    owner: &'t Side<'t>,
    path: String,
}

impl Talk<'_> {
    fn say(&self, body: &str) {
        let message = json!({ "sender_identity_oid": self.owner.identity, "body": body });
        let path = format!("{}/messages", self.path);
        self.owner.node.post(&path, message);
    }

    fn add(&self, identity: &str) -> Value {
        let path = format!("{}/members", self.path);
        let member = json!({ "identity_oid": identity });
        self.owner.node.post(&path, member)
    }
}

/// Accepts an invitation of an identity of a node.
fn accept(node: &NodeProcess, oid: &str, identity: &str) {
    let path = format!("/api/v1/rights/messages/{oid}/accept");
    node.post(&path, json!({ "identity_oid": identity }));
}

/// Founds a conversation of Alice on A and of Bob and Carol on B, adds Dora on B, and removes
/// Carol.
pub(crate) fn three_identities(a: Side<'_>, b: Side<'_>) {
    section("Conversations: three identities on two nodes");
    let carol = text(&b.node.post("/api/identities", json!({ "name": "Carol" }))["oid"]);
    let dora = text(&b.node.post("/api/identities", json!({ "name": "Dora" }))["oid"]);
    let peer = a.peer;
    a.node
        .until("it knows Carol and Dora", TRAVEL_DEADLINE, |node| {
            let request = json!({ "peer": peer, "domain": "identities", "direction": "pull" });
            node.post("/api/sync", request);
            let known = node.get("/api/identities").to_string();
            (known.contains(&carol) && known.contains(&dora)).then_some(())
        });
    let founding = json!({
        "founder_identity_oid": a.identity,
        "participant_identity_oids": [b.identity, carol],
        "title": "Hiking",
    });
    let made = a.node.api("POST", "/api/v1/conversations", Some(founding));
    assert_eq!(made.status, 201, "{}", made.body);
    let oid = text(&made.body["oid"]);
    let talk = Talk {
        owner: &a,
        path: format!("/api/v1/conversations/{oid}"),
    };
    talk.say("Who comes along?");
    b.pull("messages");
    let invited = &b.node.get("/api/v1/invitations")["invitations"];
    assert_eq!(invited.as_array().unwrap().len(), 2, "{invited}");
    for identity in [b.identity, &carol] {
        accept(b.node, &oid, identity);
    }
    assert!(b.texts(&carol).ends_with(&["Who comes along?".to_owned()]));
    assert!(b.texts(&dora).is_empty());
    fact("founded", "\"Hiking\" of Alice, Bob and Carol; both accept");

    let added = talk.add(&dora);
    assert_eq!(added["founded_new"], json!(false), "{added}");
    b.pull("messages");
    assert!(b.texts(&dora).is_empty());
    accept(b.node, &oid, &dora);
    assert_eq!(b.texts(&dora), ["Who comes along?"]);
    fact("added", "Dora, who accepts and reads the whole history");

    let path = format!("{}/members/{carol}", talk.path);
    let removed = a.node.api("DELETE", &path, None);
    assert_eq!(removed.status, 200, "{}", removed.body);
    talk.say("Without Carol");
    b.pull("messages");
    assert_eq!(b.texts(&dora), ["Who comes along?", "Without Carol"]);
    assert_eq!(b.texts(&carol), ["Who comes along?"]);
    let shown = b.node.get(&talk.path);
    assert_eq!(number(&shown["messages"]), 2);
    fact("removed", "Carol, who keeps one message and gets no other");
    detail("Bob and Dora have both messages");
}

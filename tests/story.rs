//! docs/STORY.md, section by section, with whole nodes: Alice's node A has all five apps, Bob's
//! node B has no market.
//!
//! The nodes meet over memory pipes, through the whole handshake and session. Keys come from seeds,
//! and no clock moves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "story/sections_6_to_8.rs"]
mod sections_6_to_8;

use bastion::Progress;
use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, NO_MARKET, Setup, TestNode, manual_sync};
use keys::Oid;
use parking_lot::Mutex;
use postern::config::SyncConfig;
use postern::domain::Mode;
use postern::object::Value;
use postern::peer::PullOutcome;
use postern::schema::identities;
use postern::services::messages;
use postern::store::{Direction, PeerRow};

/// Nodes A and B.
struct Story {
    net: MemoryNet,
    a: LiveNode,
    b: LiveNode,
}

impl Story {
    fn start_with(sync: SyncConfig) -> Self {
        let net = MemoryNet::new();
        let a = Setup::seeded("Alice", 1000).sync(sync.clone()).live(&net);
        let b = Setup::seeded("Bob", 2000).apps(&NO_MARKET);
        let b = b.sync(sync).live(&net);
        Self { net, a, b }
    }

    fn start() -> Self {
        Self::start_with(manual_sync())
    }

    /// Section 1 is done: B has a session with A.
    async fn met() -> Self {
        let story = Self::start();
        story.b.meet(&story.a).await;
        story
    }

    /// A third node, which has met A only.
    async fn carol(&self) -> LiveNode {
        let c = LiveNode::start(&self.net, "Carol", 3000);
        c.meet(&self.a).await;
        c
    }

    /// Alice has written to Bob, and every tenth message to Carol, until A's change_seq is 1432.
    async fn at_1432() -> (Self, LiveNode) {
        let story = Self::met().await;
        let c = story.carol().await;
        let mut sent = 0;
        while story.a.head() < 1432 {
            let to = if sent % 10 == 9 {
                c.identity
            } else {
                story.b.identity
            };
            story.a.send(to, &format!("message {sent}"));
            sent += 1;
        }
        assert_eq!(story.a.head(), 1432);
        (story, c)
    }

    async fn end(self) {
        self.a.stop().await;
        self.b.stop().await;
    }
}

fn windows(outcomes: &[PullOutcome]) -> Vec<Option<(u64, u64)>> {
    let windows = outcomes.iter().map(|outcome| outcome.window);
    windows
        .map(|window| window.map(|window| (window.from_seq, window.to_seq)))
        .collect()
}

fn has(node: &TestNode, app: &str, oid: Oid) -> bool {
    node.parent(app, oid).is_some()
}

#[tokio::test]
async fn section_1_handshake_between_nodes() {
    let Story { a, b, net: _net } = Story::start();

    // 1.1 steps 1 to 3: B contacts A's onion, gets a puzzle, solves it, and sends its identity and
    // what it supports.
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().push(step);
    let reached = b.dialler.dial(&a.onion(), &note).await.unwrap();
    assert_eq!((reached.peer, reached.effort), (a.peer_id(), 4));
    let steps = steps.into_inner();
    assert_eq!(steps.first(), Some(&Progress::Dialling));
    assert_eq!(steps.last(), Some(&Progress::Verifying));
    a.wait_for_session(&b.peer_id()).await;

    // Step 4: A verifies B, and stores it in the graph: a server identity with its public key.
    let server = b.keys.server_oid();
    let record = a.parent("identities", server).unwrap();
    assert_eq!(
        (record.type_number, record.sync_flags),
        (identities::SERVER, 0)
    );
    let (object, _) = a.object("identities", server).unwrap();
    let key = Value::Bytes(b.public_key().as_bytes().to_vec());
    assert_eq!(object.first(identities::PUBLIC_KEY), Some(&key));
    assert_eq!(a.public_key_of(server), Some(b.public_key()));
    assert_eq!(a.home_of(server), Some(b.peer_id()));

    // Step 5: A records peer metadata in a local table, and B does the same about A.
    let (b_at_a, a_at_b) = (a.stored_peer(&b).unwrap(), b.stored_peer(&a).unwrap());
    let slugs = |peer: &PeerRow| -> Vec<String> {
        let apps = peer.peer_apps.iter();
        apps.map(|app| app.slug.clone()).collect()
    };
    assert_eq!(
        slugs(&b_at_a),
        ["contacts", "identities", "messages", "rides"]
    );
    assert_eq!(
        b_at_a.peer_sync_domains,
        ["contacts", "identities", "messages", "rides.offers"]
    );
    assert_eq!(
        slugs(&a_at_b),
        ["contacts", "identities", "market", "messages", "rides"]
    );
    assert_eq!(a_at_b.peer_sync_domains.len(), 5);
    // The two nodes do not sync `market.public_offers`.
    assert_eq!(
        b_at_a.domains,
        ["contacts", "identities", "messages", "rides.offers"]
    );
    assert_eq!(a_at_b.domains, b_at_a.domains);
    assert_eq!((b_at_a.onion, a_at_b.onion), (b.onion(), a.onion()));

    // The handshake carried the identities: Alice can write to Bob before anything was pulled.
    assert_eq!(a.home_of(b.identity), Some(b.peer_id()));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn section_2_initial_pull_sync() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);

    // 2.1 step 2: A's sync_state for B is empty. SYNC_DOMAINS defines the domain.
    assert_eq!(a.cursor(b, "messages", Direction::Out), None);
    let domain = a.schemas().domain("messages").unwrap();
    assert_eq!(domain.types, [messages::CONVERSATION, messages::MESSAGE]);
    assert_eq!(domain.mode, Mode::AppendOnly);

    // Steps 1 and 3 to 6: B pulls from 0, and receives what changed and B may read, in one package.
    let outcomes = b.pull(a, "messages").await;
    assert_eq!(windows(&outcomes), [Some((0, 1432))]);
    let applied = outcomes[0].applied;
    assert_eq!((applied.rejected, applied.waiting), (0, 0));

    // Step 7: A records what it sent.
    let sent = a.cursor(b, "messages", Direction::Out).unwrap();
    assert_eq!((sent.last_seq, sent.epoch), (1432, a.epoch()));

    // Step 8: B has verified and applied each object; its cursor moved in the same transaction.
    let received = b.cursor(a, "messages", Direction::In).unwrap();
    assert_eq!(received.last_seq, 1432);
    let inbox = b.inbox();
    assert_eq!(
        inbox.len() + 1,
        applied.written,
        "all messages, and the conversation"
    );
    let by_alice = |message: &messages::InboxMessage| message.sender == a.identity;
    assert!(inbox.iter().all(by_alice));
    assert!(inbox.iter().all(|message| !message.is_local));
    // B received nothing of the conversation with Carol.
    let to_carol = c.pull(a, "messages").await[0].applied.written - 1;
    assert_eq!(to_carol + inbox.len(), a.inbox().len());
    assert!(to_carol > 100 && inbox.len() > 1000);
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_3_local_write_and_change_seq() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);

    // 1 and 2: Alice sends "Hi" to Bob; GLOBAL_CHANGE_SEQ goes from 1432 to 1433.
    let sent = a.send(b.identity, "Hi");
    assert_eq!((sent.change_seq, a.head()), (1433, 1433));

    // All rows of the message carry 1433 and the domain's bit. No other object was written.
    let mask = a.read(|view| Ok(view.rows.apps().mask("messages")));
    let parent = a.parent("messages", sent.oid).unwrap();
    assert_eq!((parent.change_seq, parent.sync_flags), (1433, mask));
    let (object, _) = a.object("messages", sent.oid).unwrap();
    let conversation = object.first(messages::IN_CONVERSATION);
    assert_eq!(object.owner, a.identity);
    assert_eq!(
        conversation.and_then(Value::as_oid),
        Some(sent.conversation)
    );
    let body = object.first(messages::BODY);
    assert_eq!(body.and_then(Value::as_text), Some("Hi"));

    // 3: only participants read.
    let readers = a.readers("messages", sent.conversation);
    assert!(readers.contains(&a.identity) && readers.contains(&b.identity));
    assert!(!readers.contains(&c.identity));
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_4_next_pull_from_node_b() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);
    b.pull(a, "messages").await;
    let before = b.inbox().len();

    // B pulls again from 1432: nothing new. After one more message it receives that message alone,
    // from 1433 to 1433.
    assert_eq!(windows(&b.pull(a, "messages").await), [None]);
    let sent = a.send(b.identity, "Hi");
    let outcomes = b.pull(a, "messages").await;
    assert_eq!(windows(&outcomes), [Some((1433, 1433))]);
    let applied = outcomes[0].applied;
    assert_eq!((applied.written, applied.already_stored), (1, 0));
    let inbox = b.inbox();
    assert_eq!(inbox.len(), before + 1);
    assert_eq!(inbox.last().unwrap().oid, sent.oid);
    let cursor = a.cursor(b, "messages", Direction::Out).unwrap();
    assert_eq!((cursor.last_seq, cursor.acked_seq), (1433, 1432));

    // A message to another node sends nothing to B.
    a.send(c.identity, "not for Bob");
    assert_eq!(windows(&b.pull(a, "messages").await), [None]);
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_5_optional_push() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    // The same "build package since last_seq", sent without a request.
    let sent = a.send(b.identity, "Hi");
    let pushed = a.peers.push(&b.peer_id(), "messages").await.unwrap();
    assert_eq!(pushed.len(), 1);
    assert_eq!(
        (pushed[0].objects, pushed[0].acked_seq),
        (2, sent.change_seq)
    );
    assert_eq!(b.inbox().len(), 1);
    let cursor = a.cursor(b, "messages", Direction::Out).unwrap();
    assert_eq!(cursor.acked_seq, sent.change_seq);
    // Pull stays the baseline, and finds nothing left to send.
    assert_eq!(windows(&b.pull(a, "messages").await), [None]);
    story.end().await;
}

#[tokio::test]
async fn section_5_a_timer_pushes_new_messages() {
    let story = Story::start_with(SyncConfig {
        push_interval_s: 1,
        ..manual_sync()
    });
    story.b.meet(&story.a).await;
    let mut changes = story.b.engine.changes();
    story.a.send(story.b.identity, "Hi");
    while story.b.inbox().is_empty() {
        changes.changed().await.unwrap();
    }
    assert_eq!(story.b.inbox()[0].body, "Hi");
    story.end().await;
}

//! docs/STORY.md, told section by section with real nodes: Alice's A has all five apps, Bob's B has no market. They meet over
//! memory pipes, through the whole handshake and session; keys come from seeds and the clock stands still.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod common;
#[path = "common/live.rs"]
mod live;
#[path = "story/sections_6_to_8.rs"]
mod sections_6_to_8;

use bastion::Progress;
use bastion::transport::memory::MemoryNet;
use keys::Oid;
use live::{ALL_APPS, LiveNode, WITHOUT_MARKET, by_hand};
use parking_lot::Mutex;
use postern::config::SyncConfig;
use postern::domain::Mode;
use postern::graph::{Draft, SaveError};
use postern::object::{Attrs, Value};
use postern::op_context::OpContext;
use postern::peer::PullOutcome;
use postern::schema::identities;
use postern::services::messages;
use postern::store::{Cursor, Direction, SyncStateRow};

use common::context_of;

/// A, B, and a third node C that only A knows.
struct Story {
    net: MemoryNet,
    a: LiveNode,
    b: LiveNode,
}

impl Story {
    async fn begin_with(sync: SyncConfig) -> Self {
        let net = MemoryNet::new();
        let a = LiveNode::start(&net, "Alice", 1000, &ALL_APPS, sync.clone()).await;
        let b = LiveNode::start(&net, "Bob", 2000, &WITHOUT_MARKET, sync).await;
        Self { net, a, b }
    }

    async fn begin() -> Self {
        Self::begin_with(by_hand()).await
    }

    /// 1: the handshake is done.
    async fn met() -> Self {
        let story = Self::begin().await;
        story.b.meet(&story.a).await;
        story
    }

    /// 2: Alice has written to Bob, now and then to Carol, until A's change_seq is 1432.
    async fn at_1432() -> (Self, LiveNode) {
        let story = Self::met().await;
        let c = LiveNode::start(&story.net, "Carol", 3000, &ALL_APPS, by_hand()).await;
        c.meet(&story.a).await;
        let mut said = 0;
        while head(&story.a).await < 1432 {
            let to = if said % 10 == 9 {
                c.identity
            } else {
                story.b.identity
            };
            story.a.send(to, &format!("word {said}")).await;
            said += 1;
        }
        assert_eq!(head(&story.a).await, 1432);
        (story, c)
    }

    async fn end(self) {
        self.a.stop().await;
        self.b.stop().await;
    }
}

async fn head(node: &LiveNode) -> u64 {
    node.read(|view| view.head()).await
}

fn window(outcome: &PullOutcome) -> Option<(u64, u64)> {
    outcome
        .window
        .map(|window| (window.from_seq, window.to_seq))
}

/// `sync_state` of one node about another.
async fn sync_state(
    of: &LiveNode,
    about: &LiveNode,
    domain: &str,
    direction: Direction,
) -> Option<SyncStateRow> {
    let (peer, domain) = (about.peer_id(), domain.to_owned());
    of.read(move |view| {
        view.rows.sync_state(Cursor {
            peer: &peer,
            domain: &domain,
            direction,
        })
    })
    .await
}

/// A write by the person of a node.
async fn save(
    node: &LiveNode,
    app: &str,
    type_number: u16,
    oid: Option<Oid>,
    attrs: Option<Attrs>,
) -> Result<Oid, SaveError> {
    let (owner, app) = (node.identity, app.to_owned());
    let slug = app.clone();
    let context: OpContext = node.read(move |view| context_of(&view, owner, &slug)).await;
    let draft = Draft {
        app,
        type_number,
        oid,
        owner,
        attrs,
    };
    let saved = node
        .write(move |core, now| core.write(now, |graph| graph.save_with_sync(&context, draft)))
        .await?;
    Ok(saved.oid)
}

async fn has(node: &LiveNode, app: &str, oid: Oid) -> bool {
    let app = app.to_owned();
    node.read(move |view| {
        let table = view.rows.apps().get(&app);
        table.map_or(Ok(None), |table| view.rows.parent(table, &oid))
    })
    .await
    .is_some()
}

#[tokio::test]
async fn section_1_handshake_between_nodes() {
    let Story { a, b, net: _net } = Story::begin().await;

    // 1.1 steps 1 to 3: B contacts A's onion, gets a puzzle, solves it, and says who it is and what it has.
    let steps = Mutex::new(Vec::new());
    let reached = b
        .dialler
        .dial(&a.onion(), &|step| steps.lock().push(step))
        .await
        .unwrap();
    assert_eq!((reached.peer, reached.effort), (a.peer_id(), 4));
    let steps = steps.into_inner();
    assert_eq!(steps.first(), Some(&Progress::Dialling));
    assert_eq!(steps.last(), Some(&Progress::Presenting));
    a.wait_for_session(&b.peer_id()).await;

    // Step 4: A verifies, and stores B as a peer in the graph: a server identity with its public key.
    let (server, key) = (
        b.keys.server_oid(),
        b.keys.node_chain().verify().unwrap().current(),
    );
    let (parent, attr, known) = a
        .read(move |view| {
            let app = view.rows.apps().get("identities").unwrap();
            let parent = view.rows.parent(app, &server)?.unwrap();
            let attr = view
                .rows
                .attrs(app, parent.id)?
                .into_iter()
                .find(|(number, _)| *number == identities::PUBLIC_KEY);
            Ok((
                parent,
                attr.unwrap().1,
                view.rows.identity(&server)?.unwrap(),
            ))
        })
        .await;
    assert_eq!(
        (parent.type_number, parent.sync_flags),
        (identities::SERVER, 0)
    );
    assert_eq!(attr, Value::Bytes(key.as_bytes().to_vec()));
    assert_eq!((known.public_key, known.home), (key, b.peer_id()));

    // Step 5: A records peer metadata in a local table, and B does the same about A.
    let about = |of: &LiveNode| {
        let peer = of.peer_id();
        move |view: postern::state_engine::View<'_>| view.rows.peer(&peer)
    };
    let b_at_a = a.read(about(&b)).await.unwrap();
    let a_at_b = b.read(about(&a)).await.unwrap();
    assert_eq!(
        b_at_a.peer_apps,
        ["contacts", "identities", "messages", "rides"]
    );
    assert_eq!(
        b_at_a.peer_sync_domains,
        ["contacts", "identities", "messages", "rides.offers"]
    );
    assert_eq!(
        a_at_b.peer_apps,
        ["contacts", "identities", "market", "messages", "rides"]
    );
    assert_eq!(a_at_b.peer_sync_domains.len(), 5);
    // Note: there will be no syncing of `market.public_offers` with this peer.
    assert_eq!(
        b_at_a.domains,
        ["contacts", "identities", "messages", "rides.offers"]
    );
    assert_eq!(a_at_b.domains, b_at_a.domains);
    assert_eq!((b_at_a.onion, a_at_b.onion), (b.onion(), a.onion()));

    // The identities came along: Alice can write to Bob before anything was pulled.
    let bob = b.identity;
    assert_eq!(
        a.read(move |view| view.rows.identity(&bob))
            .await
            .unwrap()
            .home,
        b.peer_id()
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn section_2_initial_pull_sync() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);

    // 2.1 step 2: A's sync_state for B is empty. SYNC_DOMAINS says what the domain is.
    assert_eq!(sync_state(a, b, "messages", Direction::Out).await, None);
    let domain = a.engine.ground().schemas.domain("messages").unwrap();
    assert_eq!(
        (domain.types.as_slice(), domain.mode),
        (
            [messages::CONVERSATION, messages::MESSAGE].as_slice(),
            Mode::AppendOnly
        )
    );

    // Steps 1 and 3 to 6: B pulls from 0, and gets what changed and it may read. A package holds 4096 objects at most.
    let outcomes = b.pull(a, "messages").await;
    assert_eq!(
        outcomes.iter().map(window).collect::<Vec<_>>(),
        [Some((0, 1432))]
    );
    assert_eq!(
        (outcomes[0].applied.rejected, outcomes[0].applied.parked),
        (0, 0)
    );

    // Step 7: A notes what it sent.
    let sent = sync_state(a, b, "messages", Direction::Out).await.unwrap();
    assert_eq!((sent.last_seq, sent.epoch), (1432, a.engine.ground().epoch));

    // Step 8: B has verified and applied each; its cursor moved with the rows.
    assert_eq!(
        sync_state(b, a, "messages", Direction::In)
            .await
            .unwrap()
            .last_seq,
        1432
    );
    let inbox = b.inbox().await;
    assert_eq!(
        inbox.len() + 1,
        outcomes[0].applied.written,
        "all messages, and the conversation"
    );
    assert!(
        inbox
            .iter()
            .all(|message| message.sender == a.identity && !message.made_here)
    );
    // Where B is no participant, nothing came.
    let to_others = c.pull(a, "messages").await[0].applied.written - 1;
    assert_eq!(to_others + inbox.len(), a.inbox().await.len());
    assert!(to_others > 100 && inbox.len() > 1000);
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_3_local_write_and_change_seq() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);

    // 1 and 2: Alice says "Hi" to Bob; GLOBAL_CHANGE_SEQ goes from 1432 to 1433.
    let sent = a.send(b.identity, "Hi").await;
    assert_eq!((sent.change_seq, head(a).await), (1433, 1433));

    // All rows of the message carry 1433 and the domain's bit. Nothing else was written.
    let (parent, object, mask) = a
        .read(move |view| {
            let app = view.rows.apps().get("messages").unwrap();
            let parent = view.rows.parent(app, &sent.oid)?.unwrap();
            let object = postern::graph::load_object(&view.rows, app, &parent)?.0;
            Ok((parent, object, view.rows.apps().mask("messages")))
        })
        .await;
    assert_eq!((parent.change_seq, parent.sync_flags), (1433, mask));
    assert_eq!(object.owner, a.identity);
    assert_eq!(
        object
            .first(messages::IN_CONVERSATION)
            .and_then(Value::as_oid),
        Some(sent.conversation)
    );
    assert_eq!(
        object.first(messages::BODY).and_then(Value::as_text),
        Some("Hi")
    );

    // 3: participants read.
    let (conversation, alice, bob, carol) = (sent.conversation, a.identity, b.identity, c.identity);
    let readers = a.read(move |view| {
        let app = view.rows.apps().get("messages").unwrap();
        let scope = view.rows.parent(app, &conversation)?.unwrap();
        view.rows.readers(app.id, scope.id)
    });
    let readers = readers.await;
    assert!(readers.contains(&alice) && readers.contains(&bob) && !readers.contains(&carol));
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_4_next_pull_from_node_b() {
    let (story, c) = Story::at_1432().await;
    let (a, b) = (&story.a, &story.b);
    b.pull(a, "messages").await;
    let before = b.inbox().await.len();

    // B pulls again from 1432: nothing new, then only the new message, from 1433 to 1433.
    assert_eq!(window(&b.pull(a, "messages").await[0]), None);
    let sent = a.send(b.identity, "Hi").await;
    let outcomes = b.pull(a, "messages").await;
    assert_eq!(
        outcomes.iter().map(window).collect::<Vec<_>>(),
        [Some((1433, 1433))]
    );
    assert_eq!(
        (
            outcomes[0].applied.written,
            outcomes[0].applied.already_here
        ),
        (1, 0)
    );
    let inbox = b.inbox().await;
    assert_eq!(
        (inbox.len(), inbox.last().unwrap().oid),
        (before + 1, sent.oid)
    );
    let noted = sync_state(a, b, "messages", Direction::Out).await.unwrap();
    assert_eq!((noted.last_seq, noted.acked_seq), (1433, 1432));

    // What is said to others moves nothing for B.
    a.send(c.identity, "not for Bob").await;
    assert_eq!(window(&b.pull(a, "messages").await[0]), None);
    story.end().await;
    c.stop().await;
}

#[tokio::test]
async fn section_5_optional_push() {
    let story = Story::met().await;
    let (a, b) = (&story.a, &story.b);
    // The same "build package since last_seq", sent without being asked for.
    let sent = a.send(b.identity, "Hi").await;
    let pushed = a.peers.push(&b.peer_id(), "messages").await.unwrap();
    assert_eq!(
        (pushed.len(), pushed[0].objects, pushed[0].acked_seq),
        (1, 2, sent.change_seq)
    );
    assert_eq!(b.inbox().await.len(), 1);
    assert_eq!(
        sync_state(a, b, "messages", Direction::Out)
            .await
            .unwrap()
            .acked_seq,
        sent.change_seq
    );
    // Pull stays as the baseline, and finds nothing left to do.
    assert_eq!(window(&b.pull(a, "messages").await[0]), None);
    story.end().await;
}

#[tokio::test]
async fn section_5_a_timer_pushes_by_itself() {
    let story = Story::begin_with(SyncConfig {
        push_interval_s: 1,
        ..by_hand()
    })
    .await;
    story.b.meet(&story.a).await;
    let mut changes = story.b.engine.changes();
    story.a.send(story.b.identity, "Hi").await;
    while story.b.inbox().await.is_empty() {
        changes.changed().await.unwrap();
    }
    assert_eq!(story.b.inbox().await[0].body, "Hi");
    story.end().await;
}

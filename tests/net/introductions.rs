//! Introductions over live sessions: members whose nodes share one peer reach each other.

use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use bastion::{Features, GateConfig, Tier};
use harness::needles::forms;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::recorded::RecordedTransport;
use harness::{LiveNode, Setup, Wiring, conversation, manual_sync, message};
use keys::{Oid, codec};
use postern::config::SyncConfig;
use postern::graph::{AcceptPolicy, GraphManager};
use postern::peer::message::{Introduce, Introduced, SessionMessage};
use postern::services::{conversations, invitations};
use postern::state_engine::CoreLimits;

const MESSAGES: &str = "messages";

fn sync() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        introduce_look_ms: 20,
        introduce_delay_ms_max: 0,
        introduce_repeat_s_max: 0,
        ..manual_sync()
    }
}

/// A way to other nodes with every feature, with this effort of the puzzles.
fn wiring(net: &MemoryNet, effort: u64) -> Wiring {
    let plain = Wiring::plain(net);
    let gate = GateConfig {
        features: Features::from_iter(bastion::Feature::ALL),
        effort_idle: effort,
        effort_base: effort,
        ..plain.gate
    };
    Wiring { gate, ..plain }
}

fn node_of(net: &MemoryNet, name: &str, seed: u64, effort: u64) -> LiveNode {
    let setup = Setup::seeded(name, seed).sync(sync());
    setup.live_over(wiring(net, effort))
}

fn node(net: &MemoryNet, name: &str, seed: u64) -> LiveNode {
    node_of(net, name, seed, 4)
}

async fn wait_for(node: &LiveNode, is_so: impl Fn(&LiveNode) -> bool) {
    let mut changes = node.engine.changes();
    while !is_so(node) {
        changes.changed().await.unwrap();
    }
}

/// Bob's node meets the others, and he founds a conversation of all.
async fn found(bob: &LiveNode, others: [&LiveNode; 2]) -> Oid {
    for other in others {
        other.meet(bob).await;
        other.pull_everything(bob).await;
        bob.pull_everything(other).await;
    }
    let people = [bob.identity, others[0].identity, others[1].identity];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    for other in others {
        wait_for(other, |node| node.parent(MESSAGES, talk).is_some()).await;
    }
    talk
}

async fn stop(nodes: impl IntoIterator<Item = LiveNode>) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn members_with_one_common_peer_reach_each_other_and_stay_untrusted() {
    let net = MemoryNet::new();
    let [alice, bob, carol] =
        [("Alice", 1), ("Bob", 2), ("Carol", 4)].map(|(name, seed)| node(&net, name, seed));
    let talk = found(&bob, [&alice, &carol]).await;
    for node in [&alice, &bob, &carol] {
        node.dialler.keep_introducing(|| true);
    }
    alice.wait_for_session(&carol.peer_id()).await;
    carol.wait_for_session(&alice.peer_id()).await;
    for (at, of) in [(&alice, &carol), (&carol, &alice)] {
        let sessions = at.peers.registry().sessions();
        let tier = sessions.iter().find(|it| it.peer == of.peer_id()).unwrap();
        assert_eq!(tier.tier, Tier::Untrusted);
        assert_eq!(at.stored_peer(of).unwrap().tier, Tier::Untrusted);
    }
    bob.stop().await;
    for (from, to) in [(&alice, &carol), (&carol, &alice)] {
        let text = format!("from {}", from.identity.to_hex());
        from.make(MESSAGES, 2, message(talk, &text)).unwrap();
        let expected = (from.identity, text);
        wait_for(to, |node| node.texts().contains(&expected)).await;
    }
    stop([alice, carol]).await;
}

/// Bob's identity moves from the common peer to a node that no other member knows.
#[tokio::test]
async fn identity_that_moved_reaches_the_members_that_its_old_home_knows() {
    let net = MemoryNet::new();
    let [alice, old, carol, new] = [("Alice", 1), ("Bob", 2), ("Carol", 4), ("New", 6)]
        .map(|(name, seed)| node(&net, name, seed));
    let talk = found(&old, [&alice, &carol]).await;
    let bob = old.identity;
    new.meet(&old).await;
    new.pull_everything(&old).await;
    old.pull_everything(&new).await;
    for node in [&alice, &old, &carol] {
        node.dialler.keep_introducing(|| true);
    }
    let members = [alice.peer_id(), carol.peer_id()];
    let knows = |node: &LiveNode, peer| node.read(move |view| view.rows.address(&peer)).is_some();
    // The addresses have no `change_seq`.
    while !members.iter().all(|peer| knows(&old, *peer)) {
        tokio::task::yield_now().await;
    }
    new.receive(&old, bob);
    new.dialler.keep_introducing(|| true);
    for peer in &members {
        new.wait_for_session(peer).await;
    }
    for node in [&alice, &carol] {
        wait_for(node, |node| node.home_of(bob) == Some(new.peer_id())).await;
    }
    old.stop().await;
    new.graph(move |graph| conversations::send(graph, talk, bob, "from here").map(drop))
        .unwrap();
    let expected = (bob, "from here".to_owned());
    for node in [&alice, &carol] {
        wait_for(node, |node| node.texts().contains(&expected)).await;
    }
    stop([alice, carol, new]).await;
}

#[tokio::test]
async fn node_that_asks_for_much_work_is_not_dialled_to_the_end() {
    let net = MemoryNet::new();
    let (alice, bob) = (node(&net, "Alice", 1), node(&net, "Bob", 2));
    let carol = node_of(&net, "Carol", 4, 8192);
    found(&bob, [&alice, &carol]).await;
    for node in [&alice, &bob] {
        node.dialler.keep_introducing(|| true);
    }
    let peer = carol.peer_id();
    // The result of a dial has no `change_seq`.
    let failures = || {
        let row = alice.read(move |view| view.rows.introduction(&peer));
        row.map_or(0, |row| row.failures)
    };
    while failures() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!alice.has_session(&peer));
    stop([alice, bob, carol]).await;
}

/// The operator accepts the invitation to a conversation.
fn accept(node: &LiveNode, talk: Oid) {
    let accept = move |graph: &mut GraphManager<'_>| {
        invitations::accept(graph, MESSAGES, talk, None).map(drop)
    };
    node.graph(accept).unwrap();
}

/// Alice does not accept. Carol's node hears of neither her onion address nor her other identity,
/// although the nodes of Bob and Dora know both from another conversation.
#[tokio::test]
async fn bytes_that_a_member_receives_do_not_name_the_node_of_one_that_did_not_accept() {
    let net = MemoryNet::new();
    let mut limits = CoreLimits::default();
    limits.graph.accept = AcceptPolicy::Ask;
    let asks = Setup::seeded("Alice", 1).limits(limits).sync(sync());
    let alice = asks.live_over(wiring(&net, 4));
    let [bob, dora, eve] =
        [("Bob", 2), ("Dora", 3), ("Eve", 5)].map(|(name, seed)| node(&net, name, seed));
    let recorded = RecordedTransport::new(&net);
    let carol = Setup::seeded("Carol", 4).sync(sync()).live_over(Wiring {
        transport: Arc::new(recorded.clone()),
        ..wiring(&net, 4)
    });
    let other = alice.another("Other", 9);
    for node in [&alice, &carol, &dora, &eve] {
        node.meet(&bob).await;
        node.pull_everything(&bob).await;
        bob.pull_everything(node).await;
    }
    let people = [bob.identity, dora.identity, other];
    let elsewhere = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    wait_for(&alice, |node| node.parent(MESSAGES, elsewhere).is_some()).await;
    accept(&alice, elsewhere);
    let people = [&bob, &alice, &carol, &dora].map(|node| node.identity);
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    for node in [&alice, &carol, &dora] {
        wait_for(node, |node| node.parent(MESSAGES, talk).is_some()).await;
    }
    for node in [&alice, &bob, &carol, &dora, &eve] {
        node.dialler.keep_introducing(|| true);
    }
    dora.wait_for_session(&alice.peer_id()).await;
    // Dora and Eve accepted, so that Carol's node learns their addresses. Eve comes after all nodes
    // had the time to ask for Alice's.
    carol.wait_for_session(&dora.peer_id()).await;
    bob.add_member(talk, eve.identity).unwrap();
    carol.wait_for_session(&eve.peer_id()).await;
    let dial = [
        forms("address", alice.onion().public_key().as_bytes()),
        forms("other identity", other.as_bytes()),
    ];
    assert_eq!(recorded.found(&dial.concat()), Vec::<String>::new());
    // The search finds both as soon as they may be there.
    let known = forms("Dora", dora.onion().public_key().as_bytes());
    assert_ne!(recorded.found(&known), Vec::<String>::new());
    accept(&alice, talk);
    carol.wait_for_session(&alice.peer_id()).await;
    assert_ne!(recorded.found(&dial[0]), Vec::<String>::new());
    stop([alice, bob, carol, dora, eve]).await;
}

fn introduce(id: u64, scope: Oid) -> SessionMessage {
    SessionMessage::Introduce(Introduce {
        id,
        after: None,
        scope,
        domain: MESSAGES.into(),
    })
}

#[tokio::test]
async fn peer_that_is_no_member_learns_no_address() {
    let net = MemoryNet::new();
    let [alice, bob, carol] =
        [("Alice", 1), ("Bob", 2), ("Carol", 4)].map(|(name, seed)| node(&net, name, seed));
    let talk = found(&bob, [&alice, &carol]).await;
    let features = Features::from_iter([bastion::Feature::Introduce]);
    let mut session = RawClient::offering(9, features)
        .dial(&net, &bob)
        .await
        .unwrap();
    for (id, scope) in [(1, talk), (2, Oid::from_bytes([7; 16]))] {
        send(&mut session, &introduce(id, scope)).await;
        let reply = loop {
            match receive(&mut session).await.unwrap() {
                SessionMessage::Introduced(reply) => break reply,
                _ => continue,
            }
        };
        let nothing = Introduced {
            id,
            body: codec::encode::<[u8; 0]>(&[]),
            next: None,
        };
        assert_eq!(reply, nothing);
    }
    stop([alice, bob, carol]).await;
}

#[tokio::test]
async fn question_without_the_feature_ends_the_session() {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1);
    let mut session = RawClient::new(9).dial(&net, &alice).await.unwrap();
    send(&mut session, &introduce(1, Oid::from_bytes([7; 16]))).await;
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

//! Introductions over live sessions: members whose nodes share one peer reach each other.

use bastion::transport::memory::MemoryNet;
use bastion::{Features, GateConfig, Tier};
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, Wiring, conversation, manual_sync, message};
use keys::{Oid, codec};
use postern::config::SyncConfig;
use postern::peer::message::{Introduce, Introduced, SessionMessage};

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

/// A node that offers every feature, with this effort of its puzzles.
fn node_of(net: &MemoryNet, name: &str, seed: u64, effort: u64) -> LiveNode {
    let plain = Wiring::plain(net);
    let gate = GateConfig {
        features: Features::from_iter(bastion::Feature::ALL),
        effort_idle: effort,
        effort_base: effort,
        ..plain.gate
    };
    let setup = Setup::seeded(name, seed).sync(sync());
    setup.live_over(Wiring { gate, ..plain })
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

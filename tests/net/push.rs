//! Pushes between live nodes, of which the receiver does not pull.

use std::collections::BTreeMap;

use bastion::transport::memory::MemoryNet;
use harness::{LiveNode, Setup, conversation, manual_sync, message};
use postern::config::SyncConfig;
use postern::state_engine::CoreLimits;

const DOMAIN: &str = "messages";

/// Alice, who pushes messages to Bob as soon as they are written.
fn alice(net: &MemoryNet, bob: &LiveNode) -> LiveNode {
    pushing("Alice", 1, bob).live(net)
}

/// A node that pushes messages to another as soon as they are written.
fn pushing(name: &str, seed: u64, to: &LiveNode) -> Setup {
    let outbox = BTreeMap::from([(to.onion(), vec![DOMAIN.to_owned()])]);
    let sync = SyncConfig {
        outbox,
        ..manual_sync()
    };
    Setup::seeded(name, seed).sync(sync)
}

async fn wait_for_texts(node: &LiveNode, count: usize) {
    while node.texts().len() < count {
        tokio::task::yield_now().await;
    }
}

async fn wait_until_acknowledged(node: &LiveNode) {
    while !node.rows("sync_outbox").is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn peer_without_pulls_receives_a_message_by_outbox() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let alice = alice(&net, &bob);
    bob.meet(&alice).await;
    for count in 1..=3 {
        alice.send(bob.identity, "Hi");
        wait_for_texts(&bob, count).await;
        wait_until_acknowledged(&alice).await;
    }
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peer_receives_in_its_next_session_what_was_written_meanwhile() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let alice = alice(&net, &bob);
    bob.meet(&alice).await;
    let away = bob.stop().await;
    alice.send(away.identity(), "Hi");
    let alice = alice.restart(&net).await;
    assert_eq!(alice.rows("sync_outbox").len(), 1);
    let bob = away.live(&net);
    bob.meet(&alice).await;
    wait_for_texts(&bob, 1).await;
    wait_until_acknowledged(&alice).await;
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peer_without_pulls_receives_a_message_by_timer() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let sync = SyncConfig {
        push_interval_s: 1,
        ..manual_sync()
    };
    let alice = Setup::seeded("Alice", 1).sync(sync).live(&net);
    bob.meet(&alice).await;
    alice.send(bob.identity, "Hi");
    wait_for_texts(&bob, 1).await;
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn late_member_without_pulls_receives_the_history() {
    let net = MemoryNet::new();
    let bob = LiveNode::start(&net, "Bob", 2);
    let alice = alice(&net, &bob);
    let others = [alice.another("Dora", 11), alice.another("Eve", 12)];
    bob.meet(&alice).await;
    let talk = alice.found(&others, "Hiking");
    for text in ["one", "two", "three"] {
        alice.say(talk, text).unwrap();
    }
    wait_until_acknowledged(&alice).await;
    assert!(bob.texts().is_empty());
    alice.add_member(talk, bob.identity).unwrap();
    wait_for_texts(&bob, 3).await;
    assert!(bob.rejects().is_empty());
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn node_without_pulls_receives_what_found_no_room() {
    let net = MemoryNet::new();
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 2;
    let carol = Setup::seeded("Carol", 3).limits(limits).live(&net);
    let alice = pushing("Alice", 1, &carol).live(&net);
    let bob = pushing("Bob", 2, &carol).live(&net);
    bob.meet(&alice).await;
    carol.meet(&bob).await;
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make(DOMAIN, 1, conversation(&people)).unwrap();
    bob.pull_everything(&alice).await;
    for number in 0..6 {
        let text = format!("message {number}");
        bob.make(DOMAIN, 2, message(talk.oid, &text)).unwrap();
    }
    wait_until_acknowledged(&bob).await;
    assert_eq!((carol.texts().len(), carol.rows("waiting").len()), (0, 2));
    // Alice brings the conversation, and the rest may come now.
    carol.meet(&alice).await;
    wait_for_texts(&carol, 2).await;
    let bob = bob.restart(&net).await;
    bob.meet(&carol).await;
    wait_for_texts(&carol, 6).await;
    assert!(carol.rejects().is_empty());
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

/// One commit wakes the pull that waits and the push. The second package changes nothing, and is
/// no fault.
#[tokio::test]
async fn push_beside_a_waiting_pull_is_harmless() {
    let net = MemoryNet::new();
    let sync = SyncConfig {
        pull_interval_s: 1,
        pull_wait_s: 60,
        backoff_s_min: 600,
        backoff_s_max: 600,
        ..manual_sync()
    };
    let bob = Setup::seeded("Bob", 2).sync(sync).live(&net);
    let alice = alice(&net, &bob);
    bob.meet(&alice).await;
    for count in 1..=20 {
        alice.send(bob.identity, "Hi");
        wait_for_texts(&bob, count).await;
    }
    wait_until_acknowledged(&alice).await;
    // Without pushes the pull alone brings the next message. A fault would have put it off.
    alice
        .write(|core, now| core.plan_outbox(now, &BTreeMap::new()))
        .unwrap();
    alice.send(bob.identity, "Hi");
    wait_for_texts(&bob, 21).await;
    assert!(bob.rejects().is_empty());
    alice.stop().await;
    bob.stop().await;
}

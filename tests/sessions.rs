//! Sessions over memory pipes: what two admitted nodes do with each other, and what they do not put up with.

#[path = "common/live.rs"]
mod live;

use bastion::transport::memory::MemoryNet;
use live::{ALL_APPS, LiveNode, WITHOUT_MARKET, by_hand};
use postern::config::SyncConfig;
use postern::peer::SyncError;

async fn two_nodes(net: &MemoryNet, sync: SyncConfig) -> (LiveNode, LiveNode) {
    let alice = LiveNode::start(net, "Alice", 1, &ALL_APPS, sync.clone()).await;
    let bob = LiveNode::start(net, "Bob", 2, &WITHOUT_MARKET, sync).await;
    (alice, bob)
}

#[tokio::test]
async fn a_message_reaches_the_other_node_by_a_pull() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    bob.meet(&alice).await;
    let sent = alice.send(bob.identity, "Hi").await;
    let outcomes = bob.pull(&alice, "messages").await;
    let last = outcomes.last().unwrap();
    assert_eq!(
        (last.window.unwrap().from_seq, last.window.unwrap().to_seq),
        (0, sent.change_seq)
    );
    assert_eq!(
        (last.applied.written, last.applied.rejected, last.applied.parked),
        (2, 0, 0)
    );
    let inbox = bob.inbox().await;
    assert_eq!(inbox.len(), 1);
    assert_eq!(
        (inbox[0].oid, inbox[0].sender, inbox[0].body.as_str()),
        (sent.oid, alice.identity, "Hi")
    );
    assert_eq!(bob.pull(&alice, "messages").await[0].window, None, "nothing new");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_push_is_acknowledged_and_mixes_with_pulls() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    bob.meet(&alice).await;
    let first = alice.send(bob.identity, "one").await;
    let pushed = alice.peers.push(&bob.peer_id(), "messages").await.unwrap();
    assert_eq!((pushed[0].objects, pushed[0].acked_seq), (2, first.change_seq));
    let second = alice.send(bob.identity, "two").await;
    let pulled = bob.pull(&alice, "messages").await;
    assert_eq!(pulled[0].window.unwrap().from_seq, first.change_seq + 1);
    assert_eq!(pulled[0].applied.written, 1);
    // The push does not know yet that the pull has brought it: the repeat is acknowledged and writes nothing.
    let again = alice.peers.push(&bob.peer_id(), "messages").await.unwrap();
    assert_eq!(again[0].acked_seq, second.change_seq);
    assert_eq!(bob.inbox().await.len(), 2);
    assert_eq!(
        alice.peers.push(&bob.peer_id(), "messages").await.unwrap()[0].window,
        None
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_waiting_pull_brings_a_message_at_once() {
    let net = MemoryNet::new();
    let live = SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        ..by_hand()
    };
    let (alice, bob) = two_nodes(&net, live).await;
    bob.meet(&alice).await;
    let mut changes = bob.engine.changes();
    alice.send(bob.identity, "now").await;
    while bob.inbox().await.is_empty() {
        changes.changed().await.unwrap();
    }
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_domain_that_is_not_shared_is_answered_like_an_empty_one() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    bob.meet(&alice).await;
    let (alice_peer, bob_peer) = (alice.peer_id(), bob.peer_id());
    let before = alice.read(move |view| view.rows.sync_states(&bob_peer)).await;
    let outcomes = bob.pull(&alice, "market.public_offers").await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!((outcomes[0].window, outcomes[0].applied.last_seq), (None, 0));
    assert_eq!(alice.read(move |view| view.rows.sync_states(&bob_peer)).await, before);
    assert_eq!(bob.read(move |view| view.rows.sync_states(&alice_peer)).await, []);
    let refused = alice.peers.push(&bob_peer, "market.public_offers").await.unwrap_err();
    assert!(matches!(refused, SyncError::NotShared(_)));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn two_that_dial_each_other_keep_one_session() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    let (there, back) = (alice.onion(), bob.onion());
    let dials = tokio::join!(bob.dialler.dial(&there, &|_| {}), alice.dialler.dial(&back, &|_| {}));
    dials.0.unwrap();
    dials.1.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    bob.wait_for_session(&alice.peer_id()).await;
    alice.send(bob.identity, "Hi").await;
    // Whichever session stays, it works; while the other one ends, a request may find it over.
    while bob.inbox().await.is_empty() {
        let _ = bob.peers.pull(&alice.peer_id(), "messages").await;
        tokio::task::yield_now().await;
    }
    assert_eq!((alice.peers.sessions().len(), bob.peers.sessions().len()), (1, 1));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_cut_stream_is_dialled_again() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    bob.dialler.keep(alice.onion());
    bob.wait_for_session(&alice.peer_id()).await;
    let (_, over) = bob.peers.session_at(&alice.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    bob.wait_for_session(&alice.peer_id()).await;
    alice.stop().await;
    bob.stop().await;
}

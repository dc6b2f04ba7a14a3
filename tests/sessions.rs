//! Sessions over memory pipes: what two admitted nodes do with each other, and what they do not put up with.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/live.rs"]
mod live;
#[path = "common/stranger.rs"]
mod stranger;

use bastion::Progress;
use bastion::transport::memory::MemoryNet;
use live::{ALL_APPS, LiveNode, Setup, WITHOUT_MARKET, boot_id, by_hand};
use parking_lot::Mutex;
use postern::config::SyncConfig;
use postern::peer::SyncError;
use postern::peer::message::Message;
use stranger::{Stranger, goodbye, hear, say};

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
        (
            last.applied.written,
            last.applied.rejected,
            last.applied.parked
        ),
        (2, 0, 0)
    );
    let inbox = bob.inbox().await;
    assert_eq!(inbox.len(), 1);
    assert_eq!(
        (inbox[0].oid, inbox[0].sender, inbox[0].body.as_str()),
        (sent.oid, alice.identity, "Hi")
    );
    assert_eq!(
        bob.pull(&alice, "messages").await[0].window,
        None,
        "nothing new"
    );
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
    assert_eq!(
        (pushed[0].objects, pushed[0].acked_seq),
        (2, first.change_seq)
    );
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
    let before = alice
        .read(move |view| view.rows.sync_states(&bob_peer))
        .await;
    let outcomes = bob.pull(&alice, "market.public_offers").await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(
        (outcomes[0].window, outcomes[0].applied.last_seq),
        (None, 0)
    );
    assert_eq!(
        alice
            .read(move |view| view.rows.sync_states(&bob_peer))
            .await,
        before
    );
    assert_eq!(
        bob.read(move |view| view.rows.sync_states(&alice_peer))
            .await,
        []
    );
    let refused = alice
        .peers
        .push(&bob_peer, "market.public_offers")
        .await
        .unwrap_err();
    assert!(matches!(refused, SyncError::NotShared(_)));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn two_that_dial_each_other_keep_one_session() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, by_hand()).await;
    let (there, back) = (alice.onion(), bob.onion());
    let dials = tokio::join!(
        bob.dialler.dial(&there, &|_| {}),
        alice.dialler.dial(&back, &|_| {})
    );
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
    assert_eq!(
        (alice.peers.sessions().len(), bob.peers.sessions().len()),
        (1, 1)
    );
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

/// Seeds of two nodes of which the first has the smaller peer id.
fn by_peer_id() -> (u64, u64) {
    if Stranger::new(1).peer_id() < Stranger::new(2).peer_id() {
        (1, 2)
    } else {
        (2, 1)
    }
}

fn quick() -> SyncConfig {
    SyncConfig {
        ping_interval_s: 1,
        ..by_hand()
    }
}

#[tokio::test]
async fn a_session_that_would_stay_has_to_show_that_it_lives() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    let large = LiveNode::start(&net, "Large", large, &ALL_APPS, quick()).await;
    let node = LiveNode::start(&net, "Small", small, &ALL_APPS, quick()).await;
    // The small node's own stream, of which nobody takes care any more on its side.
    let dead = Stranger::with_boot(small, boot_id(small, 0));
    let _kept_open = dead.dial(&net, &large).await.unwrap();
    large.wait_for_session(&node.peer_id()).await;
    large.dialler.dial(&node.onion(), &|_| {}).await.unwrap();
    while !large
        .peers
        .sessions()
        .iter()
        .any(|session| session.we_dialled)
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(large.peers.sessions().len(), 1);
    large.pull(&node, "identities").await;
    node.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn a_session_that_lives_stays_and_the_other_hears_that_it_is_the_second() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    let large = LiveNode::start(&net, "Large", large, &ALL_APPS, quick()).await;
    let listening = LiveNode::start(&net, "Small", small, &ALL_APPS, by_hand()).await;
    let living = Stranger::with_boot(small, boot_id(small, 0));
    let mut session = living.dial(&net, &large).await.unwrap();
    large.wait_for_session(&living.peer_id()).await;
    large
        .dialler
        .dial(&listening.onion(), &|_| {})
        .await
        .unwrap();
    let Some(Message::Ping(ping)) = hear(&mut session).await else {
        panic!("it was not asked for a sign of life");
    };
    say(&mut session, &Message::Pong(ping)).await;
    listening.wait_for_session(&large.peer_id()).await;
    let (_, over) = listening.peers.session_at(&large.onion()).unwrap();
    over.cancelled().await;
    say(&mut session, &living.pull(1)).await;
    while !matches!(hear(&mut session).await.unwrap(), Message::UpToDate(_)) {}
    let sessions = large.peers.sessions();
    assert_eq!((sessions.len(), sessions[0].we_dialled), (1, false));
    listening.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn a_node_that_has_restarted_is_not_locked_out_by_its_old_session() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    // An hour until anybody is asked for a sign of life: the boot id alone must do.
    let patient = SyncConfig {
        ping_interval_s: 3600,
        silence_s_max: 7200,
        ..by_hand()
    };
    let large = LiveNode::start(&net, "Large", large, &ALL_APPS, patient).await;
    let before = Stranger::with_boot(small, boot_id(small, 0));
    let mut old = before.dial(&net, &large).await.unwrap();
    large.wait_for_session(&before.peer_id()).await;
    let again = Setup {
        start: 1,
        ..Setup::new(by_hand())
    };
    let node = LiveNode::set_up(&net, "Small", small, &ALL_APPS, again);
    // Also where the large one dials, whose sessions otherwise give way.
    large.dialler.dial(&node.onion(), &|_| {}).await.unwrap();
    assert_eq!(goodbye(&mut old).await, "duplicate");
    large.pull(&node, "identities").await;
    node.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn a_dial_is_shown_for_as_long_as_it_lasts() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1, &ALL_APPS, by_hand()).await;
    let bob = LiveNode::start(&net, "Bob", 2, &WITHOUT_MARKET, by_hand()).await;
    let shown = Mutex::new(Vec::new());
    let look = |step| {
        let underway = bob.dialler.underway();
        assert_eq!(underway, [(alice.onion(), step)]);
        shown.lock().push(step);
    };
    bob.dialler.dial(&alice.onion(), &look).await.unwrap();
    assert_eq!(shown.lock().first(), Some(&Progress::Dialling));
    assert!(bob.dialler.underway().is_empty());
    alice.stop().await;
    bob.stop().await;
}

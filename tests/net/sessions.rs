//! Sessions between two admitted nodes: pulls, pushes, duplicate sessions and lost streams.

use bastion::Progress;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, NO_MARKET, Setup, boot_id, manual_sync};
use parking_lot::Mutex;
use postern::config::SyncConfig;
use postern::peer::SyncError;
use postern::peer::message::SessionMessage;

fn two_nodes(net: &MemoryNet, sync: SyncConfig) -> (LiveNode, LiveNode) {
    let alice = Setup::seeded("Alice", 1).sync(sync.clone()).live(net);
    let bob = Setup::seeded("Bob", 2)
        .apps(&NO_MARKET)
        .sync(sync)
        .live(net);
    (alice, bob)
}

#[tokio::test]
async fn pull_delivers_a_new_message() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, manual_sync());
    bob.meet(&alice).await;
    let sent = alice.send(bob.identity, "Hi");
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
            last.applied.waiting
        ),
        (2, 0, 0)
    );
    let inbox = bob.inbox();
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
async fn push_is_acknowledged_and_mixes_with_pulls() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, manual_sync());
    bob.meet(&alice).await;
    let first = alice.send(bob.identity, "one");
    let pushed = alice.peers.push(&bob.peer_id(), "messages").await.unwrap();
    assert_eq!(
        (pushed[0].objects, pushed[0].acked_seq),
        (2, first.change_seq)
    );
    let second = alice.send(bob.identity, "two");
    let pulled = bob.pull(&alice, "messages").await;
    assert_eq!(pulled[0].window.unwrap().from_seq, first.change_seq + 1);
    assert_eq!(pulled[0].applied.written, 1);
    // Alice does not know that the pull delivered this message. Bob acknowledges the repeated
    // object and writes nothing.
    let again = alice.peers.push(&bob.peer_id(), "messages").await.unwrap();
    assert_eq!(again[0].acked_seq, second.change_seq);
    assert_eq!(bob.inbox().len(), 2);
    assert_eq!(
        alice.peers.push(&bob.peer_id(), "messages").await.unwrap()[0].window,
        None
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn waiting_pull_delivers_a_new_message_at_once() {
    let net = MemoryNet::new();
    let live = SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        ..manual_sync()
    };
    let (alice, bob) = two_nodes(&net, live);
    bob.meet(&alice).await;
    let mut changes = bob.engine.changes();
    alice.send(bob.identity, "now");
    while bob.inbox().is_empty() {
        changes.changed().await.unwrap();
    }
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn unshared_domain_looks_like_an_empty_domain() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, manual_sync());
    bob.meet(&alice).await;
    let (alice_peer, bob_peer) = (alice.peer_id(), bob.peer_id());
    let before = alice.read(move |view| view.rows.sync_states(&bob_peer));
    let outcomes = bob.pull(&alice, "market.public_offers").await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(
        (outcomes[0].window, outcomes[0].applied.last_seq),
        (None, 0)
    );
    assert_eq!(
        alice.read(move |view| view.rows.sync_states(&bob_peer)),
        before
    );
    assert_eq!(bob.read(move |view| view.rows.sync_states(&alice_peer)), []);
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
async fn two_nodes_that_dial_each_other_keep_one_session() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, manual_sync());
    let (there, back) = (alice.onion(), bob.onion());
    let dials = tokio::join!(
        bob.dialler.dial(&there, &|_| {}),
        alice.dialler.dial(&back, &|_| {})
    );
    dials.0.unwrap();
    dials.1.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    bob.wait_for_session(&alice.peer_id()).await;
    alice.send(bob.identity, "Hi");
    // Either session may stay. A pull fails if its session has just ended as the duplicate.
    while bob.inbox().is_empty() {
        let _ = bob.peers.pull(&alice.peer_id(), "messages").await;
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (
            alice.peers.registry().sessions().len(),
            bob.peers.registry().sessions().len()
        ),
        (1, 1)
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn dialler_opens_a_new_session_after_a_cut_stream() {
    let net = MemoryNet::new();
    let (alice, bob) = two_nodes(&net, manual_sync());
    bob.dialler.keep(alice.onion());
    bob.wait_for_session(&alice.peer_id()).await;
    let over = bob.peers.registry().session_at(&alice.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    bob.wait_for_session(&alice.peer_id()).await;
    alice.stop().await;
    bob.stop().await;
}

/// Seeds 1 and 2, first that of the node with the smaller peer id.
fn by_peer_id() -> (u64, u64) {
    if RawClient::new(1).peer_id() < RawClient::new(2).peer_id() {
        (1, 2)
    } else {
        (2, 1)
    }
}

fn quick() -> SyncConfig {
    SyncConfig {
        ping_interval_s: 1,
        ..manual_sync()
    }
}

#[tokio::test]
async fn session_that_answers_no_ping_loses_to_its_duplicate() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    let large = Setup::seeded("Large", large).sync(quick()).live(&net);
    let node = Setup::seeded("Small", small).sync(quick()).live(&net);
    // A stream of the small node that its owner no longer reads.
    let dead = RawClient::with_boot(small, boot_id(small, 0));
    let _kept_open = dead.dial(&net, &large).await.unwrap();
    large.wait_for_session(&node.peer_id()).await;
    large.dialler.dial(&node.onion(), &|_| {}).await.unwrap();
    while !large
        .peers
        .registry()
        .sessions()
        .iter()
        .any(|session| session.we_dialled)
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(large.peers.registry().sessions().len(), 1);
    large.pull(&node, "identities").await;
    node.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn session_that_answers_a_ping_wins_over_its_duplicate() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    let large = Setup::seeded("Large", large).sync(quick()).live(&net);
    let listener = LiveNode::start(&net, "Small", small);
    let alive = RawClient::with_boot(small, boot_id(small, 0));
    let mut session = alive.dial(&net, &large).await.unwrap();
    large.wait_for_session(&alive.peer_id()).await;
    large
        .dialler
        .dial(&listener.onion(), &|_| {})
        .await
        .unwrap();
    let Some(SessionMessage::Ping(ping)) = receive(&mut session).await else {
        panic!("the session was not pinged");
    };
    listener.wait_for_session(&large.peer_id()).await;
    let over = listener
        .peers
        .registry()
        .session_at(&large.onion())
        .unwrap();
    send(&mut session, &SessionMessage::Pong(ping)).await;
    over.cancelled().await;
    send(&mut session, &alive.pull(1, "rides.offers")).await;
    while !matches!(
        receive(&mut session).await.unwrap(),
        SessionMessage::UpToDate(_)
    ) {}
    let sessions = large.peers.registry().sessions();
    assert_eq!((sessions.len(), sessions[0].we_dialled), (1, false));
    listener.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn session_of_a_new_boot_id_replaces_the_old_session() {
    let net = MemoryNet::new();
    let (small, large) = by_peer_id();
    // No ping is due for an hour, so the boot id alone must decide.
    let patient = SyncConfig {
        ping_interval_s: 3600,
        silence_s_max: 7200,
        ..manual_sync()
    };
    let large = Setup::seeded("Large", large).sync(patient).live(&net);
    let before = RawClient::with_boot(small, boot_id(small, 0));
    let mut old = before.dial(&net, &large).await.unwrap();
    large.wait_for_session(&before.peer_id()).await;
    let node = Setup::seeded("Small", small).start_number(1).live(&net);
    // The session that the larger peer id dialled would lose if the boot ids were equal.
    large.dialler.dial(&node.onion(), &|_| {}).await.unwrap();
    assert_eq!(receive_bye(&mut old).await, "duplicate");
    large.pull(&node, "identities").await;
    node.stop().await;
    large.stop().await;
}

#[tokio::test]
async fn dialler_lists_a_dial_while_it_is_under_way() {
    let net = MemoryNet::new();
    let alice = LiveNode::start(&net, "Alice", 1);
    let bob = Setup::seeded("Bob", 2).apps(&NO_MARKET).live(&net);
    let steps = Mutex::new(Vec::new());
    let note = |step| {
        let underway = bob.dialler.underway();
        assert_eq!(underway, [(alice.onion(), step)]);
        steps.lock().push(step);
    };
    bob.dialler.dial(&alice.onion(), &note).await.unwrap();
    assert_eq!(steps.lock().first(), Some(&Progress::Dialling));
    assert!(bob.dialler.underway().is_empty());
    alice.stop().await;
    bob.stop().await;
}

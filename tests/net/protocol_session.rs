//! Statements of docs/PROTOCOL.md 4 about requests and replies, against a live node.

use bastion::transport::memory::MemoryNet;
use bastion::{Features, Session};
use harness::profile::EPOCH;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, Setup, manual_sync};
use postern::peer::message::{IdOnly, PackageBody, Pull, SessionMessage, UpToDate};
use postern::state_engine::Package;
use tokio_util::sync::CancellationToken;

/// A node, and a session with an admitted client.
async fn node_and_client(net: &MemoryNet) -> (LiveNode, RawClient, Session) {
    let alice = Setup::seeded("Alice", 1).sync(manual_sync()).live(net);
    let client = RawClient::new(9);
    let session = client.dial(net, &alice).await.unwrap();
    alice.wait_for_session(&client.peer_id()).await;
    (alice, client, session)
}

/// A pull of identities after `last_seq` in the node's epoch.
fn pull(id: u64, client: &RawClient, alice: &LiveNode, last_seq: u64, wait_s: u32) -> Pull {
    Pull {
        id,
        again: None,
        epoch: Some(alice.engine.context().epoch),
        domain: "identities".into(),
        wait_s,
        peer_id: client.peer_id(),
        last_seq,
    }
}

#[tokio::test]
async fn reply_of_another_kind_ends_the_session() {
    let net = MemoryNet::new();
    let (alice, client, mut session) = node_and_client(&net).await;
    let (peers, peer) = (alice.peers.clone(), client.peer_id());
    let pulling = tokio::spawn(async move { peers.pull(&peer, "identities").await });
    let SessionMessage::Pull(Pull { id, .. }) = receive(&mut session).await.unwrap() else {
        panic!("not a pull")
    };
    send(&mut session, &SessionMessage::Noted(IdOnly { id })).await;
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    pulling.await.unwrap().unwrap_err();
    alice.stop().await;
}

#[tokio::test]
async fn id_in_flight_cannot_be_used_twice() {
    let net = MemoryNet::new();
    let (alice, client, mut session) = node_and_client(&net).await;
    let pulls = |last_seq, wait_s| {
        let pull = pull(1, &client, &alice, last_seq, wait_s);
        SessionMessage::Pull(pull)
    };
    // After its reply an id is free.
    for _ in 0..2 {
        send(&mut session, &pulls(alice.head(), 0)).await;
        let reply = receive(&mut session).await.unwrap();
        assert!(matches!(reply, SessionMessage::UpToDate(_)), "{reply:?}");
    }
    for _ in 0..2 {
        send(&mut session, &pulls(alice.head(), 60)).await;
    }
    assert_eq!(receive_bye(&mut session).await, "misbehaviour");
    alice.stop().await;
}

/// A push of an empty package that moves the cursor of identities up to `to_seq`.
fn push(
    id: u64,
    client: &RawClient,
    alice: &LiveNode,
    (from_seq, to_seq): (u64, u64),
) -> SessionMessage {
    let package = Package {
        stubs: None,
        more: false,
        epoch: EPOCH,
        domain: "identities".into(),
        scopes: Some(Vec::new()),
        sender: client.peer_id(),
        to_seq,
        objects: Vec::new(),
        version: 1,
        from_seq,
        recipient: alice.peer_id(),
    };
    let body = package.sign(&client.keys, &Features::none());
    SessionMessage::Push(PackageBody { id, body })
}

#[tokio::test]
async fn last_seq_of_each_answer() {
    let net = MemoryNet::new();
    let (alice, client, mut session) = node_and_client(&net).await;
    let epoch = alice.engine.context().epoch;
    for last_seq in [alice.head(), alice.head() + 7] {
        let pull = pull(1, &client, &alice, last_seq, 0);
        send(&mut session, &SessionMessage::Pull(pull)).await;
        let repeated = UpToDate {
            id: 1,
            epoch,
            last_seq,
        };
        let reply = receive(&mut session).await.unwrap();
        assert_eq!(reply, SessionMessage::UpToDate(repeated));
    }
    // The window, and the receiver's cursor after it.
    for (window, after) in [((0, 4), 4), ((5, 9), 9), ((0, 4), 9)] {
        send(&mut session, &push(2, &client, &alice, window)).await;
        let held = UpToDate {
            id: 2,
            epoch: EPOCH,
            last_seq: after,
        };
        let reply = receive(&mut session).await.unwrap();
        assert_eq!(reply, SessionMessage::Ack(held), "{window:?}");
    }
    send(&mut session, &push(3, &client, &alice, (11, 12))).await;
    let reply = receive(&mut session).await.unwrap();
    let SessionMessage::Refused(refused) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((refused.code.as_str(), refused.last_seq), ("gap", Some(9)));
    alice.stop().await;
}

#[tokio::test]
async fn frame_of_100_kb_directly_behind_the_welcome_is_read() {
    // Wide pipes, so that a reader that reads ahead gets both frames at once.
    let (home, net) = (MemoryNet::new(), MemoryNet::with_width(1 << 20));
    let alice = LiveNode::start(&home, "Alice", 1);
    let bob = LiveNode::start(&net, "Bob", 2);
    let (gate, stop) = (alice.gate.clone(), CancellationToken::new());
    let (listener, ending) = (net.listen(alice.onion()), stop.clone());
    let (replies, mut replied) = tokio::sync::mpsc::channel(1);
    let serving = tokio::spawn(async move {
        let admitted = move |mut session: Session, _| {
            let replies = replies.clone();
            tokio::spawn(async move {
                let body = vec![0; 100_000];
                let push = SessionMessage::Push(PackageBody { id: 1, body });
                send(&mut session, &push).await;
                let reply = receive(&mut session).await;
                let _ = replies.send((reply, session)).await;
            });
        };
        gate.serve(Box::new(listener), admitted, ending).await;
    });
    bob.dialler.dial(&alice.onion(), &|_| {}).await.unwrap();
    let (reply, session) = replied.recv().await.unwrap();
    let reply = reply.unwrap();
    let SessionMessage::Refused(refused) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((refused.id, refused.code.as_str()), (1, "malformed"));
    stop.cancel();
    serving.await.unwrap();
    drop(session);
    alice.stop().await;
    bob.stop().await;
}

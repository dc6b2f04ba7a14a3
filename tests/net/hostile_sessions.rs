//! Admitted peers that misbehave in a session, and the work that must continue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bastion::Session;
use bastion::transport::memory::MemoryNet;
use harness::raw_client::{RawClient, receive, receive_bye, send};
use harness::{LiveNode, NO_MARKET, Setup, manual_sync};
use keys::Epoch;
use postern::config::SyncConfig;
use postern::peer::message::{IdOnly, PackageBody, Pull, RequestRefusal, SessionMessage, UpToDate};
use postern::peer::{PushOutcome, SyncError};
use postern::services::identities;
use tokio::time::Instant;

/// An admitted client that sends any message.
struct Mallory {
    client: RawClient,
    session: Session,
}

impl Mallory {
    async fn at(net: &MemoryNet, alice: &LiveNode) -> Self {
        let client = RawClient::new(9);
        let session = client.dial(net, alice).await.unwrap();
        alice.wait_for_session(&client.peer_id()).await;
        Self { client, session }
    }

    async fn send(&mut self, message: &SessionMessage) {
        send(&mut self.session, message).await;
    }

    async fn receive(&mut self) -> SessionMessage {
        receive(&mut self.session).await.unwrap()
    }
}

fn alice(net: &MemoryNet, sync: SyncConfig) -> LiveNode {
    Setup::seeded("Alice", 1).sync(sync).live(net)
}

#[tokio::test]
async fn dialler_backs_off_from_a_peer_that_disconnects_at_once() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let bob = Setup::seeded("Bob", 2).apps(&NO_MARKET).live(&net);
    let started = Instant::now();
    bob.dialler.keep(alice.onion());
    for _ in 0..3 {
        bob.wait_for_session(&alice.peer_id()).await;
        let over = bob.peers.registry().session_at(&alice.onion()).unwrap();
        net.cut_all();
        over.cancelled().await;
    }
    // Two pauses lie between three sessions: 1 s and 2 s, each shortened by a quarter at most.
    assert!(
        started.elapsed() >= Duration::from_millis(2250),
        "{:?}",
        started.elapsed()
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn false_gap_or_stale_ack_ends_a_push() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let mut mallory = Mallory::at(&net, &alice).await;
    let epoch = alice.engine.context().epoch;
    let answers: [fn(u64, Epoch) -> SessionMessage; 2] = [
        |id, _| {
            SessionMessage::Refused(RequestRefusal {
                id,
                code: "gap".into(),
                last_seq: Some(0),
            })
        },
        |id, epoch| {
            SessionMessage::Ack(UpToDate {
                id,
                epoch,
                last_seq: 0,
            })
        },
    ];
    for answer in answers {
        let (peers, peer) = (alice.peers.clone(), mallory.client.peer_id());
        let pushing: tokio::task::JoinHandle<Result<Vec<PushOutcome>, SyncError>> =
            tokio::spawn(async move { peers.push(&peer, "identities").await });
        let SessionMessage::Push(PackageBody { id, .. }) = mallory.receive().await else {
            panic!("not a push")
        };
        mallory.send(&answer(id, epoch)).await;
        assert!(matches!(pushing.await.unwrap(), Err(SyncError::Session(_))));
    }
    alice.stop().await;
}

#[tokio::test]
async fn peer_that_floods_without_reading_receives_every_reply() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let mut mallory = Mallory::at(&net, &alice).await;
    for id in 1..=20 {
        let pull = mallory.client.pull(id, "identities");
        mallory.send(&pull).await;
    }
    // More pings than the queue holds. The node drops pongs that do not fit.
    for id in 100..200 {
        mallory.send(&SessionMessage::Ping(IdOnly { id })).await;
    }
    let mut answered = BTreeSet::new();
    while answered.len() < 20 {
        if let SessionMessage::Package(package) = mallory.receive().await {
            answered.insert(package.id);
        }
    }
    assert_eq!(answered, (1..=20).collect());
    alice.stop().await;
}

#[tokio::test]
async fn trusted_peer_gets_a_slot_when_untrusted_peers_hold_all() {
    let net = MemoryNet::new();
    let one = SyncConfig {
        sessions_max: 1,
        ..manual_sync()
    };
    let alice = alice(&net, one);
    let bob = Setup::seeded("Bob", 2).apps(&NO_MARKET).live(&net);
    alice.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    let over = alice.peers.registry().session_at(&bob.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    while !bob.peers.registry().sessions().is_empty() {
        tokio::task::yield_now().await;
    }
    let _client = Mallory::at(&net, &alice).await;
    let carol = LiveNode::start(&net, "Carol", 4);
    // The gate replies "busy" until Carol solves a harder puzzle than the holder of the slot. The
    // number of sessions stays 1.
    carol.dialler.dial(&alice.onion(), &|_| {}).await.unwrap();
    alice.wait_for_session(&carol.peer_id()).await;
    assert_eq!(alice.peers.registry().sessions().len(), 1);
    bob.dialler.dial(&alice.onion(), &|_| {}).await.unwrap();
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

/// A pull of identities after everything that the node has committed, which waits for news.
fn waiting_pull(id: u64, mallory: &Mallory, alice: &LiveNode) -> SessionMessage {
    SessionMessage::Pull(Pull {
        id,
        again: None,
        epoch: Some(alice.engine.context().epoch),
        domain: "identities".into(),
        wait_s: 60,
        peer_id: mallory.client.peer_id(),
        last_seq: alice.head(),
    })
}

#[tokio::test]
async fn pulls_beyond_the_slots_hear_busy_each_and_the_session_goes_on() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let slots = SyncConfig::default().requests_in_flight_max as u64;
    let mut mallory = Mallory::at(&net, &alice).await;
    let pulls = slots + 20;
    for id in 1..=pulls {
        let pull = waiting_pull(id, &mallory, &alice);
        mallory.send(&pull).await;
    }
    for id in slots + 1..=pulls {
        let reply = mallory.receive().await;
        let busy = RequestRefusal {
            id,
            code: "busy".into(),
            last_seq: None,
        };
        assert_eq!(reply, SessionMessage::Refused(busy));
    }
    let identity = alice.identity;
    alice
        .graph(move |graph| identities::publish(graph, identity, Some("Alice again")))
        .unwrap();
    let mut answered = BTreeSet::new();
    while answered.len() < slots as usize {
        match mallory.receive().await {
            SessionMessage::Package(package) => answered.insert(package.id),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(answered, (1..=slots).collect());
    alice.stop().await;
}

#[tokio::test]
async fn pulls_beyond_the_quota_hear_busy_each() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let quotas = alice.limits().quotas.untrusted;
    let pulls = u64::from(quotas.requests_per_minute_max) + 5;
    let mut mallory = Mallory::at(&net, &alice).await;
    for id in 1..=pulls {
        let pull = mallory.client.pull(id, "messages");
        mallory.send(&pull).await;
    }
    let mut replies = BTreeMap::new();
    while replies.len() < pulls as usize {
        let (id, code) = match mallory.receive().await {
            SessionMessage::UpToDate(reply) => (reply.id, None),
            SessionMessage::Refused(refusal) => (refusal.id, Some(refusal.code)),
            other => panic!("{other:?}"),
        };
        assert_eq!(replies.insert(id, code), None, "a second reply to {id}");
    }
    assert!(replies.values().any(|code| code.as_deref() == Some("busy")));
    alice.stop().await;
}

#[tokio::test]
async fn flood_of_requests_that_reads_nothing_ends_with_bye() {
    let net = MemoryNet::new();
    let alice = alice(&net, manual_sync());
    let mut mallory = Mallory::at(&net, &alice).await;
    let over = alice
        .peers
        .registry()
        .session_at(&mallory.client.keys.onion());
    let over = over.unwrap();
    for id in 1.. {
        let pull = waiting_pull(id, &mallory, &alice);
        tokio::select! {
            biased;
            () = over.cancelled() => break,
            () = mallory.send(&pull) => {}
        }
        assert!(id < 10_000, "a bounded number waits");
    }
    let code = receive_bye(&mut mallory.session).await;
    assert_eq!(code, "misbehaviour");
    alice.stop().await;
}

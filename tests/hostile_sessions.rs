//! Admitted peers that misbehave in a session: what they can cost, and what goes on all the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/live.rs"]
mod live;

use std::sync::Arc;
use std::time::Duration;

use bastion::transport::memory::MemoryNet;
use bastion::{Connector, GateConfig, Internal, LocalProfile, NodeProfile, Session};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager};
use live::{ALL_APPS, LiveNode, WITHOUT_MARKET, by_hand};
use postern::config::SyncConfig;
use postern::peer::message::{Id, Message, PackageBody, Pull, Refused, UpToDate};
use postern::peer::{PushOutcome, SyncError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio::time::Instant;

struct Anybody;

impl LocalProfile for Anybody {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let profile = NodeProfile {
            apps: vec!["identities".into(), "rides".into()],
            sync_domains: vec!["identities".into(), "rides.offers".into()],
            epoch: Epoch::from_bytes([9; 16]),
            boot_id: BootId::from_bytes([9; 16]),
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }
}

/// Somebody who holds keys and a stream, and says what he likes.
struct Mallory {
    keys: Arc<KeyManager>,
    session: Session,
}

impl Mallory {
    async fn at(net: &MemoryNet, alice: &LiveNode) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::from_seed([3; 32])));
        let connector = Connector::new(GateConfig::default(), keys.clone(), Arc::new(Anybody));
        let (session, _) = connector
            .dial(&net.transport(), &alice.onion(), None, &|_| {})
            .await
            .unwrap();
        alice.wait_for_session(&keys.peer_id()).await;
        Self { keys, session }
    }

    async fn say(&mut self, message: &Message) {
        self.session.writer.write(&message.encode()).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        loop {
            let frame = self.session.reader.read().await.unwrap().unwrap();
            match Message::decode(&frame).unwrap() {
                Message::Epoch(_) => continue,
                message => return message,
            }
        }
    }

    fn pull(&self, id: u64) -> Message {
        Message::Pull(Pull {
            id,
            epoch: None,
            domain: "identities".into(),
            wait_s: 0,
            peer_id: self.keys.peer_id(),
            last_seq: 0,
        })
    }
}

async fn alice(net: &MemoryNet, sync: SyncConfig) -> LiveNode {
    LiveNode::start(net, "Alice", 1, &ALL_APPS, sync).await
}

#[tokio::test]
async fn a_peer_that_hangs_up_at_once_is_not_dialled_without_end() {
    let net = MemoryNet::new();
    let alice = alice(&net, by_hand()).await;
    let bob = LiveNode::start(&net, "Bob", 2, &WITHOUT_MARKET, by_hand()).await;
    let begun = Instant::now();
    bob.dialler.keep(alice.onion());
    for _ in 0..3 {
        bob.wait_for_session(&alice.peer_id()).await;
        let (_, over) = bob.peers.session_at(&alice.onion()).unwrap();
        net.cut_all();
        over.cancelled().await;
    }
    // Two pauses lie between three sessions: of a second and of two, less a quarter at most.
    assert!(
        begun.elapsed() >= Duration::from_millis(2250),
        "{:?}",
        begun.elapsed()
    );
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_gap_where_there_is_none_and_a_late_ack_end_the_push() {
    let net = MemoryNet::new();
    let alice = alice(&net, by_hand()).await;
    let mut mallory = Mallory::at(&net, &alice).await;
    let epoch = alice.engine.ground().epoch;
    let answers: [fn(u64, Epoch) -> Message; 2] = [
        |id, _| {
            Message::Refused(Refused {
                id,
                code: "gap".into(),
                last_seq: Some(0),
            })
        },
        |id, epoch| {
            Message::Ack(UpToDate {
                id,
                epoch,
                last_seq: 0,
            })
        },
    ];
    for answer in answers {
        let (peers, peer) = (alice.peers.clone(), mallory.keys.peer_id());
        let pushing: tokio::task::JoinHandle<Result<Vec<PushOutcome>, SyncError>> =
            tokio::spawn(async move { peers.push(&peer, "identities").await });
        let Message::Push(PackageBody { id, .. }) = mallory.hear().await else {
            panic!("not a push")
        };
        mallory.say(&answer(id, epoch)).await;
        assert!(matches!(pushing.await.unwrap(), Err(SyncError::Session(_))));
    }
    alice.stop().await;
}

#[tokio::test]
async fn a_peer_that_asks_and_pings_without_reading_is_answered_once_it_reads() {
    let net = MemoryNet::new();
    let alice = alice(&net, by_hand()).await;
    let mut mallory = Mallory::at(&net, &alice).await;
    for id in 1..=20 {
        let pull = mallory.pull(id);
        mallory.say(&pull).await;
    }
    // Far more than the queue holds: those that find no room are not needed, for the answers say the same.
    for id in 100..200 {
        mallory.say(&Message::Ping(Id { id })).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 20 {
        if let Message::Package(package) = mallory.hear().await {
            answered.insert(package.id);
        }
    }
    assert_eq!(answered, (1..=20).collect());
    alice.stop().await;
}

#[tokio::test]
async fn a_known_peer_finds_a_place_where_strangers_took_all() {
    let net = MemoryNet::new();
    let one = SyncConfig {
        sessions_max: 1,
        ..by_hand()
    };
    let alice = alice(&net, one).await;
    let bob = LiveNode::start(&net, "Bob", 2, &WITHOUT_MARKET, by_hand()).await;
    alice.dialler.dial(&bob.onion(), &|_| {}).await.unwrap();
    alice.wait_for_session(&bob.peer_id()).await;
    let (_, over) = alice.peers.session_at(&bob.onion()).unwrap();
    net.cut_all();
    over.cancelled().await;
    while !bob.peers.sessions().is_empty() {
        tokio::task::yield_now().await;
    }
    let _stranger = Mallory::at(&net, &alice).await;
    let carol = LiveNode::start(&net, "Carol", 4, &ALL_APPS, by_hand()).await;
    // Told "busy" until she works more than who has the place; then she has it, and there is still one.
    carol.dialler.dial(&alice.onion(), &|_| {}).await.unwrap();
    alice.wait_for_session(&carol.peer_id()).await;
    assert_eq!(alice.peers.sessions().len(), 1);
    bob.dialler.dial(&alice.onion(), &|_| {}).await.unwrap();
    for node in [alice, bob, carol] {
        node.stop().await;
    }
}

//! Receipts over live sessions: delivery states follow by themselves, and are announced.

use bastion::transport::memory::MemoryNet;
use bastion::{Feature, Features, GateConfig};
use harness::raw_client::{RawClient, receive_bye, send};
use harness::{LiveNode, Setup, Wiring, manual_sync};
use keys::Oid;
use postern::config::SyncConfig;
use postern::peer::message::{ReceiptMessage, SessionMessage};
use postern::services::delivery::DeliveryState;

const MESSAGES: &str = "messages";

fn node(net: &MemoryNet, name: &str, seed: u64, features: &[Feature]) -> LiveNode {
    let plain = Wiring::plain(net);
    let gate = GateConfig {
        features: Features::from_iter(features.iter().copied()),
        ..plain.gate
    };
    let sync = SyncConfig {
        pull_interval_s: 30,
        pull_wait_s: 60,
        ..manual_sync()
    };
    let setup = Setup::seeded(name, seed).sync(sync);
    setup.live_over(Wiring { gate, ..plain })
}

async fn wait_until_delivered(node: &LiveNode, message: Oid, recipient: Oid) {
    let mut deliveries = node.engine.deliveries();
    while !node.is_delivered(message, recipient) {
        deliveries.recv().await.unwrap();
    }
}

#[tokio::test]
async fn message_is_delivered_and_announced_in_both_directions() {
    let net = MemoryNet::new();
    let [alice, bob] =
        [("Alice", 1), ("Bob", 2)].map(|(name, seed)| node(&net, name, seed, &Feature::ALL));
    alice.meet(&bob).await;
    alice.pull_everything(&bob).await;
    bob.pull_everything(&alice).await;
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let mut deliveries = from.engine.deliveries();
        let sent = from.send(to.identity, "hello");
        let change = deliveries.recv().await.unwrap();
        assert_eq!(change.peer, to.peer_id());
        assert_eq!(change.delivered.scopes, [sent.conversation]);
        assert!(from.is_delivered(sent.oid, to.identity));
    }
    for node in [alice, bob] {
        node.stop().await;
    }
}

#[tokio::test]
async fn message_that_waits_is_stated_as_soon_as_it_is_settled() {
    let net = MemoryNet::new();
    let [alice, bob] =
        [("Alice", 1), ("Bob", 2)].map(|(name, seed)| node(&net, name, seed, &Feature::ALL));
    alice.meet(&bob).await;
    bob.pull_everything(&alice).await;
    alice.pull_everything(&bob).await;
    let author = alice.identity;
    bob.graph(move |graph| graph.tx().set_frozen(&author, true))
        .unwrap();
    let sent = alice.send(bob.identity, "waits").oid;
    bob.pull_everything(&alice).await;
    assert_eq!(bob.rows("waiting").len(), 2, "with its conversation");
    let mut deliveries = alice.engine.deliveries();
    while alice.rows("unapplied_object").is_empty() {
        deliveries.recv().await.unwrap();
    }
    let state = alice.delivery_to(sent, bob.identity);
    assert_eq!(state, DeliveryState::Queued, "Bob stated that it waits");
    bob.graph(move |graph| graph.unfreeze(&author)).unwrap();
    wait_until_delivered(&alice, sent, bob.identity).await;
    for node in [alice, bob] {
        node.stop().await;
    }
}

#[tokio::test]
async fn receipt_without_the_feature_ends_the_session() {
    let net = MemoryNet::new();
    let alice = node(&net, "Alice", 1, &[Feature::Watch]);
    let mut client = RawClient::new(9).dial(&net, &alice).await.unwrap();
    let receipt = ReceiptMessage {
        id: 1,
        epoch: alice.epoch(),
        behind: Vec::new(),
        domain: MESSAGES.into(),
        refused: Vec::new(),
        waiting: Vec::new(),
        last_seq: Some(0),
    };
    send(&mut client, &SessionMessage::Receipt(receipt)).await;
    assert_eq!(receive_bye(&mut client).await, "misbehaviour");
    alice.stop().await;
}

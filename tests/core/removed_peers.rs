//! Delivery states of messages to people whose nodes this node does not meet any more.

use postern::services::delivery::DeliveryState::Delivered;
use postern::services::removals;

use harness::pull::meet;

use crate::delivery::{pair, sync};

#[test]
fn message_stays_delivered_when_the_operator_removes_the_peer() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "one").oid;
    sync(&bob, &alice);
    // Something of Bob is kept, and so his identity.
    bob.send(alice.identity, "two");
    alice.pull_everything(&bob);
    let before = alice.delivery(sent);
    assert!(matches!(before[..], [(_, Delivered(_))]));
    let (quotas, peer) = (alice.limits().quotas, bob.peer_id());
    alice
        .graph(move |graph| removals::remove(graph, &quotas, peer, false).map(drop))
        .unwrap();
    assert_eq!(alice.delivery(sent), before);
    // The peer returns in the same epoch.
    meet(&alice, &bob);
    assert_eq!(alice.delivery(sent), before);
}

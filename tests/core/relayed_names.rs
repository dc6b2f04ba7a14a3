//! Names and states of people whose nodes this node does not meet, or does not meet any more.

use postern::object::Value;
use postern::services::delivery::DeliveryState::Delivered;
use postern::services::{identities, removals};

use harness::pull::meet;

use crate::delivery::{pair, sync};
use crate::stubs::{Chain, MESSAGES};

#[test]
fn name_of_a_relayed_author_follows_with_its_next_message() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    let author = alice.identity;
    let say = || {
        chain.say(alice, "more");
        bob.relay(alice, MESSAGES);
        carol.relay(bob, MESSAGES).records
    };
    assert_eq!(say(), 0);
    let renamed = alice.graph(move |graph| identities::rename(graph, author, Some("Alicia")));
    renamed.unwrap();
    bob.pull_all(alice, "identities");
    assert_eq!(say(), 1);
    let (record, _) = carol.object("identities", author).unwrap();
    let name = record.first(postern::schema::identities::NAME);
    assert_eq!(name.and_then(Value::as_text), Some("Alicia"));
    assert_eq!(say(), 0);
    assert_eq!(carol.rejects(), Vec::<String>::new());
}

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

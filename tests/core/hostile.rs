//! Races between two honest nodes, and attacks with a stolen key.

use futures::FutureExt as _;
use harness::TestNode;
use harness::pull::{meet, package_bytes};
use keys::{Genesis, KeyChain, SecretKey};
use postern::services::identities;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// A new identity of a node, whose record is in its graph.
fn newcomer(node: &TestNode, name: &'static str) -> keys::Oid {
    let identity = node
        .keys
        .add_identity(&mut ChaCha20Rng::from_seed([7; 32]))
        .unwrap();
    node.graph(move |graph| identities::publish(graph, identity, Some(name)))
        .unwrap();
    identity
}

fn send_as(node: &TestNode, sender: keys::Oid, recipient: keys::Oid, body: &'static str) {
    node.graph(move |graph| postern::services::messages::send(graph, sender, recipient, body))
        .unwrap();
}

#[test]
fn owner_that_arrives_between_check_and_apply_is_recognised() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 1000));
    meet(&alice, &bob);
    let carol = newcomer(&alice, "Carol");
    send_as(&alice, carol, bob.identity, "Hi");
    let bytes = package_bytes(alice.answer(&bob.request(&alice, "messages")));
    let mut package = bob.verify(&alice, &bytes).unwrap();
    // Two concurrent pulls: this package is checked before the writer has stored the identity.
    let checked = bob
        .engine
        .verify_objects(package.take_objects())
        .now_or_never()
        .unwrap()
        .unwrap();
    bob.pull_all(&alice, "identities");
    let applied = bob
        .write(move |core, now| core.apply_package(now, &package, checked))
        .unwrap();
    assert_eq!(
        (applied.written, applied.waiting, applied.rejected),
        (2, 0, 0)
    );
    assert_eq!(bob.texts(), [(carol, "Hi".to_owned())]);
}

#[test]
fn object_under_an_unknown_key_waits_for_the_identity_record() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 1000));
    meet(&alice, &bob);
    let id = alice.identity;
    alice
        .keys
        .rotate(id, &mut ChaCha20Rng::from_seed([2; 32]))
        .unwrap();
    alice
        .graph(move |graph| identities::publish(graph, id, Some("Alice")))
        .unwrap();
    alice.send(bob.identity, "under the new key");
    let rounds = bob.pull_all(&alice, "messages");
    assert_eq!(
        (rounds[0].applied.waiting, rounds[0].applied.rejected),
        (2, 0)
    );
    bob.pull_all(&alice, "identities");
    assert_eq!(bob.texts(), [(id, "under the new key".to_owned())]);
    assert!(bob.rejects().is_empty());
}

#[test]
fn stale_or_forked_chain_does_not_replace_a_node_key() {
    let alice = TestNode::new("alice", 0);
    let secret = |number| SecretKey::from_seed(&[number; 32]);
    let first = KeyChain::new(Genesis::new(secret(1).public(), &secret(2).public()));
    let mut rotated = first.clone();
    rotated.rotate(&secret(2), &secret(3).public());
    // The second key has committed to its successor, so a thief of it cannot choose another one.
    let mut forked = first.clone();
    forked.rotate(&secret(2), &secret(9).public());
    forked.rotate(&secret(9), &secret(8).public());
    let oid = first.oid();
    let save = |chain: &KeyChain| {
        let (chain, verified) = (chain.clone(), chain.verify().unwrap());
        alice.graph(move |graph| graph.save_server(&chain, &verified).map(|_| ()))
    };
    save(&first).unwrap();
    save(&rotated).unwrap();
    for stale in [&first, &forked] {
        let _ = save(stale);
        let known = alice.read(move |view| view.rows.identity(&oid)).unwrap();
        assert_eq!((known.key_id, known.public_key), (1, secret(2).public()));
    }
}

//! What goes wrong between two nodes that mean well, and what a thief of a key may try: the core, without a network.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

#[path = "common/mod.rs"]
mod common;

use common::TestNode;
use common::sync::{meet, package_bytes};
use futures::FutureExt as _;
use keys::{Genesis, KeyChain, SecretKey};
use postern::services::identities;
use postern::state_engine::{PackageLimits, VerifiedPackage};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// A new identity on a node, whose record stands in its graph.
fn newcomer(node: &TestNode, name: &'static str) -> keys::Oid {
    let identity = node
        .keys
        .add_identity(&mut ChaCha20Rng::from_seed([7; 32]))
        .unwrap();
    node.write(move |core, now| {
        core.write(now, |graph| {
            identities::publish(graph, identity, Some(name))
        })
    })
    .unwrap();
    identity
}

fn send_as(node: &TestNode, sender: keys::Oid, recipient: keys::Oid, body: &'static str) {
    node.write(move |core, now| {
        core.write(now, |graph| {
            postern::services::messages::send(graph, sender, recipient, body)
        })
    })
    .unwrap();
}

#[test]
fn an_owner_that_arrives_between_checking_and_applying_is_not_waited_for_in_vain() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 1000));
    meet(&alice, &bob);
    let carol = newcomer(&alice, "Carol");
    send_as(&alice, carol, bob.identity, "Hi");
    let bytes = package_bytes(alice.answer(&bob.request(&alice, "messages")));
    let key = alice.keys.node_chain().verify().unwrap().current();
    let sender = (&alice.peer_id(), &key);
    let mut package =
        VerifiedPackage::verify(&bytes, &PackageLimits::default(), sender, &bob.peer_id()).unwrap();
    // Two domains are pulled at once: this package is checked while the identity is still on its way to the writer.
    let checked = bob
        .engine
        .check(package.take_objects())
        .now_or_never()
        .unwrap()
        .unwrap();
    bob.pull_all(&alice, "identities");
    let applied = bob
        .write(move |core, now| core.apply_package(now, &package, checked))
        .unwrap();
    assert_eq!(
        (applied.written, applied.parked, applied.rejected),
        (2, 0, 0)
    );
    assert_eq!(bob.inbox(), [(carol, "Hi".to_owned())]);
}

#[test]
fn what_is_signed_with_a_key_that_is_not_known_yet_waits_for_it() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 1000));
    meet(&alice, &bob);
    let id = alice.identity;
    alice
        .keys
        .rotate(id, &mut ChaCha20Rng::from_seed([2; 32]))
        .unwrap();
    alice
        .write(move |core, now| {
            core.write(now, |graph| identities::publish(graph, id, Some("Alice")))
        })
        .unwrap();
    alice.send(bob.identity, "under the new key").unwrap();
    let rounds = bob.pull_all(&alice, "messages");
    assert_eq!(
        (rounds[0].applied.parked, rounds[0].applied.rejected),
        (2, 0)
    );
    bob.pull_all(&alice, "identities");
    assert_eq!(bob.inbox(), [(id, "under the new key".to_owned())]);
    assert!(bob.rejects().is_empty());
}

#[test]
fn a_stolen_old_node_key_does_not_come_back() {
    let alice = TestNode::new("alice", 0);
    let secret = |number| SecretKey::from_seed(&[number; 32]);
    let first = KeyChain::new(Genesis::new(secret(1).public(), &secret(2).public()));
    let mut rotated = first.clone();
    rotated.rotate(&secret(2), &secret(3).public());
    // The thief of the second key cannot make it commit to a key of his own once others know what it committed to.
    let mut forked = first.clone();
    forked.rotate(&secret(2), &secret(9).public());
    forked.rotate(&secret(9), &secret(8).public());
    let oid = first.oid();
    let save = |chain: &KeyChain| {
        let (chain, verified) = (chain.clone(), chain.verify().unwrap());
        alice.write(move |core, now| {
            core.write(now, |graph| {
                graph.save_server(&chain, &verified).map(|_| ())
            })
        })
    };
    save(&first).unwrap();
    save(&rotated).unwrap();
    for stale in [&first, &forked] {
        let _ = save(stale);
        let known = alice.read(move |view| view.rows.identity(&oid)).unwrap();
        assert_eq!((known.key_id, known.public_key), (1, secret(2).public()));
    }
}

//! A peer freezes its own identities: how many decides the peer.

use harness::TestNode;
use harness::pull::meet;
use harness::stolen_keys::StolenKeys;
use keys::{Genesis, HomeRecord, KeyChain, SecretKey, SignedObject};
use postern::graph::new_identity_attrs;
use postern::object::{Object, OidProof};
use postern::schema::identities;

fn secret(of: u8, event: u8) -> SecretKey {
    let mut seed = [0x68; 32];
    [seed[0], seed[1]] = [of, event];
    SecretKey::from_seed(&seed)
}

fn chain_of(of: u8) -> KeyChain {
    KeyChain::new(Genesis::new(
        secret(of, 0).public(),
        &secret(of, 1).public(),
    ))
}

/// A record of the identity `number`, whose home is a node with these keys.
fn record(number: u8, (node, node_key): (KeyChain, &SecretKey), rev: u64) -> SignedObject {
    let (chain, key) = (chain_of(number), secret(number, 0));
    let home = HomeRecord::sign(chain.oid(), (0, &key), node, node_key, 1);
    let attrs = new_identity_attrs(&chain, &chain.verify().unwrap(), &home, None);
    let record = Object {
        app: identities::APP.into(),
        type_number: identities::IDENTITY,
        oid: chain.oid(),
        owner: chain.oid(),
        rev,
        proof: OidProof::Genesis,
        rights: None,
        attrs: Some(attrs),
    };
    SignedObject::sign(0, &key, record.to_bytes())
}

#[test]
fn identities_of_other_nodes_that_a_package_freezes_are_counted_once_each() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let key = StolenKeys::of_name("bob").node;
    let at_bob = |number| record(number, (bob.keys.node_chain(), &key), 1);
    let elsewhere = |number, rev| record(number, (chain_of(200), &secret(200, 0)), rev);
    let each = |number| [at_bob(number), elsewhere(number, 2), elsewhere(number, 3)];
    let records = (0..5).flat_map(each).collect();
    let applied = bob.force(&alice, "identities", records).unwrap();
    assert_eq!(
        (applied.written, applied.rejected, applied.frozen),
        (5, 10, 5)
    );
    let again = (0..5).map(|number| elsewhere(number, 4)).collect();
    let applied = bob.force(&alice, "identities", again).unwrap();
    assert_eq!((applied.rejected, applied.frozen), (5, 0));
}

//! Purged oids do not come back while the verdict lasts (docs/DECISIONS.md 10).

use bastion::Tier;
use harness::pull::meet;
use harness::{Setup, TestNode, ride};
use keys::{OnionKey, SecretKey};
use postern::graph::IdentityProfile;
use postern::store::{Direction, PurgeState, StoreError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::purge::{HOUR_MS, assert_whole, ban_and_purge, purge_of, remove, spam};
use crate::stubs::{Chain, MESSAGES, has};

#[test]
fn purged_objects_are_dropped_whoever_sends_them() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    meet(alice, carol);
    let said = chain.say(alice, "spam");
    bob.relay(alice, MESSAGES);
    carol.relay(alice, MESSAGES);
    ban_and_purge(carol, alice, None);
    assert!(!has(carol, said));
    let sent = bob.object(MESSAGES, said).unwrap().1;
    let applied = bob.force(carol, MESSAGES, vec![sent]).unwrap();
    assert_eq!(
        (applied.already_stored, applied.rejected, applied.waiting),
        (1, 0, 0)
    );
    assert!(!has(carol, said));
    assert_eq!(carol.rejects(), [""; 0]);
    let got = carol.relay_since(bob, MESSAGES, 0);
    assert!(!got.fetched.contains(&said), "not fetched either");
    assert_whole(carol, &[alice, bob]);
}

#[test]
fn end_of_the_ban_lets_everything_come_again() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    spam(&mallory, &alice, 5);
    alice.pull_everything(&mallory);
    let (before, texts) = (alice.stored_objects().len(), alice.texts());
    ban_and_purge(&alice, &mallory, Some(HOUR_MS));
    assert!(alice.cursor(&mallory, MESSAGES, Direction::In).is_none());
    alice.clock.advance_ms(HOUR_MS);
    alice.graph(|_| Ok::<_, StoreError>(())).unwrap();
    // Objects of others in the conversation were dropped.
    assert_eq!(alice.rows("purged").len(), 1);
    let purge = purge_of(&alice, &mallory).unwrap();
    assert_eq!((purge.state, purge.remembered), (PurgeState::Over, 1));
    meet(&alice, &mallory);
    alice.pull_everything(&mallory);
    assert_eq!(alice.rows("overruled").len(), 1, "asked for at its members");
    assert!(purge_of(&alice, &mallory).is_none());
    assert_eq!(
        (alice.stored_objects().len(), alice.texts()),
        (before, texts)
    );
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn removed_peer_does_not_bring_anything_back_until_the_operator_trusts_it() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    spam(&mallory, &alice, 5);
    alice.pull_everything(&mallory);
    let before = alice.stored_objects().len();
    remove(&alice, &mallory, true).unwrap();
    assert!(alice.stored_peer(&mallory).is_none());
    // The policy admits it again, as an untrusted peer.
    mallory.learn_of(&alice);
    untrusted(&alice, &mallory);
    alice.pull_everything(&mallory);
    assert_eq!(alice.stored_objects().len(), 1, "own identity only");
    mallory.make("rides", 1, ride("Basel", 1)).unwrap();
    alice.pull_everything(&mallory);
    assert_eq!(alice.stored_objects().len(), 1, "of a purged identity");
    alice.learn_of(&mallory);
    assert_eq!(alice.rows("purged").len(), 0);
    alice.pull_everything(&mallory);
    assert_eq!(alice.stored_objects().len(), before + 1);
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn identity_that_moves_here_is_purged_no_longer() {
    const SEED: u64 = 71;
    let alice = TestNode::new("alice", 0);
    let mallory = Setup::seeded("mallory", SEED).id_offset(300).node();
    meet(&alice, &mallory);
    ban_and_purge(&alice, &mallory, None);
    let identity = mallory.identity;
    let purged = || alice.read(move |view| view.rows.purged(&identity));
    assert!(purged().is_some());
    // The vault of Mallory's node draws the keys of its identity after those of the node.
    let mut rng = ChaCha20Rng::seed_from_u64(SEED);
    drop(OnionKey::generate(&mut rng));
    let _node_keys: [SecretKey; 2] = std::array::from_fn(|_| SecretKey::generate(&mut rng));
    assert_eq!(alice.keys.add_identity(&mut rng).unwrap(), identity);
    alice.keys.rotate(identity, &mut rng).unwrap();
    let profile = IdentityProfile::named(Some("moved here"));
    alice
        .graph(move |graph| graph.save_profile(identity, &profile))
        .unwrap();
    assert!(purged().is_none());
    assert_whole(&alice, &[&mallory]);
}

/// Stores a peer as an untrusted one, as the policy `open` does.
fn untrusted(node: &TestNode, peer: &TestNode) {
    let chain = peer.keys.node_chain();
    let verified = chain.verify().unwrap();
    let domains = node.sync_domains();
    let row = postern::store::PeerRow {
        peer_id: peer.peer_id(),
        server_oid: peer.keys.server_oid(),
        peer_apps: Vec::new(),
        peer_sync_domains: domains.clone(),
        domains,
        onion: peer.keys.onion(),
        epoch: peer.epoch(),
        tier: Tier::Untrusted,
        last_contact: node.clock.timestamp(),
        relays: false,
    };
    node.graph::<_, StoreError>(move |graph| {
        graph.save_server(&chain, &verified)?;
        graph.save_peer(&row)
    })
    .unwrap();
}

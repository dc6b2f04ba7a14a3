//! Purged oids do not come back while the verdict lasts (docs/DECISIONS.md 10).

use std::collections::BTreeSet;

use bastion::Tier;
use harness::pull::meet;
use harness::{Setup, TestNode, ride};
use keys::{OnionKey, SecretKey};
use postern::graph::IdentityProfile;
use postern::services::contacts::{self, ContactError, ContactNote};
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
    alice.pull_everything(&mallory);
    assert_eq!(alice.rows("purged"), Vec::<String>::new());
    assert_eq!(alice.stored_objects().len(), before + 1);
    assert_whole(&alice, &[&mallory]);
}

/// Members of common conversations give its address, with or without a purge.
#[test]
fn removed_peer_is_not_dialled_as_introduced_until_the_operator_trusts_it() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let peer = bob.peer_id();
    let now = alice.engine.now();
    let may_introduce = || alice.read(move |view| view.may_introduce(&peer, now));
    assert!(may_introduce());
    for purge in [true, false] {
        meet(&alice, &bob);
        remove(&alice, &bob, purge).unwrap();
        assert!(!may_introduce(), "with purge: {purge}");
        bob.learn_of(&alice);
        untrusted(&alice, &bob);
        assert!(!may_introduce(), "with purge: {purge}");
    }
    alice.learn_of(&bob);
    assert!(!alice.read(move |view| view.rows.is_removed(&peer)));
}

/// The identity has a petname, so that it stays. Its conversation went with the peer.
#[test]
fn later_message_in_a_removed_conversation_is_refused() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    let named = mallory.identity;
    alice
        .graph::<_, ContactError>(move |graph| {
            contacts::add(graph, named, "Mallory", &ContactNote::new(String::new())?)
        })
        .unwrap();
    mallory.send(alice.identity, "before");
    alice.pull_everything(&mallory);
    remove(&alice, &mallory, true).unwrap();
    mallory.learn_of(&alice);
    untrusted(&alice, &mallory);
    alice.pull_everything(&mallory);
    assert_eq!(alice.rejects(), [""; 0], "removed objects are dropped");
    mallory.send(alice.identity, "after");
    alice.pull_everything(&mallory);
    assert_eq!(alice.rejects(), ["scope_removed"]);
    assert_eq!(alice.texts(), []);
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn removed_objects_of_forgotten_identities_do_not_wait_for_their_keys() {
    let [alice, mallory] =
        [("alice", 0), ("mallory", 300)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &mallory);
    spam(&mallory, &alice, 5);
    alice.pull_everything(&mallory);
    remove(&alice, &mallory, true).unwrap();
    mallory.learn_of(&alice);
    untrusted(&alice, &mallory);
    let mut objects = Vec::new();
    for oid in mallory.stored_objects().into_keys() {
        objects.extend(mallory.object(MESSAGES, oid).map(|(_, signed)| signed));
    }
    assert!(objects.len() > 1);
    mallory.force(&alice, MESSAGES, objects).unwrap();
    assert_eq!(alice.rows("waiting"), Vec::<String>::new());
    assert_eq!(alice.texts(), []);
    assert_whole(&alice, &[&mallory]);
}

/// The new home is a peer that Alice trusts.
#[test]
fn conversation_with_an_identity_that_moved_from_a_purged_peer_comes_back() {
    let [alice, mallory, new] =
        [("alice", 0), ("mallory", 300), ("new", 3000)].map(|(name, id)| TestNode::new(name, id));
    for node in [&mallory, &new] {
        meet(&alice, node);
    }
    meet(&mallory, &new);
    mallory.send(alice.identity, "before");
    alice.pull_everything(&mallory);
    ban_and_purge(&alice, &mallory, None);
    assert_eq!(alice.texts(), []);
    let (moved, to) = (mallory.identity, alice.identity);
    new.receive(&mallory, moved);
    new.try_send_as(moved, to, "after").unwrap();
    for _ in 0..2 {
        alice.pull_everything(&new);
    }
    let texts: BTreeSet<_> = alice.texts().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, BTreeSet::from(["after".into(), "before".into()]));
    assert_whole(&alice, &[&mallory, &new]);
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

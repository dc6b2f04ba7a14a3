//! Identities are forgotten with their peer, unless something of them is kept. Their last keys
//! stay known (docs/DECISIONS.md 10).

use bastion::Tier;
use harness::pull::meet;
use harness::{TestNode, conversation, message, ride};
use keys::Oid;
use postern::op_context::Timestamp;
use postern::schema::identities;
use postern::services::contacts::{self, ContactError, ContactNote};
use postern::services::identities as known;
use postern::services::removals::{self, RemovalError};
use postern::state_engine::CoreLimits;
use postern::store::{Account, StoreError};

use crate::purge::{
    asking, assert_whole, ban, ban_and_purge, bobs, purge_of, recounted, remove, unban,
};
use crate::stubs::MESSAGES;
use crate::thieves::rotate;

fn alice_and_mallory() -> (TestNode, TestNode) {
    let [alice, mallory] = [("alice", 0), ("mallory", 300)].map(|(name, id)| asking(name, id));
    meet(&alice, &mallory);
    (alice, mallory)
}

/// Whether a node knows an identity.
fn knows(node: &TestNode, identity: Oid) -> bool {
    node.home_of(identity).is_some()
}

#[test]
fn identities_of_untrusted_peers_are_listed_apart_and_counted() {
    let (alice, mallory) = alice_and_mallory();
    let bobs = bobs(&mallory, 20);
    alice.pull_everything(&mallory);
    let listed = |node: &TestNode| {
        let known = node.read(|view| known::known(&view));
        let pages = node.read(|view| {
            let first = known::untrusted(&view, None, 15)?;
            let last = first.cards.last().map(|card| card.person.oid);
            let second = known::untrusted(&view, last, 15)?;
            Ok([first, second])
        });
        let count = node.read(|view| known::untrusted_count(&view));
        let sizes = pages.map(|page| (page.cards.len(), page.more));
        (known.len(), sizes, count)
    };
    assert_eq!(
        listed(&alice),
        (22, [(0, false); 2], 0),
        "of a trusted peer"
    );
    let peer = mallory.peer_id();
    alice
        .graph::<_, StoreError>(move |graph| graph.tx().set_tier(&peer, Tier::Untrusted))
        .unwrap();
    let named = bobs[3];
    alice
        .graph::<_, ContactError>(move |graph| {
            let note = ContactNote::new(String::new())?;
            contacts::add(graph, named, "the real Bob", &note)
        })
        .unwrap();
    assert_eq!(listed(&alice), (2, [(15, true), (5, false)], 20));
}

#[test]
fn ban_forgets_identities_of_which_nothing_is_kept() {
    let (alice, mallory) = alice_and_mallory();
    let bobs = bobs(&mallory, 6);
    mallory.make("rides", 1, ride("Bern", 1)).unwrap();
    mallory
        .try_send_as(bobs[1], alice.identity, "hello")
        .unwrap();
    let people = [bobs[2], mallory.identity, bobs[4]];
    mallory.make(MESSAGES, 1, conversation(&people)).unwrap();
    alice.pull_everything(&mallory);
    let named = bobs[0];
    alice
        .graph::<_, ContactError>(move |graph| {
            let note = ContactNote::new(String::new())?;
            contacts::add(graph, named, "Bob", &note)
        })
        .unwrap();
    alice.send(bobs[3], "are you Bob?");
    ban(&alice, &mallory);
    let known: Vec<bool> = bobs.iter().map(|bob| knows(&alice, *bob)).collect();
    // A petname, an object, nothing, a conversation with Alice, nothing, nothing.
    assert_eq!(known, [true, true, false, true, false, false]);
    assert!(knows(&alice, mallory.identity), "owns a ride");
    assert_eq!(alice.texts().len(), 2, "objects stay");
    assert!(purge_of(&alice, &mallory).is_none());
    assert_whole(&alice, &[&mallory]);
    // After the ban the records come again.
    unban(&alice, &mallory);
    meet(&alice, &mallory);
    alice.pull_everything(&mallory);
    assert!(bobs.iter().all(|bob| knows(&alice, *bob)));
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn petname_survives_a_purge_and_the_objects_do_not() {
    let (alice, mallory) = alice_and_mallory();
    let bob = bobs(&mallory, 1)[0];
    mallory.try_send_as(bob, alice.identity, "hello").unwrap();
    alice.pull_everything(&mallory);
    alice
        .graph::<_, ContactError>(move |graph| {
            let note = ContactNote::new(String::new())?;
            contacts::add(graph, bob, "Bob", &note)
        })
        .unwrap();
    ban_and_purge(&alice, &mallory, None);
    assert!(knows(&alice, bob) && !knows(&alice, mallory.identity));
    assert_eq!(alice.texts(), []);
    assert_eq!(alice.rows("contact").len(), 2);
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn identities_of_an_expired_peer_are_forgotten_and_its_objects_stay() {
    let (alice, mallory) = alice_and_mallory();
    let bobs = bobs(&mallory, 3);
    let made = mallory.make("rides", 1, ride("Bern", 1)).unwrap();
    alice.pull_everything(&mallory);
    let peer = mallory.peer_id();
    alice
        .graph(move |graph| {
            graph.tx().set_tier(&peer, Tier::Untrusted)?;
            graph
                .tx()
                .forget_untrusted_peers(Timestamp(u64::MAX >> 1), 10)
        })
        .unwrap();
    assert!(bobs.iter().all(|bob| !knows(&alice, *bob)));
    assert!(knows(&alice, mallory.identity) && alice.parent("rides", made.oid).is_some());
    assert_eq!(alice.rows("purge").len(), 0);
    assert_whole(&alice, &[&mallory]);
}

#[test]
fn identity_of_another_peer_is_not_forgotten_with_the_relay_that_introduced_it() {
    let nodes = [("alice", 0), ("bob", 300), ("carol", 600)];
    let [alice, bob, carol] = nodes.map(|(name, id)| asking(name, id));
    meet(&alice, &bob);
    meet(&bob, &carol);
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    alice.make(MESSAGES, 2, message(talk, "hello")).unwrap();
    bob.relay(&alice, MESSAGES);
    carol.relay(&bob, MESSAGES);
    carol.note_peer(&alice, &["messages".to_owned()]);
    ban_and_purge(&carol, &bob, None);
    assert!(knows(&carol, alice.identity), "its home is a peer");
    assert_whole(&carol, &[&alice, &bob]);
}

#[test]
fn thief_of_an_earlier_key_cannot_introduce_a_forgotten_identity() {
    let (alice, mallory) = alice_and_mallory();
    let dave = TestNode::new("dave", 600);
    meet(&alice, &dave);
    let record = |node: &TestNode, oid| node.object(identities::APP, oid).unwrap().1;
    let early = record(&mallory, mallory.identity);
    rotate(&mallory, mallory.identity);
    let later = record(&mallory, mallory.identity);
    alice.pull_everything(&mallory);
    ban(&alice, &mallory);
    assert!(!knows(&alice, mallory.identity));
    assert_eq!(alice.rows("forgotten_key").len(), 1);
    let usage = |node: &TestNode| {
        let peer = mallory.peer_id();
        node.read(move |view| view.rows.stored_by(&peer))
            .unwrap()
            .usage
    };
    assert_eq!(
        (usage(&alice).objects, usage(&alice).bytes),
        (1, 0),
        "the kept key"
    );
    unban(&alice, &mallory);
    meet(&alice, &mallory);
    assert!(knows(&alice, mallory.identity), "by the handshake");
    assert_eq!(alice.rows("forgotten_key").len(), 0);
    assert_whole(&alice, &[&mallory]);
    ban(&alice, &mallory);
    unban(&alice, &mallory);
    // As a thief of the first key would, with nothing of the chain.
    let known = alice.stored_objects().len();
    alice
        .graph::<_, StoreError>({
            let row = mallory.peer_id();
            move |graph| graph.tx().restart_all_in(&row)
        })
        .unwrap();
    let applied = mallory
        .force(&alice, identities::DOMAIN, vec![early])
        .unwrap();
    assert_eq!((applied.already_stored, applied.rejected), (1, 0));
    assert_eq!(alice.stored_objects().len(), known);
    mallory
        .force(&alice, identities::DOMAIN, vec![later])
        .unwrap();
    assert!(knows(&alice, mallory.identity));
    let own = recounted(&alice)[&(mallory.peer_id(), Account::Own)];
    assert_eq!(usage(&alice), own);
}

#[test]
fn removal_without_purge_forgets_the_peer_and_keeps_what_it_sent() {
    let (alice, mallory) = alice_and_mallory();
    let bobs = bobs(&mallory, 3);
    mallory.send(alice.identity, "hello");
    alice.pull_everything(&mallory);
    remove(&alice, &mallory, false).unwrap();
    assert!(alice.stored_peer(&mallory).is_none());
    assert_eq!(alice.texts().len(), 1);
    assert!(bobs.iter().all(|bob| !knows(&alice, *bob)));
    assert!(remove(&alice, &mallory, false).is_err(), "removed already");
    // Its objects can still be removed.
    remove(&alice, &mallory, true).unwrap();
    assert_eq!(alice.texts(), []);
    let limits = CoreLimits::default();
    let most = limits.quotas.untrusted.stored_objects_max;
    let purge = purge_of(&alice, &mallory).unwrap();
    assert_eq!(purge.order.remembered_max, most);
    assert_whole(&alice, &[&mallory]);
}

/// The removal has begun, and is not complete.
#[test]
fn identities_of_a_peer_that_is_back_are_kept() {
    let (alice, mallory) = alice_and_mallory();
    let bobs = bobs(&mallory, 3);
    alice.pull_everything(&mallory);
    let (row, quotas) = (alice.stored_peer(&mallory).unwrap(), alice.limits().quotas);
    alice
        .graph::<_, RemovalError>(move |graph| {
            removals::remove(graph, &quotas, row.peer_id, false)?;
            assert!(graph.purge_some()?, "begins");
            Ok(graph.save_peer(&row)?)
        })
        .unwrap();
    assert!(bobs.iter().all(|bob| knows(&alice, *bob)));
    assert!(purge_of(&alice, &mallory).is_none());
    assert_whole(&alice, &[&mallory]);
}

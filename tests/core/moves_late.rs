//! Scopes that ended or removed an identity while it moved to another node.

use harness::pull::meet;
use harness::{TestNode, card, conversation, message};
use postern::object::Value;
use postern::services::{identities, invitations, messages};
use postern::store::{FeedCursor, Onlooker};

use crate::moves::Scene;

const CONTACTS: &str = "contacts";
const IDENTITIES: &str = "identities";
const MESSAGES: &str = "messages";

/// Bob's node learns of the move after the deletion, so that the cursor of the new home has passed
/// the tombstone already.
#[test]
fn new_home_learns_that_a_scope_ended_during_the_move() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let about = bob.make(CONTACTS, 1, card(alice, "Alice")).unwrap().oid;
    old.pull_everything(bob);
    old.begin_move(alice, new).unwrap();
    let handover = old.keys.hand_over(alice).unwrap();
    let file = old.handed_over(alice);
    bob.change(CONTACTS, 1, about, None).unwrap();
    // A later change moves the cursor.
    let other = card(new.identity, "New");
    bob.make(CONTACTS, 1, other).unwrap();
    new.pull_everything(bob);
    new.take_objects(&handover, file).unwrap();
    new.take_keys(&handover).unwrap();
    new.complete_move(alice);
    assert!(!new.parent(CONTACTS, about).unwrap().deleted);

    bob.pull_everything(new);
    new.pull_everything(bob);
    assert!(new.parent(CONTACTS, about).unwrap().deleted);
}

#[test]
fn new_home_learns_that_its_identity_was_removed_during_the_move() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let dora = bob.another("Dora", 7);
    old.pull_everything(bob);
    new.pull_everything(bob);
    let talk = conversation(&[bob.identity, alice, dora]);
    let talk = bob.make(MESSAGES, 1, talk).unwrap().oid;
    old.pull_everything(bob);
    old.begin_move(alice, new).unwrap();
    let handover = old.keys.hand_over(alice).unwrap();
    let file = old.handed_over(alice);
    bob.change_rights(talk, alice, None).unwrap();
    let other = conversation(&[bob.identity, new.identity]);
    bob.make(MESSAGES, 1, other).unwrap();
    new.pull_everything(bob);
    new.take_objects(&handover, file).unwrap();
    new.take_keys(&handover).unwrap();
    new.complete_move(alice);
    assert!(new.readers(MESSAGES, talk).contains(&alice));

    bob.pull_everything(new);
    new.pull_everything(bob);
    assert!(!new.readers(MESSAGES, talk).contains(&alice));
}

/// Carol's node is a peer of the old home only.
#[test]
fn peers_of_the_old_home_learn_the_new_one() {
    let scene = Scene::new();
    let (old, new, alice) = (&scene.old, &scene.new, scene.alice);
    let carol = TestNode::new("carol", 600);
    meet(old, &carol);
    carol.relay(old, IDENTITIES);
    scene.receive();
    old.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!(carol.home_of(alice), Some(new.peer_id()));

    // A name under the same key counts from its home only: the thief of the key could write it.
    let name = |node: &TestNode| {
        let (object, _) = node.object(IDENTITIES, alice).unwrap();
        let name = object.first(postern::schema::identities::NAME);
        name.and_then(Value::as_text).unwrap_or_default().to_owned()
    };
    new.graph(move |graph| identities::rename(graph, alice, Some("Alma")).map(drop))
        .unwrap();
    old.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!([name(old), name(&carol)], ["Alma", "alice"]);
    meet(new, &carol);
    carol.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!(name(&carol), "Alma");
    // A node that never knew Alice learns nothing of her.
    let dora = TestNode::new("dora", 900);
    meet(old, &dora);
    dora.relay(old, IDENTITIES);
    assert_eq!(dora.home_of(alice), None);
    for node in [old, new, &carol, &dora] {
        assert_eq!(node.rejects(), Vec::<String>::new());
    }
}

/// Such a record counts in the quota of the peer that sent it.
#[test]
fn record_that_a_peer_passes_on_counts_for_that_peer() {
    let scene = Scene::new();
    let (old, new) = (&scene.old, &scene.new);
    let carol = TestNode::new("carol", 600);
    meet(old, &carol);
    carol.relay(old, IDENTITIES);
    let peer = old.peer_id();
    let stored = || {
        carol
            .read(move |view| view.rows.stored_by(&peer))
            .unwrap()
            .usage
    };
    let before = stored().objects;
    scene.receive();
    old.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!(stored().objects, before);
    assert_eq!(carol.rows("relayed_usage").len(), 0);
}

/// Alice was invited, and another identity of her node accepted.
#[test]
fn identity_that_did_not_accept_brings_no_address() {
    let scene = Scene::new();
    let (old, bob, alice) = (&scene.old, &scene.bob, scene.alice);
    let second = old.another("Second", 7);
    bob.pull_everything(old);
    let talk = conversation(&[bob.identity, alice, second]);
    let talk = bob.make(MESSAGES, 1, talk).unwrap().oid;
    old.pull_everything(bob);
    old.graph(move |graph| invitations::accept(graph, MESSAGES, talk, Some(second)).map(drop))
        .unwrap();
    let now_s = old.clock.timestamp().0 / 1000;
    let record = bob.keys.address_record(now_s).verify().unwrap();
    let scope = old.parent(MESSAGES, talk).unwrap().scope_id;
    let taken = old.write(move |core, now| core.take_addresses(now, scope, &[record]));
    assert_eq!(taken.unwrap(), 1);
    assert_eq!(old.moved_addresses(alice), []);
    assert_eq!(old.moved_addresses(second).len(), 1);
}

/// The file brings the list that removed Alice before her messages.
#[test]
fn identity_sees_its_own_messages_in_a_conversation_that_removed_it() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let carol = TestNode::new("carol", 600);
    meet(bob, &carol);
    let talk = conversation(&[bob.identity, alice, carol.identity]);
    let talk = bob.make(MESSAGES, 1, talk).unwrap().oid;
    old.pull_everything(bob);
    old.graph(move |graph| invitations::accept(graph, MESSAGES, talk, None).map(drop))
        .unwrap();
    let mine = old.make(MESSAGES, 2, message(talk, "mine")).unwrap().oid;
    bob.change_rights(talk, alice, None).unwrap();
    old.pull_everything(bob);
    let sees = |node: &TestNode, onlooker: Onlooker| {
        let row = node.parent(MESSAGES, mine).unwrap();
        node.read(move |view| view.rows.sight(onlooker).shows(&row))
    };
    assert!(sees(old, Onlooker::Identity(alice)));
    scene.receive();

    assert!(sees(new, Onlooker::Identity(alice)));
    assert!(sees(new, Onlooker::AnyAt(new.peer_id())));
    let inbox = new.read(move |view| messages::inbox(&view, &alice, FeedCursor::default(), 10));
    let texts = inbox.messages.into_iter().map(|it| it.body);
    assert_eq!(texts.collect::<Vec<_>>(), ["mine"]);
}

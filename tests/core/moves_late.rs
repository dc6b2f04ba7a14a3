//! Scopes that ended or removed an identity while it moved to another node.

use harness::pull::meet;
use harness::{TestNode, card, conversation, message};
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
fn peers_of_the_old_home_learn_the_new_one_and_its_later_names() {
    let scene = Scene::new();
    let (old, new, alice) = (&scene.old, &scene.new, scene.alice);
    let carol = TestNode::new("carol", 600);
    meet(old, &carol);
    carol.relay(old, IDENTITIES);
    scene.receive();
    old.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!(carol.home_of(alice), Some(new.peer_id()));

    let name = |node: &TestNode| {
        let (object, _) = node.object(IDENTITIES, alice).unwrap();
        let name = object.first(postern::schema::identities::NAME);
        name.and_then(postern::object::Value::as_text)
            .map(str::to_owned)
    };
    new.graph(move |graph| identities::rename(graph, alice, Some("Alice Smith")).map(drop))
        .unwrap();
    old.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    assert_eq!(
        [name(old), name(&carol)],
        [(); 2].map(|()| Some("Alice Smith".to_owned()))
    );
    // A node that never knew Alice learns nothing of her.
    let dora = TestNode::new("dora", 900);
    meet(old, &dora);
    dora.relay(old, IDENTITIES);
    assert_eq!(dora.home_of(alice), None);
    // Her home says the same.
    meet(new, &carol);
    carol.relay(new, IDENTITIES);
    carol.relay(old, IDENTITIES);
    for node in [old, new, &carol, &dora] {
        assert_eq!(node.rejects(), Vec::<String>::new());
    }
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

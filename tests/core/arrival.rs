//! Arrival: an object in a scope is accepted from any admitted peer, on its owner's signature.

use harness::forge::{object, oid};
use harness::pull::meet;
use harness::{TestNode, card, conversation, message};
use keys::Oid;
use postern::object::Object;
use postern::state_engine::RecoveryRequest;
use postern::store::Usage;

use crate::thieves::rotate;

/// Alice receives; Bob and Carol are peers of hers and of each other.
struct Three {
    alice: TestNode,
    bob: TestNode,
    carol: TestNode,
}

impl Three {
    fn new() -> Self {
        let [alice, bob, carol] = [("alice", 0), ("bob", 300), ("carol", 600)]
            .map(|(name, id_offset)| TestNode::new(name, id_offset));
        meet(&alice, &bob);
        meet(&alice, &carol);
        meet(&bob, &carol);
        Self { alice, bob, carol }
    }

    /// A conversation of Bob with others, and a message of his in it.
    fn talk_of_bob(&self, with: &[Oid]) -> [Object; 2] {
        let bob = self.bob.identity;
        let people = [&[bob], with].concat();
        let talk = object("messages", 1, 7, bob, 1, Some(conversation(&people)));
        let line = object("messages", 2, 8, bob, 1, Some(message(talk.oid, "hello")));
        [talk, line]
    }

    /// Bob's card of Alice.
    fn card_of_bob(&self, rev: u64, name: &str) -> Object {
        let attrs = Some(card(self.alice.identity, name));
        object("contacts", 1, 6, self.bob.identity, rev, attrs)
    }

    /// The usage that Alice has counted for a peer, in all its accounts.
    fn counted(&self, peer: &TestNode) -> Usage {
        let peer = peer.peer_id();
        let stored = self.alice.read(move |view| view.rows.stored_by(&peer));
        let stored = stored.unwrap();
        let mut usage = stored.usage;
        usage += stored.relayed;
        usage
    }
}

#[test]
fn object_in_a_scope_comes_from_any_peer_and_is_charged_to_the_sender() {
    let three = Three::new();
    let Three { alice, bob, carol } = &three;
    let objects = three.talk_of_bob(&[alice.identity]);
    let before = [bob, carol].map(|peer| three.counted(peer).objects);
    let signed = objects.each_ref().map(|object| bob.sign(object)).to_vec();
    let applied = carol.force(alice, "messages", signed).unwrap();
    assert_eq!(
        (applied.written, applied.waiting, applied.rejected),
        (2, 0, 0)
    );
    assert_eq!(alice.texts(), [(bob.identity, "hello".to_owned())]);
    let after = [bob, carol].map(|peer| three.counted(peer).objects);
    assert_eq!(after, [before[0], before[1] + 2]);
}

#[test]
fn object_that_nobody_here_may_read_is_stored_and_charged() {
    let three = Three::new();
    let Three { alice, bob, carol } = &three;
    let objects = three.talk_of_bob(&[carol.identity]);
    let before = three.counted(bob).objects;
    let signed = objects.each_ref().map(|object| bob.sign(object)).to_vec();
    let applied = bob.force(alice, "messages", signed).unwrap();
    assert_eq!((applied.written, applied.rejected), (2, 0));
    assert_eq!(alice.texts(), []);
    assert_eq!(three.counted(bob).objects, before + 2);
}

#[test]
fn update_of_another_sender_releases_what_the_first_one_counted() {
    let three = Three::new();
    let Three { alice, bob, carol } = &three;
    let before = [bob, carol].map(|peer| three.counted(peer));
    let first = bob.sign(&three.card_of_bob(1, "A"));
    assert_eq!(bob.force_one(alice, "contacts", first), None);
    let second = bob.sign(&three.card_of_bob(2, "Alice"));
    let bytes = second.bytes().len();
    assert_eq!(carol.force_one(alice, "contacts", second), None);
    let mut expected = before;
    expected[1] += Usage::one(bytes);
    assert_eq!([bob, carol].map(|peer| three.counted(peer)), expected);
}

#[test]
fn new_object_of_this_node_is_acknowledged_and_not_stored() {
    let three = Three::new();
    let Three { alice, bob, .. } = &three;
    let people = conversation(&[alice.identity, bob.identity]);
    let talk = object("messages", 1, 7, alice.identity, 1, Some(people));
    let in_unknown = object(
        "messages",
        2,
        8,
        alice.identity,
        1,
        Some(message(oid(9), "lost")),
    );
    for lost in [talk, in_unknown] {
        let applied = bob.force(alice, "messages", vec![alice.sign(&lost)]);
        let applied = applied.unwrap();
        assert_eq!((applied.already_stored, applied.rejected), (1, 0));
        assert_eq!(alice.parent("messages", lost.oid), None);
    }
    assert_eq!(alice.rows("waiting").len(), 0);
}

#[test]
fn peer_never_changes_a_stored_object_of_this_node() {
    let three = Three::new();
    let Three { alice, bob, .. } = &three;
    let made = alice.make("contacts", 1, card(bob.identity, "B")).unwrap();
    let (stored, _) = alice.object("contacts", made.oid).unwrap();
    let row = alice.parent("contacts", made.oid);
    let same = bob.force_one(alice, "contacts", alice.sign(&stored));
    assert_eq!(same, None);
    let changed = Object {
        rev: 2,
        attrs: Some(card(bob.identity, "Bob")),
        ..stored
    };
    let code = bob.force_one(alice, "contacts", alice.sign(&changed));
    assert_eq!(code.as_deref(), Some("local_object"));
    assert_eq!(alice.parent("contacts", made.oid), row);
}

#[test]
fn later_signature_is_stored_whoever_sends_it_and_stamps_the_row() {
    let three = Three::new();
    let Three { alice, bob, carol } = &three;
    let first = three.card_of_bob(1, "A");
    let sent = bob.sign(&first);
    assert_eq!(bob.force_one(alice, "contacts", sent), None);
    let before = alice.parent("contacts", first.oid).unwrap();
    rotate(bob, bob.identity);
    alice.pull_all(bob, "identities");
    let resigned = bob.sign(&first);
    let again = resigned.clone();
    assert_eq!(carol.force_one(alice, "contacts", resigned), None);
    let after = alice.parent("contacts", first.oid).unwrap();
    assert_eq!((before.key_id, after.key_id), (0, 1));
    assert!(after.change_seq > before.change_seq);
    assert_eq!(after.created_seq, before.created_seq);
    assert_eq!(after.origin, before.origin, "the object counts as before");
    assert_eq!(alice.object("contacts", first.oid).unwrap().1, again);
    // Once only.
    assert_eq!(carol.force_one(alice, "contacts", again), None);
    assert_eq!(alice.parent("contacts", first.oid), Some(after));
}

#[test]
fn peer_returns_objects_to_the_home_of_their_owner_whoever_sent_them() {
    let three = Three::new();
    let Three { alice, bob, carol } = &three;
    let first = three.card_of_bob(1, "A");
    let sent = bob.sign(&first);
    assert_eq!(carol.force_one(alice, "contacts", sent.clone()), None);
    alice.make("contacts", 1, card(bob.identity, "B")).unwrap();
    let returned = |to: &TestNode| {
        let request = RecoveryRequest {
            peer: to.peer_id(),
            domain: "contacts".into(),
            after: None,
        };
        let batch = alice.read(move |view| view.recovery_batch(&request));
        assert_eq!(batch.next, None);
        batch.objects
    };
    assert_eq!(returned(bob), [sent]);
    assert_eq!(returned(carol), []);
}

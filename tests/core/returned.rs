//! Objects that a peer returns to their restored home, and those that wait on either side.

use std::collections::BTreeSet;

use harness::forge::{object, sign_with_later_key};
use harness::pull::meet;
use harness::{Setup, TestNode, conversation};
use keys::SignedObject;
use postern::state_engine::{CoreLimits, RecoveryRequest};

use crate::waiting::{early, line, talk};

#[test]
fn reply_comes_when_the_own_conversation_is_returned_after_a_restore() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    alice.send(bob.identity, "Hi");
    bob.pull_everything(&alice);
    bob.send(alice.identity, "Hi yourself");
    // Restored from a backup that was made before the conversation.
    let alice = alice.into_setup().elsewhere().node();
    meet(&alice, &bob);
    reclaim(&alice, &bob, "identities");
    alice.pull_everything(&bob);
    assert_eq!((alice.texts().len(), alice.rows("waiting").len()), (0, 1));
    reclaim(&alice, &bob, "messages");
    let mut texts: Vec<_> = alice.texts().into_iter().map(|(_, text)| text).collect();
    texts.sort();
    assert_eq!(texts, ["Hi", "Hi yourself"]);
    assert_eq!(alice.rows("waiting").len(), 0);
}

/// Returns to a node what a peer holds of it in a domain.
pub(crate) fn reclaim(node: &TestNode, peer: &TestNode, domain: &str) {
    let request = RecoveryRequest {
        peer: node.peer_id(),
        domain: domain.to_owned(),
        after: None,
    };
    let batch = peer.read(move |view| view.recovery_batch(&request));
    let peer = peer.peer_id();
    node.write(move |core, now| core.reclaim(now, peer, batch.objects))
        .unwrap();
}

#[test]
fn returned_object_waits_for_the_conversation_of_a_peer() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    bob.send(alice.identity, "Hi");
    alice.pull_everything(&bob);
    alice.send(bob.identity, "Hi yourself");
    bob.pull_everything(&alice);
    let alice = alice.into_setup().elsewhere().node();
    meet(&alice, &bob);
    reclaim(&alice, &bob, "identities");
    reclaim(&alice, &bob, "messages");
    assert_eq!((alice.texts().len(), alice.rows("waiting").len()), (0, 1));
    alice.pull_everything(&bob);
    assert_eq!(alice.texts().len(), 2);
    let own = alice.rows("app_messages_parent");
    assert_eq!((own.len(), alice.rows("waiting").len()), (3, 0));
}

#[test]
fn object_that_waits_at_a_peer_is_returned() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    let carol = TestNode::new("carol", 600);
    let meet_all = |alice: &TestNode| {
        meet(alice, &bob);
        meet(alice, &carol);
    };
    meet_all(&alice);
    let talk = talk(&bob, &[alice.identity, carol.identity]);
    let sent = early(&alice, &talk, 3);
    let applied = alice.force(&carol, "messages", sent.clone()).unwrap();
    assert_eq!(applied.waiting, 3);
    // Another key of Alice, which Carol does not know, may be forged.
    let unknown = line(&alice, &talk, 3);
    let unknown = sign_with_later_key(&unknown);
    alice.force(&carol, "messages", vec![unknown]).unwrap();
    assert_eq!(carol.rows("waiting").len(), 4);
    let alice = alice.into_setup().elsewhere().node();
    meet_all(&alice);
    reclaim(&alice, &carol, "identities");
    reclaim(&alice, &carol, "messages");
    assert_eq!((alice.texts().len(), alice.rows("waiting").len()), (0, 3));
    let talk = vec![bob.sign(&talk)];
    bob.force(&alice, "messages", talk).unwrap();
    assert_eq!((alice.texts().len(), alice.rows("waiting").len()), (3, 0));
}

/// The objects of a domain that a peer returns in its first batch.
fn returned(node: &TestNode, peer: &TestNode) -> Vec<SignedObject> {
    let request = RecoveryRequest {
        peer: node.peer_id(),
        domain: "messages".into(),
        after: None,
    };
    peer.read(move |view| view.recovery_batch(&request)).objects
}

/// An identity that moved to the sender is unknown, or known at its old home.
#[test]
fn object_of_an_unknown_owner_is_returned_to_its_sender_only() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    let carol = TestNode::new("carol", 600);
    meet(&alice, &carol);
    meet(&bob, &carol);
    let dora = alice.another("Dora", 7);
    let people = Some(conversation(&[dora, carol.identity]));
    let talk = alice.sign(&object("messages", 1, 7, dora, 1, people));
    let sent = vec![talk];
    let applied = alice.force(&carol, "messages", sent.clone()).unwrap();
    assert_eq!((applied.waiting, applied.written), (1, 0));
    assert_eq!(returned(&alice, &carol), sent);
    assert_eq!(returned(&bob, &carol), []);
}

#[test]
fn waiting_objects_are_returned_in_batches() {
    let mut limits = CoreLimits::default();
    limits.package.objects_max = 4;
    let carol = Setup::new("carol").limits(limits).id_offset(600).node();
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &carol);
    let known = talk(&alice, &[carol.identity]);
    let unknown = talk(&bob, &[alice.identity, carol.identity]);
    let mut sent = vec![alice.sign(&known)];
    for number in 0..8 {
        let parent = if number % 2 == 0 { &known } else { &unknown };
        sent.push(alice.sign(&line(&alice, parent, number)));
    }
    for some in sent.chunks(4) {
        alice.force(&carol, "messages", some.to_vec()).unwrap();
    }
    assert_eq!(carol.rows("waiting").len(), 4);
    let (mut returned, mut after, mut batches) = (Vec::new(), None, 0);
    loop {
        let request = RecoveryRequest {
            peer: alice.peer_id(),
            domain: "messages".into(),
            after,
        };
        let batch = carol.read(move |view| view.recovery_batch(&request));
        assert!(batch.objects.len() <= 4);
        returned.extend(batch.objects);
        (after, batches) = (batch.next, batches + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(batches, 3);
    let by_bytes = |objects: Vec<SignedObject>| -> BTreeSet<Vec<u8>> {
        objects.iter().map(|it| it.bytes().to_vec()).collect()
    };
    assert_eq!(returned.len(), sent.len());
    assert_eq!(by_bytes(returned), by_bytes(sent));
}

#[test]
fn returned_object_without_room_is_counted_as_missing_and_stored_when_it_returns_again() {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 1;
    let alice = Setup::new("alice").limits(limits).node();
    let bob = TestNode::new("bob", 300);
    meet(&alice, &bob);
    let (talk, peer) = (talk(&bob, &[alice.identity]), bob.peer_id());
    let own = early(&alice, &talk, 2);
    let reclaim = || {
        let own = own.clone();
        let taken = alice.write(move |core, now| core.reclaim(now, peer, own));
        taken.unwrap()
    };
    for _ in 0..2 {
        let taken = reclaim();
        assert_eq!((taken.waiting, taken.missing, taken.written), (1, 1, 0));
        assert_eq!(alice.rows("waiting").len(), 1);
    }
    assert_eq!(bob.force_one(&alice, "messages", bob.sign(&talk)), None);
    assert_eq!(alice.rows("waiting").len(), 0);
    let taken = reclaim();
    assert_eq!((taken.already_stored, taken.written), (1, 1));
    assert_eq!((taken.waiting, taken.missing), (0, 0));
    assert_eq!(alice.texts().len(), 2);
}

#[test]
fn returned_objects_that_wait_take_no_room_of_what_the_peer_sends() {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 1;
    let alice = Setup::new("alice").limits(limits).node();
    let (bob, carol) = (TestNode::new("bob", 300), TestNode::new("carol", 600));
    meet(&alice, &bob);
    // The conversation of both never comes.
    let talk = talk(&carol, &[alice.identity, bob.identity]);
    let (own, peer) = (early(&alice, &talk, 2), bob.peer_id());
    let taken = alice.write(move |core, now| core.reclaim(now, peer, own));
    let taken = taken.unwrap();
    assert_eq!((taken.waiting, taken.missing), (1, 1));
    let sent = bob.force(&alice, "messages", early(&bob, &talk, 2));
    assert_eq!(sent.unwrap().waiting, 2);
    assert_eq!(alice.rows("waiting").len(), 2, "one of each kind");
    assert_eq!(alice.again_count(&bob), 1, "the other one is pulled again");
}

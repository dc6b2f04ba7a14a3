//! Operations of the apps: messages and identities.

use postern::services::messages::{self, SendError};
use postern::services::{identities, people};
use postern::store::FeedCursor;

use harness::forge::oid;
use harness::pull::meet;
use harness::{TestNode, conversation, message};

#[test]
fn message_needs_a_local_sender_and_a_known_recipient() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    let before = alice.dump();
    let unknown = alice.try_send(bob.identity, "Hi");
    assert!(matches!(unknown, Err(SendError::UnknownRecipient(to)) if to == bob.identity));
    let server = alice.keys.server_oid();
    let nobody = alice.try_send(server, "Hi");
    assert!(matches!(nobody, Err(SendError::UnknownRecipient(to)) if to == server));
    assert!(matches!(
        alice.try_send(alice.identity, "note to self"),
        Err(SendError::Alone)
    ));
    let (unknown, to) = (oid(1), alice.identity);
    let forged = alice.graph(move |graph| messages::send(graph, unknown, to, "Hi"));
    assert!(matches!(forged, Err(SendError::UnknownSender(sender)) if sender == unknown));
    assert!(matches!(
        alice.try_send(bob.identity, ""),
        Err(SendError::UnknownRecipient(_))
    ));
    assert_eq!(alice.dump(), before);
}

#[test]
fn concurrent_first_messages_end_in_one_conversation() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 50));
    meet(&alice, &bob);
    let first = alice.send(bob.identity, "Hi Bob");
    let second = bob.send(alice.identity, "Hi Alice");
    assert_ne!(first.conversation, second.conversation);
    alice.pull_everything(&bob);
    bob.pull_everything(&alice);
    let (third, fourth) = (
        alice.send(bob.identity, "again"),
        bob.send(alice.identity, "again"),
    );
    assert_eq!(third.conversation, fourth.conversation);
    assert_eq!(
        third.conversation,
        first.conversation.min(second.conversation)
    );
}

#[test]
fn message_to_one_identity_does_not_use_a_conversation_of_three() {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 0),
        TestNode::new("carol", 0),
    );
    meet(&alice, &bob);
    meet(&alice, &carol);
    let three = alice
        .make(
            "messages",
            1,
            conversation(&[alice.identity, bob.identity, carol.identity]),
        )
        .unwrap();
    let sent = alice.send(bob.identity, "just you");
    assert_ne!(sent.conversation, three.oid);
    carol.pull_everything(&alice);
    assert_eq!(carol.texts(), []);
}

#[test]
fn inbox_is_paged_and_shows_only_readable_messages() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let sent: Vec<_> = (0..5)
        .map(|number| alice.send(bob.identity, &format!("{number}")))
        .collect();
    let (mut after, mut bodies) = (FeedCursor::default(), Vec::new());
    loop {
        let reader = alice.identity;
        let part = alice.read(move |view| messages::inbox(&view, &reader, after, 2));
        after = part.after;
        bodies.extend(
            part.messages
                .into_iter()
                .map(|message| (message.body, message.change_seq, message.is_local)),
        );
        if !part.more {
            break;
        }
    }
    let expected: Vec<_> = sent
        .iter()
        .zip(0..)
        .map(|(sent, number)| (format!("{number}"), sent.change_seq, true))
        .collect();
    assert_eq!(bodies, expected);
    let remote_reader = bob.identity;
    let count = alice
        .read(move |view| messages::inbox(&view, &remote_reader, FeedCursor::default(), 10))
        .messages
        .len();
    assert_eq!(
        count, 5,
        "the result does not depend on the home of the reader"
    );
    assert_eq!(
        alice
            .read(move |view| messages::inbox(&view, &oid(1), FeedCursor::default(), 10))
            .messages
            .len(),
        0
    );

    let group = alice
        .make("messages", 1, conversation(&[alice.identity, oid(9)]))
        .unwrap();
    alice
        .make("messages", 2, message(group.oid, "to an unknown identity"))
        .unwrap();
    assert_eq!(
        alice
            .read(move |view| messages::inbox(&view, &remote_reader, FeedCursor::default(), 10))
            .messages
            .len(),
        5
    );
}

#[test]
fn known_identities_list_local_ones_first_and_handshake_carries_only_those() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let cards = alice.read(|view| identities::known(&view));
    let cards: Vec<_> = cards
        .iter()
        .map(|card| {
            (
                card.person.oid,
                card.person.shown_claim(),
                card.home,
                card.is_local,
            )
        })
        .collect();
    let expected = [
        (
            alice.identity,
            Some("alice".to_owned()),
            alice.peer_id(),
            true,
        ),
        (bob.identity, Some("bob".to_owned()), bob.peer_id(), false),
    ];
    assert_eq!(cards, expected);
    let sent = alice.read(|view| identities::for_handshake(&view, 8));
    assert_eq!(
        sent,
        [alice.object("identities", alice.identity).unwrap().1]
    );
    assert_eq!(alice.read(|view| identities::for_handshake(&view, 0)), []);
    let identity = bob.identity;
    assert_eq!(
        alice
            .read(move |view| people::claim_of(&view.rows, &identity))
            .as_deref(),
        Some("bob")
    );
}

#[test]
fn pull_after_a_handshake_brings_the_same_identity() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let before = bob.parent("identities", alice.identity);
    let pulled = bob.pull(&alice, "identities");
    assert_eq!(
        (
            pulled.objects,
            pulled.applied.written,
            pulled.applied.already_stored
        ),
        (1, 0, 1)
    );
    assert_eq!(bob.parent("identities", alice.identity), before);
    let state = bob.dump();
    bob.learn_of(&alice);
    assert_eq!(bob.dump(), state, "a second handshake changes nothing");
}

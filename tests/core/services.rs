//! The apps' few verbs.

use postern::services::identities;
use postern::services::messages::{self, SendError};

use harness::forge::oid;
use harness::pull::meet;
use harness::{TestNode, conversation, message};

#[test]
fn a_message_needs_somebody_here_and_somebody_known() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    let before = alice.dump();
    assert!(
        matches!(alice.try_send(bob.identity, "Hi"), Err(SendError::UnknownRecipient(who)) if who == bob.identity)
    );
    assert!(matches!(
        alice.try_send(alice.identity, "note to self"),
        Err(SendError::Alone)
    ));
    let (nobody, to) = (oid(1), alice.identity);
    let forged = alice.graph(move |graph| messages::send(graph, nobody, to, "Hi"));
    assert!(matches!(forged, Err(SendError::UnknownSender(who)) if who == nobody));
    assert!(matches!(
        alice.try_send(bob.identity, ""),
        Err(SendError::UnknownRecipient(_))
    ));
    assert_eq!(alice.dump(), before);
}

#[test]
fn two_who_write_to_each_other_at_once_end_in_one_conversation() {
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
fn a_word_to_one_does_not_go_into_a_conversation_of_three() {
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
fn an_inbox_is_read_in_parts_and_shows_what_its_reader_may_read() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let sent: Vec<_> = (0..5)
        .map(|number| alice.send(bob.identity, &format!("{number}")))
        .collect();
    let (mut after, mut bodies) = (0, Vec::new());
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
    let stranger = bob.identity;
    let hers = alice
        .read(move |view| messages::inbox(&view, &stranger, 0, 10))
        .messages
        .len();
    assert_eq!(hers, 5, "Bob is a reader wherever the messages are");
    assert_eq!(
        alice
            .read(move |view| messages::inbox(&view, &oid(1), 0, 10))
            .messages
            .len(),
        0
    );

    let group = alice
        .make("messages", 1, conversation(&[alice.identity, oid(9)]))
        .unwrap();
    alice
        .make("messages", 2, message(group.oid, "to somebody unknown"))
        .unwrap();
    assert_eq!(
        alice
            .read(move |view| messages::inbox(&view, &stranger, 0, 10))
            .messages
            .len(),
        5
    );
}

#[test]
fn who_is_known_is_listed_ours_first_and_only_ours_go_into_a_handshake() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let cards = alice.read(|view| identities::known(&view));
    let cards: Vec<_> = cards
        .iter()
        .map(|card| (card.oid, card.name.as_deref(), card.home, card.is_local))
        .collect();
    let expected = [
        (alice.identity, Some("alice"), alice.peer_id(), true),
        (bob.identity, Some("bob"), bob.peer_id(), false),
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
            .read(move |view| identities::name_of(&view, &identity))
            .as_deref(),
        Some("bob")
    );
}

#[test]
fn what_a_handshake_brought_is_what_a_later_pull_brings() {
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
    assert_eq!(bob.dump(), state, "meeting again changes nothing");
}

//! Conversations: who founds, adds, removes, leaves, reads and writes.

use keys::Oid;
use postern::object::{Rights, Value};
use postern::services::conversation_cards::Standing;
use postern::services::conversations::{Addition, ConversationError};
use postern::services::identities;
use postern::services::messages::{CONVERSATION, TITLE};
use postern::services::rights::{self, RightsError};

use harness::forge::oid;
use harness::pull::meet;
use harness::{TestNode, conversation};

/// Three nodes that are peers of each other, with one identity each.
pub(crate) fn three() -> (TestNode, TestNode, TestNode) {
    let (alice, bob, carol) = (
        TestNode::new("alice", 0),
        TestNode::new("bob", 300),
        TestNode::new("carol", 700),
    );
    meet(&alice, &bob);
    meet(&alice, &carol);
    meet(&bob, &carol);
    (alice, bob, carol)
}

fn sorted(mut expected: Vec<(Oid, Standing)>) -> Vec<(Oid, Standing)> {
    expected.sort_by_key(|(oid, _)| *oid);
    expected
}

/// Each node pulls from each other one until nothing is left.
pub(crate) fn sync(nodes: &[&TestNode]) {
    while nodes
        .iter()
        .flat_map(|to| nodes.iter().map(move |from| (to, from)))
        .filter(|(to, from)| to.peer_id() != from.peer_id())
        .map(|(to, from)| to.pull_everything(from))
        .sum::<usize>()
        > 0
    {}
}

#[test]
fn founding_needs_known_members_that_are_not_retired() {
    let (alice, bob, carol) = three();
    let dora = alice.another("Dora", 1);
    alice
        .graph(move |graph| identities::retire(graph, dora, true))
        .unwrap();
    let before = alice.dump();
    let fails = |founder, others: &[Oid]| alice.try_found(founder, others, None).unwrap_err();
    let (me, you) = (alice.identity, bob.identity);
    assert!(matches!(fails(me, &[]), ConversationError::Alone));
    assert!(matches!(fails(me, &[me]), ConversationError::Alone));
    assert!(matches!(fails(you, &[me]), ConversationError::NotHere(who) if who == you));
    let server = alice.keys.server_oid();
    assert!(matches!(
        fails(me, &[you, server]),
        ConversationError::Rights(RightsError::UnknownIdentity(who)) if who == server
    ));
    assert!(matches!(
        fails(me, &[you, oid(9)]),
        ConversationError::Rights(RightsError::UnknownIdentity(who)) if who == oid(9)
    ));
    assert!(matches!(
        fails(me, &[you, dora]),
        ConversationError::Rights(RightsError::Retired(who)) if who == dora
    ));
    assert!(matches!(
        fails(me, &[you, carol.identity, you]),
        ConversationError::NamedTwice(who) if who == you
    ));
    assert_eq!(alice.dump(), before);
}

#[test]
fn sixty_four_can_found_a_conversation_and_256_can_take_part() {
    let alice = TestNode::new("alice", 0);
    let others: Vec<Oid> = (1..=256)
        .map(|seed| alice.another(&format!("member {seed}"), seed))
        .collect();
    assert!(matches!(
        alice.try_found(alice.identity, &others[..64], None),
        Err(ConversationError::TooManyFounders)
    ));
    let talk = alice.found(&others[..63], "All");
    let changes: Vec<_> = others[63..255]
        .iter()
        .map(|who| (*who, Some(Rights::READ_WRITE)))
        .collect();
    alice
        .graph(move |graph| rights::change(graph, "messages", talk, &changes))
        .unwrap();
    assert_eq!(alice.card(talk).unwrap().members.len(), 256);
    assert!(matches!(
        alice.add_member(talk, others[255]),
        Err(ConversationError::Rights(RightsError::TooMany))
    ));
    // A member that left makes room.
    alice.leave_talk(talk, others[0]).unwrap();
    alice.add_member(talk, others[255]).unwrap();
}

#[test]
fn added_member_reads_the_whole_history() {
    let (alice, bob, carol) = three();
    let dora = carol.another("Dora", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[bob.identity, dora], "Hiking");
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob, &carol]);
    bob.say(talk, "two").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert!(matches!(
        carol.say(talk, "not yet"),
        Err(ConversationError::NotMember(_))
    ));
    assert!(carol.inbox().is_empty());

    let added = alice.add_member(talk, carol.identity).unwrap();
    assert!(matches!(added, Addition::Added(_)));
    assert!(matches!(
        alice.add_member(talk, carol.identity),
        Err(ConversationError::AlreadyMember(_))
    ));
    sync(&[&alice, &bob, &carol]);
    assert_eq!(carol.bodies(), ["one", "two"]);
    carol.say(talk, "three").unwrap();
    sync(&[&alice, &bob, &carol]);
    for node in [&alice, &bob, &carol] {
        assert_eq!(node.bodies(), ["one", "two", "three"]);
        assert_eq!(node.rejects(), [""; 0]);
        let expected = sorted(vec![
            (alice.identity, Standing::Owner),
            (bob.identity, Standing::Member),
            (carol.identity, Standing::Member),
            (dora, Standing::Member),
        ]);
        assert_eq!(node.standings(talk), expected);
    }
}

#[test]
fn member_on_a_node_that_did_not_know_the_conversation_gets_everything() {
    let (alice, bob, carol) = three();
    let eve = bob.another("Eve", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[bob.identity, eve], "Old");
    for number in 0..5 {
        alice.say(talk, &number.to_string()).unwrap();
        bob.say(talk, &format!("re {number}")).unwrap_or(talk);
        sync(&[&alice, &bob, &carol]);
    }
    assert!(carol.card(talk).is_none());
    alice.add_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    let (mut at_alice, mut at_carol) = (alice.bodies(), carol.bodies());
    at_alice.sort();
    at_carol.sort();
    assert_eq!(at_alice, at_carol);
    assert_eq!(carol.rejects(), [""; 0]);
}

#[test]
fn only_the_owner_adds_and_removes() {
    let (alice, bob, carol) = three();
    let dora = bob.another("Dora", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    sync(&[&alice, &bob, &carol]);
    let names_owner = |error: ConversationError| {
        let owner = alice.identity;
        let ConversationError::Rights(error) = error else {
            panic!("{error}")
        };
        matches!(error, RightsError::NotOwner { owner: it } if it == owner)
    };
    assert!(names_owner(bob.add_member(talk, dora).unwrap_err()));
    assert!(names_owner(
        bob.remove_member(talk, carol.identity).unwrap_err()
    ));
    let stays = |error: ConversationError| {
        let owner = alice.identity;
        matches!(error, ConversationError::Rights(RightsError::OwnerStays(it)) if it == owner)
    };
    assert!(stays(
        alice.remove_member(talk, alice.identity).unwrap_err()
    ));
    assert!(stays(alice.leave_talk(talk, alice.identity).unwrap_err()));
    assert!(matches!(
        alice.remove_member(talk, dora),
        Err(ConversationError::NotMember(who)) if who == dora
    ));
    for unknown in [oid(7), alice.send(bob.identity, "Hi").oid] {
        assert!(matches!(
            alice.add_member(unknown, dora),
            Err(ConversationError::NotFound(it)) if it == unknown
        ));
    }
    assert!(matches!(
        alice.add_member(talk, oid(8)),
        Err(ConversationError::Rights(RightsError::UnknownIdentity(_)))
    ));
}

#[test]
fn removed_member_keeps_what_it_has_and_gets_nothing_new() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob, &carol]);
    alice.remove_member(talk, carol.identity).unwrap();
    alice.say(talk, "two").unwrap();
    sync(&[&alice, &bob, &carol]);
    bob.say(talk, "three").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(bob.bodies(), ["one", "two", "three"]);
    assert_eq!(carol.bodies(), ["one"]);
    let expected = sorted(vec![
        (alice.identity, Standing::Owner),
        (bob.identity, Standing::Member),
        (carol.identity, Standing::Removed),
    ]);
    for node in [&alice, &bob, &carol] {
        assert_eq!(node.standings(talk), expected);
    }
    assert_eq!(carol.card(talk).unwrap().messages, 1);
    assert!(matches!(
        carol.say(talk, "hello?"),
        Err(ConversationError::NotMember(_))
    ));
    // Added again, the member gets what it missed.
    alice.add_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(carol.bodies(), ["one", "two", "three"]);
}

#[test]
fn member_that_left_gets_nothing_new_until_it_is_added_anew() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob, &carol]);
    bob.leave_talk(talk, bob.identity).unwrap();
    assert!(matches!(
        bob.leave_talk(talk, bob.identity),
        Err(ConversationError::NotMember(_))
    ));
    sync(&[&alice, &bob, &carol]);
    alice.say(talk, "two").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(bob.bodies(), ["one"]);
    assert_eq!(carol.bodies(), ["one", "two"]);
    let expected = sorted(vec![
        (alice.identity, Standing::Owner),
        (bob.identity, Standing::Left),
        (carol.identity, Standing::Member),
    ]);
    for node in [&alice, &bob, &carol] {
        assert_eq!(node.standings(talk), expected);
    }
    alice.add_member(talk, bob.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(bob.bodies(), ["one", "two"]);
    bob.say(talk, "back").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(carol.bodies(), ["one", "two", "back"]);
    assert!(carol.rejects().is_empty() && alice.rejects().is_empty());
}

#[test]
fn whoever_may_write_sends_and_sees_the_message_only_as_a_reader() {
    let (alice, bob, carol) = three();
    let nodes = [&alice, &bob, &carol];
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    sync(&nodes);
    let writes = Some(Rights::WRITE);
    alice.change_rights(talk, carol.identity, writes).unwrap();
    sync(&nodes);
    bob.leave_talk(talk, bob.identity).unwrap();
    bob.say(talk, "left").unwrap();
    carol.say(talk, "writes only").unwrap();
    sync(&nodes);
    assert_eq!(alice.bodies(), ["left", "writes only"]);
    assert_eq!(bob.bodies(), [""; 0]);
    assert_eq!(carol.bodies(), [""; 0]);
    assert!(alice.rejects().is_empty());
}

#[test]
fn message_to_one_uses_a_conversation_of_two_while_both_read_and_write_alone() {
    let (alice, bob, carol) = three();
    let nodes = [&alice, &bob, &carol];
    let first = alice.send(bob.identity, "one").conversation;
    sync(&nodes);
    assert_eq!(bob.send(alice.identity, "two").conversation, first);
    bob.leave_talk(first, bob.identity).unwrap();
    sync(&nodes);
    let second = alice.send(bob.identity, "three").conversation;
    assert_ne!(second, first);
    sync(&nodes);
    assert_eq!(bob.send(alice.identity, "four").conversation, second);

    let change = |talk: Oid, who: Oid, right: Option<Rights>| {
        alice.change_rights(talk, who, right).unwrap();
    };
    change(second, bob.identity, Some(Rights::READ));
    let third = alice.send(bob.identity, "five").conversation;
    assert_ne!(third, second);
    // A node of another program may let a third one in.
    let third_reads = [(carol.identity, Some(Rights::READ))];
    alice.set_rights("messages", third, &third_reads).unwrap();
    let fourth = alice.send(bob.identity, "six").conversation;
    assert!(![first, second, third].contains(&fourth));
    alice.remove_member(fourth, bob.identity).unwrap();
    let fifth = alice.send(bob.identity, "seven").conversation;
    assert!(![first, second, third, fourth].contains(&fifth));
    sync(&nodes);
    assert_eq!(bob.send(alice.identity, "eight").conversation, fifth);
    assert!(!carol.bodies().contains(&"six".to_owned()));
}

#[test]
fn many_ended_conversations_of_two_make_one_new_one() {
    let (alice, bob, _) = three();
    for _ in 0..70 {
        let talk = bob.found(&[alice.identity], "Bait");
        bob.remove_member(talk, alice.identity).unwrap();
    }
    alice.pull_everything(&bob);
    let first = alice.send(bob.identity, "one").conversation;
    assert_eq!(alice.send(bob.identity, "two").conversation, first);
}

#[test]
fn reader_without_the_right_to_write_is_told_so() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "News");
    let who = bob.identity;
    alice.change_rights(talk, who, Some(Rights::READ)).unwrap();
    sync(&[&alice, &bob, &carol]);
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert!(matches!(
        bob.say(talk, "two"),
        Err(ConversationError::MayNotWrite(it)) if it == who
    ));
    assert_eq!(bob.bodies(), ["one"]);
}

#[test]
fn title_is_one_line_and_a_foreign_one_is_kept() {
    let (alice, bob, carol) = three();
    let before = alice.dump();
    let long = "x".repeat(201);
    let hidden = ["a\u{2028}b", "a\u{202e}b", "\u{200b}"];
    let wrong = [
        "",
        "  ",
        " outer",
        "outer ",
        "two\nlines",
        "\u{1b}[2J",
        "a\u{9b}b",
        &long,
    ];
    for title in hidden.into_iter().chain(wrong) {
        let refused = alice.try_found(alice.identity, &[bob.identity], Some(title));
        assert!(
            matches!(refused, Err(ConversationError::BadTitle(_))),
            "{title:?}"
        );
    }
    assert_eq!(alice.dump(), before);
    alice.found(&[bob.identity], &long[1..]);
    // An own frontend may write any text. Adding a member keeps it.
    let mut attrs = conversation(&[alice.identity, bob.identity]);
    attrs.insert(TITLE, vec![Value::from("two\nlines")]);
    let talk = alice.make("messages", CONVERSATION, attrs).unwrap().oid;
    let Addition::Founded(larger) = alice.add_member(talk, carol.identity).unwrap() else {
        panic!("a conversation of two stays one of two");
    };
    let card = alice.card(larger.oid).unwrap();
    assert_eq!(card.title.as_deref(), Some("two\\nlines"));
}

#[test]
fn rights_that_do_not_exist_cannot_be_taken() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    alice.remove_member(talk, carol.identity).unwrap();
    let before = alice.dump();
    let again = alice.change_rights(talk, carol.identity, None);
    assert!(matches!(again, Err(RightsError::NoRights(who)) if who == carol.identity));
    assert_eq!(alice.dump(), before, "no list was written");
}

//! Conversations of two that become larger ones.

use keys::Oid;
use postern::object::Rights;
use postern::services::conversations::Addition;
use postern::services::identities;
use postern::services::rights::RightsError;

use crate::conversations::{sync, three};
use harness::TestNode;

/// The owner gives an identity rights in a conversation, as the node of another program may do.
fn give(owner: &TestNode, talk: Oid, identity: Oid, to: Rights) {
    let given = owner.set_rights("messages", talk, &[(identity, Some(to))]);
    given.unwrap();
}

#[test]
fn conversation_of_two_stays_one_of_two() {
    let (alice, bob, carol) = three();
    let two = alice.found(&[bob.identity], "Plans");
    alice.say(two, "secret").unwrap();
    sync(&[&alice, &bob, &carol]);
    let Addition::Founded(new) = alice.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    // Either of the two can, because nothing is added to the conversation of two.
    let Addition::Founded(other) = bob.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    sync(&[&alice, &bob, &carol]);
    assert_eq!(carol.bodies(), [""; 0]);
    for (node, oid) in [(&alice, new.oid), (&bob, other.oid)] {
        let card = node.card(oid).unwrap();
        assert_eq!(card.title.as_deref(), Some("Plans"));
        assert_eq!((card.owner, card.members.len()), (node.identity, 3));
        assert!(!card.is_of_two);
    }
    assert!(alice.card(two).unwrap().is_of_two);
    // A member that was removed from a conversation of two can be added again.
    alice.remove_member(two, bob.identity).unwrap();
    let again = alice.add_member(two, bob.identity).unwrap();
    assert!(matches!(again, Addition::Added(_)));
}

#[test]
fn change_of_rights_gives_nothing_to_a_third_in_a_conversation_of_two() {
    let (alice, bob, carol) = three();
    let two = alice.found(&[bob.identity], "Plans");
    let before = alice.dump();
    for to in [Rights::READ, Rights::WRITE, Rights::READ_WRITE] {
        let refused = alice.change_rights(two, carol.identity, Some(to));
        assert!(
            matches!(refused, Err(RightsError::OfTwo(who)) if who == carol.identity),
            "{to:?}: {refused:?}"
        );
    }
    assert_eq!(alice.dump(), before, "no list was written");
    for to in [Some(Rights::READ), None, Some(Rights::READ_WRITE)] {
        alice.change_rights(two, bob.identity, to).unwrap();
    }
    sync(&[&alice, &bob]);
    bob.leave_talk(two, bob.identity).unwrap();
    sync(&[&alice, &bob]);
    let again = Some(Rights::READ_WRITE);
    alice.change_rights(two, bob.identity, again).unwrap();
    // One who has rights by an earlier list can lose them, and not gain any.
    give(&alice, two, carol.identity, Rights::READ_WRITE);
    let lower = Some(Rights::READ);
    alice.change_rights(two, carol.identity, lower).unwrap();
    let raised = alice.change_rights(two, carol.identity, again);
    assert!(matches!(raised, Err(RightsError::OfTwo(_))), "{raised:?}");
    alice.change_rights(two, carol.identity, None).unwrap();
    assert!(alice.card(two).unwrap().is_of_two);
    // Receivers do not refuse such a list.
    sync(&[&alice, &bob]);
    assert!(bob.rejects().is_empty());
}

#[test]
fn member_that_only_reads_stays_one_when_two_become_three() {
    let (alice, bob, carol) = three();
    let two = alice.found(&[bob.identity], "Plans");
    let reads = Some(Rights::READ);
    alice.change_rights(two, bob.identity, reads).unwrap();
    let Addition::Founded(new) = alice.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    let (_, list) = alice.list_in_force("messages", new.oid).unwrap();
    assert_eq!(list.of(&bob.identity), reads);
    assert_eq!(list.of(&carol.identity), Some(Rights::READ_WRITE));
}

#[test]
fn larger_conversation_keeps_rights_and_leaves_retired_members_out() {
    let (alice, bob, carol) = three();
    let [reader, retired, second_retired] = [("reader", 1), ("retired", 2), ("founder", 3)]
        .map(|(name, seed)| alice.another(name, seed));
    let retire = |identity| {
        alice
            .graph(move |graph| identities::retire(graph, identity, true))
            .unwrap();
    };
    let two = alice.found(&[bob.identity], "Plans");
    give(&alice, two, reader, Rights::READ);
    give(&alice, two, retired, Rights::READ_WRITE);
    retire(retired);
    let Addition::Founded(new) = alice.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    let (_, list) = alice.list_in_force("messages", new.oid).unwrap();
    assert_eq!(list.of(&reader), Some(Rights::READ));
    assert_eq!(list.of(&bob.identity), Some(Rights::READ_WRITE));
    assert_eq!(list.of(&carol.identity), Some(Rights::READ_WRITE));
    assert_eq!(list.of(&retired), None);
    // The other founder may be retired too.
    let two = alice.found(&[second_retired], "Alone");
    retire(second_retired);
    let Addition::Founded(new) = alice.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    assert_eq!(alice.card(new.oid).unwrap().members.len(), 2);
}

#[test]
fn conversation_of_two_with_many_readers_can_grow() {
    let (alice, bob, carol) = three();
    let two = alice.found(&[bob.identity], "Plans");
    let readers: Vec<_> = (1..=63)
        .map(|seed| alice.another(&format!("reader {seed}"), seed))
        .collect();
    for reader in &readers[..62] {
        give(&alice, two, *reader, Rights::READ_WRITE);
    }
    give(&alice, two, readers[62], Rights::READ);
    let Addition::Founded(new) = alice.add_member(two, carol.identity).unwrap() else {
        panic!("no new conversation")
    };
    assert_eq!(alice.card(new.oid).unwrap().members.len(), 66);
}

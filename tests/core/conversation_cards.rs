//! Conversations as people see them: lists in pages, and labels of an inbox.

use keys::Oid;
use postern::services::conversation_cards;
use postern::services::messages;
use postern::store::{FeedCursor, Onlooker};

use harness::TestNode;
use harness::forge::oid;

use crate::conversations::{sync, three};

#[test]
fn list_shows_what_an_identity_may_read_in_pages() {
    let (alice, bob, carol) = three();
    let dora = alice.another("Dora", 1);
    let (me, you) = (alice.identity, bob.identity);
    let talks: Vec<Oid> = (0..5)
        .map(|number| alice.found(&[you], &number.to_string()))
        .collect();
    let doras = alice.try_found(dora, &[you], None).unwrap();
    alice.say(talks[0], "one").unwrap();
    let newest = alice.say(talks[0], "two").unwrap();
    let list = |node: &TestNode, onlooker: Onlooker, after, limit, suffix: &str| {
        let suffix = suffix.to_owned();
        node.read(move |view| conversation_cards::list(&view, onlooker, after, limit, &suffix))
    };
    let any = Onlooker::AnyAt(alice.peer_id());
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = list(&alice, Onlooker::Identity(me), after, 2, "");
        assert!(page.cards.len() <= 2);
        seen.extend(page.cards.iter().map(|card| card.oid));
        after = page.after;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, talks);
    let all = list(&alice, any, 0, 100, "").cards;
    assert_eq!(all.len(), 6);
    assert_eq!(
        list(&alice, Onlooker::Identity(dora), 0, 100, "").cards[0].oid,
        doras
    );
    let first = &all[0];
    assert_eq!((first.messages, first.has_uncounted), (2, false));
    assert_eq!(first.newest_sent_at, Some(harness::START as i64));
    assert!(alice.parent("messages", newest).is_some());
    let hex = talks[3].to_hex();
    let found_by_suffix = list(&alice, any, 0, 2, &hex[20..]);
    assert_eq!(found_by_suffix.cards.len(), 1);
    assert_eq!(
        (found_by_suffix.cards[0].oid, found_by_suffix.more),
        (talks[3], false)
    );
    sync(&[&alice, &bob, &carol]);
    assert_eq!(
        list(&carol, Onlooker::Identity(carol.identity), 0, 100, "").cards,
        []
    );
    assert_eq!(
        list(&bob, Onlooker::Identity(you), 0, 100, "").cards.len(),
        6
    );
}

#[test]
fn former_member_sees_the_list_that_removed_it_and_no_later_one() {
    let (alice, bob, carol) = three();
    let dora = carol.another("Dora", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[carol.identity, dora], "Hiking");
    alice.say(talk, "one").unwrap();
    sync(&[&alice, &bob, &carol]);
    alice.remove_member(talk, dora).unwrap();
    sync(&[&alice, &bob, &carol]);
    alice.add_member(talk, bob.identity).unwrap();
    alice.say(talk, "two").unwrap();
    sync(&[&alice, &bob, &carol]);
    let seen_by = |identity: Oid| {
        let onlooker = Onlooker::Identity(identity);
        let page = carol.read(move |view| conversation_cards::list(&view, onlooker, 0, 10, ""));
        let card = &page.cards[0];
        let members: Vec<_> = card
            .members
            .iter()
            .map(|member| member.person.oid)
            .collect();
        (card.messages, members.contains(&bob.identity))
    };
    assert_eq!(seen_by(carol.identity), (2, true));
    assert_eq!(seen_by(dora), (1, false));
}

#[test]
fn inbox_labels_conversations_that_are_not_of_two() {
    let (alice, bob, carol) = three();
    let two = alice.send(bob.identity, "Hi").conversation;
    let three = alice.found(&[bob.identity, carol.identity], "Hiking");
    alice.say(three, "all").unwrap();
    let oids = [two, three, three, oid(1)].into_iter();
    let reader = alice.identity;
    let labels = alice.read(move |view| conversation_cards::labels(&view, &reader, oids));
    let shown: Vec<_> = labels
        .iter()
        .map(|label| {
            (
                label.oid,
                label.is_of_two,
                label.member_count,
                label.title.as_deref(),
            )
        })
        .collect();
    let mut expected = [(two, true, 2, None), (three, false, 3, Some("Hiking"))];
    expected.sort_by_key(|(oid, ..)| *oid);
    assert_eq!(shown, expected);
    let names = &labels
        .iter()
        .find(|label| label.oid == three)
        .unwrap()
        .members;
    let bob = names.iter().find(|it| it.oid == bob.identity).unwrap();
    assert_eq!(bob.shown_claim().as_deref(), Some("bob"));
    let inbox = alice.read({
        let reader = alice.identity;
        move |view| messages::inbox(&view, &reader, FeedCursor::default(), 10)
    });
    assert_eq!(inbox.messages.len(), 2);
}

#[test]
fn label_shows_a_former_member_the_members_of_its_time() {
    let (alice, bob, carol) = three();
    let dora = alice.another("Dora", 1);
    let erin = alice.another("Erin", 2);
    let frank = carol.another("Frank", 3);
    sync(&[&alice, &bob, &carol]);
    let removed = alice.found(&[bob.identity, carol.identity, dora], "Hiking");
    let left = alice.found(&[bob.identity, carol.identity], "Cooking");
    let two = alice.found(&[carol.identity], "Us");
    for talk in [removed, left, two] {
        alice.say(talk, "Hi").unwrap();
    }
    sync(&[&alice, &bob, &carol]);
    alice.remove_member(removed, carol.identity).unwrap();
    carol.leave_talk(left, carol.identity).unwrap();
    carol.leave_talk(two, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    // Another identity at Carol's node gets what happens later.
    alice.add_member(removed, frank).unwrap();
    alice.add_member(left, frank).unwrap();
    alice.add_member(removed, erin).unwrap();
    alice.remove_member(removed, dora).unwrap();
    sync(&[&alice, &bob, &carol]);
    bob.leave_talk(left, bob.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    let label = |node: &TestNode, reader: Oid, talk: Oid| {
        let found =
            node.read(move |view| conversation_cards::labels(&view, &reader, [talk].into_iter()));
        let label = found.into_iter().next().unwrap();
        let members: Vec<_> = label.members.iter().map(|it| it.oid).collect();
        assert_eq!(label.member_count, members.len());
        (label.is_of_two, members)
    };
    let sorted = |mut oids: Vec<Oid>| {
        oids.sort_unstable();
        oids
    };
    let others = sorted(vec![alice.identity, bob.identity, dora]);
    assert_eq!(label(&carol, carol.identity, removed), (false, others));
    let others = sorted(vec![alice.identity, bob.identity]);
    assert_eq!(label(&carol, carol.identity, left), (false, others));
    assert_eq!(
        label(&carol, carol.identity, two),
        (true, vec![alice.identity])
    );
    // A member sees the present ones.
    let present = sorted(vec![alice.identity, bob.identity, erin, frank]);
    assert_eq!(label(&alice, alice.identity, removed), (false, present));
    let present = sorted(vec![alice.identity, frank]);
    assert_eq!(label(&alice, alice.identity, left), (false, present));
}

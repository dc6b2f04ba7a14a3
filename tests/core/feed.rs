//! Polling with `after`: objects that an identity sees later than this node stored them.

use std::collections::BTreeSet;

use harness::TestNode;
use harness::forge::tombstone;
use harness::stolen_keys::StolenKeys;
use keys::Oid;
use postern::object::Rights;
use postern::services::messages;
use postern::store::{FeedCursor, Onlooker, SeqOrder, StoreError};
use proptest::prelude::*;

use crate::conversations::{sync, three};
use crate::scopes::{FOLDER, PAGE, folder, page, three_and_a_thief, writer};
use crate::thieves::rotate;

/// A client that polls the inbox of an identity.
struct Poller {
    reader: Oid,
    after: FeedCursor,
    seen: Vec<String>,
}

impl Poller {
    fn of(reader: Oid) -> Self {
        let (after, seen) = (FeedCursor::default(), Vec::new());
        Self {
            reader,
            after,
            seen,
        }
    }

    /// Polls until nothing follows, and returns what is new.
    fn poll(&mut self, node: &TestNode, limit: usize) -> Vec<String> {
        let before = self.seen.len();
        while self.poll_once(node, limit) {}
        self.seen[before..].to_vec()
    }

    /// Polls one page. Returns whether another one may follow.
    fn poll_once(&mut self, node: &TestNode, limit: usize) -> bool {
        let (reader, after) = (self.reader, self.after);
        let page = node.read(move |view| messages::inbox(&view, &reader, after, limit));
        let numbers: Vec<_> = page.messages.iter().map(|it| it.change_seq).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        self.seen
            .extend(page.messages.into_iter().map(|it| it.body));
        self.after = page.after.to_string().parse().unwrap();
        assert_eq!(self.after, page.after);
        page.more
    }
}

#[test]
fn poller_of_a_new_member_gets_the_history_that_is_stored_already() {
    let (alice, bob, carol) = three();
    let dora = carol.another("Dora", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[bob.identity, dora], "Hiking");
    for number in 0..5 {
        alice.say(talk, &number.to_string()).unwrap();
    }
    sync(&[&alice, &bob, &carol]);
    let mut member = Poller::of(carol.identity);
    assert_eq!(member.poll(&carol, 100), [""; 0]);
    let other = alice.found(&[carol.identity, bob.identity], "Other");
    alice.say(other, "before").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(member.poll(&carol, 100), ["before"]);

    alice.add_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    alice.say(other, "after").unwrap();
    alice.say(talk, "5").unwrap();
    sync(&[&alice, &bob, &carol]);
    for limit in [1, 2, 3, 100] {
        let mut again = Poller::of(carol.identity);
        again.after = member.after;
        let expected = ["0", "1", "2", "3", "4", "after", "5"];
        assert_eq!(again.poll(&carol, limit), expected, "{limit}");
        let mut new = Poller::of(carol.identity);
        let all = [&["before"][..], &expected[..]].concat();
        assert_eq!(new.poll(&carol, limit), all, "{limit}");
    }
    member.poll(&carol, 2);
    // A member that comes back gets what it missed, and nothing again.
    alice.remove_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(member.poll(&carol, 2), [""; 0]);
    bob.say(talk, "missed").unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(member.poll(&carol, 2), [""; 0]);
    alice.add_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(member.poll(&carol, 2), ["missed"]);
    // A rotation restamps all of it.
    rotate(&alice, alice.identity);
    sync(&[&alice, &bob, &carol]);
    assert_eq!(member.poll(&carol, 2), [""; 0]);
    assert_eq!(carol.texts().len(), 9);
}

/// The oids of a type that an onlooker began to see after a position, and the next one.
fn feed(
    node: &TestNode,
    onlooker: Onlooker,
    (app, type_number, order): (&'static str, u16, SeqOrder),
    after: FeedCursor,
) -> (Vec<Oid>, FeedCursor) {
    let (oids, after, _) = feed_page(node, onlooker, (app, type_number, order), (after, 100));
    (oids, after)
}

/// The same with a limit. The flag: another page may follow.
fn feed_page(
    node: &TestNode,
    onlooker: Onlooker,
    (app, type_number, order): (&'static str, u16, SeqOrder),
    (after, limit): (FeedCursor, usize),
) -> (Vec<Oid>, FeedCursor, bool) {
    node.read(move |view| {
        let app = view.rows.apps().get(app).unwrap();
        let mut sight = view.rows.sight(onlooker);
        let feed = sight.feed(app, (type_number, order), after, limit)?;
        let oids = feed.objects.iter().map(|it| it.row.oid).collect();
        Ok::<_, StoreError>((oids, feed.after, feed.more))
    })
}

#[test]
fn list_of_changes_brings_what_a_local_member_missed() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    sync(&[&alice, &bob, &carol]);
    alice.remove_member(talk, carol.identity).unwrap();
    carol.pull_everything(&alice);
    // Bob's node does not know the new list yet.
    let late = bob.say(talk, "late").unwrap();
    carol.pull_everything(&bob);
    assert!(carol.parent("messages", late).is_some());
    let messages = ("messages", messages::MESSAGE, SeqOrder::Changed);
    let list = |after| feed(&carol, Onlooker::AnyAt(carol.peer_id()), messages, after);
    let (seen, after) = list(FeedCursor::default());
    assert_eq!(seen, []);
    let after = list(after).1;
    alice.add_member(talk, carol.identity).unwrap();
    carol.pull_everything(&alice);
    let (seen, after) = list(after);
    assert_eq!(seen, [late]);
    assert_eq!(list(after).0, []);
}

#[test]
fn scope_that_exists_again_is_shown_again() {
    let [alice, bob, carol, thief] = three_and_a_thief();
    let attrs = folder(&[&alice, &bob, &carol], "plans");
    let plans = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    carol.pull_everything(&alice);
    bob.pull_everything(&alice);
    let hers = carol.make("wiki", PAGE, page(plans, "hers")).unwrap().oid;
    bob.pull_everything(&carol);
    let his = bob.make("wiki", PAGE, page(plans, "his")).unwrap().oid;
    let pages = ("wiki", PAGE, SeqOrder::Created);
    let poll = |after| feed(&bob, Onlooker::Identity(bob.identity), pages, after);
    let (seen, after) = poll(FeedCursor::default());
    assert_eq!(seen, [hers, his]);
    let gone = tombstone(&alice.object("wiki", plans).unwrap().0, 2);
    let forged = StolenKeys::of_name("alice").sign(&gone);
    assert_eq!(thief.force_one(&bob, "wiki", forged), None);
    while bob.write(|core, now| core.drop_ended_step(now)).unwrap() {}
    let (seen, after) = poll(after);
    assert_eq!(seen, []);
    rotate(&alice, alice.identity);
    bob.pull_all(&alice, "identities");
    bob.pull_all(&alice, "wiki");
    let (seen, after) = poll(after);
    assert_eq!(seen, [his], "the values of the other were dropped");
    bob.pull_everything(&carol);
    let (seen, after) = poll(after);
    assert_eq!(seen, [hers]);
    assert_eq!(poll(after).0, []);
}

#[test]
fn second_local_member_brings_no_message_again_to_a_client_of_the_node() {
    let (alice, bob, carol) = three();
    let dora = carol.another("Dora", 1);
    sync(&[&alice, &bob, &carol]);
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    let first = alice.say(talk, "first").unwrap();
    sync(&[&alice, &bob, &carol]);
    let all = Onlooker::AnyAt(carol.peer_id());
    let orders = [SeqOrder::Created, SeqOrder::Changed];
    let mut after = [FeedCursor::default(); 2];
    let mut poll = || {
        let mut seen = Vec::new();
        for (order, after) in orders.into_iter().zip(&mut after) {
            let (oids, next) = feed(&carol, all, ("messages", messages::MESSAGE, order), *after);
            *after = next;
            seen.push(oids);
        }
        seen
    };
    assert_eq!(poll(), [[first], [first]]);
    alice.add_member(talk, dora).unwrap();
    sync(&[&alice, &bob, &carol]);
    assert_eq!(poll(), [[], []], "Carol saw it before");
    // No identity of the node reads what comes then.
    for member in [carol.identity, dora] {
        alice.remove_member(talk, member).unwrap();
    }
    carol.pull_everything(&alice);
    let late = bob.say(talk, "late").unwrap();
    carol.pull_everything(&bob);
    assert_eq!(poll(), [[], []]);
    for (member, expected) in [(dora, vec![late]), (carol.identity, vec![])] {
        alice.add_member(talk, member).unwrap();
        sync(&[&alice, &bob, &carol]);
        assert_eq!(poll(), [expected.clone(), expected]);
    }
}

/// All objects of a type that an onlooker sees, page by page from the beginning.
fn pass(
    node: &TestNode,
    onlooker: Onlooker,
    what: (&'static str, u16, SeqOrder),
    limit: usize,
) -> Vec<Oid> {
    let (mut seen, mut after) = (Vec::new(), FeedCursor::default());
    loop {
        let (oids, next, more) = feed_page(node, onlooker, what, (after, limit));
        seen.extend(oids);
        after = next;
        if !more {
            return seen;
        }
    }
}

#[test]
fn one_pass_brings_each_object_once_in_either_order() {
    let (alice, bob, carol) = three();
    let other = alice.found(&[bob.identity, carol.identity], "Other");
    let talk = alice.found(&[bob.identity, carol.identity], "Hiking");
    sync(&[&alice, &bob, &carol]);
    alice.remove_member(talk, carol.identity).unwrap();
    carol.pull_everything(&alice);
    // Bob's node does not know the new list yet.
    let late = bob.say(talk, "late").unwrap();
    let between = bob.say(other, "between").unwrap();
    carol.pull_everything(&bob);
    alice.add_member(talk, carol.identity).unwrap();
    sync(&[&alice, &bob, &carol]);
    for onlooker in [
        Onlooker::Identity(carol.identity),
        Onlooker::AnyAt(carol.peer_id()),
    ] {
        for order in [SeqOrder::Created, SeqOrder::Changed] {
            for limit in [1, 2, 100] {
                let what = ("messages", messages::MESSAGE, order);
                let seen = pass(&carol, onlooker, what, limit);
                assert_eq!(seen, [between, late], "{onlooker:?} {order:?} {limit}");
            }
        }
    }
}

#[test]
fn object_that_changed_before_a_member_may_read_it_comes_once() {
    let alice = writer("alice", 0);
    let bob = alice.another("Bob", 1);
    let attrs = folder(&[&alice], "plans");
    let plans = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    let write = |text| alice.make("wiki", PAGE, page(plans, text)).unwrap().oid;
    let change = |oid, text| {
        let attrs = Some(page(plans, text));
        alice.change("wiki", PAGE, oid, attrs).unwrap()
    };
    let pages = ("wiki", PAGE, SeqOrder::Changed);
    let poll = |after| feed(&alice, Onlooker::Identity(bob), pages, after);
    let (one, two) = (write("one"), write("two"));
    change(one, "changed");
    let (seen, after) = poll(FeedCursor::default());
    assert_eq!(seen, []);
    let given = [(bob, Some(Rights::READ))];
    alice.set_rights("wiki", plans, &given).unwrap();
    let (seen, after) = poll(after);
    assert_eq!(seen, [one, two]);
    assert_eq!(pass(&alice, Onlooker::Identity(bob), pages, 1), [one, two]);
    change(one, "again");
    let (seen, after) = poll(after);
    assert_eq!(seen, [one]);
    assert_eq!(poll(after).0, []);
    assert_eq!(pass(&alice, Onlooker::Identity(bob), pages, 1), [two, one]);
}

/// A step of a node with three identities, of which the first owns two conversations.
#[derive(Debug, Clone)]
enum Step {
    /// The owner writes.
    Say(bool),
    /// The owner adds or removes one of the others.
    Toggle(bool, bool),
    /// One of the others leaves.
    Leave(bool, bool),
    /// A client polls a page of so many rows.
    Poll(u8),
    Rotate,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Say),
        4 => any::<(bool, bool)>().prop_map(|(talk, who)| Step::Toggle(talk, who)),
        1 => any::<(bool, bool)>().prop_map(|(talk, who)| Step::Leave(talk, who)),
        4 => (1u8..6).prop_map(Step::Poll),
        1 => Just(Step::Rotate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A client gets each message that it may see once, however often it polls.
    #[test]
    fn poller_gets_each_message_once(steps in proptest::collection::vec(any_step(), 1..60)) {
        let alice = TestNode::new("alice", 0);
        let others = [alice.another("Bob", 1), alice.another("Carol", 2)];
        let stays = alice.another("Dora", 3);
        let talks = ["one", "two"].map(|title| {
            let founders = [others[0], others[1], stays];
            alice.found(&founders, title)
        });
        let mut pollers = others.map(Poller::of);
        let (mut of_node, mut after) = (Vec::new(), FeedCursor::default());
        let mut poll_node = |limit| {
            let what = ("messages", messages::MESSAGE, SeqOrder::Created);
            let all = Onlooker::AnyAt(alice.peer_id());
            let (oids, next, more) = feed_page(&alice, all, what, (after, limit));
            of_node.extend(oids);
            after = next;
            more
        };
        let (mut count, mut rotations) = (0, 0);
        for step in &steps {
            match *step {
                Step::Say(talk) => {
                    count += 1;
                    alice.say(talks[usize::from(talk)], &count.to_string()).unwrap();
                }
                Step::Toggle(talk, who) => {
                    let (talk, who) = (talks[usize::from(talk)], others[usize::from(who)]);
                    if alice.add_member(talk, who).is_err() {
                        alice.remove_member(talk, who).unwrap();
                    }
                }
                Step::Leave(talk, who) => {
                    let _ = alice.leave_talk(talks[usize::from(talk)], others[usize::from(who)]);
                }
                Step::Poll(limit) => {
                    poll_node(usize::from(limit));
                    for poller in &mut pollers {
                        poller.poll_once(&alice, usize::from(limit));
                    }
                }
                Step::Rotate => {
                    rotations += 1;
                    if rotations == 1 {
                        rotate(&alice, alice.identity);
                    }
                }
            }
        }
        while poll_node(3) {}
        let oids: BTreeSet<Oid> = of_node.iter().copied().collect();
        prop_assert_eq!((of_node.len(), oids.len()), (count, count));
        for poller in &mut pollers {
            poller.poll(&alice, 3);
            let mut fresh = Poller::of(poller.reader);
            fresh.poll(&alice, 4);
            let (mut seen, mut all) = (poller.seen.clone(), fresh.seen);
            seen.sort();
            all.sort();
            prop_assert_eq!(&seen, &all);
            let reader = poller.reader;
            let visible = alice.read(move |view| {
                let app = view.rows.apps().get("messages").unwrap();
                let mut sight = view.rows.sight(Onlooker::Identity(reader));
                let mut visible = 0;
                for row in view.rows.by_oid(app, None, 10_000)? {
                    let is_message = row.type_number == messages::MESSAGE;
                    visible += usize::from(is_message && sight.shows(&row)?);
                }
                Ok::<_, StoreError>(visible)
            });
            prop_assert_eq!(all.len(), visible);
            all.dedup();
            prop_assert_eq!(all.len(), visible);
            let what = ("messages", messages::MESSAGE, SeqOrder::Changed);
            let changes = pass(&alice, Onlooker::Identity(reader), what, 4);
            let distinct: BTreeSet<Oid> = changes.iter().copied().collect();
            prop_assert_eq!((changes.len(), distinct.len()), (visible, visible));
        }
    }
}

#[test]
fn only_readers_that_live_here_have_feeds() {
    let (alice, bob, carol) = three();
    let talk = alice.found(&[bob.identity, carol.identity], "All");
    let nodes = [&alice, &bob, &carol];
    sync(&nodes);
    alice.remove_member(talk, carol.identity).unwrap();
    sync(&nodes);
    alice.add_member(talk, carol.identity).unwrap();
    sync(&nodes);
    let openings = nodes.map(|node| node.rows("opening").len());
    assert_eq!(openings, [0, 0, 1]);
}

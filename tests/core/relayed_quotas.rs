//! Accounts of relayed objects: authors use up nothing of the peer that relays their objects. An
//! object without room stops no other (docs/DECISIONS.md 10).

use bastion::Tier;
use harness::forge::{object, sign_with_unknown_key};
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message};
use keys::{Oid, SignedObject};
use postern::graph::load_object;
use postern::object::{Attrs, Object, Value};
use postern::op_context::Timestamp;
use postern::state_engine::CoreLimits;
use postern::store::{Account, Direction, Stored, Usage};

use crate::club::{NOTE, ROOM, Versions, room, words};
use crate::stubs::{Chain, MESSAGES, has};

/// Quotas of trusted peers with this number of objects.
fn objects_max(objects: u64) -> CoreLimits {
    let mut limits = CoreLimits::default();
    limits.quotas.trusted.stored_objects_max = objects;
    limits
}

fn stored(node: &TestNode, of: &TestNode) -> Stored {
    let peer = of.peer_id();
    node.read(move |view| view.rows.stored_by(&peer)).unwrap()
}

/// The usage of one account of a peer, which is that of its stored and waiting objects.
fn counted(node: &TestNode, of: &TestNode, account: Account) -> Usage {
    let peer = of.peer_id();
    node.read(move |view| {
        let usage = match account {
            Account::Own => view.rows.stored_by(&peer)?.unwrap().usage,
            _ => view.rows.relayed_by(&peer, account)?,
        };
        let origin = view.rows.peer_number(&peer)?;
        let mut sum = Usage::default();
        for app in view.rows.apps().iter() {
            for row in view.rows.by_oid(app, None, 1000)? {
                if row.origin == origin && row.account == account {
                    sum += Usage::one(load_object(&view.rows, app, &row)?.1.bytes().len());
                }
            }
        }
        for id in 0..1000 {
            if let Some(waiting) = view.rows.waiting(id)?
                && (waiting.peer, waiting.account) == (peer, account)
            {
                sum += Usage::one(waiting.object.bytes().len());
            }
        }
        assert_eq!(usage, sum, "{account:?}");
        Ok(usage)
    })
}

fn of_author(node: &TestNode, of: &TestNode, author: &TestNode) -> i64 {
    counted(node, of, Account::Author(author.identity)).objects
}

fn shared(node: &TestNode, of: &TestNode) -> i64 {
    counted(node, of, Account::Shared).objects
}

/// A node with these quotas that knows the homes of all others.
fn knowing(name: &str, limits: CoreLimits, others: &[&TestNode]) -> TestNode {
    let node = Setup::new(name).id_offset(1200).limits(limits).node();
    others.iter().for_each(|other| meet(&node, other));
    node
}

/// The conversation of some identities, and messages of one author in it.
fn talk(founder: &TestNode, members: &[Oid]) -> Object {
    let people = conversation(members);
    object(MESSAGES, 1, 7, founder.identity, 1, Some(people))
}

fn messages(author: &TestNode, talk: Oid, count: u8) -> Vec<SignedObject> {
    let said = |number: u8| {
        let attrs = message(talk, &format!("message {number}"));
        author.sign(&object(
            MESSAGES,
            2,
            number,
            author.identity,
            1,
            Some(attrs),
        ))
    };
    (0..count).map(said).collect()
}

#[test]
fn relayed_objects_count_for_their_author_and_not_for_their_sender() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    let before = stored(carol, bob);
    carol.relay(bob, MESSAGES);
    let after = stored(carol, bob);
    // Bob's conversation. Alice's message, that she accepted, and her record.
    assert_eq!(after.usage.objects - before.usage.objects, 1);
    assert_eq!((before.relayed.objects, after.relayed.objects), (0, 3));
    assert_eq!((of_author(carol, bob, alice), shared(carol, bob)), (3, 0));
    counted(carol, bob, Account::Own);
    let tier = carol.read(|view| view.rows.tier_usage(Tier::Trusted));
    assert_eq!(tier.objects, after.usage.objects + after.relayed.objects);
}

#[test]
fn author_above_its_account_stops_no_other_author_and_comes_with_a_larger_quota() {
    let chain = Chain::with(objects_max(8));
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said: Vec<Oid> = (0..10)
        .map(|number| chain.say(alice, &format!("message {number}")))
        .collect();
    bob.relay(alice, MESSAGES);
    let answer = chain.say(bob, "after all of them");
    let got = carol.relay(bob, MESSAGES);
    assert_eq!((got.applied.waiting, got.applied.rejected), (4, 0));
    assert_eq!(of_author(carol, bob, alice), 8, "her record included");
    assert!(has(carol, answer));
    let cursor = carol.cursor(bob, MESSAGES, Direction::In).unwrap();
    assert_eq!(cursor.last_seq, bob.head());
    assert!(carol.next_again(bob, MESSAGES).is_none(), "not at once");

    let Chain {
        alice, bob, carol, ..
    } = chain;
    let carol = carol.into_setup().limits(objects_max(100)).node();
    carol.relay(&bob, MESSAGES);
    assert!(said.iter().all(|oid| has(&carol, *oid)));
    assert_eq!(of_author(&carol, &bob, &alice), 12);
}

#[test]
fn peer_that_becomes_trusted_is_asked_at_once_for_what_found_no_room() {
    let mut limits = objects_max(100);
    limits.quotas.untrusted.stored_objects_max = 8;
    let chain = Chain::with(limits);
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let set_tier = |tier| {
        let peer = bob.peer_id();
        carol
            .graph(move |graph| graph.tx().set_tier(&peer, tier))
            .unwrap();
    };
    set_tier(Tier::Untrusted);
    for number in 0..10 {
        chain.say(alice, &format!("message {number}"));
    }
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    assert_eq!(of_author(carol, bob, alice), 8);
    set_tier(Tier::Trusted);
    carol.relay(bob, MESSAGES);
    assert_eq!(of_author(carol, bob, alice), 12);
}

#[test]
fn change_and_deletion_free_the_account_of_the_author() {
    let versions = Versions::new();
    let [bob, erin, frank] = [("bob", 0), ("erin", 300), ("frank", 600)]
        .map(|(name, offset)| versions.setup(name, 1).id_offset(offset).node());
    meet(&bob, &erin);
    meet(&erin, &frank);
    meet(&bob, &frank);
    let members = [bob.identity, erin.identity, frank.identity];
    let made = bob.make("club", ROOM, room(&members)).unwrap().oid;
    let text = |text: &str| Attrs::from([(1, vec![Value::from(&made)]), (2, words(text))]);
    let note = bob.make("club", NOTE, text("one")).unwrap().oid;
    let usage = || counted(&frank, &erin, Account::Author(bob.identity));
    let relayed = || {
        erin.relay(&bob, "club");
        frank.relay(&erin, "club");
        usage()
    };
    let first = relayed();
    assert_eq!(first.objects, 2);
    bob.change("club", NOTE, note, Some(text("longer")))
        .unwrap();
    let longer = relayed();
    assert_eq!((longer.objects, longer.bytes), (2, first.bytes + 3));
    bob.change("club", NOTE, note, Some(text("2"))).unwrap();
    // The author's own node sends the next revision. So the account of its sender counts it.
    frank.relay(&bob, "club");
    assert_eq!(usage().objects, 1);
    counted(&frank, &bob, Account::Own);
    bob.change("club", ROOM, made, None).unwrap();
    assert_eq!(relayed().objects, 1, "the row of the scope remains");
}

#[test]
fn scopes_that_nobody_here_reads_share_a_sixteenth() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let dave = knowing("dave", objects_max(64), &[&alice, &bob]);
    let talk = talk(&bob, &[alice.identity, bob.identity]);
    let mut sent = vec![bob.sign(&talk)];
    sent.extend(messages(&alice, talk.oid, 6));
    sent.extend(messages(&bob, talk.oid, 2));
    let applied = bob.force(&dave, MESSAGES, sent).unwrap();
    assert_eq!((applied.written, applied.waiting), (7, 2));
    assert_eq!(
        (shared(&dave, &bob), of_author(&dave, &bob, &alice)),
        (4, 0)
    );
    assert_eq!(dave.again_count(&bob), 1);
    counted(&dave, &bob, Account::Own);
}

#[test]
fn invented_authors_use_up_four_quotas_of_their_sender_and_nothing_of_its_own() {
    let names = ["one", "two", "three", "four", "five", "six"];
    let authors = names.map(|name| TestNode::new(name, 0));
    let bob = TestNode::new("bob", 300);
    let known: Vec<&TestNode> = authors.iter().chain([&bob]).collect();
    let carol = knowing("carol", objects_max(3), &known);
    let mut members: Vec<Oid> = authors.iter().map(|author| author.identity).collect();
    members.extend([bob.identity, carol.identity]);
    let talk = talk(&bob, &members);
    let mut sent = vec![bob.sign(&talk)];
    for author in &authors {
        sent.extend(messages(author, talk.oid, 3));
    }
    sent.extend(messages(&bob, talk.oid, 1));
    let applied = bob.force(&carol, MESSAGES, sent).unwrap();
    assert_eq!((applied.written, applied.waiting), (14, 6));
    let stored = stored(&carol, &bob);
    assert_eq!((stored.usage.objects, stored.relayed.objects), (3, 12));
}

#[test]
fn full_tier_lets_relayed_objects_be_pulled_again_and_ends_no_package() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let mut limits = CoreLimits::default();
    limits.quotas.trusted.total_objects_max = 5;
    let carol = knowing("carol", limits, &[&alice, &bob]);
    let talk = talk(&bob, &[alice.identity, carol.identity, bob.identity]);
    let mut sent = vec![bob.sign(&talk)];
    sent.extend(messages(&alice, talk.oid, 4));
    let applied = bob.force(&carol, MESSAGES, sent).unwrap();
    assert_eq!((applied.written, applied.waiting), (3, 2));
    assert_eq!(carol.again_count(&bob), 1);
}

#[test]
fn waiting_relayed_object_counts_in_the_shared_account_until_its_scope_is_known() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let carol = knowing("carol", CoreLimits::default(), &[&alice, &bob]);
    let talk = talk(&bob, &[alice.identity, carol.identity, bob.identity]);
    let early = messages(&alice, talk.oid, 2);
    bob.force(&carol, MESSAGES, early).unwrap();
    assert_eq!(carol.rows("waiting").len(), 2);
    assert_eq!(
        (shared(&carol, &bob), of_author(&carol, &bob, &alice)),
        (2, 0)
    );
    bob.force(&carol, MESSAGES, vec![bob.sign(&talk)]).unwrap();
    assert_eq!(carol.rows("waiting").len(), 0);
    assert_eq!(
        (shared(&carol, &bob), of_author(&carol, &bob, &alice)),
        (0, 2)
    );
}

#[test]
fn relayed_objects_use_half_of_the_room_for_waiting_objects() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 6;
    let carol = knowing("carol", limits, &[&alice, &bob]);
    let talk = talk(&bob, &[alice.identity, carol.identity, bob.identity]);
    bob.force(&carol, MESSAGES, messages(&alice, talk.oid, 5))
        .unwrap();
    assert_eq!(carol.rows("waiting").len(), 3);
    bob.force(&carol, MESSAGES, messages(&bob, talk.oid, 3))
        .unwrap();
    assert_eq!(carol.rows("waiting").len(), 6);
}

#[test]
fn waiting_object_that_is_deleted_or_forgotten_frees_its_account() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let carol = knowing("carol", CoreLimits::default(), &[&alice, &bob]);
    let talk = talk(&bob, &[alice.identity, carol.identity, bob.identity]);
    let early = messages(&alice, talk.oid, 2);
    bob.force(&carol, MESSAGES, early).unwrap();
    let peer = bob.peer_id();
    carol
        .graph(move |graph| {
            graph.tx().set_tier(&peer, Tier::Untrusted)?;
            let end = Timestamp(u64::MAX >> 1);
            graph.tx().forget_untrusted_peers(end, 10)
        })
        .unwrap();
    assert_eq!(
        (shared(&carol, &bob), stored(&carol, &bob).relayed.objects),
        (0, 0)
    );
}

#[test]
fn refused_relayed_objects_blame_no_peer_and_leave_the_rejects_of_the_sender() {
    let [alice, bob] = [("alice", 0), ("bob", 300)].map(|(name, id)| TestNode::new(name, id));
    let mut limits = CoreLimits::default();
    limits.aside.rejects_per_peer_max = 5;
    let carol = knowing("carol", limits, &[&alice, &bob]);
    let talk = talk(&bob, &[carol.identity, bob.identity]);
    let unsigned = object(
        MESSAGES,
        2,
        9,
        bob.identity,
        1,
        Some(message(talk.oid, "x")),
    );
    let faulty = sign_with_unknown_key(&unsigned);
    bob.force(&carol, MESSAGES, vec![bob.sign(&talk), faulty])
        .unwrap();
    let own = stored(&carol, &bob).usage.objects;
    let outsider = messages(&alice, talk.oid, 20);
    let applied = bob.force(&carol, MESSAGES, outsider).unwrap();
    assert_eq!(applied.rejected, 20);
    let peer = bob.peer_id();
    let [of_bob, relayed] = carol.read(move |view| {
        let of_peer = view.rows.rejects(Some(&peer), 100)?;
        let mut relayed = view.rows.rejects(None, 100)?;
        relayed.retain(|row| row.peer.is_none());
        Ok([of_peer.len(), relayed.len()])
    });
    assert_eq!((of_bob, relayed), (1, 5));
    assert_eq!(stored(&carol, &bob).usage.objects, own);
    assert_eq!(shared(&carol, &bob), 0);
}

#[test]
fn member_whose_relayed_messages_find_no_room_holds_no_other_message() {
    let chain = Chain::with(objects_max(8));
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    for number in 0..10 {
        chain.say(alice, &format!("message {number}"));
    }
    bob.relay(alice, MESSAGES);
    let own = chain.say(bob, "of Bob");
    let got = carol.relay(bob, MESSAGES);
    assert!(got.applied.waiting > 0, "some find no room");
    assert_eq!(carol.again_count(bob), 1);
    assert_eq!(carol.next_receipt(bob, MESSAGES).unwrap().behind, []);
    carol.send_receipts(bob, MESSAGES);
    assert!(bob.is_delivered(own, carol.identity));
}

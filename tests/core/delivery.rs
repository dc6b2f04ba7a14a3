//! The delivery state of messages: true for each recipient, whatever its node did with them
//! (docs/DECISIONS.md 10).

use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message};
use keys::Oid;
use postern::graph::AcceptPolicy;
use postern::op_context::Timestamp;
use postern::services::delivery::DeliveryState::{self, Delivered, NoRoute, Queued};
use postern::services::invitations;
use postern::state_engine::{CoreLimits, PackageLimits, Receipt};
use postern::store::{EpochReason, Verdict, VerdictRow};

use crate::stubs::{Chain, MESSAGES};
use crate::thieves::rotate;

pub(crate) fn pair() -> (TestNode, TestNode) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    (alice, bob)
}

/// Bob pulls all and states what he applied.
pub(crate) fn sync(bob: &TestNode, alice: &TestNode) {
    bob.pull_everything(alice);
    bob.send_receipts(alice, MESSAGES);
}

fn accept(node: &TestNode, talk: Oid) {
    node.graph(move |graph| invitations::accept(graph, MESSAGES, talk, None))
        .unwrap();
}

fn verdict(node: &TestNode, on: &TestNode, verdict: Verdict) {
    let row = VerdictRow {
        peer_id: on.peer_id(),
        verdict,
        reason: String::new(),
        at: node.clock.timestamp(),
        until: None,
        tickets_void_until: 0,
    };
    node.graph(move |graph| graph.tx().put_verdict(&row))
        .unwrap();
}

#[test]
fn message_is_delivered_when_its_home_states_that_it_applied_it() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "one").oid;
    let state = || alice.delivery(sent);
    assert_eq!(state(), [(bob.identity, Queued)]);
    bob.pull_everything(&alice);
    assert_eq!(state(), [(bob.identity, Queued)], "a cursor states nothing");
    alice.clock.advance_ms(5000);
    let at = alice.clock.timestamp();
    let delivered = bob.send_receipts(&alice, MESSAGES).unwrap();
    assert_eq!((delivered.scopes.len(), delivered.more), (1, false));
    assert_eq!(state(), [(bob.identity, Delivered(at))]);
    alice.clock.advance_ms(5000);
    let later = alice.send(bob.identity, "two").oid;
    assert_eq!(alice.delivery_to(later, bob.identity), Queued);
    sync(&bob, &alice);
    assert_eq!(state(), [(bob.identity, Delivered(at))], "the time stays");
    assert!(alice.is_delivered(later, bob.identity));
    assert_eq!(bob.send_receipts(&alice, MESSAGES), None, "nothing changed");
}

#[test]
fn recipient_on_this_node_has_the_message_at_once() {
    let (alice, bob) = pair();
    let other = alice.another("Other", 7);
    let talk = alice.found(&[bob.identity, other], "three");
    let sent = alice.say(talk, "hello").unwrap();
    let at = alice.clock.timestamp();
    let mut expected = [(bob.identity, Queued), (other, Delivered(at))];
    expected.sort_by_key(|(identity, _)| *identity);
    assert_eq!(alice.delivery(sent), expected);
}

#[test]
fn message_that_waits_is_delivered_when_it_is_settled() {
    let (alice, bob) = pair();
    let before = alice.send(bob.identity, "before").oid;
    sync(&bob, &alice);
    let author = alice.identity;
    bob.graph(move |graph| graph.tx().set_frozen(&author, true))
        .unwrap();
    let waiting = alice.send(bob.identity, "waits").oid;
    sync(&bob, &alice);
    assert_eq!(bob.rows("waiting").len(), 1);
    assert!(!alice.is_delivered(waiting, bob.identity));
    assert!(alice.is_delivered(before, bob.identity));
    alice.clock.advance_ms(9000);
    bob.graph(move |graph| graph.unfreeze(&author)).unwrap();
    assert!(!alice.is_delivered(waiting, bob.identity), "not stated yet");
    bob.send_receipts(&alice, MESSAGES);
    let at = alice.clock.timestamp();
    assert_eq!(alice.delivery_to(waiting, bob.identity), Delivered(at));
}

#[test]
fn message_that_finds_no_room_is_delivered_when_its_scope_was_pulled_again() {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 1;
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    let carol = Setup::new("carol").limits(limits).node();
    for (one, other) in [(&alice, &bob), (&alice, &carol), (&bob, &carol)] {
        meet(one, other);
    }
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    bob.pull_everything(&alice);
    let say = |text| bob.make(MESSAGES, 2, message(talk, text)).unwrap().oid;
    let (waits, no_room) = (say("waits"), say("finds no room"));
    carol.pull_all(&bob, MESSAGES);
    carol.send_receipts(&bob, MESSAGES);
    let states = || [waits, no_room].map(|oid| bob.is_delivered(oid, carol.identity));
    assert_eq!(states(), [false, false]);
    carol.pull_everything(&alice);
    carol.send_receipts(&bob, MESSAGES);
    assert_eq!(states(), [false, false], "the scope is still pulled again");
    carol.pull_all(&bob, MESSAGES);
    assert_eq!(carol.texts().len(), 2);
    carol.send_receipts(&bob, MESSAGES);
    assert_eq!(states(), [true, true]);
}

#[test]
fn history_of_a_late_identity_is_delivered_when_it_was_pulled_again() {
    let (alice, bob) = pair();
    let late = bob.another("Late", 77);
    let people = [alice.identity, late];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let sent = alice.make(MESSAGES, 2, message(talk, "early")).unwrap().oid;
    assert_eq!(
        alice.delivery(sent),
        [(late, NoRoute)],
        "its home is unknown"
    );
    alice.send(bob.identity, "moves the cursor");
    sync(&bob, &alice);
    alice.pull_everything(&bob);
    assert_eq!(
        alice.delivery(sent),
        [(late, Queued)],
        "the cursor has passed it"
    );
    bob.pull(&alice, MESSAGES);
    bob.send_receipts(&alice, MESSAGES);
    assert_eq!(
        alice.delivery(sent),
        [(late, Queued)],
        "its scope was named"
    );
    sync(&bob, &alice);
    assert!(alice.is_delivered(sent, late));
}

/// A pair of which the second has a late identity, and its delivered history: the node's own, the
/// other's, the conversation and the message.
fn late_history() -> (TestNode, TestNode, Oid, Oid) {
    let (alice, bob) = pair();
    let late = bob.another("Late", 77);
    let talk = alice.make(MESSAGES, 1, conversation(&[alice.identity, late]));
    let talk = talk.unwrap().oid;
    let sent = alice.make(MESSAGES, 2, message(talk, "early")).unwrap().oid;
    alice.send(bob.identity, "moves the cursor");
    sync(&bob, &alice);
    alice.pull_everything(&bob);
    (alice, bob, talk, sent)
}

#[test]
fn delivered_history_of_a_late_identity_stays_delivered() {
    let (alice, bob, talk, sent) = late_history();
    let late = alice.delivery(sent)[0].0;
    sync(&bob, &alice);
    sync(&bob, &alice);
    assert!(alice.is_delivered(sent, late));
    let later = alice.make(MESSAGES, 2, message(talk, "later")).unwrap().oid;
    bob.pull_everything(&alice);
    let receipt = bob.next_receipt(&alice, MESSAGES).unwrap();
    let no_room = Receipt {
        behind: vec![talk],
        waiting: vec![sent],
        ..receipt.clone()
    };
    alice.take_receipt(&bob, no_room).unwrap();
    let states = || [sent, later].map(|oid| alice.is_delivered(oid, late));
    assert_eq!(states(), [true, false]);
    alice.take_receipt(&bob, receipt).unwrap();
    assert_eq!(states(), [true, true]);
}

#[test]
fn history_that_was_pulled_before_the_next_receipt_is_announced() {
    let (alice, bob, talk, sent) = late_history();
    bob.pull_everything(&alice);
    bob.pull_everything(&alice);
    let late = alice.delivery(sent)[0].0;
    let delivered = bob.send_receipts(&alice, MESSAGES).unwrap();
    assert!(alice.is_delivered(sent, late));
    assert!(delivered.scopes.contains(&talk));
}

#[test]
fn message_of_a_late_identity_that_waits_after_its_scope_was_pulled_again_is_queued() {
    let (alice, bob) = pair();
    let late = bob.another("Late", 77);
    let people = [alice.identity, late];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let sent = alice.make(MESSAGES, 2, message(talk, "early")).unwrap().oid;
    alice.send(bob.identity, "moves the cursor");
    sync(&bob, &alice);
    alice.pull_everything(&bob);
    let author = alice.identity;
    bob.graph(move |graph| graph.tx().set_frozen(&author, true))
        .unwrap();
    sync(&bob, &alice);
    assert_eq!(bob.again_count(&alice), 0, "pulled again to its end");
    assert!(!alice.is_delivered(sent, late));
    bob.graph(move |graph| graph.unfreeze(&author)).unwrap();
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(sent, late));
}

/// A pair of which the second received only the first of the first one's messages, because its
/// packages are small.
fn interrupted() -> (TestNode, TestNode, [Oid; 3]) {
    let mut limits = CoreLimits::default();
    limits.package = PackageLimits {
        objects_max: 2,
        ..limits.package
    };
    let alice = Setup::new("alice").limits(limits).node();
    let bob = TestNode::new("bob", 400);
    meet(&alice, &bob);
    let sent = ["one", "two", "three"].map(|text| alice.send(bob.identity, text).oid);
    bob.pull(&alice, MESSAGES);
    bob.send_receipts(&alice, MESSAGES);
    let states = sent.map(|oid| alice.is_delivered(oid, bob.identity));
    assert_eq!(states, [true, false, false]);
    (alice, bob, sent)
}

#[test]
fn message_under_a_higher_number_is_not_delivered_by_a_cursor_above_its_first_one() {
    let (alice, bob, sent) = interrupted();
    rotate(&alice, alice.identity);
    bob.pull_all(&alice, "identities");
    // The rows were signed again above all numbers so far; the first package after it is small.
    let states = || sent.map(|oid| alice.is_delivered(oid, bob.identity));
    let mut held = 0;
    loop {
        let more = bob.pull(&alice, MESSAGES).more;
        bob.send_receipts(&alice, MESSAGES);
        for (oid, is_delivered) in sent.iter().zip(states()) {
            let is_held = bob.parent(MESSAGES, *oid).is_some();
            assert!(is_held || !is_delivered, "{oid:?}");
            held += usize::from(!is_held);
        }
        if !more {
            break;
        }
    }
    assert!(held > 0, "some packages left messages out");
    assert_eq!(states(), [true; 3]);
}

#[test]
fn receipt_counts_again_when_what_was_signed_again_is_nothing_for_its_sender() {
    let (alice, bob) = pair();
    let other = alice.another("Other", 7);
    alice.make("rides", 1, harness::ride("Bern", 1)).unwrap();
    let author = alice.identity;
    bob.graph(move |graph| graph.tx().set_frozen(&author, true))
        .unwrap();
    let sent = alice.send(bob.identity, "waits").oid;
    sync(&bob, &alice);
    // Objects that Bob does not read get higher numbers than his cursor.
    alice.try_send_as(other, alice.identity, "at home").unwrap();
    rotate(&alice, other);
    bob.graph(move |graph| graph.unfreeze(&author)).unwrap();
    bob.send_receipts(&alice, MESSAGES);
    assert!(alice.is_delivered(sent, bob.identity));
}

#[test]
fn removed_member_got_only_what_its_node_stated_before() {
    let (alice, bob) = pair();
    let carol = TestNode::new("carol", 800);
    meet(&alice, &carol);
    let talk = alice.found(&[bob.identity, carol.identity], "three");
    let first = alice.say(talk, "first").unwrap();
    sync(&bob, &alice);
    let second = alice.say(talk, "second").unwrap();
    alice.remove_member(talk, bob.identity).unwrap();
    sync(&bob, &alice);
    assert!(alice.is_delivered(first, bob.identity));
    assert_eq!(alice.delivery_to(second, bob.identity), NoRoute);
    let third = alice.say(talk, "third").unwrap();
    assert_eq!(alice.delivery(third), [(carol.identity, Queued)]);
    // As a new reader, it gets all of the history.
    alice.add_member(talk, bob.identity).unwrap();
    assert_eq!(alice.delivery_to(second, bob.identity), Queued);
    sync(&bob, &alice);
    assert!(alice.is_delivered(second, bob.identity));
    assert_eq!(alice.delivery(third).len(), 1, "added later: no recipient");
}

#[test]
fn member_that_left_is_no_recipient() {
    let (alice, bob) = pair();
    let carol = TestNode::new("carol", 800);
    meet(&alice, &carol);
    let talk = alice.found(&[bob.identity, carol.identity], "three");
    bob.pull_everything(&alice);
    accept(&bob, talk);
    bob.leave_talk(talk, bob.identity).unwrap();
    alice.pull_everything(&bob);
    let sent = alice.say(talk, "to Carol").unwrap();
    assert_eq!(alice.delivery(sent), [(carol.identity, Queued)]);
}

#[test]
fn invited_member_has_what_its_node_holds() {
    let mut limits = CoreLimits::default();
    limits.graph.accept = AcceptPolicy::Ask;
    let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 800));
    let bob = Setup::new("bob").limits(limits).node();
    meet(&alice, &bob);
    meet(&alice, &carol);
    let talk = alice.found(&[bob.identity, carol.identity], "three");
    let sent = alice.say(talk, "hello").unwrap();
    sync(&bob, &alice);
    assert!(bob.texts().is_empty(), "the invitation was not accepted");
    assert!(alice.is_delivered(sent, bob.identity));
    bob.graph(move |graph| invitations::decline(graph, MESSAGES, talk, None))
        .unwrap();
    let later = alice.say(talk, "again").unwrap();
    sync(&bob, &alice);
    assert!(
        alice.is_delivered(later, bob.identity),
        "a decision does not show"
    );
}

#[test]
fn ban_ends_the_route_and_keeps_what_was_delivered() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "before").oid;
    sync(&bob, &alice);
    verdict(&alice, &bob, Verdict::Banned);
    let queued = alice.send(bob.identity, "while banned").oid;
    assert!(alice.is_delivered(sent, bob.identity));
    assert_eq!(alice.delivery(queued), [(bob.identity, NoRoute)]);
    verdict(&alice, &bob, Verdict::Approved);
    assert_eq!(alice.delivery(queued), [(bob.identity, Queued)]);
    sync(&bob, &alice);
    assert!(alice.is_delivered(queued, bob.identity));
}

#[test]
fn member_behind_a_relay_is_queued_until_its_node_states_it_itself() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    assert_eq!(alice.delivery_to(said, carol.identity), NoRoute, "unknown");
    alice.note_relay(bob, true);
    assert_eq!(alice.delivery_to(said, carol.identity), Queued, "unknown");
    alice.note_relay(bob, false);
    // Carol's record comes with what she says.
    carol.relay(bob, MESSAGES);
    accept(carol, chain.talk);
    chain.say(carol, "hi");
    bob.relay(carol, MESSAGES);
    alice.relay(bob, MESSAGES);
    assert_eq!(alice.home_of(carol.identity), Some(carol.peer_id()));
    assert_eq!(alice.delivery_to(said, carol.identity), NoRoute, "no relay");
    alice.note_relay(bob, true);
    assert_eq!(alice.delivery_to(said, carol.identity), Queued);
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    bob.send_receipts(alice, MESSAGES);
    assert!(alice.is_delivered(said, bob.identity));
    assert_eq!(alice.delivery_to(said, carol.identity), Queued);
    meet(alice, carol);
    carol.relay(alice, MESSAGES);
    carol.send_receipts(alice, MESSAGES);
    assert!(alice.is_delivered(said, carol.identity));
}

#[test]
fn new_epochs_end_what_was_stated() {
    let (alice, bob) = pair();
    let sent = alice.send(bob.identity, "hello").oid;
    sync(&bob, &alice);
    let recipient = bob.identity;
    let state = |alice: &TestNode| alice.delivery_to(sent, recipient);
    assert_ne!(state(&alice), Queued);
    let setup = alice.into_setup().new_epoch(EpochReason::Restored);
    let alice = setup.node();
    assert_eq!(state(&alice), Queued, "of the restored node");
    meet(&alice, &bob);
    sync(&bob, &alice);
    assert_eq!(
        state(&alice),
        Queued,
        "the recovery closes the conversation"
    );
    alice.write(|core, now| core.end_recovery(now)).unwrap();
    sync(&bob, &alice);
    assert_ne!(state(&alice), Queued);
    let setup = bob.into_setup().new_epoch(EpochReason::Restored);
    let bob = setup.node();
    meet(&alice, &bob);
    assert_eq!(state(&alice), Queued, "of the restored peer");
    sync(&bob, &alice);
    assert_ne!(state(&alice), Queued);
}

#[test]
fn many_receipts_leave_few_rows_and_all_states() {
    let (alice, bob) = pair();
    let mut sent = Vec::new();
    for number in 0..270 {
        alice.clock.advance_ms(1000);
        sent.push(alice.send(bob.identity, &format!("{number}")).oid);
        bob.pull_all(&alice, MESSAGES);
        bob.send_receipts(&alice, MESSAGES);
    }
    assert!(alice.rows("receipt").len() <= 256);
    let mut last = Timestamp(0);
    for oid in sent {
        let DeliveryState::Delivered(at) = alice.delivery_to(oid, bob.identity) else {
            panic!("a message is not delivered any more");
        };
        assert!(at >= last, "times keep their order");
        last = at;
    }
}

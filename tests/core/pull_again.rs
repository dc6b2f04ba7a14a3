//! An object without room to wait is not lost: its domain is pulled again.

use bastion::Features;
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message};
use keys::Oid;
use postern::graph::GraphManager;
use postern::state_engine::{CoreLimits, Package};
use postern::store::{Direction, PullAgainCause, PullAgainNote};

use crate::rights::BOTH;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most unfinished rows of one peer and domain.
const UNFINISHED_MAX: u16 = 1280;

fn with_room(name: &str, waiting_max: u64) -> TestNode {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = waiting_max;
    Setup::new(name).limits(limits).node()
}

/// Founder, and two members of a conversation of which the second does not know yet. The first has
/// written `count` messages.
fn three(waiting_max: u64, count: usize) -> (TestNode, TestNode, TestNode) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    let carol = with_room("carol", waiting_max);
    for (one, other) in [(&alice, &bob), (&alice, &carol), (&bob, &carol)] {
        meet(one, other);
    }
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make("messages", 1, conversation(&people)).unwrap();
    bob.pull_everything(&alice);
    for number in 0..count {
        let text = format!("message {number}");
        bob.make("messages", 2, message(talk.oid, &text)).unwrap();
    }
    (alice, bob, carol)
}

#[test]
fn members_sync_more_than_may_wait_while_the_founder_is_away() {
    let (alice, bob, carol) = three(1000, 1100);
    carol.pull_all(&bob, "messages");
    assert_eq!(
        (carol.texts().len(), carol.rows("waiting").len()),
        (0, 1000)
    );
    carol.pull_everything(&alice);
    assert_eq!(carol.texts().len(), 999, "and that Bob accepted");
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.texts().len(), 1100);
    assert_eq!(carol.again_count(&bob), 0);
    assert!(carol.rejects().is_empty());
}

#[test]
fn domain_is_pulled_again_at_most_daily_while_nothing_settles() {
    let (_alice, bob, carol) = three(3, 10);
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.next_again(&bob, "messages"), None);
    let rounds = carol.pull_all(&bob, "messages");
    assert_eq!(rounds.len(), 1);
    for pause in [1, 1, 2, 4] {
        carol.clock.advance_ms(pause * DAY_MS - 1);
        assert_eq!(carol.next_again(&bob, "messages"), None);
        carol.clock.advance_ms(1);
        let again = carol.next_again(&bob, "messages").unwrap();
        assert_eq!(
            (again.cursor, again.scopes.len()),
            (0, 1),
            "the conversation"
        );
        carol.pull_all(&bob, "messages");
    }
}

#[test]
fn scope_without_room_is_pulled_again_when_its_parent_arrives() {
    let (alice, bob, carol) = three(0, 10);
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.next_again(&bob, "messages"), None);
    carol.pull_everything(&alice);
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.texts().len(), 10);
}

#[test]
fn settling_in_a_scope_does_not_start_others() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    (0..3).for_each(|number| note(&alice, &bob, Some(number), PullAgainCause::NoRoom));
    assert_eq!(alice.next_again(&bob, "messages"), None);
    wake(&alice, &bob, 1);
    let again = alice.next_again(&bob, "messages").unwrap();
    assert_eq!(again.scopes, [scope(1)]);
}

#[test]
fn nothing_ends_the_pause_after_a_failure() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    name(&alice, &bob, 0..1);
    let peer = bob.peer_id();
    alice
        .write(move |core, now| core.postpone_pull_again(now, &peer, "messages"))
        .unwrap();
    wake(&alice, &bob, 0);
    name(&alice, &bob, 0..1);
    assert_eq!(alice.next_again(&bob, "messages"), None);
    alice.clock.advance_ms(DAY_MS / 24);
    assert!(alice.next_again(&bob, "messages").is_some());
}

#[test]
fn server_records_nothing_of_what_is_pulled_again() {
    let (alice, bob, carol) = three(3, 10);
    carol.pull_all(&bob, "messages");
    let before = bob.cursor(&carol, "messages", Direction::Out);
    let applied = carol.cursor(&bob, "messages", Direction::In);
    carol.pull_everything(&alice);
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.texts().len(), 10);
    assert_eq!(
        bob.cursor(&carol, "messages", Direction::Out)
            .unwrap()
            .last_seq,
        before.unwrap().last_seq
    );
    assert_eq!(carol.cursor(&bob, "messages", Direction::In), applied);
}

#[test]
fn new_epoch_of_the_peer_ends_what_was_to_be_pulled_again() {
    let (_alice, bob, carol) = three(3, 10);
    carol.pull_all(&bob, "messages");
    assert_eq!(carol.rows("pull_again").len(), 1);
    let bob = bob
        .into_setup()
        .new_epoch(postern::store::EpochReason::Restored)
        .node();
    meet(&carol, &bob);
    carol.clock.advance_ms(DAY_MS);
    carol.pull_all(&bob, "messages");
    // Pulled from 0 in the new epoch, and noted there.
    let again = {
        carol.clock.advance_ms(DAY_MS);
        carol.next_again(&bob, "messages").unwrap()
    };
    assert_eq!(again.epoch, bob.epoch());
}

/// The oid of the scope with a number.
fn scope(number: u16) -> Oid {
    let mut scope = [4; 16];
    scope[..2].copy_from_slice(&number.to_be_bytes());
    Oid::from_bytes(scope)
}

/// Notes at a node that it pulls a scope with a number, or the whole domain, again from a peer.
fn note(node: &TestNode, peer: &TestNode, scope: Option<u16>, cause: PullAgainCause) {
    let (peer, epoch) = (peer.peer_id(), peer.epoch());
    let scope = scope.map(self::scope);
    let work = move |graph: &mut GraphManager<'_>| {
        let note = PullAgainNote {
            peer: &peer,
            domain: "messages",
            scope,
            epoch,
            until_seq: 5,
            cause,
            is_again: false,
            is_own: true,
        };
        graph.tx().note_pull_again(&note, graph.now())
    };
    node.graph(work).unwrap();
}

/// Names scopes with these numbers at a node, as one package of the peer does.
fn name(node: &TestNode, peer: &TestNode, numbers: std::ops::Range<u16>) {
    let (peer, epoch) = (peer.peer_id(), peer.epoch());
    let scopes: Vec<Oid> = numbers.map(scope).collect();
    let work = move |graph: &mut GraphManager<'_>| {
        let note = PullAgainNote {
            peer: &peer,
            domain: "messages",
            scope: None,
            epoch,
            until_seq: 5,
            cause: PullAgainCause::Named,
            is_again: false,
            is_own: true,
        };
        graph.tx().note_scopes_again(&note, &scopes, graph.now())
    };
    node.graph(work).unwrap();
}

/// Settles something in a scope with a number.
fn wake(node: &TestNode, peer: &TestNode, number: u16) {
    let (peer, scope) = (peer.peer_id(), scope(number));
    let work = move |graph: &mut GraphManager<'_>| {
        let (tx, now) = (graph.tx(), graph.now());
        tx.wake_pull_again(&peer, "messages", Some(&scope), now)
    };
    node.graph(work).unwrap();
}

/// Moves what is pulled again to a number, as a package does.
fn advance(node: &TestNode, peer: &TestNode, to_seq: u64) {
    let again = node.next_again(peer, "messages").unwrap();
    let peer = peer.peer_id();
    let work = move |graph: &mut GraphManager<'_>| {
        let (tx, now) = (graph.tx(), graph.now());
        tx.move_pull_again(&peer, "messages", &again, Some(to_seq), now)
    };
    node.graph(work).unwrap();
}

#[test]
fn scopes_without_room_do_not_put_off_a_named_one() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let no_room = |number| note(&alice, &bob, Some(number), PullAgainCause::NoRoom);
    (1..UNFINISHED_MAX).for_each(no_room);
    assert_eq!(alice.next_again(&bob, "messages"), None);
    name(&alice, &bob, 0..1);
    assert_eq!(alice.next_again(&bob, "messages").unwrap().scopes.len(), 1);
    no_room(UNFINISHED_MAX);
    let whole = alice.next_again(&bob, "messages").unwrap();
    assert_eq!((whole.scopes.len(), alice.again_count(&bob)), (0, 1));
}

#[test]
fn scopes_without_room_do_not_restart_a_domain_that_is_pulled_again() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    note(&alice, &bob, None, PullAgainCause::Named);
    advance(&alice, &bob, 2);
    let no_room = |number| note(&alice, &bob, Some(number), PullAgainCause::NoRoom);
    (0..UNFINISHED_MAX).for_each(no_room);
    let whole = alice.next_again(&bob, "messages").unwrap();
    assert_eq!((whole.cursor, alice.again_count(&bob)), (2, 1));
    advance(&alice, &bob, 5);
    assert_eq!(alice.next_again(&bob, "messages"), None, "starts later");
    alice.clock.advance_ms(DAY_MS);
    assert_eq!(alice.next_again(&bob, "messages").unwrap().cursor, 0);
}

#[test]
fn no_peer_lets_a_scope_start_more_often_by_completing_it() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let start = |_: &usize| {
        name(&alice, &bob, 0..1);
        let is_due = alice.next_again(&bob, "messages").is_some();
        if is_due {
            advance(&alice, &bob, 5);
        }
        is_due
    };
    assert_eq!((0..12).filter(start).count(), 8);
    // Nor by naming so many others that the whole domain replaces them.
    name(&alice, &bob, 1..UNFINISHED_MAX + 2);
    assert_eq!(alice.again_count(&bob), 1);
    assert_eq!(alice.next_again(&bob, "messages"), None);
    alice.clock.advance_ms(DAY_MS);
    assert!(alice.next_again(&bob, "messages").is_some());
}

#[test]
fn no_peer_lets_a_scope_start_more_often_by_new_epochs() {
    let (alice, mallory) = (TestNode::new("alice", 0), TestNode::new("mallory", 300));
    meet(&alice, &mallory);
    let scope = Oid::from_bytes([7; 16]);
    let mut starts = 0;
    for number in 0..20 {
        let epoch = keys::Epoch::from_bytes([number; 16]);
        let naming = Package {
            scopes: Some(vec![scope]),
            epoch,
            ..mallory.package(&alice, "messages", (0, 5), Vec::new())
        };
        alice
            .take(&mallory, &naming.sign(&mallory.keys, &Features::none()))
            .unwrap();
        if let Some(again) = alice.next_again(&mallory, "messages") {
            starts += 1;
            let whole = Package {
                scopes: Some(Vec::new()),
                ..naming
            };
            let whole = whole.sign(&mallory.keys, &Features::none());
            alice.take_again(&mallory, Some(again), &whole).unwrap();
        }
    }
    assert_eq!(starts, 8, "within one day");
}

#[test]
fn scopes_that_are_finished_leave_room_until_there_are_very_many_within_a_day() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let pull_named = |numbers: std::ops::Range<u16>| {
        name(&alice, &bob, numbers);
        while alice.next_again(&bob, "messages").is_some() {
            advance(&alice, &bob, 5);
        }
    };
    let all = 2 * UNFINISHED_MAX;
    for day in 0..2 {
        pull_named(0..UNFINISHED_MAX);
        pull_named(UNFINISHED_MAX..all);
        let rows = alice.rows("pull_again").len();
        assert_eq!((rows, alice.again_count(&bob)), (all.into(), 0));
        if day == 0 {
            alice.clock.advance_ms(DAY_MS);
            name(&alice, &bob, all..all + 1);
            let next = alice.next_again(&bob, "messages").unwrap();
            assert_eq!(next.scopes, [scope(all)], "earlier days do not count");
            advance(&alice, &bob, 5);
            alice.clock.advance_ms(DAY_MS);
        }
    }
    name(&alice, &bob, all..all + 1);
    let whole = alice.next_again(&bob, "messages").unwrap();
    assert_eq!((whole.scopes.len(), alice.rows("pull_again").len()), (0, 1));
}

#[test]
fn all_scopes_that_a_package_names_share_a_request() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let named = Package {
        scopes: Some((0..1024).map(scope).collect()),
        ..bob.package(&alice, "messages", (0, 5), Vec::new())
    };
    alice
        .take(&bob, &named.sign(&bob.keys, &Features::none()))
        .unwrap();
    let again = alice.next_again(&bob, "messages").unwrap();
    assert_eq!(again.scopes.len(), 1024);
    name(&alice, &bob, 1024..UNFINISHED_MAX);
    let again = alice.next_again(&bob, "messages").unwrap();
    assert_eq!(again.scopes.len(), 1024);
    note(&alice, &bob, Some(UNFINISHED_MAX), PullAgainCause::Named);
    let whole = alice.next_again(&bob, "messages").unwrap();
    assert_eq!((whole.scopes.len(), alice.rows("pull_again").len()), (0, 1));
    alice.pull_all(&bob, "messages");
    assert_eq!(alice.next_again(&bob, "messages"), None);
}

#[test]
fn more_scopes_than_a_package_names_end_the_window_earlier() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let carol = Oid::from_bytes([0xca; 16]);
    let people = [alice.identity, carol];
    let found = |_| {
        alice
            .make("messages", 1, conversation(&people))
            .unwrap()
            .oid
    };
    let talks: Vec<Oid> = (0..1030).map(found).collect();
    bob.pull_everything(&alice);
    for talk in &talks {
        let joins = [(bob.identity, BOTH)];
        alice.set_rights("messages", *talk, &joins).unwrap();
    }
    let first = bob.pull(&alice, "messages");
    assert!(first.more);
    let again = bob.next_again(&alice, "messages").unwrap();
    assert_eq!(
        again.scopes.len(),
        1024,
        "named, instead of the whole domain"
    );
    bob.pull_all(&alice, "messages");
    let has = |talk: &&Oid| bob.parent("messages", **talk).is_some();
    assert_eq!(talks.iter().filter(has).count(), 1030);
}

#[test]
fn scope_starts_at_most_eight_times_a_day() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let (peer, epoch) = (bob.peer_id(), bob.epoch());
    let mut starts = 0;
    for _ in 0..12 {
        alice
            .graph(move |graph| {
                let note = PullAgainNote {
                    peer: &peer,
                    domain: "messages",
                    scope: None,
                    epoch,
                    until_seq: 1 << 40,
                    cause: PullAgainCause::Named,
                    is_again: true,
                    is_own: true,
                };
                graph.tx().note_pull_again(&note, graph.now())?;
                // Noted again, so that the row stays after each end.
                graph.tx().note_pull_again(&note, graph.now())
            })
            .unwrap();
        if let Some(again) = alice.next_again(&bob, "messages") {
            starts += 1;
            let end = move |graph: &mut GraphManager<'_>| {
                let (tx, now) = (graph.tx(), graph.now());
                tx.move_pull_again(&peer, "messages", &again, Some(1 << 40), now)?;
                tx.wake_pull_again(&peer, "messages", None, now)
            };
            alice.graph(end).unwrap();
        }
    }
    assert_eq!(starts, 8);
    alice.clock.advance_ms(DAY_MS);
    assert!(alice.next_again(&bob, "messages").is_some());
}

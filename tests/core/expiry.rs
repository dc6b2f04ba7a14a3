//! Objects that wait for long. None is lost by the end of its time, by a new epoch of its sender or
//! by forgetting its sender.

use harness::pull::meet;
use harness::{TestNode, conversation, message};
use postern::op_context::Timestamp;
use postern::state_engine::RecoveryRequest;
use postern::store::EpochReason;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Ends the time of everything that has waited for 30 days.
fn expire(node: &TestNode) {
    while node.write(|core, now| core.expire_step(now)).unwrap() {}
}

/// Founder, and two members of a conversation of which the second does not know yet. The first has
/// written a message, which waits at the second.
fn message_waits() -> (TestNode, TestNode, TestNode) {
    let (founder, writer) = (TestNode::new("founder", 800), TestNode::new("writer", 300));
    let reader = TestNode::new("reader", 0);
    for (one, other) in [(&founder, &writer), (&founder, &reader), (&writer, &reader)] {
        meet(one, other);
    }
    let people = [founder.identity, writer.identity, reader.identity];
    let talk = founder.make("messages", 1, conversation(&people)).unwrap();
    writer.pull_everything(&founder);
    writer
        .make("messages", 2, message(talk.oid, "hello"))
        .unwrap();
    reader.pull_everything(&writer);
    // The message, and that its author accepted.
    assert_eq!(reader.rows("waiting").len(), 2, "the founder is away");
    (founder, writer, reader)
}

/// Pulls daily for some days.
fn pull_for_days(node: &TestNode, from: &TestNode) {
    for _ in 0..5 {
        node.clock.advance_ms(DAY_MS);
        node.pull_everything(from);
    }
}

/// The message is given up, and comes after the founder was met.
fn expires_and_comes_again((founder, writer, reader): (&TestNode, &TestNode, &TestNode)) {
    expire(reader);
    assert_eq!(reader.rows("waiting").len(), 0);
    pull_for_days(reader, writer);
    reader.pull_everything(founder);
    pull_for_days(reader, writer);
    assert_eq!(reader.texts().len(), 1);
}

#[test]
fn waiting_object_is_pulled_again_when_its_time_is_over() {
    let (founder, writer, reader) = message_waits();
    reader.clock.advance_ms(31 * DAY_MS);
    expires_and_comes_again((&founder, &writer, &reader));
}

#[test]
fn waiting_object_is_pulled_again_also_if_its_sender_was_restored_meanwhile() {
    let (founder, writer, reader) = message_waits();
    reader.clock.advance_ms(10 * DAY_MS);
    let restored = writer.into_setup().new_epoch(EpochReason::Restored);
    let writer = restored.node();
    meet(&reader, &writer);
    reader.pull_everything(&writer);
    assert_eq!(reader.rows("waiting").len(), 2, "the same objects");
    reader.clock.advance_ms(21 * DAY_MS);
    expires_and_comes_again((&founder, &writer, &reader));
}

#[test]
fn object_that_expires_before_its_restored_sender_comes_is_pulled_in_the_new_epoch() {
    let (founder, writer, reader) = message_waits();
    reader.clock.advance_ms(31 * DAY_MS);
    let restored = writer.into_setup().new_epoch(EpochReason::Restored);
    let writer = restored.node();
    meet(&reader, &writer);
    expire(&reader);
    reader.pull_everything(&founder);
    pull_for_days(&reader, &writer);
    assert_eq!(reader.texts().len(), 1);
}

/// Which event ends the waiting of an own reply that a peer returned after a restore.
#[derive(PartialEq, Clone, Copy)]
enum End {
    FounderComes,
    TimeIsOver,
    PeerIsForgotten,
}

#[test]
fn own_reply_that_a_peer_returned_comes() {
    own_reply_comes_after(End::FounderComes);
}

#[test]
fn own_reply_that_a_peer_returned_is_not_lost_after_thirty_days() {
    own_reply_comes_after(End::TimeIsOver);
}

#[test]
fn own_reply_that_a_peer_returned_is_not_lost_if_the_peer_is_forgotten() {
    own_reply_comes_after(End::PeerIsForgotten);
}

/// A restored node lacks a conversation that a peer founded. Another peer returns this node's reply
/// in it, before the founder comes.
fn own_reply_comes_after(end: End) {
    let (alice, founder) = (TestNode::new("alice", 0), TestNode::new("founder", 300));
    let member = TestNode::new("member", 800);
    for (one, other) in [(&alice, &founder), (&alice, &member), (&founder, &member)] {
        meet(one, other);
    }
    let people = [founder.identity, alice.identity, member.identity];
    let talk = founder.make("messages", 1, conversation(&people)).unwrap();
    alice.pull_everything(&founder);
    member.pull_everything(&founder);
    let reply = message(talk.oid, "a reply");
    let reply = alice.make("messages", 2, reply).unwrap().oid;
    member.pull_everything(&alice);
    let restored = alice
        .into_setup()
        .elsewhere()
        .new_epoch(EpochReason::Restored);
    let alice = restored.node();
    meet(&alice, &member);
    reclaim_all(&alice, &member);
    assert_eq!(alice.rows("waiting").len(), 2, "the reply, and the accept");
    match end {
        End::FounderComes => {}
        End::TimeIsOver => {
            alice.clock.advance_ms(31 * DAY_MS);
            expire(&alice);
        }
        End::PeerIsForgotten => {
            forget(&alice, &member);
            assert_eq!(alice.rows("waiting").len(), 0);
            meet(&alice, &member);
        }
    }
    meet(&alice, &founder);
    for peer in [&member, &founder] {
        reclaim_all(&alice, peer);
        alice.pull_everything(peer);
    }
    assert!(alice.parent("messages", reply).is_some());
}

/// Reclaims all objects of a node from a peer if it was not asked yet, as a session does.
fn reclaim_all(node: &TestNode, peer: &TestNode) {
    let asked = peer.peer_id();
    let shared = ["identities", "messages"].map(String::from);
    let Some(domains) = node.read(move |view| view.domains_to_reclaim(&asked, &shared)) else {
        return;
    };
    for domain in &domains {
        let request = RecoveryRequest {
            peer: node.peer_id(),
            domain: domain.clone(),
            after: None,
        };
        let batch = peer.read(move |view| view.recovery_batch(&request));
        node.write(move |core, now| core.reclaim(now, asked, batch.objects))
            .unwrap();
    }
    node.write(move |core, now| core.note_reclaimed_from(now, &asked, &domains))
        .unwrap();
}

/// Forgets a peer, as if it had been admitted for its work only and was away for long.
fn forget(node: &TestNode, peer: &TestNode) {
    let database = rusqlite::Connection::open(node.database()).unwrap();
    let sql = "UPDATE peers SET tier = 'untrusted' WHERE peer_id = ?1";
    let changed = database.execute(sql, [peer.peer_id().as_bytes()]);
    assert_eq!(changed.unwrap(), 1);
    drop(database);
    let late = Timestamp(u64::MAX >> 2);
    let forgotten = node.graph(move |graph| graph.tx().forget_untrusted_peers(late, 10));
    assert_eq!(forgotten.unwrap(), 1);
}

#[test]
fn object_that_came_while_the_clock_was_ahead_waits_for_thirty_days_at_most() {
    let (founder, writer, reader) = message_waits();
    let day = |days: u64| Timestamp(harness::START + days * DAY_MS);
    let ahead = Timestamp(u64::MAX >> 2);
    reader
        .graph(move |graph| {
            graph.tx().put_waiting_since(1, ahead)?;
            graph.tx().put_waiting_since(2, ahead)
        })
        .unwrap();
    let expire = |now| reader.write(move |core, _| core.expire_step(now)).unwrap();
    assert!(expire(day(1)), "waits from now on");
    assert!(!expire(day(30)));
    assert_eq!(reader.rows("waiting").len(), 2);
    assert!(expire(day(31)) && !expire(day(31)));
    assert_eq!(reader.rows("waiting").len(), 0);
    drop((founder, writer));
}

#[test]
fn large_waiting_objects_are_given_up_in_small_portions() {
    let (founder, writer, reader) = message_waits();
    let people = [founder.identity, writer.identity, reader.identity];
    let talk = founder.make("messages", 1, conversation(&people)).unwrap();
    writer.pull_everything(&founder);
    for _ in 0..7 {
        let text = "x".repeat(8192);
        writer
            .make("messages", 2, message(talk.oid, &text))
            .unwrap();
    }
    reader.pull_everything(&writer);
    assert_eq!(reader.rows("waiting").len(), 10);
    reader.clock.advance_ms(31 * DAY_MS);
    let mut steps = 0;
    while reader.write(|core, now| core.expire_step(now)).unwrap() {
        steps += 1;
    }
    // The cost of an object is its size in half kilobytes, and a portion has the cost 64.
    assert_eq!((steps, reader.rows("waiting").len()), (3, 0));
}

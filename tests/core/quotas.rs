//! Quotas: the counted usage equals the stored objects, and a full quota refuses a whole package.

use bastion::Tier;
use postern::graph::load_object;
use postern::object::{Attrs, Object};
use postern::state_engine::{ApplyPackageError, CoreLimits};
use postern::store::{Stored, Usage};

use harness::forge::object;
use harness::pull::{TakeError, meet, package_bytes};
use harness::{Setup, TestNode, conversation, message, ride};

/// The usage that a node has counted for a peer.
fn counted(node: &TestNode, of: &TestNode) -> Usage {
    let peer = of.peer_id();
    let (stored, tier) = node.read(move |view| {
        let stored = view.rows.stored_by(&peer)?.unwrap();
        Ok((stored, view.rows.tier_usage(stored.tier)?))
    });
    assert!(tier.objects >= stored.usage.objects && tier.bytes >= stored.usage.bytes);
    stored.usage
}

/// The usage of the peer's stored objects, without waiting ones.
fn written(node: &TestNode, of: &TestNode) -> Usage {
    let peer = of.peer_id();
    node.read(move |view| {
        let origin = view.rows.peer_number(&peer)?;
        let mut sum = Usage::default();
        for app in view.rows.apps().iter() {
            for type_number in 1..10 {
                for row in view.rows.listing(app, type_number, 0, 1000)?.rows {
                    if row.origin == origin {
                        sum += Usage::one(load_object(&view.rows, app, &row)?.1.bytes().len());
                    }
                }
            }
        }
        Ok(sum)
    })
}

fn assert_counted(node: &TestNode, of: &TestNode) {
    assert_eq!(counted(node, of), written(node, of));
}

/// A node with this object quota for trusted peers, and a peer that it has met.
fn alice_and_bob(objects_max: u64) -> (TestNode, TestNode) {
    let mut limits = CoreLimits::default();
    limits.quotas.trusted.stored_objects_max = objects_max;
    let alice = Setup::new("alice").limits(limits).node();
    let bob = TestNode::new("bob", 400);
    meet(&alice, &bob);
    (alice, bob)
}

fn of_bob(bob: &TestNode, type_number: u16, name: u8, attrs: Attrs) -> Object {
    object("messages", type_number, name, bob.identity, 1, Some(attrs))
}

#[test]
fn usage_follows_new_changed_deleted_and_repeated_objects() {
    let (alice, bob) = alice_and_bob(100);
    assert_counted(&alice, &bob);
    let made = bob.make("rides", 1, ride("Bern", 1)).unwrap();
    let sent = bob.send(alice.identity, "a message");
    alice.pull_everything(&bob);
    let first = counted(&alice, &bob);
    assert_eq!(first.objects, 4);
    assert_counted(&alice, &bob);
    bob.change(
        "rides",
        1,
        made.oid,
        Some(ride("Bern, by the longest way", 3)),
    )
    .unwrap();
    alice.pull_everything(&bob);
    let longer = counted(&alice, &bob);
    assert_eq!((longer.objects, longer.bytes > first.bytes), (4, true));
    assert_counted(&alice, &bob);
    bob.change("rides", 1, made.oid, None).unwrap();
    alice.pull_everything(&bob);
    assert!(counted(&alice, &bob).bytes < first.bytes);
    assert_counted(&alice, &bob);

    let signed = bob.object("messages", sent.oid).unwrap().1;
    bob.force(&alice, "messages", vec![signed]).unwrap();
    assert_counted(&alice, &bob);
}

#[test]
fn waiting_object_counts_once_from_its_arrival() {
    let (alice, bob) = alice_and_bob(100);
    let before = counted(&alice, &bob);
    let group = of_bob(&bob, 1, 7, conversation(&[alice.identity, bob.identity]));
    let early = bob.sign(&of_bob(&bob, 2, 8, message(group.oid, "early")));
    let len = early.bytes().len() as i64;
    for _ in 0..2 {
        bob.force(&alice, "messages", vec![early.clone()]).unwrap();
        let now = counted(&alice, &bob);
        assert_eq!(
            (now.objects, now.bytes),
            (before.objects + 1, before.bytes + len)
        );
    }
    bob.force(&alice, "messages", vec![bob.sign(&group)])
        .unwrap();
    assert_eq!(alice.rows("waiting").len(), 0);
    assert_eq!(counted(&alice, &bob).objects, before.objects + 2);
    assert_counted(&alice, &bob);
}

#[test]
fn rejected_waiting_object_no_longer_counts() {
    let (alice, bob) = alice_and_bob(100);
    let carol = TestNode::new("carol", 0);
    meet(&alice, &carol);
    let theirs = object(
        "messages",
        1,
        7,
        carol.identity,
        1,
        Some(conversation(&[alice.identity, carol.identity])),
    );
    let early = bob.sign(&of_bob(
        &bob,
        2,
        8,
        message(theirs.oid, "not a participant"),
    ));
    bob.force(&alice, "messages", vec![early]).unwrap();
    let applied = carol
        .force(&alice, "messages", vec![carol.sign(&theirs)])
        .unwrap();
    assert_eq!((applied.written, alice.rejects().len()), (1, 1));
    let mut stored = written(&alice, &bob);
    // The record of the refusal.
    stored.objects += 1;
    assert_eq!(counted(&alice, &bob), stored);
    assert_counted(&alice, &carol);
}

#[test]
fn package_beyond_the_quota_changes_nothing_and_blocks_no_other_peer() {
    let (alice, bob) = alice_and_bob(2);
    let carol = TestNode::new("carol", 0);
    meet(&alice, &carol);
    // Bob's identity and a message that waits for Carol's conversation fill his quota.
    let people = [alice.identity, bob.identity, carol.identity];
    let theirs = object(
        "messages",
        1,
        7,
        carol.identity,
        1,
        Some(conversation(&people)),
    );
    let early = bob.sign(&of_bob(
        &bob,
        2,
        8,
        message(theirs.oid, "hi, Carol and Alice"),
    ));
    bob.force(&alice, "messages", vec![early]).unwrap();
    bob.make("rides", 1, ride("Bern", 1)).unwrap();
    let package = package_bytes(bob.answer(&alice.request(&bob, "rides.offers")));
    let before = alice.dump();
    let Err(TakeError::Apply(ApplyPackageError::Quota(fault))) = alice.take(&bob, &package) else {
        panic!("applied beyond the quota");
    };
    assert_eq!(
        (fault.tier, fault.key, fault.max),
        (Tier::Trusted, "stored_objects_max", 2)
    );
    assert_eq!(alice.dump(), before);
    let applied = carol
        .force(&alice, "messages", vec![carol.sign(&theirs)])
        .unwrap();
    assert_eq!((applied.written, applied.rejected), (1, 0));
    assert_counted(&alice, &bob);
    assert_counted(&alice, &carol);
}

#[test]
fn tier_total_stays_the_sum_of_its_peers_when_they_change_tier() {
    let (alice, bob) = alice_and_bob(100);
    let carol = TestNode::new("carol", 0);
    meet(&alice, &carol);
    bob.send(alice.identity, "a message");
    alice.pull_everything(&bob);
    let (bobs, carols) = (counted(&alice, &bob), counted(&alice, &carol));
    let totals = |node: &TestNode| {
        node.read(|view| {
            Ok((
                view.rows.tier_usage(Tier::Untrusted)?,
                view.rows.tier_usage(Tier::Trusted)?,
            ))
        })
    };
    let mut sum = bobs;
    sum += carols;
    assert_eq!(totals(&alice), (Usage::default(), sum));
    let peer = bob.peer_id();
    for (tier, expected) in [
        (Tier::Untrusted, (bobs, carols)),
        (Tier::Untrusted, (bobs, carols)),
        (Tier::Trusted, (Usage::default(), sum)),
    ] {
        alice
            .graph(move |graph| graph.tx().set_tier(&peer, tier))
            .unwrap();
        assert_eq!(totals(&alice), expected);
        let stored = alice.read(move |view| view.rows.stored_by(&peer));
        let expected = Stored {
            tier,
            usage: bobs,
            relayed: Usage::default(),
        };
        assert_eq!(stored, Some(expected));
    }
}

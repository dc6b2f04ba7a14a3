//! Nodes with different versions of one app: a node behind loses nothing.

use harness::TestNode;
use harness::forge::object;
use harness::pull::meet;
use keys::Oid;
use postern::object::{Attrs, Value};
use postern::state_engine::{CoreLimits, ReclaimSummary, RecoveryRequest};

use crate::club::{EVENT, NEWS, NOTE, ROOM, Versions, news, news_at, note, room, waiting, words};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The number of waiting and of refused objects.
fn aside(node: &TestNode) -> (usize, usize) {
    (waiting(node), node.rejects().len())
}

/// Writes an object that needs version 2.
fn make_fair(node: &TestNode) -> Oid {
    let attrs = news_at("Fair", "Bern");
    node.make("club", NEWS, attrs).unwrap().oid
}

/// Writes an object of version 2 on Alice. Bob, with version 1, has nothing of it, and has it as
/// Alice has after his upgrade.
fn waits_until_the_upgrade(type_number: u16, attrs: Attrs) {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let made = alice.make("club", type_number, attrs).unwrap().oid;
    let fits = alice.make("club", NEWS, news("fits")).unwrap().oid;
    bob.pull_everything(&alice);
    assert_eq!(bob.parent("club", made), None);
    assert!(bob.parent("club", fits).is_some());
    assert_eq!(aside(&bob), (1, 0));
    let bob = bob.restart();
    assert_eq!(waiting(&bob), 1, "a restart without the later file");
    let bob = versions.upgrade(bob, 2, &alice);
    assert_eq!(aside(&bob), (0, 0));
    assert_eq!(bob.object("club", made), alice.object("club", made));
}

#[test]
fn object_of_a_later_schema_waits_and_is_applied_after_the_upgrade() {
    waits_until_the_upgrade(NEWS, news_at("Fair", "Bern"));
}

#[test]
fn object_of_a_later_type_waits_and_is_applied_after_the_upgrade() {
    waits_until_the_upgrade(EVENT, news("Fair"));
}

#[test]
fn object_with_a_wider_bound_waits_and_is_applied_after_the_upgrade() {
    waits_until_the_upgrade(NEWS, news("eleven bytes"));
    let two = Attrs::from([(1, [words("one"), words("two")].concat())]);
    waits_until_the_upgrade(NEWS, two);
}

#[test]
fn message_in_a_waiting_conversation_follows_it() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let mut attrs = room(&[alice.identity, bob.identity]);
    attrs.insert(2, words("motto"));
    let place = alice.make("club", ROOM, attrs).unwrap().oid;
    let within = alice.make("club", NOTE, note(place, "Hi")).unwrap().oid;
    bob.pull_everything(&alice);
    assert_eq!(aside(&bob), (2, 0));
    let bob = versions.upgrade(bob, 2, &alice);
    assert_eq!(aside(&bob), (0, 0));
    assert!(bob.parent("club", within).is_some());
}

#[test]
fn unfit_object_of_a_peer_that_announces_nothing_later_is_rejected() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(1, 1);
    let signed = |number, type_number, attrs| {
        alice.sign(&object(
            "club",
            type_number,
            number,
            alice.identity,
            1,
            Some(attrs),
        ))
    };
    let refused = |sent| alice.force_one(&bob, "club.news", sent);
    let at = signed(1, NEWS, news_at("Fair", "Bern"));
    assert_eq!(refused(at).as_deref(), Some("schema"));
    let event = signed(2, EVENT, news("Fair"));
    assert_eq!(refused(event).as_deref(), Some("unknown_type"));
    assert_eq!(waiting(&bob), 0);
}

#[test]
fn wrong_kind_is_rejected_at_once() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let number = Attrs::from([(1, vec![Value::Integer(1)])]);
    let sent = object("club", NEWS, 1, alice.identity, 1, Some(number));
    let sent = alice.sign(&sent);
    let refused = alice.force_one(&bob, "club.news", sent);
    assert_eq!(refused.as_deref(), Some("schema"));
    // Neither does an object of another app wait.
    let other = object("garden", 1, 2, alice.identity, 1, Some(news("x")));
    let refused = alice.force_one(&bob, "club.news", alice.sign(&other));
    assert_eq!(refused.as_deref(), Some("type_not_in_domain"));
    assert_eq!(waiting(&bob), 0);
}

/// Bob, with version 1, after an object that needs version 3 came.
fn needs_version_3(versions: &Versions) -> (TestNode, TestNode, Oid) {
    let (alice, bob) = versions.pair(3, 1);
    let mut attrs = news_at("Fair", "Bern");
    attrs.insert(3, vec![Value::Integer(7)]);
    let made = alice.make("club", NEWS, attrs).unwrap().oid;
    bob.pull_everything(&alice);
    assert_eq!(aside(&bob), (1, 0));
    (alice, bob, made)
}

#[test]
fn object_waits_on_after_an_upgrade_that_does_not_suffice() {
    let versions = Versions::new();
    let (alice, bob, made) = needs_version_3(&versions);
    let bob = versions.upgrade(bob, 2, &alice);
    assert_eq!(aside(&bob), (1, 0));
    let bob = versions.upgrade(bob, 3, &alice);
    assert_eq!(aside(&bob), (0, 0));
    assert!(bob.parent("club", made).is_some());
}

/// The sender may have disabled the app, or may have been restored with an older file.
#[test]
fn claim_that_fell_meanwhile_rejects_no_waiting_object() {
    let versions = Versions::new();
    let (alice, bob, made) = needs_version_3(&versions);
    let database = rusqlite::Connection::open(bob.database()).unwrap();
    let fallen = database.execute("UPDATE peers SET peer_apps = '[]'", []);
    assert_eq!(fallen.unwrap(), 1);
    drop(database);
    let bob = bob.into_setup().schema_dir(&versions.folder(2)).node();
    assert_eq!(aside(&bob), (1, 0));
    let bob = versions.upgrade(bob, 3, &alice);
    assert!(bob.parent("club", made).is_some());
}

#[test]
fn disabled_app_rejects_no_waiting_object() {
    let versions = Versions::new();
    let (alice, bob, made) = needs_version_3(&versions);
    let bob = bob.into_setup().apps(&["identities"]).node();
    assert_eq!(aside(&bob), (1, 0));
    let bob = bob.into_setup().apps(&["identities", "club"]);
    let bob = bob.schema_dir(&versions.folder(3)).node();
    meet(&bob, &alice);
    assert!(bob.parent("club", made).is_some());
}

#[test]
fn objects_of_a_later_schema_leave_room_for_others() {
    let versions = Versions::new();
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 4;
    let alice = versions.setup("alice", 2).node();
    let bob = versions
        .setup("bob", 1)
        .limits(limits)
        .id_offset(300)
        .node();
    meet(&alice, &bob);
    let mut made = Vec::new();
    for number in 0..3 {
        let attrs = news_at(&format!("news {number}"), "Bern");
        made.push(alice.make("club", NEWS, attrs).unwrap().oid);
    }
    bob.pull_everything(&alice);
    assert_eq!((waiting(&bob), bob.again_count(&alice)), (2, 1));
    let place = alice
        .make("club", ROOM, room(&[alice.identity]))
        .unwrap()
        .oid;
    let early = alice.make("club", NOTE, note(place, "x")).unwrap().oid;
    let (_, early) = alice.object("club", early).unwrap();
    alice.force(&bob, "club", vec![early]).unwrap();
    assert_eq!(waiting(&bob), 3);
    let bob = versions.upgrade(bob, 2, &alice);
    bob.pull_everything(&alice);
    let has = |oid: &Oid| bob.parent("club", *oid).is_some();
    assert!(made.iter().all(has));
}

#[test]
fn expired_waiting_objects_come_with_the_upgrade() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let made = make_fair(&alice);
    bob.pull_everything(&alice);
    bob.clock.advance_ms(31 * DAY_MS);
    let expired = bob.write(|core, now| core.expire_step(now));
    assert!(expired.unwrap());
    assert_eq!((waiting(&bob), bob.again_count(&alice)), (0, 1));
    // Each pull lets the object wait again, and the next pull comes later.
    for _ in 0..3 {
        bob.clock.advance_ms(31 * DAY_MS);
        bob.pull_everything(&alice);
        bob.write(|core, now| core.expire_step(now)).unwrap();
    }
    assert_eq!(bob.rejects().len(), 0);
    let bob = versions.upgrade(bob, 2, &alice);
    bob.pull_everything(&alice);
    assert!(bob.parent("club", made).is_some());
}

/// Returns to a node what a peer holds of it.
fn reclaim(node: &TestNode, peer: &TestNode) -> ReclaimSummary {
    let mut sum = ReclaimSummary::default();
    for domain in ["identities", "club", "club.news"] {
        let request = RecoveryRequest {
            peer: node.peer_id(),
            domain: domain.to_owned(),
            after: None,
        };
        let batch = peer.read(move |view| view.recovery_batch(&request));
        assert_eq!(batch.next, None);
        let peer = peer.peer_id();
        let taken = node.write(move |core, now| core.reclaim(now, peer, batch.objects));
        sum += taken.unwrap();
    }
    sum
}

#[test]
fn reclaimed_object_of_a_later_schema_is_asked_for_again_after_the_upgrade() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 2);
    let made = make_fair(&alice);
    bob.pull_everything(&alice);
    let alice = alice.into_setup().elsewhere();
    let alice = alice.schema_dir(&versions.folder(1)).node();
    meet(&alice, &bob);
    let taken = reclaim(&alice, &bob);
    assert_eq!(
        (taken.later_schema, taken.missing, taken.refused),
        (1, 0, 0)
    );
    assert_eq!(waiting(&alice), 0);
    let alice = versions.upgrade(alice, 2, &bob);
    let taken = reclaim(&alice, &bob);
    assert_eq!((taken.written, taken.later_schema), (1, 0));
    assert!(alice.parent("club", made).is_some());
}

#[test]
fn restored_author_gets_back_what_waits_at_a_peer() {
    let versions = Versions::new();
    let (alice, bob) = versions.pair(2, 1);
    let made = make_fair(&alice);
    let fits = alice.make("club", NEWS, news("fits")).unwrap().oid;
    bob.pull_everything(&alice);
    assert_eq!(waiting(&bob), 1);
    let alice = alice.into_setup().elsewhere().node();
    meet(&alice, &bob);
    let taken = reclaim(&alice, &bob);
    assert_eq!(
        (taken.later_schema, taken.missing, taken.refused),
        (0, 0, 0)
    );
    for oid in [made, fits] {
        assert!(alice.parent("club", oid).is_some());
    }
}

//! Packages are applied in parts: other writes run between them, and the last part moves the
//! cursor.

use bastion::Features;
use keys::{Oid, SignedObject};
use postern::object::{Attrs, Object, Rights, Value};
use postern::state_engine::{ApplyPackageError, CoreLimits, PackageProgress, PackageWork};
use postern::store::Direction;

use harness::forge::{object, salted, sign_with_unknown_key};
use harness::pull::meet;
use harness::rights::list_object;
use harness::{Setup, TestNode, conversation, ride};

use crate::scopes::{FOLDER, SHEET, folder, writer};

/// Ride `number` of a node.
fn ride_of(of: &TestNode, number: u32) -> Object {
    let salt = u64::from(number).to_be_bytes();
    salted(("rides", 1), salt, of.identity, 1, Some(ride("Bern", 1)))
}

fn rides(of: &TestNode, count: u32) -> Vec<SignedObject> {
    let rides = (0..count).map(|number| of.sign(&ride_of(of, number)));
    rides.collect()
}

/// A package of Bob with these objects, verified at Alice.
fn work(alice: &TestNode, bob: &TestNode, objects: Vec<SignedObject>) -> PackageWork {
    work_in("rides.offers", alice, bob, objects)
}

/// [`work`] in another domain.
pub(crate) fn work_in(
    domain: &str,
    alice: &TestNode,
    bob: &TestNode,
    objects: Vec<SignedObject>,
) -> PackageWork {
    let last_seq = alice.request(bob, domain).last_seq;
    work_up_to(last_seq + 9, domain, (alice, bob), objects)
}

/// A package whose window ends at a number.
pub(crate) fn work_up_to(
    to_seq: u64,
    domain: &str,
    (alice, bob): (&TestNode, &TestNode),
    objects: Vec<SignedObject>,
) -> PackageWork {
    let last_seq = alice.request(bob, domain).last_seq;
    let first_seq = if last_seq == 0 { 0 } else { last_seq + 1 };
    let window = (first_seq, to_seq);
    let package = bob.package(alice, domain, window, objects);
    let bytes = package.sign(&bob.keys, &Features::none());
    let mut package = alice.verify(bob, &bytes).unwrap();
    let checked = alice.engine.verify_objects(package.take_objects());
    let checked = futures::executor::block_on(checked).unwrap();
    PackageWork::new(&package, None, checked)
}

fn step(alice: &TestNode, work: PackageWork) -> Result<PackageProgress, ApplyPackageError> {
    alice.write(move |core, now| core.apply_part(now, work))
}

#[test]
fn large_package_is_applied_in_parts_and_other_writes_run_between_them() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let mut work = work(&alice, &bob, rides(&bob, 600));
    let mut parts = 1;
    let applied = loop {
        match step(&alice, work).unwrap() {
            PackageProgress::Done(applied) => break applied,
            PackageProgress::More(rest) => work = rest,
        }
        parts += 1;
        assert_eq!(alice.cursor(&bob, "rides.offers", Direction::In), None);
        alice.make("rides", 1, ride("between", 1)).unwrap();
    };
    assert_eq!((parts, applied.written, applied.last_seq), (3, 600, 9));
    let cursor = alice.cursor(&bob, "rides.offers", Direction::In).unwrap();
    assert_eq!(cursor.last_seq, 9);
}

/// Oids that no node knows.
fn strangers(count: u8) -> Vec<(Oid, Rights)> {
    let oids = (0..count).map(|number| Oid::from_bytes([number; 16]));
    oids.map(|oid| (oid, Rights::READ)).collect()
}

#[test]
fn part_ends_when_its_small_objects_closed_many_readers() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let (owner, people) = (bob.identity, conversation(&[alice.identity, bob.identity]));
    let talks = (0..40).map(|salt| object("messages", 1, salt, owner, 1, Some(people.clone())));
    let talks: Vec<_> = talks.collect();
    let lists = |version: u8, others: &[(Oid, Rights)]| -> Vec<SignedObject> {
        let content = (owner, others);
        let list = |talk: &Object| {
            let version_number = u64::from(version);
            list_object("messages", version, talk.oid, version_number, content)
        };
        talks.iter().map(|talk| bob.sign(&list(talk))).collect()
    };
    let founded = talks.iter().map(|talk| bob.sign(talk)).collect();
    let opened = [founded, lists(1, &strangers(255))].concat();
    bob.force(&alice, "messages", opened).unwrap();
    let mut work = work_in("messages", &alice, &bob, lists(2, &[]));
    let mut closed = Vec::new();
    let is_open = |talk: &&Object| alice.readers("messages", talk.oid).len() > 1;
    loop {
        let progress = step(&alice, work).unwrap();
        closed.push(talks.len() - talks.iter().filter(is_open).count());
        match progress {
            PackageProgress::Done(applied) => break assert_eq!(applied.written, 40),
            PackageProgress::More(rest) => work = rest,
        }
    }
    let parts = [0].iter().chain(&closed).zip(&closed);
    let most = parts.map(|(before, after)| after - before).max();
    assert!(most.is_some_and(|most| most <= 16), "{closed:?}");
}

/// Applies a whole package, and returns the number of its parts.
fn parts(alice: &TestNode, mut work: PackageWork) -> usize {
    let mut parts = 1;
    while let PackageProgress::More(rest) = step(alice, work).unwrap() {
        (work, parts) = (rest, parts + 1);
    }
    parts
}

#[test]
fn part_ends_when_its_lists_took_many_searches_for_identities_that_left() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let people = conversation(&[alice.identity, bob.identity]);
    let talk = object("messages", 1, 1, bob.identity, 1, Some(people));
    bob.force(&alice, "messages", vec![bob.sign(&talk)])
        .unwrap();
    let setup = alice.into_setup();
    let leave = "INSERT INTO leave SELECT s.id, ?2, ?3, 0, r.id FROM scope AS s
                 JOIN rights_list AS r ON r.scope_id = s.id WHERE s.oid = ?1";
    let database = rusqlite::Connection::open(setup.database()).unwrap();
    database.execute_batch("BEGIN").unwrap();
    for (identity, _) in strangers(255) {
        for key_number in 1..=16 {
            let (talk, identity) = (talk.oid.as_bytes(), identity.as_bytes());
            let added = database.execute(leave, (talk, identity, key_number));
            assert_eq!(added.unwrap(), 1);
        }
    }
    database.execute_batch("COMMIT").unwrap();
    drop(database);
    let alice = setup.node();
    let lists = (1..9).map(|version| {
        let owner = (bob.identity, &strangers(255)[..]);
        bob.sign(&list_object(
            "messages",
            version,
            talk.oid,
            version.into(),
            owner,
        ))
    });
    let work = work_in("messages", &alice, &bob, lists.collect());
    assert_eq!(
        parts(&alice, work),
        8,
        "each list has 255 identities with 17 searches"
    );
}

#[test]
fn part_ends_when_it_loaded_many_values_of_stored_objects() {
    let (alice, bob) = (writer("alice", 0), writer("bob", 700));
    meet(&alice, &bob);
    let attrs = folder(&[&alice, &bob], "plans");
    let plans = bob.make("wiki", FOLDER, attrs).unwrap().oid;
    let sheet = |last: &str| {
        let mut lines = vec![Value::from("line"); 254];
        lines.push(Value::from(last));
        Attrs::from([(1, vec![Value::from(&plans)]), (2, lines)])
    };
    let long = bob.make("wiki", SHEET, sheet("line")).unwrap().oid;
    alice.pull_everything(&bob);
    let (object, signed) = bob.object("wiki", long).unwrap();
    let copies = vec![signed; 250];
    let forks = (0..250).map(|number| {
        bob.sign(&Object {
            attrs: Some(sheet(&format!("{number}"))),
            ..object.clone()
        })
    });
    for again in [copies, forks.collect()] {
        let parts = parts(&alice, work_in("wiki", &alice, &bob, again));
        assert!((4..16).contains(&parts), "{parts}");
    }
}

#[test]
fn part_beyond_the_quota_stops_the_package_and_nothing_is_missing_later() {
    let limits = |objects_max| {
        let mut limits = CoreLimits::default();
        limits.quotas.trusted.stored_objects_max = objects_max;
        limits
    };
    let alice = Setup::new("alice").limits(limits(400)).node();
    let bob = TestNode::new("bob", 400);
    meet(&alice, &bob);
    let objects = rides(&bob, 600);
    for _ in 0..2 {
        let PackageProgress::More(rest) =
            step(&alice, work(&alice, &bob, objects.clone())).unwrap()
        else {
            panic!("one part has 600 objects");
        };
        let stopped = step(&alice, rest).unwrap_err();
        assert!(matches!(stopped, ApplyPackageError::Quota(_)), "{stopped}");
        assert_eq!(alice.cursor(&bob, "rides.offers", Direction::In), None);
    }
    let alice = alice.into_setup().limits(limits(1000)).node();
    let applied = bob.force(&alice, "rides.offers", objects).unwrap();
    assert_eq!((applied.written, applied.already_stored), (344, 256));
}

#[test]
fn package_that_another_one_overtook_moves_no_cursor_back() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let objects = rides(&bob, 300);
    let PackageProgress::More(rest) = step(&alice, work(&alice, &bob, objects.clone())).unwrap()
    else {
        panic!("one part has 300 objects");
    };
    let package = bob.package(&alice, "rides.offers", (0, 20), objects);
    alice
        .take(&bob, &package.sign(&bob.keys, &Features::none()))
        .unwrap();
    let PackageProgress::Done(applied) = step(&alice, rest).unwrap() else {
        panic!("an overtaken package has no further part");
    };
    assert_eq!(applied.last_seq, 20);
    let cursor = alice.cursor(&bob, "rides.offers", Direction::In).unwrap();
    assert_eq!(cursor.last_seq, 20);
}

#[test]
fn rejects_are_few_rows_and_count_as_stored_objects() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let usage = || {
        let peer = bob.peer_id();
        let stored = alice.read(move |view| view.rows.stored_by(&peer));
        stored.unwrap().usage.objects
    };
    let before = usage();
    let forged = |count: u32| -> Vec<SignedObject> {
        let forge = |number| sign_with_unknown_key(&ride_of(&bob, number));
        (0..count).map(forge).collect()
    };
    let applied = bob.force(&alice, "rides.offers", forged(4096)).unwrap();
    assert_eq!(applied.rejected, 4096);
    assert_eq!(
        alice.rows("sync_rejects").len(),
        64,
        "the newest of a package"
    );
    let newest = alice.read(|view| view.rows.rejects(None, 1));
    assert_eq!(newest[0].oid, Some(ride_of(&bob, 4095).oid));
    assert_eq!(usage(), before + 64);
    for _ in 0..20 {
        bob.force(&alice, "rides.offers", forged(64)).unwrap();
    }
    assert_eq!(alice.rows("sync_rejects").len(), 1000);
    assert_eq!(usage(), before + 1000);
}

#[test]
fn rejects_of_a_peer_with_a_full_quota_are_dropped_and_its_package_is_applied() {
    let mut limits = CoreLimits::default();
    limits.quotas.trusted.stored_objects_max = 1;
    let alice = Setup::new("alice").limits(limits).node();
    let bob = TestNode::new("bob", 400);
    meet(&alice, &bob);
    let forged = sign_with_unknown_key(&ride_of(&bob, 1));
    let applied = bob.force(&alice, "rides.offers", vec![forged]).unwrap();
    assert_eq!((applied.rejected, applied.last_seq), (1, 1));
    assert_eq!(alice.rejects(), Vec::<String>::new());
}

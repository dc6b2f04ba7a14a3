//! Packages that are faulty as a whole move nothing; faulty objects in a good one stop nothing.

use keys::{Context, Malformed, codec};
use postern::object::Value;
use postern::state_engine::{
    ApplyPackageError, CoreLimits, Package, PackageFault, PackageLimits, WindowFault,
};
use postern::store::Direction;
use proptest::prelude::*;

use crate::common::forge::{object, oid, sign_as_nobody};
use crate::common::sync::{NotTaken, meet, package_bytes};
use crate::common::{Setup, TestNode, conversation, message, ride};

struct Scene {
    alice: TestNode,
    bob: TestNode,
}

impl Scene {
    fn new() -> Self {
        let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
        meet(&alice, &bob);
        alice.make("rides", 1, ride("Bern", 1)).unwrap();
        Self { alice, bob }
    }

    fn honest(&self) -> Vec<u8> {
        package_bytes(
            self.alice
                .answer(&self.bob.request(&self.alice, "rides.offers")),
        )
    }

    /// Bob refuses these bytes and nothing at all changes.
    fn refused(&self, bytes: &[u8]) -> NotTaken {
        let before = self.bob.dump();
        let refused = self.bob.take(&self.alice, bytes).unwrap_err();
        assert_eq!(self.bob.dump(), before, "a faulty package moves nothing");
        refused
    }

    fn fault(&self, bytes: &[u8]) -> PackageFault {
        match self.refused(bytes) {
            NotTaken::Fault(fault) => fault,
            NotTaken::Apply(error) => panic!("{error}"),
        }
    }

    /// As honest, signed by Alice, with one field otherwise.
    fn changed(&self, change: impl FnOnce(&mut Package)) -> Vec<u8> {
        let mut package = self.alice.package(
            &self.bob,
            "rides.offers",
            (0, self.alice.head()),
            Vec::new(),
        );
        change(&mut package);
        package.sign(&self.alice.keys)
    }
}

#[test]
fn each_field_of_the_header_is_checked() {
    let scene = Scene::new();
    let fault = |change: fn(&mut Package)| scene.fault(&scene.changed(change));
    assert_eq!(
        fault(|package| package.version = 2),
        PackageFault::Version(2)
    );
    assert_eq!(
        fault(|package| package.domain = "no.such_domain".into()),
        PackageFault::Domain
    );
    assert_eq!(fault(|package| package.to_seq = 0), PackageFault::Window);
    assert_eq!(
        fault(|package| package.from_seq = package.to_seq + 1),
        PackageFault::Window
    );
    assert_eq!(
        fault(|package| package.to_seq = u64::MAX),
        PackageFault::Window
    );
    assert_eq!(
        fault(|package| package.sender = package.recipient),
        PackageFault::Sender
    );
    assert_eq!(
        fault(|package| package.recipient = package.sender),
        PackageFault::Recipient
    );
    assert_eq!(
        scene
            .bob
            .take(&scene.alice, &scene.changed(|_| ()))
            .unwrap()
            .last_seq,
        scene.alice.head()
    );
}

#[test]
fn a_package_signed_by_another_node_or_for_another_purpose_is_refused() {
    let scene = Scene::new();
    let carol = TestNode::new("carol", 0);
    let package = scene
        .alice
        .package(&scene.bob, "rides.offers", (0, 5), Vec::new());
    assert_eq!(
        scene.fault(&package.sign(&carol.keys)),
        PackageFault::BadSignature
    );
    let other_context = scene
        .alice
        .keys
        .sign1_as_node(Context::Welcome, &codec::encode(&package));
    assert_eq!(scene.fault(&other_context), PackageFault::BadSignature);
}

#[test]
fn a_package_for_somebody_else_is_of_no_use_here() {
    let scene = Scene::new();
    let carol = TestNode::new("carol", 0);
    meet(&scene.alice, &carol);
    let hers = package_bytes(
        scene
            .alice
            .answer(&carol.request(&scene.alice, "rides.offers")),
    );
    assert_eq!(scene.fault(&hers), PackageFault::Recipient);
}

#[test]
fn what_is_no_package_is_malformed() {
    let scene = Scene::new();
    let honest = scene.honest();
    assert!(matches!(scene.fault(&[]), PackageFault::Malformed(_)));
    assert!(matches!(
        scene.fault(&honest[..honest.len() - 1]),
        PackageFault::Malformed(_)
    ));
    let mut longer = honest.clone();
    longer.push(0);
    assert!(matches!(scene.fault(&longer), PackageFault::Malformed(_)));
    let not_a_package = scene
        .alice
        .keys
        .sign1_as_node(Context::Package, &codec::encode(&"hello"));
    assert!(matches!(
        scene.fault(&not_a_package),
        PackageFault::Malformed(_)
    ));
    scene.bob.take(&scene.alice, &honest).unwrap();
}

#[test]
fn a_package_beyond_its_limits_is_refused_before_it_is_decoded() {
    let package = PackageLimits {
        bytes_max: 4000,
        objects_max: 3,
    };
    let limits = CoreLimits {
        package,
        ..CoreLimits::default()
    };
    let bob = TestNode::with(
        "bob",
        Setup {
            limits,
            ..Setup::default()
        },
    );
    let scene = Scene {
        bob,
        ..Scene::new()
    };
    meet(&scene.alice, &scene.bob);
    let mut note = ride("Bern", 1);
    note.insert(6, vec![Value::from("x".repeat(1900).as_str())]);
    for _ in 0..2 {
        scene.alice.make("rides", 1, note.clone()).unwrap();
    }
    assert!(matches!(
        scene.fault(&scene.honest()),
        PackageFault::Malformed(Malformed::TooLong(_))
    ));
    let tiny = |number| {
        scene.alice.sign(&object(
            "rides",
            1,
            oid(number),
            scene.alice.identity,
            1,
            None,
        ))
    };
    let many = scene.changed(|package| package.objects = (1..5).map(tiny).collect());
    assert_eq!(scene.fault(&many), PackageFault::TooManyObjects);
    let too_many_items = scene.changed(|package| package.objects = (1..20).map(tiny).collect());
    assert!(matches!(
        scene.fault(&too_many_items),
        PackageFault::Malformed(Malformed::TooManyItems)
    ));
}

#[test]
fn a_replayed_package_is_acknowledged_and_changes_no_row_and_no_cursor() {
    let scene = Scene::new();
    let honest = scene.honest();
    let first = scene.bob.take(&scene.alice, &honest).unwrap();
    let before = scene.bob.dump();
    let again = scene.bob.take(&scene.alice, &honest).unwrap();
    assert_eq!((again.last_seq, again.written), (first.last_seq, 0));
    assert_eq!(scene.bob.dump(), before);
}

#[test]
fn a_gap_names_the_place_to_start_again() {
    let scene = Scene::new();
    scene.bob.pull_everything(&scene.alice);
    let last_seq = scene
        .bob
        .cursor(&scene.alice, "rides.offers", Direction::In)
        .unwrap()
        .last_seq;
    let gap =
        scene.changed(|package| (package.from_seq, package.to_seq) = (last_seq + 2, last_seq + 3));
    let refused = scene.refused(&gap);
    let expected = WindowFault::Gap { last_seq };
    assert!(
        matches!(refused, NotTaken::Apply(ApplyPackageError::Window(fault)) if fault == expected),
        "{refused:?}"
    );
    let overlapping =
        scene.changed(|package| (package.from_seq, package.to_seq) = (1, last_seq + 1));
    assert_eq!(
        scene.bob.take(&scene.alice, &overlapping).unwrap().last_seq,
        last_seq + 1
    );
}

#[test]
fn one_poison_object_does_not_stop_the_rest() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    let good = |number| {
        scene.alice.sign(&object(
            "rides",
            1,
            oid(number),
            alice,
            1,
            Some(ride("Bern", 1)),
        ))
    };
    let poison = sign_as_nobody(&object("rides", 1, oid(2), alice, 1, Some(ride("Bern", 1))));
    let garbage = scene.alice.keys.sign_object(alice, vec![0xff; 9]).unwrap();
    let objects = vec![good(1), poison, garbage, good(3)];
    let applied = scene
        .alice
        .force(&scene.bob, "rides.offers", objects)
        .unwrap();
    assert_eq!(
        (applied.written, applied.rejected, applied.parked),
        (2, 2, 0)
    );
    assert!(
        scene.bob.parent("rides", oid(1)).is_some() && scene.bob.parent("rides", oid(3)).is_some()
    );
    assert_eq!(scene.bob.parent("rides", oid(2)), None);
    assert_eq!(scene.bob.rejects(), ["malformed", "bad_signature"]);
    let peer = scene.alice.peer_id();
    let kept = scene
        .bob
        .read(move |view| view.rows.rejects(Some(&peer), 10));
    let head = scene
        .bob
        .cursor(&scene.alice, "rides.offers", Direction::In)
        .unwrap();
    assert_eq!(
        (kept[1].oid, kept[1].seq, kept[1].epoch),
        (Some(oid(2)), head.last_seq, scene.alice.epoch())
    );
    assert_eq!(kept[0].oid, None, "it has no name that could be read");
}

#[test]
fn a_message_before_its_conversation_waits_for_it() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    let said = object(
        "messages",
        2,
        oid(8),
        alice,
        1,
        Some(message(oid(7), "early")),
    );
    let applied = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    assert_eq!((applied.written, applied.parked), (0, 1));
    assert_eq!(scene.bob.inbox(), []);
    let again = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    assert_eq!(
        (again.parked, scene.bob.rows("sync_parked").len()),
        (1, 1),
        "the same object waits once"
    );

    let begun = object(
        "messages",
        1,
        oid(7),
        alice,
        1,
        Some(conversation(&[alice, scene.bob.identity])),
    );
    let applied = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&begun)])
        .unwrap();
    assert_eq!((applied.written, applied.parked), (2, 0));
    assert_eq!(scene.bob.inbox(), [(alice, "early".to_owned())]);
    assert_eq!(scene.bob.rows("sync_parked"), Vec::<String>::new());
    assert_eq!(
        scene.bob.object("messages", oid(8)).unwrap().1,
        scene.alice.sign(&said)
    );
}

#[test]
fn what_waits_is_judged_when_its_time_comes() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    let said = object(
        "messages",
        2,
        oid(8),
        alice,
        1,
        Some(message(oid(7), "early")),
    );
    scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    // The conversation turns out to be Carol's and Bob's.
    let carol = TestNode::new("carol", 0);
    meet(&scene.bob, &carol);
    let begun = object(
        "messages",
        1,
        oid(7),
        carol.identity,
        1,
        Some(conversation(&[carol.identity, scene.bob.identity])),
    );
    carol
        .force(&scene.bob, "messages", vec![carol.sign(&begun)])
        .unwrap();
    assert_eq!(scene.bob.rejects(), ["not_participant"]);
    assert_eq!(
        (scene.bob.inbox(), scene.bob.rows("sync_parked").len()),
        (vec![], 0)
    );
}

#[test]
fn what_one_peer_has_no_right_to_send_does_not_stand_in_the_way_of_another() {
    let scene = Scene::new();
    let mallory = TestNode::new("mallory", 0);
    meet(&scene.bob, &mallory);
    let said = object(
        "messages",
        2,
        oid(8),
        scene.alice.identity,
        1,
        Some(message(oid(7), "early")),
    );
    let said = scene.alice.sign(&said);
    mallory
        .force(&scene.bob, "messages", vec![said.clone()])
        .unwrap();
    scene
        .alice
        .force(&scene.bob, "messages", vec![said])
        .unwrap();
    let participants = [scene.alice.identity, scene.bob.identity];
    let begun = object(
        "messages",
        1,
        oid(7),
        scene.alice.identity,
        1,
        Some(conversation(&participants)),
    );
    scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&begun)])
        .unwrap();
    assert_eq!(
        scene.bob.inbox(),
        [(scene.alice.identity, "early".to_owned())]
    );
    assert_eq!(scene.bob.rejects(), ["owner_not_at_sender"]);
}

#[test]
fn objects_of_an_unknown_owner_wait_for_its_identity() {
    let (alice, bob) = (
        TestNode::with(
            "alice",
            Setup {
                published: false,
                ..Setup::default()
            },
        ),
        TestNode::new("bob", 0),
    );
    meet(&alice, &bob);
    let early = alice.sign(&object(
        "rides",
        1,
        oid(1),
        alice.identity,
        1,
        Some(ride("Bern", 1)),
    ));
    let applied = alice.force(&bob, "rides.offers", vec![early]).unwrap();
    assert_eq!((applied.parked, applied.written), (1, 0));
    let identity = alice.identity;
    alice
        .write(move |core, now| {
            core.write(now, |graph| {
                postern::services::identities::publish(graph, identity, None)
            })
        })
        .unwrap();
    assert_eq!(
        bob.pull_everything(&alice),
        2,
        "the identity, and what waited for it"
    );
    assert!(bob.parent("rides", oid(1)).is_some());
}

#[test]
fn packages_from_somebody_who_was_never_admitted_are_not_applied() {
    let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 0));
    let before = alice.dump();
    let package = carol.package(&alice, "rides.offers", (0, 1), Vec::new());
    assert!(matches!(
        alice.take(&carol, &package.sign(&carol.keys)),
        Err(NotTaken::Fault(PackageFault::Domain))
    ));
    let key = carol.keys.node_chain().verify().unwrap().current();
    let limits = PackageLimits::default();
    let verified = postern::state_engine::VerifiedPackage::verify(
        &package.sign(&carol.keys),
        &limits,
        (&carol.peer_id(), &key),
        &alice.peer_id(),
    );
    let verified = verified.unwrap();
    let applied = alice.write(move |core, now| core.apply_package(now, &verified, Vec::new()));
    assert!(matches!(applied, Err(ApplyPackageError::UnknownPeer)));
    assert_eq!(alice.dump(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No single changed byte anywhere gets through.
    #[test]
    fn a_tampered_package_is_never_taken(place: prop::sample::Index, flip in 1..=255u8) {
        thread_local!(static SCENE: (Scene, Vec<u8>) = {
            let scene = Scene::new();
            let honest = scene.honest();
            (scene, honest)
        });
        SCENE.with(|(scene, honest)| {
            let mut bytes = honest.clone();
            bytes[place.index(honest.len())] ^= flip;
            assert!(matches!(scene.refused(&bytes), NotTaken::Fault(PackageFault::BadSignature | PackageFault::Malformed(_))));
        });
    }
}

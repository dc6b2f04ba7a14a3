//! Packages that are faulty as a whole move nothing; faulty objects in a good one stop nothing.

use postern::state_engine::{ApplyPackageError, Package, PackageFault, PackageLimits, WindowFault};
use postern::store::Direction;
use proptest::prelude::*;

use harness::forge::{object, oid, sign_with_unknown_key};
use harness::pull::{TakeError, meet, package_bytes};
use harness::{Setup, TestNode, conversation, message, ride};

pub(crate) struct Scene {
    pub(crate) alice: TestNode,
    pub(crate) bob: TestNode,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
        meet(&alice, &bob);
        alice.make("rides", 1, ride("Bern", 1)).unwrap();
        Self { alice, bob }
    }

    pub(crate) fn honest(&self) -> Vec<u8> {
        package_bytes(
            self.alice
                .answer(&self.bob.request(&self.alice, "rides.offers")),
        )
    }

    /// Bob refuses these bytes and nothing at all changes.
    pub(crate) fn refused(&self, bytes: &[u8]) -> TakeError {
        let before = self.bob.dump();
        let refused = self.bob.take(&self.alice, bytes).unwrap_err();
        assert_eq!(self.bob.dump(), before, "a faulty package moves nothing");
        refused
    }

    pub(crate) fn fault(&self, bytes: &[u8]) -> PackageFault {
        match self.refused(bytes) {
            TakeError::Fault(fault) => fault,
            TakeError::Apply(error) => panic!("{error}"),
        }
    }

    /// As honest, signed by Alice, with one field otherwise.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut Package)) -> Vec<u8> {
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
        matches!(refused, TakeError::Apply(ApplyPackageError::Window(fault)) if fault == expected),
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
    let poison =
        sign_with_unknown_key(&object("rides", 1, oid(2), alice, 1, Some(ride("Bern", 1))));
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
    assert_eq!(scene.bob.texts(), []);
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
    assert_eq!(scene.bob.texts(), [(alice, "early".to_owned())]);
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
        (scene.bob.texts(), scene.bob.rows("sync_parked").len()),
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
        scene.bob.texts(),
        [(scene.alice.identity, "early".to_owned())]
    );
    assert_eq!(scene.bob.rejects(), ["owner_not_at_sender"]);
}

#[test]
fn objects_of_an_unknown_owner_wait_for_its_identity() {
    let (alice, bob) = (
        Setup::new("alice").unpublished().node(),
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
        .graph(move |graph| postern::services::identities::publish(graph, identity, None))
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
        Err(TakeError::Fault(PackageFault::Domain))
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
            assert!(matches!(scene.refused(&bytes), TakeError::Fault(PackageFault::BadSignature | PackageFault::Malformed(_))));
        });
    }
}

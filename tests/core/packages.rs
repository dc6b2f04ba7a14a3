//! Applying packages: windows, waiting objects, and faulty objects in a good package.

use bastion::Features;
use postern::state_engine::{ApplyPackageError, Package, PackageFault, WindowFault};
use postern::store::Direction;
use proptest::prelude::*;

use harness::forge::{object, sign_with_unknown_key};
use harness::pull::{TakeError, meet, package_bytes};
use harness::relay::Relayed;
use harness::{Setup, TestNode, conversation, message, ride};

use crate::rights::BOTH;
use crate::stubs::{Chain, MESSAGES};

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

    /// Bob refuses these bytes, and no row changes.
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

    /// An honest package, changed and then signed by Alice.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut Package)) -> Vec<u8> {
        let mut package = self.alice.package(
            &self.bob,
            "rides.offers",
            (0, self.alice.head()),
            Vec::new(),
        );
        change(&mut package);
        package.sign(&self.alice.keys, &Features::none())
    }
}

#[test]
fn replayed_package_is_acknowledged_and_changes_nothing() {
    let scene = Scene::new();
    let honest = scene.honest();
    let first = scene.bob.take(&scene.alice, &honest).unwrap();
    let before = scene.bob.dump();
    let again = scene.bob.take(&scene.alice, &honest).unwrap();
    assert_eq!((again.last_seq, again.written), (first.last_seq, 0));
    assert_eq!(scene.bob.dump(), before);
}

#[test]
fn window_with_a_gap_is_refused_with_the_cursor() {
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
fn one_invalid_object_does_not_block_the_package() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    let of = |number| object("rides", 1, number, alice, 1, Some(ride("Bern", 1)));
    let [first, second, third] = [1, 2, 3].map(|number| of(number).oid);
    let poison = sign_with_unknown_key(&of(2));
    let garbage = scene.alice.keys.sign_object(alice, vec![0xff; 9]).unwrap();
    let good = |number| scene.alice.sign(&of(number));
    let objects = vec![good(1), poison, garbage, good(3)];
    let applied = scene
        .alice
        .force(&scene.bob, "rides.offers", objects)
        .unwrap();
    assert_eq!(
        (applied.written, applied.rejected, applied.waiting),
        (2, 2, 0)
    );
    assert!(
        scene.bob.parent("rides", first).is_some() && scene.bob.parent("rides", third).is_some()
    );
    assert_eq!(scene.bob.parent("rides", second), None);
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
        (Some(second), head.last_seq, scene.alice.epoch())
    );
    assert_eq!(kept[1].type_name.as_deref(), Some("rides.offer"));
    let unread = (kept[0].oid, kept[0].type_name.as_deref());
    assert_eq!(unread, (None, None), "malformed bytes have neither");
}

#[test]
fn message_waits_for_its_conversation() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    let begun = object(
        "messages",
        1,
        7,
        alice,
        1,
        Some(conversation(&[alice, scene.bob.identity])),
    );
    let said = object(
        "messages",
        2,
        8,
        alice,
        1,
        Some(message(begun.oid, "early")),
    );
    let applied = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    assert_eq!((applied.written, applied.waiting), (0, 1));
    assert_eq!(scene.bob.texts(), []);
    let again = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    assert_eq!(
        (again.waiting, scene.bob.rows("waiting").len()),
        (1, 1),
        "the same object waits once"
    );

    let applied = scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&begun)])
        .unwrap();
    assert_eq!((applied.written, applied.waiting), (1, 0));
    assert_eq!(scene.bob.texts(), [(alice, "early".to_owned())]);
    assert_eq!(scene.bob.rows("waiting"), Vec::<String>::new());
    assert_eq!(
        scene.bob.object("messages", said.oid).unwrap().1,
        scene.alice.sign(&said)
    );
}

#[test]
fn waiting_object_is_judged_when_it_is_released() {
    let scene = Scene::new();
    let alice = scene.alice.identity;
    // The conversation belongs to Carol and Bob.
    let carol = TestNode::new("carol", 0);
    meet(&scene.bob, &carol);
    let begun = object(
        "messages",
        1,
        7,
        carol.identity,
        1,
        Some(conversation(&[carol.identity, scene.bob.identity])),
    );
    let said = object(
        "messages",
        2,
        8,
        alice,
        1,
        Some(message(begun.oid, "early")),
    );
    scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&said)])
        .unwrap();
    carol
        .force(&scene.bob, "messages", vec![carol.sign(&begun)])
        .unwrap();
    assert_eq!(scene.bob.rejects(), ["not_participant"]);
    assert_eq!(
        (scene.bob.texts(), scene.bob.rows("waiting").len()),
        (vec![], 0)
    );
}

#[test]
fn copies_of_two_senders_wait_and_one_is_written() {
    let scene = Scene::new();
    let mallory = TestNode::new("mallory", 0);
    meet(&scene.bob, &mallory);
    let participants = [scene.alice.identity, scene.bob.identity];
    let begun = object(
        "messages",
        1,
        7,
        scene.alice.identity,
        1,
        Some(conversation(&participants)),
    );
    let said = object(
        "messages",
        2,
        8,
        scene.alice.identity,
        1,
        Some(message(begun.oid, "early")),
    );
    let said = scene.alice.sign(&said);
    mallory
        .force(&scene.bob, "messages", vec![said.clone()])
        .unwrap();
    scene
        .alice
        .force(&scene.bob, "messages", vec![said])
        .unwrap();
    scene
        .alice
        .force(&scene.bob, "messages", vec![scene.alice.sign(&begun)])
        .unwrap();
    assert_eq!(
        scene.bob.texts(),
        [(scene.alice.identity, "early".to_owned())]
    );
    assert!(scene.bob.rejects().is_empty());
    assert_eq!(scene.bob.rows("waiting").len(), 0);
}

#[test]
fn object_of_an_unknown_owner_waits_for_the_identity() {
    let (alice, bob) = (
        Setup::new("alice").unpublished().node(),
        TestNode::new("bob", 0),
    );
    meet(&alice, &bob);
    let ride = object("rides", 1, 1, alice.identity, 1, Some(ride("Bern", 1)));
    let early = alice.sign(&ride);
    let applied = alice.force(&bob, "rides.offers", vec![early]).unwrap();
    assert_eq!((applied.waiting, applied.written), (1, 0));
    let identity = alice.identity;
    alice
        .graph(move |graph| postern::services::identities::publish(graph, identity, None))
        .unwrap();
    assert_eq!(bob.pull_everything(&alice), 1, "the identity");
    assert!(bob.parent("rides", ride.oid).is_some());
}

#[test]
fn package_of_a_node_that_was_never_admitted_is_not_applied() {
    let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 0));
    let before = alice.dump();
    let package = carol.package(&alice, "rides.offers", (0, 1), Vec::new());
    let bytes = package.sign(&carol.keys, &Features::none());
    assert!(matches!(
        alice.take(&carol, &bytes),
        Err(TakeError::Fault(PackageFault::Domain))
    ));
    let verified = alice.verify(&carol, &bytes).unwrap();
    let applied = alice.write(move |core, now| core.apply_package(now, &verified, Vec::new()));
    assert!(matches!(applied, Err(ApplyPackageError::UnknownPeer)));
    assert_eq!(alice.dump(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Flips one byte at any position.
    #[test]
    fn package_with_any_changed_byte_is_refused(place: prop::sample::Index, flip in 1..=255u8) {
        thread_local!(static SCENE: (Scene, Vec<u8>) = {
            let scene = Scene::new();
            let honest = scene.honest();
            (scene, honest)
        });
        SCENE.with(|(scene, honest)| {
            let mut bytes = honest.clone();
            bytes[place.index(honest.len())] ^= flip;
            let fault = scene.fault(&bytes);
            assert!(matches!(fault, PackageFault::BadSignature | PackageFault::Malformed(_)));
        });
    }
}

#[test]
fn list_in_force_follows_only_a_scope_that_was_made_there() {
    let chain = Chain::new();
    let Chain {
        alice,
        bob,
        carol,
        dave,
        talk,
    } = &chain;
    let added = [(dave.identity, BOTH)];
    let list = bob.set_rights(MESSAGES, *talk, &added).unwrap().oid;
    alice.relay(bob, MESSAGES);
    meet(alice, carol);
    let times = |got: &Relayed| got.stubs.iter().filter(|stub| stub.oid == list).count();
    assert_eq!(times(&carol.relay(bob, MESSAGES)), 2);
    assert_eq!(times(&carol.relay(alice, MESSAGES)), 1);
}

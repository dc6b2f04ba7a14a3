//! Objects of a peer with one fault each: the code of the reject, and that nothing else changes.

use postern::object::Object;
use postern::state_engine::{AsideLimits, CoreLimits};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use harness::forge::{object, oid, sign_with_unknown_key};
use harness::pull::meet;
use harness::{Setup, TestNode, card, conversation, message, ride};

/// Alice receives; Mallory sends any object.
pub(crate) struct Scene {
    pub(crate) alice: TestNode,
    pub(crate) mallory: TestNode,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (alice, mallory) = (TestNode::new("alice", 0), TestNode::new("mallory", 300));
        meet(&alice, &mallory);
        Self { alice, mallory }
    }

    /// Mallory sends an object in the domain of its app. Returns the code of the reject, if any.
    pub(crate) fn refused(&self, object: &Object) -> Option<String> {
        let domain = match object.app.as_str() {
            "rides" => "rides.offers",
            "market" => "market.public_offers",
            app => app,
        };
        self.mallory
            .force_one(&self.alice, domain, self.mallory.sign(object))
    }

    pub(crate) fn assert_refused(&self, object: &Object, code: &str) {
        let before = self.alice.object(&object.app, object.oid);
        assert_eq!(self.refused(object).as_deref(), Some(code));
        assert_eq!(
            self.alice.object(&object.app, object.oid),
            before,
            "a rejected object changes nothing"
        );
    }

    pub(crate) fn ride(&self, number: u8, rev: u64, origin: &str) -> Object {
        object(
            "rides",
            1,
            oid(number),
            self.mallory.identity,
            rev,
            Some(ride(origin, 3)),
        )
    }
}

#[test]
fn object_of_the_sender_is_written_once() {
    let scene = Scene::new();
    let ride = scene.ride(1, 1, "Bern");
    assert_eq!(scene.refused(&ride), None);
    let row = scene.alice.parent("rides", oid(1)).unwrap();
    assert_eq!(row.sync_flags, 0, "an object of a peer is never sent on");
    assert!(row.origin.is_some());
    assert_eq!(scene.refused(&ride), None);
    assert_eq!(
        scene.alice.parent("rides", oid(1)),
        Some(row),
        "the change_seq stays too"
    );
}

#[test]
fn higher_revision_replaces_and_an_equal_one_with_other_content_is_a_fork() {
    let scene = Scene::new();
    assert_eq!(scene.refused(&scene.ride(1, 5, "Bern")), None);
    assert_eq!(
        scene.refused(&scene.ride(1, 4, "Basel")),
        None,
        "an older revision is ignored"
    );
    scene.assert_refused(&scene.ride(1, 5, "Basel"), "fork");
    assert_eq!(
        scene.alice.object("rides", oid(1)).unwrap().0,
        scene.ride(1, 5, "Bern")
    );
    assert_eq!(
        scene.refused(&scene.ride(1, 6, "Chur")),
        None,
        "the owner resolves a fork"
    );
    assert_eq!(
        scene.alice.object("rides", oid(1)).unwrap().0,
        scene.ride(1, 6, "Chur")
    );
}

#[test]
fn deleted_object_stays_deleted() {
    let scene = Scene::new();
    assert_eq!(scene.refused(&scene.ride(1, 1, "Bern")), None);
    let gone = object("rides", 1, oid(1), scene.mallory.identity, 2, None);
    assert_eq!(scene.refused(&gone), None);
    assert!(scene.alice.parent("rides", oid(1)).unwrap().deleted);
    scene.assert_refused(&scene.ride(1, 3, "Bern"), "deleted");
    let never_seen = object("rides", 1, oid(2), scene.mallory.identity, 2, None);
    assert_eq!(scene.refused(&never_seen), None);
    assert_eq!(
        scene.alice.parent("rides", oid(2)),
        None,
        "a tombstone for an unknown object is discarded"
    );
}

#[test]
fn peer_cannot_change_a_local_object() {
    let scene = Scene::new();
    let hers = scene.alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let before = scene.alice.dump();
    for attrs in [Some(ride("Basel", 1)), None] {
        let over = object("rides", 1, hers.oid, scene.mallory.identity, 99, attrs);
        scene.assert_refused(&over, "local_object");
    }
    assert_eq!(
        scene.alice.dump()["app_rides_parent"],
        before["app_rides_parent"]
    );
    assert_eq!(
        scene.alice.dump()["app_rides_attr"],
        before["app_rides_attr"]
    );
}

#[test]
fn peer_cannot_write_for_an_identity_of_another_home() {
    let scene = Scene::new();
    let bob = TestNode::new("bob", 0);
    meet(&scene.alice, &bob);
    let alices_own = scene.alice.identity;
    for victim in [alices_own, bob.identity] {
        let forged = sign_with_unknown_key(&object(
            "rides",
            1,
            oid(1),
            victim,
            1,
            Some(ride("Bern", 1)),
        ));
        let code = scene
            .mallory
            .force_one(&scene.alice, "rides.offers", forged);
        assert_eq!(code.as_deref(), Some("bad_signature"));
    }
    // Mallory sends a genuine object of Bob, whose home is another node.
    let true_one = bob.sign(&object(
        "rides",
        1,
        oid(1),
        bob.identity,
        1,
        Some(ride("Bern", 1)),
    ));
    let code = scene
        .mallory
        .force_one(&scene.alice, "rides.offers", true_one);
    assert_eq!(code.as_deref(), Some("owner_not_at_sender"));
    assert_eq!(scene.alice.parent("rides", oid(1)), None);
}

#[test]
fn object_cannot_change_its_owner_or_type() {
    let scene = Scene::new();
    let bob = TestNode::new("bob", 0);
    meet(&scene.alice, &bob);
    let his = bob.make("rides", 1, ride("Bern", 2)).unwrap();
    scene.alice.pull_everything(&bob);
    let taken_over = object(
        "rides",
        1,
        his.oid,
        scene.mallory.identity,
        9,
        Some(ride("Bern", 2)),
    );
    scene.assert_refused(&taken_over, "owner_changed");

    let participants = [scene.alice.identity, scene.mallory.identity];
    let begun = object(
        "messages",
        1,
        oid(7),
        scene.mallory.identity,
        1,
        Some(conversation(&participants)),
    );
    assert_eq!(scene.refused(&begun), None);
    let as_message = object(
        "messages",
        2,
        oid(7),
        scene.mallory.identity,
        2,
        Some(message(oid(7), "x")),
    );
    scene.assert_refused(&as_message, "mode");
}

#[test]
fn append_only_domain_rejects_changes_and_deletions() {
    let scene = Scene::new();
    let participants = [scene.alice.identity, scene.mallory.identity];
    let mallory = scene.mallory.identity;
    let begun = object(
        "messages",
        1,
        oid(7),
        mallory,
        1,
        Some(conversation(&participants)),
    );
    let said = object(
        "messages",
        2,
        oid(8),
        mallory,
        1,
        Some(message(oid(7), "I owe you")),
    );
    assert_eq!((scene.refused(&begun), scene.refused(&said)), (None, None));
    scene.assert_refused(
        &object(
            "messages",
            2,
            oid(8),
            mallory,
            2,
            Some(message(oid(7), "you owe me")),
        ),
        "mode",
    );
    scene.assert_refused(&object("messages", 2, oid(8), mallory, 2, None), "mode");
    scene.assert_refused(&object("messages", 2, oid(9), mallory, 2, None), "mode");
    assert_eq!(scene.alice.texts(), [(mallory, "I owe you".to_owned())]);
}

#[test]
fn conversation_requires_participating_writers_and_a_local_reader() {
    let scene = Scene::new();
    let bob = TestNode::new("bob", 0);
    meet(&scene.alice, &bob);
    let private = scene.alice.send(bob.identity, "between us");
    let mallory = scene.mallory.identity;
    let intruding = object(
        "messages",
        2,
        oid(8),
        mallory,
        1,
        Some(message(private.conversation, "boo")),
    );
    scene.assert_refused(&intruding, "not_participant");
    let among_others = object(
        "messages",
        1,
        oid(7),
        mallory,
        1,
        Some(conversation(&[mallory, bob.identity])),
    );
    scene.assert_refused(&among_others, "no_reader_here");
    let of_others = object(
        "messages",
        1,
        oid(7),
        mallory,
        1,
        Some(conversation(&[scene.alice.identity, bob.identity])),
    );
    scene.assert_refused(&of_others, "not_participant");
    let not_for_her = object(
        "contacts",
        1,
        oid(6),
        mallory,
        1,
        Some(card(bob.identity, "Bob")),
    );
    scene.assert_refused(&not_for_her, "no_reader_here");
}

#[test]
fn remote_update_cannot_change_the_readers() {
    let scene = Scene::new();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let second = scene.alice.keys.add_identity(&mut rng).unwrap();
    scene
        .alice
        .graph(move |graph| postern::services::identities::publish(graph, second, None))
        .unwrap();
    let mallory = scene.mallory.identity;
    let first = object(
        "contacts",
        1,
        oid(6),
        mallory,
        1,
        Some(card(scene.alice.identity, "A")),
    );
    assert_eq!(scene.refused(&first), None);
    let renamed = object(
        "contacts",
        1,
        oid(6),
        mallory,
        2,
        Some(card(scene.alice.identity, "Alice")),
    );
    assert_eq!(scene.refused(&renamed), None);
    let moved = object(
        "contacts",
        1,
        oid(6),
        mallory,
        3,
        Some(card(second, "Alice")),
    );
    scene.assert_refused(&moved, "scope_changed");
}

#[test]
fn waiting_objects_are_bounded_per_peer() {
    let aside = AsideLimits {
        parked_per_peer_max: 2,
        rejects_per_peer_max: 3,
    };
    let limits = CoreLimits {
        aside,
        ..CoreLimits::default()
    };
    let alice = Setup::new("alice").limits(limits).node();
    let scene = Scene {
        alice,
        mallory: TestNode::new("mallory", 0),
    };
    meet(&scene.alice, &scene.mallory);
    let waiting = |number| {
        object(
            "messages",
            2,
            oid(number),
            scene.mallory.identity,
            1,
            Some(message(oid(99), "x")),
        )
    };
    assert_eq!(
        (scene.refused(&waiting(1)), scene.refused(&waiting(2))),
        (None, None)
    );
    scene.assert_refused(&waiting(3), "no_room");
    for number in 4..9 {
        scene.assert_refused_quietly(&waiting(number), "no_room");
    }
    assert_eq!(scene.alice.rows("sync_parked").len(), 2);
    assert_eq!(scene.alice.rows("sync_rejects").len(), 3);
}

impl Scene {
    /// Like [`Scene::assert_refused`], when the list of rejects is full and drops old ones.
    fn assert_refused_quietly(&self, object: &Object, code: &str) {
        let applied = self
            .mallory
            .force(&self.alice, &object.app, vec![self.mallory.sign(object)])
            .unwrap();
        assert_eq!(
            (applied.rejected, self.alice.rejects()[0].as_str()),
            (1, code)
        );
    }
}

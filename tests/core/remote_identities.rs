//! Identities of a peer: their records, rotations and moves, and the rejects of each.

use keys::{HomeRecord, KeyChain, Oid, codec};
use postern::object::{Attrs, Object, Value};
use postern::schema::identities::{HOME, NAME};
use postern::store::EpochReason;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::remote_writes::Scene;
use harness::forge::oid;
use harness::pull::meet;
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, ride};

/// Mallory's identity object with another chain, home or name.
fn identity(scene: &Scene, rev: u64, change: impl FnOnce(&mut Attrs)) -> Object {
    let (mut object, _) = scene
        .mallory
        .object("identities", scene.mallory.identity)
        .unwrap();
    object.rev = rev;
    change(object.attrs.as_mut().unwrap());
    object
}

fn home(node: &TestNode, identity: Oid, counter: u64) -> Vec<Value> {
    vec![Value::Bytes(codec::encode(
        &node.keys.home_record(identity, counter).unwrap(),
    ))]
}

#[test]
fn object_under_an_old_key_is_acknowledged_and_not_applied_after_a_rotation() {
    let scene = Scene::new();
    let old = scene.mallory.sign(&scene.ride(1, 1, "Bern"));
    let (before, _) = scene
        .mallory
        .object("identities", scene.mallory.identity)
        .unwrap();
    let renamed_under_the_old_key = scene.mallory.sign(&Object { rev: 3, ..before });
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    scene
        .mallory
        .keys
        .rotate(scene.mallory.identity, &mut rng)
        .unwrap();
    let id = scene.mallory.identity;
    scene
        .mallory
        .graph(move |graph| postern::services::identities::publish(graph, id, Some("m")))
        .unwrap();
    scene.alice.pull_everything(&scene.mallory);
    let row = scene
        .alice
        .read(move |view| view.rows.identity(&id))
        .unwrap();
    assert_eq!(row.key_id, 1, "the new key is known");
    let before = scene.alice.stored_objects();
    for (domain, object) in [
        ("rides.offers", old),
        ("identities", renamed_under_the_old_key),
    ] {
        let applied = scene.mallory.force(&scene.alice, domain, vec![object]);
        let applied = applied.unwrap();
        assert_eq!((applied.already_stored, applied.rejected), (1, 0));
    }
    assert_eq!(scene.alice.stored_objects(), before);
    assert_eq!(scene.alice.rejects(), Vec::<String>::new());
    assert_eq!(
        scene.refused(&scene.ride(1, 1, "Bern")),
        None,
        "accepted when signed with the new key"
    );
}

#[test]
fn identity_with_an_invalid_record_is_rejected() {
    let scene = Scene::new();
    scene.assert_refused(
        &identity(&scene, 2, |attrs| {
            drop(attrs.insert(HOME, vec![Value::Bytes(vec![1])]))
        }),
        "identity_record",
    );
    let of_another = home(&scene.alice, scene.alice.identity, 1);
    scene.assert_refused(
        &identity(&scene, 2, |attrs| drop(attrs.insert(HOME, of_another))),
        "identity_record",
    );
    let other_oid = Object {
        oid: oid(5),
        ..identity(&scene, 2, |_| ())
    };
    scene.assert_refused(&other_oid, "identity_record");
    let gone = Object {
        attrs: None,
        ..identity(&scene, 2, |_| ())
    };
    scene.assert_refused(&gone, "identity_record");
    let chain = KeyChain::new(
        scene
            .alice
            .keys
            .identity_chain(scene.alice.identity)
            .unwrap()
            .genesis,
    );
    let stolen = identity(&scene, 2, |attrs| {
        drop(attrs.insert(2, vec![Value::Bytes(codec::encode(&chain))]))
    });
    scene.assert_refused(&stolen, "identity_record");
}

#[test]
fn home_record_needs_a_higher_counter_and_a_conflict_freezes() {
    let scene = Scene::new();
    let id = scene.mallory.identity;
    let known = |scene: &Scene| {
        scene
            .alice
            .read(move |view| view.rows.identity(&id))
            .unwrap()
    };
    // The home is Mallory's node, with counter 4.
    let at_four = home(&scene.mallory, id, 4);
    assert_eq!(
        scene.refused(&identity(&scene, 2, |attrs| drop(
            attrs.insert(HOME, at_four)
        ))),
        None
    );
    assert_eq!(known(&scene).home_counter, 4);
    let back = home(&scene.mallory, id, 3);
    scene.assert_refused(
        &identity(&scene, 3, |attrs| drop(attrs.insert(HOME, back))),
        "old_home",
    );

    // Records in which another node is the home.
    let elsewhere = |counter| {
        let (node, next) = (
            keys::SecretKey::from_seed(&[5; 32]),
            keys::SecretKey::from_seed(&[6; 32]),
        );
        let chain = KeyChain::new(keys::Genesis::new(node.public(), &next.public()));
        // The identity's key does not leave its vault, so a copy of it signs.
        let secret = StolenKeys::of_name("mallory").identity;
        vec![Value::Bytes(codec::encode(&HomeRecord::sign(
            id,
            (0, &secret),
            chain,
            &node,
            counter,
        )))]
    };
    // A higher counter is a move, which the new home has to send.
    let moved = elsewhere(5);
    scene.assert_refused(
        &identity(&scene, 3, |attrs| drop(attrs.insert(HOME, moved))),
        "owner_not_at_sender",
    );
    assert_eq!(known(&scene).home_counter, 4);
    // The same counter is a conflict: the identity is frozen, also for a higher counter.
    let same_counter = elsewhere(4);
    scene.assert_refused(
        &identity(&scene, 3, |attrs| drop(attrs.insert(HOME, same_counter))),
        "home_conflict",
    );
    assert_eq!(known(&scene).home, scene.mallory.peer_id());
    assert!(known(&scene).frozen);
    for counter in [6, 4] {
        let onward = home(&scene.mallory, id, counter);
        let onward = identity(&scene, 3, |attrs| drop(attrs.insert(HOME, onward)));
        assert_eq!(scene.refused(&onward), None, "it waits for the unfreezing");
    }
    assert_eq!(known(&scene).home_counter, 4);
}

#[test]
fn identity_may_change_its_name() {
    let scene = Scene::new();
    let renamed = identity(&scene, 2, |attrs| {
        drop(attrs.insert(NAME, vec![Value::from("Mal")]))
    });
    assert_eq!(scene.refused(&renamed), None);
    assert_eq!(
        scene
            .alice
            .object("identities", scene.mallory.identity)
            .unwrap()
            .0,
        renamed
    );
}

/// Alice stores Bob's offer. Then Bob moves, and his old node begins a new epoch.
#[test]
fn stored_public_object_does_not_wait_when_its_old_home_sends_it_again() {
    let alice = TestNode::new("alice", 0);
    let (bob, dave) = (
        Setup::seeded("bob", 71).node(),
        Setup::seeded("dave", 72).node(),
    );
    meet(&alice, &bob);
    meet(&alice, &dave);
    let offer = bob.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    alice.pull_everything(&bob);
    let record = bob.stored_objects()[&bob.identity].clone();
    let moved = StolenKeys::of(71).claim_home(&record, 72, 2, record.rev + 1);
    dave.force(&alice, "identities", vec![moved]).unwrap();
    alice.confirm_home(bob.identity, &dave);
    let bob = bob.into_setup().new_epoch(EpochReason::Restored).node();
    meet(&alice, &bob);
    alice.pull_all(&bob, "rides.offers");
    assert!(alice.parent("rides", offer).is_some());
    assert_eq!(alice.rows("waiting"), Vec::<String>::new());
}

#[test]
fn stored_object_of_a_frozen_owner_does_not_wait_when_it_comes_again() {
    let scene = Scene::new();
    let (alice, mallory) = (&scene.alice, &scene.mallory);
    let later = mallory.sign(&scene.ride(2, 2, "Basel"));
    let older = mallory.sign(&scene.ride(2, 1, "Bern"));
    let identity = mallory.identity;
    mallory
        .force(alice, "rides.offers", vec![later.clone()])
        .unwrap();
    alice
        .graph(move |graph| graph.tx().set_frozen(&identity, true))
        .unwrap();
    let applied = mallory.force(alice, "rides.offers", vec![later, older]);
    let applied = applied.unwrap();
    assert_eq!((applied.already_stored, applied.waiting), (2, 0));
}

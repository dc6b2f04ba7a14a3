//! Objects of a peer that fail a check: domain, app, schema, reference, signature.

use harness::forge::{object, oid};
use harness::{NO_MARKET, Setup, card, conversation, meet, message, offer, ride};
use keys::SignedObject;
use postern::object::{Attrs, Value};

use crate::garden::gardener;
use crate::remote_writes::Scene;

#[test]
fn type_must_belong_to_the_domain_and_to_an_installed_app() {
    let scene = Scene::new();
    let ride = scene.ride(1, 1, "Bern");
    let code = scene.mallory.force_one(
        &scene.alice,
        "market.public_offers",
        scene.mallory.sign(&ride),
    );
    assert_eq!(code.as_deref(), Some("type_not_in_domain"));
    let unknown = object(
        "rides",
        77,
        1,
        scene.mallory.identity,
        1,
        Some(Attrs::new()),
    );
    scene.assert_refused(&unknown, "unknown_type");
    let local = object("identities", 2, 1, scene.mallory.identity, 1, {
        Some(Attrs::from([
            (1, vec![Value::Bytes(vec![1; 32])]),
            (2, vec![Value::Bytes(vec![0x80])]),
        ]))
    });
    scene.assert_refused(&local, "type_not_in_domain");

    let bob = Setup::new("bob").apps(&NO_MARKET).node();
    meet(&bob, &scene.mallory);
    let offer = object(
        "market",
        1,
        2,
        scene.mallory.identity,
        1,
        Some(offer("a bike")),
    );
    let code = scene
        .mallory
        .force_one(&bob, "rides.offers", scene.mallory.sign(&offer));
    assert_eq!(code.as_deref(), Some("type_not_in_domain"));
}

#[test]
fn malformed_object_and_schema_violation_are_rejected() {
    let scene = Scene::new();
    let mut attrs = ride("Bern", 3);
    attrs.remove(&4);
    scene.assert_refused(
        &object("rides", 1, 1, scene.mallory.identity, 1, Some(attrs)),
        "schema",
    );
    let garbage = scene
        .mallory
        .keys
        .sign_object(scene.mallory.identity, vec![0xff; 40])
        .unwrap();
    assert_eq!(
        scene
            .mallory
            .force_one(&scene.alice, "rides.offers", garbage)
            .as_deref(),
        Some("malformed")
    );
    let mut long = ride("Bern", 3);
    long.insert(6, vec![Value::from("x".repeat(70_000).as_str())]);
    let long = scene.mallory.sign(&object(
        "rides",
        1,
        1,
        scene.mallory.identity,
        1,
        Some(long),
    ));
    assert_eq!(
        scene
            .mallory
            .force_one(&scene.alice, "rides.offers", long)
            .as_deref(),
        Some("malformed")
    );
}

#[test]
fn revision_zero_is_malformed() {
    let scene = Scene::new();
    let ride = |number, rev| {
        let attrs = Some(ride("Bern", 3));
        object("rides", 1, number, scene.mallory.identity, rev, attrs)
    };
    scene.assert_refused(&ride(1, 0), "malformed");
    assert_eq!(scene.refused(&ride(2, 1)), None);
}

/// A conversation may name an identity that this node has not met yet.
#[test]
fn identity_values_need_not_be_known() {
    let scene = Scene::new();
    let people = [scene.mallory.identity, scene.alice.identity, oid(9)];
    let talk = object("messages", 1, 1, people[0], 1, Some(conversation(&people)));
    assert_eq!(scene.refused(&talk), None);
    assert!(scene.alice.parent("messages", talk.oid).is_some());
    let card = object(
        "contacts",
        1,
        2,
        people[0],
        1,
        Some(card(oid(9), "unknown")),
    );
    assert_eq!(scene.refused(&card), None);
    assert_eq!(scene.alice.rows("waiting").len(), 0);
}

/// The node that writes them and the node that receives them look none of them up.
#[test]
fn oids_in_json_and_identity_values_need_not_be_known() {
    let (alice, bob) = (gardener("alice", 0), gardener("bob", 300));
    meet(&alice, &bob);
    let json = format!(r#"{{"beside":["{}"]}}"#, oid(8).to_hex());
    let attrs = [(4, Value::from(&oid(9))), (6, Value::from(json.as_str()))];
    let attrs = Attrs::from(attrs.map(|(number, value)| (number, vec![value])));
    let bed = alice.make("garden", 1, attrs).unwrap();
    bob.pull_everything(&alice);
    assert_eq!(bob.rejects(), Vec::<String>::new());
    assert_eq!(bob.rows("waiting").len(), 0);
    let (sent, received) = (
        alice.object("garden", bed.oid),
        bob.object("garden", bed.oid),
    );
    assert!(received.is_some() && received == sent);
}

#[test]
fn scope_must_be_a_parent_that_founds_one() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    let begun = scene.conversation(7);
    let said = |number, parent| {
        let attrs = Some(message(parent, "x"));
        object("messages", 2, number, mallory, 1, attrs)
    };
    let first = said(8, begun.oid);
    assert_eq!((scene.refused(&begun), scene.refused(&first)), (None, None));
    scene.assert_refused(&said(9, first.oid), "wrong_scope");
}

#[test]
fn signature_of_another_key_or_over_other_bytes_is_rejected() {
    let scene = Scene::new();
    let ride = scene.ride(1, 1, "Bern");
    let true_one = scene.mallory.sign(&ride);
    let bytes = scene.ride(1, 1, "Basel").to_bytes();
    let moved = SignedObject::from_parts(0, bytes, *true_one.signature());
    assert_eq!(
        scene
            .mallory
            .force_one(&scene.alice, "rides.offers", moved)
            .as_deref(),
        Some("bad_signature")
    );
    // Under a key that is not known it waits for the owner's next record, which alone can prove it.
    let renumbered = SignedObject::from_parts(1, ride.to_bytes(), *true_one.signature());
    assert_eq!(
        scene
            .mallory
            .force_one(&scene.alice, "rides.offers", renumbered),
        None
    );
    assert_eq!(scene.alice.rows("waiting").len(), 1);
    assert_eq!(scene.alice.parent("rides", ride.oid), None);
}

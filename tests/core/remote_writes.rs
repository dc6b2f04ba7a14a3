//! Objects of a peer with one fault each: the code of the reject, and that nothing else changes.

use keys::Digest;
use postern::object::{Object, OidParts, OidProof, Place};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use harness::forge::{object, oid, sign_with_unknown_key, tombstone};
use harness::pull::meet;
use harness::{TestNode, card, conversation, message, offer, ride};

/// Alice receives; Mallory sends any object.
pub(crate) struct Scene {
    pub(crate) alice: TestNode,
    pub(crate) mallory: TestNode,
}

impl Scene {
    /// A conversation of Mallory with Alice.
    pub(crate) fn conversation(&self, number: u8) -> Object {
        let mallory = self.mallory.identity;
        let attrs = Some(conversation(&[self.alice.identity, mallory]));
        object("messages", 1, number, mallory, 1, attrs)
    }

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
            number,
            self.mallory.identity,
            rev,
            Some(ride(origin, 3)),
        )
    }
}

/// The object whose bytes have the lower digest.
fn lower_digest(one: &Object, other: &Object) -> Object {
    let digest = |object: &Object| Digest::of(&object.to_bytes());
    let is_lower = digest(one) < digest(other);
    if is_lower { one.clone() } else { other.clone() }
}

#[test]
fn object_of_the_sender_is_written_once() {
    let scene = Scene::new();
    let ride = scene.ride(1, 1, "Bern");
    assert_eq!(scene.refused(&ride), None);
    let row = scene.alice.parent("rides", ride.oid).unwrap();
    assert_eq!(row.sync_flags, 0, "an object of a peer is never sent on");
    assert!(row.origin.is_some());
    assert_eq!(scene.refused(&ride), None);
    assert_eq!(
        scene.alice.parent("rides", ride.oid),
        Some(row),
        "the change_seq stays too"
    );
}

#[test]
fn higher_revision_replaces_and_of_a_fork_the_lower_digest_stays() {
    let scene = Scene::new();
    let stored = |oid| scene.alice.object("rides", oid).unwrap().0;
    let first = scene.ride(1, 5, "Bern");
    assert_eq!(scene.refused(&first), None);
    assert_eq!(
        scene.refused(&scene.ride(1, 4, "Basel")),
        None,
        "an older revision is ignored"
    );
    let other = scene.ride(1, 5, "Basel");
    let winner = lower_digest(&first, &other);
    // Both orders of arrival end with the same object, and each fork is recorded.
    for (number, object) in (1..).zip([&other, &first, &other]) {
        let sent = scene.mallory.sign(object);
        let applied = scene
            .mallory
            .force(&scene.alice, "rides.offers", vec![sent]);
        assert_eq!(applied.unwrap().rejected, 0);
        assert_eq!(stored(first.oid), winner, "arrival {number}");
    }
    assert!(!scene.alice.rejects().is_empty());
    assert!(scene.alice.rejects().iter().all(|code| code == "fork"));
    let sent = scene.mallory.sign(&scene.ride(1, 6, "Chur"));
    scene
        .mallory
        .force(&scene.alice, "rides.offers", vec![sent])
        .unwrap();
    assert_eq!(stored(first.oid), scene.ride(1, 6, "Chur"));
}

#[test]
fn fork_ends_alike_in_an_append_only_domain() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    let begun = scene.conversation(7);
    let said = |text| {
        let attrs = Some(message(begun.oid, text));
        object("messages", 2, 8, mallory, 1, attrs)
    };
    let (one, other) = (said("I owe you"), said("you owe me"));
    let send = |object: &Object| {
        let sent = vec![scene.mallory.sign(object)];
        let applied = scene.mallory.force(&scene.alice, "messages", sent);
        assert_eq!(applied.unwrap().rejected, 0);
    };
    let winner = lower_digest(&one, &other);
    for object in [&begun, &one, &other, &one] {
        send(object);
    }
    assert_eq!(scene.alice.object("messages", one.oid).unwrap().0, winner);
}

#[test]
fn deleted_object_stays_deleted_also_if_it_never_came() {
    let scene = Scene::new();
    let first = scene.ride(1, 1, "Bern");
    assert_eq!(scene.refused(&first), None);
    assert_eq!(scene.refused(&tombstone(&first, 2)), None);
    assert!(scene.alice.parent("rides", first.oid).unwrap().deleted);
    let back = scene.ride(1, 3, "Bern");
    assert_eq!(
        scene.refused(&back),
        None,
        "a later live revision loses too"
    );
    assert!(scene.alice.parent("rides", first.oid).unwrap().deleted);
    let never_seen = scene.ride(2, 1, "Bern");
    assert_eq!(scene.refused(&tombstone(&never_seen, 2)), None);
    assert!(scene.alice.parent("rides", never_seen.oid).unwrap().deleted);
    assert_eq!(scene.refused(&never_seen), None, "an older revision");
    assert!(scene.alice.parent("rides", never_seen.oid).unwrap().deleted);
}

#[test]
fn scope_of_an_unknown_tombstone_has_no_readers_and_its_objects_are_dropped() {
    let scene = Scene::new();
    let card = object(
        "contacts",
        1,
        6,
        scene.mallory.identity,
        1,
        Some(card(scene.alice.identity, "A")),
    );
    assert_eq!(scene.refused(&tombstone(&card, 2)), None);
    let row = scene.alice.parent("contacts", card.oid).unwrap();
    assert!(row.deleted);
    assert_eq!(scene.alice.readers("contacts", card.oid), []);
    let (deleted, _) = scene.alice.object("contacts", card.oid).unwrap();
    assert_eq!(deleted, tombstone(&card, 2), "the bytes are whole");
}

#[test]
fn peer_cannot_change_a_local_object_or_take_its_oid() {
    let scene = Scene::new();
    let hers = scene.alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let (hers, _) = scene.alice.object("rides", hers.oid).unwrap();
    let before = scene.alice.dump();
    for attrs in [Some(ride("Basel", 1)), None] {
        let over = Object {
            owner: scene.mallory.identity,
            rev: 99,
            attrs,
            ..hers.clone()
        };
        scene.assert_refused(&over, "oid");
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
    let of = |owner| object("rides", 1, 1, owner, 1, Some(ride("Bern", 1)));
    for victim in [scene.alice.identity, bob.identity] {
        let forged = sign_with_unknown_key(&of(victim));
        let code = scene
            .mallory
            .force_one(&scene.alice, "rides.offers", forged);
        assert_eq!(code.as_deref(), Some("bad_signature"));
    }
    // Mallory sends a genuine object of Bob, whose home is another node.
    let true_one = of(bob.identity);
    let code = scene
        .mallory
        .force_one(&scene.alice, "rides.offers", bob.sign(&true_one));
    assert_eq!(code, None, "it waits until Mallory is Bob's home");
    assert_eq!(scene.alice.rows("waiting").len(), 1);
    assert_eq!(scene.alice.parent("rides", true_one.oid), None);
}

#[test]
fn object_cannot_take_an_oid_in_any_app_or_type() {
    let scene = Scene::new();
    let bob = TestNode::new("bob", 0);
    meet(&scene.alice, &bob);
    let his = bob.make("rides", 1, ride("Bern", 2)).unwrap();
    scene.alice.pull_everything(&bob);
    let (his, _) = scene.alice.object("rides", his.oid).unwrap();
    let mine = Object {
        owner: scene.mallory.identity,
        ..his
    };
    scene.assert_refused(&mine, "oid");
    let elsewhere = Object {
        app: "market".into(),
        attrs: Some(offer("a bike")),
        ..mine
    };
    scene.assert_refused(&elsewhere, "oid");

    let begun = scene.conversation(7);
    assert_eq!(scene.refused(&begun), None);
    let as_message = Object {
        type_number: 2,
        attrs: Some(message(begun.oid, "x")),
        ..begun.clone()
    };
    scene.assert_refused(&as_message, "oid");
    let unbound = Object {
        proof: OidProof::Genesis,
        ..begun.clone()
    };
    scene.assert_refused(&unbound, "oid");
    let salted = Object {
        proof: OidProof::Bound {
            salt: [9; 8],
            place: begun.place(),
        },
        ..begun
    };
    scene.assert_refused(&salted, "oid");
}

#[test]
fn object_whose_oid_collides_with_a_stored_one_is_refused() {
    let scene = Scene::new();
    let (first, talk) = (scene.ride(1, 1, "Bern"), scene.conversation(7));
    assert_eq!((scene.refused(&first), scene.refused(&talk)), (None, None));
    // No two objects with one oid are known, so the stored ones are made others.
    for (table, column, other) in [
        ("app_rides_parent", "type", "9"),
        ("app_rides_parent", "owner_oid", "zeroblob(16)"),
        ("app_rides_parent", "salt", "zeroblob(8)"),
        ("app_messages_parent", "scope_id", "1"),
    ] {
        let database = rusqlite::Connection::open(scene.alice.database()).unwrap();
        let origin = "(SELECT MAX(id) FROM peers)";
        let before = format!("SELECT quote({column}) FROM {table} WHERE origin = {origin}");
        let before: String = database.query_row(&before, [], |row| row.get(0)).unwrap();
        let set = |value: &str| {
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE origin = {origin}");
            assert_eq!(database.execute(&sql, []).unwrap(), 1);
        };
        set(other);
        if table == "app_rides_parent" {
            scene.assert_refused(&scene.ride(1, 2, "Basel"), "oid_conflict");
        } else {
            scene.assert_refused(&talk, "oid_conflict");
        }
        set(&before);
    }
    assert_eq!(scene.refused(&scene.ride(1, 2, "Basel")), None);
}

#[test]
fn place_must_be_the_one_that_type_and_values_give() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    let (one, other) = (scene.conversation(7), scene.conversation(8));
    assert_eq!((scene.refused(&one), scene.refused(&other)), (None, None));
    let placed = |object: &Object, place| {
        let parts = OidParts {
            owner: &mallory,
            app: &object.app,
            type_number: object.type_number,
            place: &place,
        };
        Object {
            attrs: object.attrs.clone(),
            ..Object::create(&parts, 1_700_000_000_000, [1; 8])
        }
    };
    let said = object("messages", 2, 9, mallory, 1, Some(message(one.oid, "x")));
    let unknown = Place::In(oid(9));
    for place in [Place::Public, Place::In(other.oid), unknown, one.place()] {
        scene.assert_refused(&placed(&said, place), "wrong_scope");
    }
    let list = Place::Founds(Digest::of(b"another list"));
    for place in [Place::Public, Place::In(other.oid), list] {
        scene.assert_refused(&placed(&one, place), "wrong_scope");
    }
    let ride = scene.ride(1, 1, "Bern");
    for place in [Place::In(other.oid), list] {
        scene.assert_refused(&placed(&ride, place), "wrong_scope");
    }
    // Only an object in a scope names a rights list.
    for object in [&one, &ride] {
        let rights = Some(Digest::of(b"a list"));
        let named = Object {
            rights,
            ..object.clone()
        };
        scene.assert_refused(&named, "bad_rights");
    }
}

#[test]
fn append_only_domain_rejects_changes_and_deletions() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    let begun = scene.conversation(7);
    let said = |number, rev, text| {
        let attrs = Some(message(begun.oid, text));
        object("messages", 2, number, mallory, rev, attrs)
    };
    let first = said(8, 1, "I owe you");
    assert_eq!((scene.refused(&begun), scene.refused(&first)), (None, None));
    scene.assert_refused(&said(8, 2, "you owe me"), "mode");
    scene.assert_refused(&tombstone(&first, 2), "mode");
    scene.assert_refused(&tombstone(&first, 1), "mode");
    // The order of arrival does not matter, and neither does what is stored.
    scene.assert_refused(&said(9, 2, "you owe me"), "mode");
    scene.assert_refused(&tombstone(&said(9, 1, ""), 2), "mode");
    assert_eq!(scene.alice.texts(), [(mallory, "I owe you".to_owned())]);
}

#[test]
fn conversation_requires_participating_writers() {
    let scene = Scene::new();
    let bob = TestNode::new("bob", 0);
    meet(&scene.alice, &bob);
    let private = scene.alice.send(bob.identity, "between us");
    let mallory = scene.mallory.identity;
    let mine =
        |app, type_number, number, attrs| object(app, type_number, number, mallory, 1, Some(attrs));
    let intruding = mine("messages", 2, 8, message(private.conversation, "boo"));
    scene.assert_refused(&intruding, "not_participant");
    let of_others = conversation(&[scene.alice.identity, bob.identity]);
    scene.assert_refused(&mine("messages", 1, 7, of_others), "not_participant");
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
    let of = |subject, rev, name| {
        let attrs = Some(card(subject, name));
        object("contacts", 1, 6, scene.mallory.identity, rev, attrs)
    };
    let first = of(scene.alice.identity, 1, "A");
    assert_eq!(scene.refused(&first), None);
    assert_eq!(scene.refused(&of(scene.alice.identity, 2, "Alice")), None);
    let moved = Object {
        attrs: Some(card(second, "Alice")),
        rev: 3,
        ..first
    };
    scene.assert_refused(&moved, "wrong_scope");
}

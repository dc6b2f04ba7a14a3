//! Attacks with stolen keys, current or earlier ones, and copies of a node.

use keys::{Context, Epoch, HomeRecord, SecretKey, SignedObject, codec};
use postern::graph::WriteRequest;
use postern::object::{Object, Value};
use postern::services::identities;
use postern::state_engine::{AsideLimits, CoreLimits, OwnEpoch};
use postern::store::{EpochReason, PeerEpoch, WriteMode};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::remote_writes::Scene;
use harness::forge::{object, tombstone};
use harness::pull::{meet, package_bytes};
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, conversation, message, ride};

pub(crate) fn rotate(node: &TestNode, holder: keys::Oid) {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    node.keys.rotate(holder, &mut rng).unwrap();
    node.write(|core, now| {
        core.save_own_server(now)
            .and_then(|()| core.resume_rotations(now))
    })
    .unwrap();
}

#[test]
fn next_key_of_the_owner_overrides_the_writes_of_a_thief() {
    let scene = Scene::new();
    let (alice, owner) = (&scene.alice, &scene.mallory);
    let id = owner.identity;
    let offers = [1, 2].map(|seats| owner.make("rides", 1, ride("Bern", seats)).unwrap().oid);
    alice.pull_everything(owner);
    let thief = TestNode::new("thief", 600);
    meet(alice, &thief);
    let node = StolenKeys::of_name("thief").node;
    let key = StolenKeys::of_name("mallory").identity;
    assert_eq!(node.peer_id(), thief.peer_id());
    // The thief moves the identity to its node, with the largest counter, changes one offer and
    // deletes the other.
    let (record, _) = owner.object("identities", id).unwrap();
    let home = HomeRecord::sign(
        id,
        (0, &key),
        thief.keys.node_chain(),
        &node,
        i64::MAX as u64,
    );
    let mut attrs = record.attrs.clone().unwrap();
    attrs.insert(3, vec![Value::Bytes(codec::encode(&home))]);
    let moved = Object {
        rev: 1 << 60,
        attrs: Some(attrs),
        ..record
    };
    let offered = |oid| owner.object("rides", oid).unwrap().0;
    let changed = Object {
        rev: 1 << 60,
        attrs: Some(ride("Rome", 1)),
        ..offered(offers[0])
    };
    let deleted = tombstone(&offered(offers[1]), 1 << 60);
    for (domain, forged) in [
        ("identities", &moved),
        ("rides.offers", &changed),
        ("rides.offers", &deleted),
    ] {
        let signed = SignedObject::sign(0, &key, forged.to_bytes());
        assert_eq!(
            thief.force_one(alice, domain, signed),
            None,
            "the stolen key is still the current one"
        );
    }
    rotate(owner, id);
    alice.pull_everything(owner);
    let row = alice.read(move |view| view.rows.identity(&id)).unwrap();
    assert_eq!((row.key_id, row.home), (1, owner.peer_id()));
    for oid in offers {
        assert_eq!(alice.object("rides", oid), owner.object("rides", oid));
    }
    let again = SignedObject::sign(0, &key, changed.to_bytes());
    let before = alice.object("rides", changed.oid);
    assert_eq!(thief.force_one(alice, "rides.offers", again), None);
    assert_eq!(alice.object("rides", changed.oid), before, "not applied");
}

#[test]
fn reclaim_rejects_objects_signed_with_an_earlier_key() {
    let scene = Scene::new();
    let alice = &scene.alice;
    let id = alice.identity;
    let ride = alice.make("rides", 1, ride("Bern", 2)).unwrap();
    let (record, _) = alice.object("identities", id).unwrap();
    rotate(alice, id);
    assert_eq!(alice.parent("rides", ride.oid).unwrap().key_id, 1);
    alice
        .write(|core, now| core.start_recovery(EpochReason::Restored, now))
        .unwrap();
    let before = (
        alice.object("rides", ride.oid),
        alice.read(move |view| view.rows.identity(&id)),
    );
    let key = StolenKeys::of_name("alice").identity;
    let gone = tombstone(&alice.object("rides", ride.oid).unwrap().0, 99);
    let unknown = object("rides", 1, 9, id, 1, Some(harness::ride("Rome", 1)));
    let back = Object { rev: 99, ..record };
    let forged: Vec<_> = [gone, unknown, back]
        .iter()
        .map(|it| SignedObject::sign(0, &key, it.to_bytes()))
        .collect();
    let peer = scene.alice.peer_id();
    let taken = alice
        .write(move |core, now| core.reclaim(now, peer, forged))
        .unwrap();
    assert_eq!(taken.written, 0, "{taken:?}");
    assert_eq!(
        (
            alice.object("rides", ride.oid),
            alice.read(move |view| view.rows.identity(&id))
        ),
        before
    );
}

#[test]
fn new_peer_receives_a_conversation_before_its_messages_after_a_rotation() {
    let limits = CoreLimits {
        aside: AsideLimits {
            waiting_per_peer_max: 10,
            unverified_per_peer_max: 64,
            rejects_per_peer_max: 1000,
        },
        ..CoreLimits::default()
    };
    let a = TestNode::new("a", 0);
    let c = Setup::new("c").id_offset(500).limits(limits).node();
    let second = a
        .keys
        .add_identity(&mut ChaCha20Rng::from_seed([7; 32]))
        .unwrap();
    a.graph(move |graph| identities::publish(graph, second, Some("second")))
        .unwrap();
    meet(&a, &c);
    let talk = a
        .make(
            "messages",
            1,
            conversation(&[a.identity, second, c.identity]),
        )
        .unwrap();
    // More than one portion restamps.
    let said: Vec<_> = (0..300)
        .map(|number| {
            let request = WriteRequest {
                app: "messages".into(),
                type_number: 2,
                oid: None,
                owner: second,
                attrs: Some(message(talk.oid, &number.to_string())),
            };
            a.save_as(a.context(second, "messages"), request)
                .unwrap()
                .oid
        })
        .collect();
    rotate(&a, a.identity);
    c.pull_everything(&a);
    assert_eq!(c.rejects().len(), 0);
    assert!(said.iter().all(|oid| c.parent("messages", *oid).is_some()));
}

#[test]
fn rotation_succeeds_with_a_deleted_parent() {
    let a = TestNode::new("a", 0);
    let id = a.identity;
    let talk = a
        .make("messages", 1, conversation(&[id, harness::forge::oid(7)]))
        .unwrap();
    let line = a.make("messages", 2, message(talk.oid, "Hi")).unwrap();
    // No built-in app permits this; a custom app may.
    let database = rusqlite::Connection::open(a.database()).unwrap();
    let sql = "UPDATE app_messages_parent SET deleted = 1 WHERE type = 1";
    assert_eq!(database.execute(sql, []).unwrap(), 1);
    rotate(&a, id);
    for oid in [talk.oid, line.oid] {
        assert_eq!(a.parent("messages", oid).unwrap().key_id, 1);
    }
}

/// An epoch and its head, signed with a node key.
fn signed_epoch(by: &SecretKey, key_id: u32, epoch: Epoch, head: u64) -> PeerEpoch {
    PeerEpoch {
        epoch,
        key_id,
        signature: by.sign(Context::Epoch, &[epoch.as_bytes(), &head.to_be_bytes()]),
        head,
    }
}

#[test]
fn epoch_under_an_earlier_node_key_has_no_effect() {
    let scene = Scene::new();
    let alice = &scene.alice;
    let key = StolenKeys::of_name("alice").node;
    rotate(alice, alice.keys.server_oid());
    let (peer, foreign) = (scene.mallory.peer_id(), Epoch::from_bytes([9; 16]));
    for epoch in [
        signed_epoch(&key, 0, foreign, 1),
        signed_epoch(&key, 0, alice.epoch(), 1 << 40),
    ] {
        let result = alice
            .write(move |core, now| core.check_own_epoch(now, &peer, &epoch))
            .unwrap();
        assert_eq!(result, OwnEpoch::OldKey);
    }
    assert_eq!(alice.read(|view| view.rows.write_mode()), None);
}

#[test]
fn rolled_back_copy_becomes_read_only_after_a_peer_shows_a_later_epoch() {
    let scene = Scene::new();
    let (alice, peer) = (&scene.alice, scene.mallory.peer_id());
    for seats in 1..=5 {
        alice.make("rides", 1, ride("Bern", seats)).unwrap();
    }
    let shown = alice.read(|view| view.own_epoch());
    // The same name gives the same keys and epoch: a copy of the folder from before the rides.
    let older = TestNode::new("alice", 0);
    assert_eq!(
        (older.epoch(), older.peer_id()),
        (alice.epoch(), alice.peer_id())
    );
    let check = |node: &TestNode| {
        node.write(move |core, now| core.check_own_epoch(now, &peer, &shown))
            .unwrap()
    };
    assert_eq!(
        check(alice),
        OwnEpoch::Known,
        "this database has the same head"
    );
    assert_eq!(check(&older), OwnEpoch::Foreign);
    let write_mode = older.read(|view| view.rows.write_mode()).unwrap();
    assert_eq!(write_mode.mode, WriteMode::ReadOnly);
    assert!(older.make("rides", 1, ride("Lost", 1)).is_err());
}

#[test]
fn rotation_that_overtakes_messages_makes_no_rejects() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    for number in 0..5 {
        alice.send(bob.identity, &format!("{number}"));
    }
    let usage = || {
        let peer = alice.peer_id();
        let stored = bob.read(move |view| view.rows.stored_by(&peer));
        stored.unwrap().usage
    };
    let on_its_way = package_bytes(alice.answer(&bob.request(&alice, "messages")));
    rotate(&alice, alice.identity);
    bob.pull_all(&alice, "identities");
    let before = usage();
    bob.take(&alice, &on_its_way).unwrap();
    assert_eq!((bob.rejects(), usage()), (Vec::<String>::new(), before));
    bob.pull_everything(&alice);
    assert_eq!(bob.texts().len(), 5, "the re-signed forms follow");
}

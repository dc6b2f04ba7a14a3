//! Identities that move more than once, to two nodes, or back, and old copies of what moved.

use keys::SignedObject;
use postern::acl::Denied;
use postern::graph::SaveError;
use postern::services::contacts::{self, ContactError, ContactNote};
use postern::state_engine::HandoverFault;

use crate::moves::{ALICE, Scene, change, stored, tick};
use crate::purge::remove;
use harness::pull::meet;
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, conversation, ride};

#[test]
fn file_for_another_node_and_obsolete_file_are_refused() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    old.begin_move(alice, new).unwrap();
    let (handover, objects) = (old.keys.hand_over(alice).unwrap(), old.handed_over(alice));
    assert!(bob.take_keys(&handover).is_err());
    scene.receive();
    bob.pull_everything(new);
    // Alice moves on to Bob's node. The first file is of no use any more.
    bob.receive(new, alice);
    new.pull_everything(bob);
    assert_eq!(new.home_of(alice), Some(bob.peer_id()));
    new.keys.forget_identity(alice, &mut rand::rng()).unwrap();
    let refused = new.take_objects(&handover, objects).unwrap_err();
    assert!(matches!(refused, HandoverFault::Obsolete));
    let unmet = TestNode::new("unmet", 9000);
    let refused = unmet.take_objects(&handover, Vec::new()).unwrap_err();
    assert!(matches!(refused, HandoverFault::UnknownSource));
}

/// The operator of the new home removes the old one while the objects of the file are stored.
#[test]
fn objects_of_others_stay_in_the_file_without_the_old_home() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let talk = conversation(&[bob.identity, alice]);
    let talk = bob.make("messages", 1, talk).unwrap().oid;
    old.pull_everything(bob);
    old.begin_move(alice, new).unwrap();
    let (handover, objects) = (old.keys.hand_over(alice).unwrap(), old.handed_over(alice));
    let before = new.take_unchecked(&handover, objects.clone());
    assert_eq!(
        (before.left, stored(new, "messages", talk)),
        (0, Some((0, false)))
    );
    let scene = Scene::new();
    let new = &scene.new;
    remove(new, old, true).unwrap();
    let after = new.take_unchecked(&handover, objects);
    assert_eq!(after.first_left, Some("owner_not_at_sender"));
    assert_eq!(stored(new, "messages", talk), None);
}

/// Alice's old node names another node, then itself, and uses the last file.
#[test]
fn file_with_an_earlier_home_than_the_known_one_is_refused() {
    let scene = Scene::new();
    let (old, new, alice) = (&scene.old, &scene.new, scene.alice);
    old.begin_move(alice, new).unwrap();
    let (handover, objects) = (old.keys.hand_over(alice).unwrap(), old.handed_over(alice));
    old.receive(old, alice);
    new.pull_everything(old);
    let refused = new.take_objects(&handover, objects).unwrap_err();
    assert!(matches!(refused, HandoverFault::Obsolete));
}

#[test]
fn petname_and_note_of_the_new_home_stay() {
    let scene = Scene::new();
    let (old, new, alice) = (&scene.old, &scene.new, scene.alice);
    let name = |node: &TestNode| {
        let row = node.read(move |view| view.rows.contact(&alice));
        row.map(|row| (row.name, row.note))
    };
    new.graph::<_, ContactError>(move |graph| {
        contacts::add(
            graph,
            alice,
            "Allie",
            &ContactNote::new("met in Bern".into())?,
        )
    })
    .unwrap();
    let before = name(new);
    new.receive(old, alice);
    assert_eq!(name(new), before);
}

#[test]
fn two_nodes_with_one_identity_are_noticed() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let carol = TestNode::new("carol", 600);
    for node in [old, new, bob] {
        meet(node, &carol);
    }
    scene.receive();
    carol.pull_everything(new);
    // The operator gives a second file to Bob's node, although the first one was used.
    old.begin_move(alice, bob).unwrap();
    let handover = old.keys.hand_over(alice).unwrap();
    assert_eq!(handover.counter(), 3);
    bob.take_objects(&handover, old.handed_over(alice)).unwrap();
    bob.take_keys(&handover).unwrap();
    bob.complete_move(alice);
    assert_eq!(bob.home_of(alice), Some(bob.peer_id()));
    carol.pull_everything(bob);
    assert_eq!(
        carol.home_of(alice),
        Some(new.peer_id()),
        "until Carol confirms"
    );
    carol.confirm_home(alice, bob);
    assert_eq!(carol.home_of(alice), Some(bob.peer_id()));
    // The other one freezes its identity, and gives it up when its operator confirms.
    new.pull_everything(bob);
    let known = new.read(move |view| view.rows.identity(&alice)).unwrap();
    assert!(known.frozen && known.home == new.peer_id());
    new.confirm_home(alice, bob);
    assert_eq!(new.home_of(alice), Some(bob.peer_id()));
    let known = new.read(move |view| view.rows.identity(&alice)).unwrap();
    assert!(!known.frozen);
    let new = scene.new.restart();
    assert_eq!(
        new.home_of(alice),
        Some(bob.peer_id()),
        "it is not taken back"
    );
}

#[test]
fn identity_returns_to_the_node_that_it_left() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    scene.receive();
    old.pull_everything(new);
    bob.pull_everything(new);
    let taken = old.receive(new, alice);
    assert_eq!(taken.left, 0);
    assert_eq!(old.home_of(alice), Some(old.peer_id()));
    assert_eq!(stored(old, "rides", offer), Some((2, true)));
    bob.pull_everything(old);
    let known = bob.read(move |view| view.rows.identity(&alice)).unwrap();
    assert_eq!(
        (known.home, known.key_id),
        (new.peer_id(), 2),
        "a day later"
    );
    bob.clock.advance_days(1);
    tick(bob);
    assert_eq!(bob.home_of(alice), Some(old.peer_id()));
    new.pull_everything(old);
    assert_eq!(stored(new, "rides", offer), Some((2, false)));
}

#[test]
fn operator_takes_a_moving_identity_back() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    old.begin_move(alice, new).unwrap();
    old.receive(old, alice);
    assert_eq!(stored(old, "rides", offer), Some((1, true)));
    change(old, alice, offer).unwrap();
    bob.pull_everything(old);
    let known = bob.read(move |view| view.rows.identity(&alice)).unwrap();
    assert_eq!(
        (known.home, known.key_id, known.home_counter),
        (old.peer_id(), 1, 3)
    );
}

/// Old records and objects come again from a node that has not heard of the move, and from a thief
/// of the first key.
#[test]
fn replayed_records_and_objects_change_nothing_after_a_move() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    let record = old.stored_objects()[&alice].clone();
    let signed = old.stored_objects()[&offer].clone();
    scene.receive();
    bob.pull_everything(new);
    old.pull_everything(new);
    let thief = StolenKeys::of(ALICE);
    let mut forged = thief.object(&signed);
    forged.rev = 99;
    let claims: Vec<SignedObject> = vec![
        record.signed(),
        thief.claim_home(&record, 1234, 1 << 40, 1 << 40),
    ];
    for node in [old, new, bob] {
        let before = node.stored_objects();
        for sender in [old, new, bob] {
            if sender.peer_id() == node.peer_id() {
                continue;
            }
            for claim in &claims {
                sender
                    .force(node, "identities", vec![claim.clone()])
                    .unwrap();
            }
            for object in [signed.signed(), thief.sign(&forged)] {
                sender.force(node, "rides.offers", vec![object]).unwrap();
            }
        }
        assert_eq!(node.stored_objects(), before);
        let known = node.read(move |view| view.rows.identity(&alice)).unwrap();
        assert!(!known.frozen);
        assert_eq!(known.home, new.peer_id());
        assert_eq!(node.rows("waiting"), Vec::<String>::new());
    }
}

/// The old home was restored from a backup that does not know of the move.
#[test]
fn old_home_that_knows_of_no_move_freezes_and_gives_up_when_confirmed() {
    let scene = Scene::new();
    let (new, alice) = (&scene.new, scene.alice);
    // The same keys, without the move.
    let twin = Setup::seeded("alice", ALICE).id_offset(5000).node();
    meet(&twin, new);
    scene.receive();
    twin.pull_everything(new);
    let known = twin.read(move |view| view.rows.identity(&alice)).unwrap();
    assert!(known.frozen);
    let offer = twin.make("rides", 1, ride("Bern", 2));
    assert!(matches!(offer, Err(SaveError::Denied(Denied::OwnerFrozen))));
    let pending = twin.read(move |view| view.rows.pending_home(&alice));
    assert_eq!(pending.unwrap().key_id, 1, "no rotation may follow");
    twin.confirm_home(alice, new);
    assert_eq!(twin.home_of(alice), Some(new.peer_id()));
}

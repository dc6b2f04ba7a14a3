//! Members that left a scope. A `leave` that crosses a list of the owner ends the membership too.
//! The owner's next list looks at a bounded number of lists to learn whether they were added again.

use harness::pull::meet;
use harness::rights::{core_object, list_object};
use keys::Oid;
use keys::protocol::LEAVE_TYPE;
use postern::graph::{GraphManager, SaveError};
use postern::object::{Attrs, Object, Place, Rights};
use postern::store::{EpochReason, MemberAnswer, ScopeId, StoreError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::returned::reclaim;
use crate::rights::{BOTH, READ, Scene, sorted, texts};
use crate::rights_merge::{DORA, EMIL, in_force, returns};

/// Identities that live on no node here.
fn leavers() -> Vec<Oid> {
    let member = |number: u8| {
        let mut bytes = [0xb0; 16];
        bytes[1] = number;
        Oid::from_bytes(bytes)
    };
    (0..=240).map(member).collect()
}

/// A scene in which all leavers left under an early list. A late one is without
/// them, and the one in force has them again.
fn scene() -> (Scene, ScopeId) {
    let scene = Scene::new();
    let all = leavers();
    let with = |rights| all.iter().map(|it| (*it, rights)).collect::<Vec<_>>();
    scene.set(&with(READ));
    let scope = scene.alice.parent("messages", scene.talk).unwrap().scope_id;
    let first = scene.alice.read(move |view| view.rows.list_in_force(scope));
    for version in 2..22u8 {
        let others: Vec<_> = all.iter().map(|it| (*it, Rights::READ)).collect();
        write(&scene, version, &others);
    }
    let left = all.clone();
    scene
        .alice
        .graph(move |graph| {
            for identity in &left {
                assert!(
                    graph
                        .tx()
                        .put_answer(MemberAnswer::Leave, scope, identity, first.id)?
                );
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    scene.set(&with(None));
    scene.set(&with(READ));
    assert_eq!(members(&scene), all.len());
    (scene, scope)
}

/// Alice's node stores a list that replaces the one in force.
fn write(scene: &Scene, version: u8, others: &[(Oid, Rights)]) {
    let owner = (scene.alice.identity, others);
    let list = Object {
        rights: Some(in_force(&scene.alice, scene.talk)),
        ..list_object("messages", version, scene.talk, version.into(), owner)
    };
    let (peer, list) = (scene.bob.peer_id(), scene.alice.sign(&list));
    let taken = scene
        .alice
        .write(move |core, now| core.reclaim(now, peer, vec![list]));
    assert_eq!(taken.unwrap().written, 1);
}

/// The number of the leavers that may read.
fn members(scene: &Scene) -> usize {
    let readers = scene.readers(&scene.alice);
    leavers().iter().filter(|it| readers.contains(it)).count()
}

/// The number of the leavers in the next list of a scope, and what making it spends.
fn next(graph: &mut GraphManager<'_>, scope: ScopeId) -> Result<(usize, usize), StoreError> {
    let list = graph.next_list(scope)?;
    let kept = leavers().iter().filter(|it| list.of(it).is_some()).count();
    Ok((kept, graph.spent()))
}

#[test]
fn next_list_looks_at_a_bounded_number_of_lists() {
    let (scene, scope) = scene();
    let (kept, spent) = scene.alice.graph(move |graph| next(graph, scope)).unwrap();
    let all = leavers().len();
    assert!(kept > 0 && kept < all, "{kept} of {all}");
    assert!((4096..4096 + 4 * all).contains(&spent), "{spent}");
    scene.set(&[(EMIL, BOTH)]);
    assert_eq!(members(&scene), kept, "the others count as left");
}

#[test]
fn merge_looks_at_a_bounded_number_of_lists() {
    let (scene, scope) = scene();
    let base = in_force(&scene.alice, scene.talk);
    scene.set(&[(EMIL, READ)]);
    let others: Vec<_> = leavers().iter().map(|it| (*it, Rights::READ)).collect();
    let others = [&others[..], &[(DORA, Rights::READ)]].concat();
    let owner = (scene.alice.identity, &others[..]);
    let lost = Object {
        rights: Some(base),
        ..list_object("messages", 99, scene.talk, 99, owner)
    };
    let (peer, lost) = (scene.bob.peer_id(), scene.alice.sign(&lost));
    let merged = scene.alice.write(move |core, now| {
        core.reclaim(now, peer, vec![lost])?;
        core.write(now, |graph| next(graph, scope))
    });
    let (kept, spent) = merged.map_err(|error: StoreError| error).unwrap();
    assert_eq!(kept, 0, "beyond the bound all count as left");
    assert!(spent < 8192, "{spent}");
    assert!(scene.readers(&scene.alice).contains(&scene.alice.identity));
}

/// A scene in which Bob left while Alice added Carol, and no node knows both.
fn crossed() -> Scene {
    let scene = Scene::new();
    scene.bob.leave("messages", scene.talk).unwrap();
    scene.set(&[(scene.carol.identity, READ)]);
    scene
}

/// The version of Alice's list in force.
fn version(scene: &Scene) -> u64 {
    scene.alice.list_in_force("messages", scene.talk).unwrap().0
}

/// Every node has Alice and Carol as the readers, and Bob receives nothing more.
fn assert_bob_is_outside(scene: &Scene) {
    let Scene {
        alice, bob, carol, ..
    } = scene;
    scene.sync();
    for node in [alice, bob, carol] {
        let expected = sorted(&[alice.identity, carol.identity]);
        assert_eq!(scene.readers(node), expected);
    }
    assert_eq!(alice.rows("due_list"), Vec::<String>::new());
}

#[test]
fn leave_that_crosses_a_list_of_the_owner_ends_the_membership_on_every_node() {
    let scene = crossed();
    assert_bob_is_outside(&scene);
    assert_eq!(version(&scene), 2, "one list without Bob");
    scene.say(&scene.alice, "after").unwrap();
    assert_bob_is_outside(&scene);
    assert_eq!(texts(&scene.bob), Vec::<String>::new());
    assert_eq!(texts(&scene.carol), ["after"]);
    assert_eq!(version(&scene), 2, "and no other list");
}

#[test]
fn leave_that_crosses_a_removal_and_an_addition_counts_no_more() {
    let scene = Scene::new();
    let (alice, bob) = (&scene.alice, &scene.bob);
    bob.leave("messages", scene.talk).unwrap();
    scene.set(&[(bob.identity, None)]);
    scene.set(&[(bob.identity, BOTH)]);
    scene.sync();
    assert_eq!(scene.readers(alice).len(), 2, "added again since");
    assert_eq!(scene.readers(bob).len(), 2);
    assert_eq!(version(&scene), 2);
    assert_eq!(alice.rows("due_list"), Vec::<String>::new());
}

#[test]
fn leave_that_crosses_a_list_counts_under_a_retired_or_frozen_owner() {
    for is_frozen in [false, true] {
        let scene = crossed();
        let (alice, owner) = (&scene.alice, scene.alice.identity);
        let changed = alice.graph(move |graph| {
            if is_frozen {
                let mut row = graph.tx().identity(&owner)?.unwrap();
                row.frozen = true;
                return graph.tx().put_identity(&row).map_err(Into::into);
            }
            let mut profile = graph.profile(&owner)?.unwrap();
            profile.retired = true;
            graph.save_profile(owner, &profile).map(drop)
        });
        changed.map_err(|error: SaveError| error).unwrap();
        assert_bob_is_outside(&scene);
    }
}

#[test]
fn leave_that_arrives_during_a_recovery_counts_when_it_ends() {
    let scene = crossed();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    alice
        .write(|core, now| core.start_recovery(EpochReason::Restored, now))
        .unwrap();
    alice.pull_everything(bob);
    assert_eq!((version(&scene), scene.readers(alice).len()), (1, 3));
    for peer in [bob.peer_id(), carol.peer_id()] {
        alice
            .write(move |core, now| core.note_reclaimed_from(now, &peer, &[]).map(drop))
            .unwrap();
    }
    assert_eq!((version(&scene), scene.readers(alice).len()), (2, 2));
    assert_bob_is_outside(&scene);
}

#[test]
fn leave_that_arrives_during_a_rotation_counts_when_the_record_has_the_new_key() {
    let scene = crossed();
    let (alice, owner) = (&scene.alice, scene.alice.identity);
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    alice.keys.rotate(owner, &mut rng).unwrap();
    alice.pull_everything(&scene.bob);
    assert_eq!(version(&scene), 1);
    alice
        .write(move |core, now| core.rotation_step(now, owner))
        .unwrap();
    assert_eq!(version(&scene), 2, "lists and Parent have the old key");
    alice.write(|core, now| core.resume_rotations(now)).unwrap();
    assert_bob_is_outside(&scene);
}

#[test]
fn leave_that_waits_for_a_lost_scope_counts_when_it_settles() {
    let scene = crossed();
    scene.carol.pull_everything(&scene.alice);
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = scene;
    // Restored from a backup that was made before the conversation.
    let alice = alice.into_setup().elsewhere().node();
    meet(&alice, &bob);
    meet(&alice, &carol);
    reclaim(&alice, &carol, "identities");
    alice.pull_everything(&bob);
    assert_eq!(alice.rows("waiting").len(), 1);
    reclaim(&alice, &carol, "messages");
    let scene = Scene {
        alice,
        bob,
        carol,
        talk,
    };
    assert_bob_is_outside(&scene);
}

#[test]
fn list_that_is_returned_after_a_leave_does_not_undo_it() {
    // Alice lost the list by which she added Carol.
    let scene = Scene::new();
    let Scene { alice, bob, .. } = &scene;
    bob.leave("messages", scene.talk).unwrap();
    alice.pull_everything(bob);
    assert_eq!(scene.readers(alice), [alice.identity]);
    let others = [
        (bob.identity, Rights::READ_WRITE),
        (scene.carol.identity, Rights::READ),
    ];
    let owner = (alice.identity, &others[..]);
    returns(&scene, &[&list_object("messages", 1, scene.talk, 1, owner)]);
    assert_bob_is_outside(&scene);
}

#[test]
fn leave_of_a_member_of_the_owners_node_counts_when_it_is_returned() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let other = alice.another("Dora", 1);
    scene.set(&[(other, BOTH)]);
    // Dora left. The backup is older, and Alice wrote a list after the restore.
    let place = Place::In(*talk);
    let kind = ("messages", LEAVE_TYPE);
    let leave = Object {
        rights: Some(in_force(alice, *talk)),
        ..core_object(kind, 7, other, place, Attrs::new())
    };
    scene.set(&[(carol.identity, READ)]);
    returns(&scene, &[&leave]);
    scene.sync();
    for node in [alice, bob, carol] {
        let expected = sorted(&[alice.identity, bob.identity, carol.identity]);
        assert_eq!(scene.readers(node), expected);
    }
}

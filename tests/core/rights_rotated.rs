//! A late peer returns what a later key of a restored owner signed: no earlier rights list comes in
//! force.

use postern::object::CoreRecord;
use postern::store::EpochReason;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::rights::{BOTH, READ, Scene, sorted, texts};
use crate::rights_merge::{members, returns, scene};
use crate::thieves::rotate;

/// Alice removed an identity. The key was rotated after the backup, and a late peer returns what
/// the later key signed.
fn rotated_after_removal(is_founder: bool, order: [usize; 3], in_recovery: bool) {
    let (scene, _) = scene();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    let (removed, stays) = match is_founder {
        true => (bob, carol),
        false => (carol, bob),
    };
    scene.set(&[(removed.identity, None)]);
    scene.sync();
    scene.say(alice, "after").unwrap();
    if in_recovery {
        alice
            .write(|core, now| core.start_recovery(EpochReason::Restored, now))
            .unwrap();
    }
    let owner = alice.identity;
    let mut objects: Vec<_> = alice.stored_objects().into_iter().collect();
    objects.retain(|(_, object)| object.app == "messages" && object.owner == owner);
    let objects = objects
        .iter()
        .map(|(oid, _)| alice.object("messages", *oid).unwrap().0);
    let mut deciding: Vec<_> = objects.filter(|it| it.type_number != 2).collect();
    deciding.sort_by_key(|object| match CoreRecord::read(object) {
        Some(Ok(CoreRecord::Rights(list))) => list.version,
        _ => 0,
    });
    assert_eq!(deciding.len(), 3);
    let last = deciding[2].oid;
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    alice.keys.rotate(owner, &mut rng).unwrap();
    for number in order {
        returns(&scene, &[&deciding[number]]);
        let expected = sorted(&[owner, stays.identity]);
        assert_eq!(scene.readers(alice), expected, "{order:?}");
        for node in [removed, stays] {
            node.pull_everything(alice);
        }
    }
    let seq = |oid| alice.parent("messages", oid).unwrap().change_seq;
    let others = deciding[..2].iter().map(|object| seq(object.oid));
    assert!(
        others.clone().all(|other| seq(last) < other),
        "peers receive the list in force first: {others:?}"
    );
    alice
        .write(|core, now| {
            core.end_recovery(now)?;
            core.save_own_server(now)
                .and_then(|()| core.resume_rotations(now))
        })
        .unwrap();
    assert_eq!(members(&scene), sorted(&[owner, stays.identity]));
    assert_eq!(texts(stays), ["after"]);
    assert_eq!(texts(removed), Vec::<String>::new());
}

#[test]
fn no_earlier_list_comes_in_force_by_a_later_key() {
    for is_founder in [true, false] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            for in_recovery in [false, true] {
                rotated_after_removal(is_founder, order, in_recovery);
            }
        }
    }
}

/// A founder ended to read, by a list or by its own `leave`; then the owner's key is rotated.
fn rotated_after_an_end(by_list: bool, lists_later: usize) {
    let scene = Scene::new();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    match by_list {
        true => scene.set(&[(bob.identity, None)]),
        false => drop(bob.leave("messages", scene.talk).unwrap()),
    }
    scene.sync();
    for rights in [READ, BOTH].iter().cycle().take(lists_later) {
        scene.set(&[(carol.identity, *rights)]);
    }
    scene.say(alice, "after").unwrap();
    scene.sync();
    let nodes = [alice, bob, carol];
    let read = || nodes.map(|node| (node.rows("reader"), node.rows("opening")));
    let before = read();
    rotate(alice, alice.identity);
    scene.sync();
    assert_eq!(read(), before, "a rotation changes no reader");
    assert_eq!(texts(bob), Vec::<String>::new());
    let row = alice.parent("messages", scene.talk).unwrap();
    assert_eq!(row.key_id, 1);
}

#[test]
fn rotation_of_the_owner_opens_no_reader_that_was_closed() {
    for by_list in [true, false] {
        for lists_later in [0, 1, 2] {
            rotated_after_an_end(by_list, lists_later);
        }
    }
}

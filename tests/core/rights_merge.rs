//! A restored owner wrote rights lists before peers returned those that it had written before the
//! loss: its node merges them.

use harness::rights::{digest_of, list_object};
use harness::{Setup, TestNode};
use keys::protocol::RIGHTS_TYPE;
use keys::{Digest, Oid};
use postern::graph::SaveError;
use postern::object::{CoreRecord, Object, Rights};
use postern::op_context::Timestamp;
use postern::services::rights::{self, RightsError};
use postern::store::{EpochReason, StoreError};

use crate::rights::{BOTH, READ, Scene, sorted, texts};
use crate::thieves::rotate;

const FULL: Rights = Rights::READ_WRITE;

/// Dora and Emil live on no node here.
pub(crate) const DORA: Oid = Oid::from_bytes([0xd0; 16]);
pub(crate) const EMIL: Oid = Oid::from_bytes([0xe0; 16]);

/// The scene after Alice added Carol by the list of version 1. The loss is after it.
pub(crate) fn scene() -> (Scene, Digest) {
    let scene = Scene::new();
    scene.set(&[(scene.carol.identity, BOTH)]);
    scene.sync();
    let list = in_force(&scene.alice, scene.talk);
    (scene, list)
}

pub(crate) fn in_force(node: &TestNode, talk: Oid) -> Digest {
    let scope = node.parent("messages", talk).unwrap().scope_id;
    node.read(move |view| view.rows.list_in_force(scope)).digest
}

/// A list that Alice wrote before the loss.
fn lost(scene: &Scene, version: u64, replaces: Digest, others: &[(Oid, Rights)]) -> Object {
    let salt = u8::try_from(version).unwrap();
    let owner = (scene.alice.identity, others);
    Object {
        rights: Some(replaces),
        ..list_object("messages", salt, scene.talk, version, owner)
    }
}

/// Bob's node returns lists to Alice's, each in a transaction of its own.
pub(crate) fn returns(scene: &Scene, lists: &[&Object]) {
    for list in lists {
        let (peer, list) = (scene.bob.peer_id(), scene.alice.sign(list));
        let summary = scene
            .alice
            .write(move |core, now| core.reclaim(now, peer, vec![list]));
        assert_eq!(summary.unwrap().refused, 0);
    }
}

/// The members of the conversation at every node, which must agree.
pub(crate) fn members(scene: &Scene) -> Vec<Oid> {
    scene.sync();
    let members = scene.readers(&scene.alice);
    assert!(scene.alice.unmerged_scopes().is_empty());
    for node in [&scene.bob, &scene.carol] {
        if scene.readers(node).contains(&node.identity) {
            assert_eq!(scene.readers(node), members);
        }
    }
    members
}

/// The number of lists that Alice's list in force replaces and merges.
fn merges(scene: &Scene) -> usize {
    let digest = in_force(&scene.alice, scene.talk);
    let stored = scene.alice.stored_objects();
    let lists = stored.keys().filter_map(|oid| {
        let (object, _) = scene.alice.object("messages", *oid)?;
        (object.type_number == RIGHTS_TYPE).then_some(object)
    });
    let mut lists = lists.filter(|object| digest_of(object) == digest);
    match CoreRecord::read(&lists.next().unwrap()) {
        Some(Ok(CoreRecord::Rights(list))) => 1 + list.merges.iter().count(),
        other => panic!("no list: {other:?}"),
    }
}

#[test]
fn changes_of_both_branches_are_kept() {
    // The digest that decides which list is in force meanwhile depends on the number.
    for number in 0..6 {
        let (scene, base) = scene();
        let added = Oid::from_bytes([0xd0 + number; 16]);
        let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
        // After the restore Bob is removed. Before the loss Dora was added.
        scene.set(&[(bob.identity, None)]);
        let all = [
            (bob.identity, FULL),
            (carol.identity, FULL),
            (added, Rights::READ),
        ];
        returns(&scene, &[&lost(&scene, 2, base, &all)]);
        let expected = sorted(&[alice.identity, carol.identity, added]);
        assert_eq!(members(&scene), expected);
        assert_eq!(merges(&scene), 2);
        scene.say(alice, "after").unwrap();
        scene.sync();
        assert_eq!(texts(bob), Vec::<String>::new());
        assert_eq!(texts(carol), ["after"]);
    }
}

#[test]
fn identity_that_one_branch_added_and_removed_stays_removed() {
    for number in 0..6 {
        let (scene, base) = scene();
        let added = Oid::from_bytes([0xd0 + number; 16]);
        let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
        scene.set(&[(EMIL, READ)]);
        let with = [(bob.identity, FULL), (carol.identity, FULL), (added, FULL)];
        let two = lost(&scene, 2, base, &with);
        let three = lost(&scene, 3, digest_of(&two), &with[..2]);
        returns(&scene, &[&two, &three]);
        let expected = sorted(&[alice.identity, bob.identity, carol.identity, EMIL]);
        assert_eq!(members(&scene), expected);
    }
}

#[test]
fn without_a_common_list_only_what_all_give_remains() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    scene.set(&[(bob.identity, None), (EMIL, READ)]);
    let all = [(bob.identity, FULL), (carol.identity, FULL), (DORA, FULL)];
    let two = lost(&scene, 2, base, &all);
    // Bob's node withholds the list of version 2.
    returns(&scene, &[&lost(&scene, 3, digest_of(&two), &all)]);
    let expected = sorted(&[alice.identity, carol.identity]);
    assert_eq!(members(&scene), expected);
}

#[test]
fn three_branches_are_merged_into_one_list() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    let members_before = [(bob.identity, FULL), (carol.identity, FULL)];
    let two = lost(
        &scene,
        2,
        base,
        &[&members_before[..], &[(DORA, FULL)]].concat(),
    );
    let three = lost(&scene, 3, digest_of(&two), &members_before);
    let other = lost(
        &scene,
        4,
        digest_of(&two),
        &[(bob.identity, FULL), (DORA, FULL)],
    );
    scene.set(&[(EMIL, READ), (bob.identity, READ)]);
    let peer = bob.peer_id();
    let lists = [two, three, other].map(|list| alice.sign(&list)).to_vec();
    alice
        .write(move |core, now| core.reclaim(now, peer, lists))
        .unwrap();
    assert_eq!(merges(&scene), 3);
    let expected = sorted(&[alice.identity, bob.identity, EMIL]);
    assert_eq!(
        members(&scene),
        expected,
        "Dora and Carol were removed by one branch each"
    );
    let rights = alice.list_in_force("messages", scene.talk).unwrap().1;
    assert_eq!(rights.of(&bob.identity), Some(Rights::READ));
    assert!(!members(&scene).contains(&carol.identity));
}

#[test]
fn what_both_branches_give_one_identity_is_what_both_allow() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    scene.set(&[(DORA, READ), (EMIL, BOTH), (bob.identity, None)]);
    let branch = [
        (bob.identity, Rights::READ),
        (carol.identity, FULL),
        (DORA, FULL),
        (EMIL, FULL),
    ];
    returns(&scene, &[&lost(&scene, 2, base, &branch)]);
    let rights = alice.list_in_force("messages", scene.talk).unwrap().1;
    assert_eq!(rights.of(&DORA), Some(Rights::READ));
    assert_eq!(rights.of(&EMIL), Some(FULL));
    assert_eq!(
        rights.of(&bob.identity),
        None,
        "removed by one, changed by the other"
    );
}

#[test]
fn leave_counts_in_the_branch_that_it_names() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    // Bob is removed after the restore, but was a member in the other branch and left it.
    scene.set(&[(EMIL, READ)]);
    scene.set(&[(EMIL, BOTH)]);
    let all = [(bob.identity, FULL), (carol.identity, FULL), (DORA, FULL)];
    let two = lost(&scene, 2, base, &all);
    let sent = alice.sign(&two);
    alice.force(carol, "messages", vec![sent]).unwrap();
    carol.leave("messages", scene.talk).unwrap();
    returns(&scene, &[&two]);
    scene.sync();
    let expected = sorted(&[alice.identity, bob.identity, DORA, EMIL]);
    scene.set(&[(EMIL, READ)]);
    assert_eq!(members(&scene), expected);
}

#[test]
fn scope_is_closed_while_a_recovery_prevents_the_merge() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    scene.set(&[(bob.identity, None)]);
    scene.sync();
    scene.say(alice, "secret").unwrap();
    alice
        .write(|core, now| core.start_recovery(EpochReason::Restored, now))
        .unwrap();
    let all = [(bob.identity, FULL), (carol.identity, FULL), (DORA, FULL)];
    returns(&scene, &[&lost(&scene, 2, base, &all)]);
    for peer in [bob, carol] {
        let asked = peer.peer_id();
        alice
            .write(move |core, now| core.note_reclaimed_from(now, &asked, &[]).map(drop))
            .unwrap_or(());
        if peer.peer_id() == bob.peer_id() {
            assert_eq!(alice.unmerged_scopes().len(), 1);
            bob.pull_everything(alice);
            carol.pull_everything(alice);
            assert_eq!((texts(bob).len(), texts(carol).len()), (0, 0));
            assert!(!scene.readers(alice).contains(&bob.identity));
        }
    }
    let expected = sorted(&[alice.identity, carol.identity, DORA]);
    assert_eq!(members(&scene), expected);
    assert_eq!(texts(carol), ["secret"]);
    assert_eq!(texts(bob), Vec::<String>::new());
}

#[test]
fn merge_follows_after_a_crash() {
    let (scene, base) = scene();
    let (bob, all) = (
        scene.bob.peer_id(),
        [(scene.bob.identity, FULL), (DORA, FULL)],
    );
    scene.set(&[(EMIL, READ)]);
    let list = scene.alice.sign(&lost(&scene, 2, base, &all));
    let (owner, talk) = (scene.alice.identity, scene.talk);
    let mut setup: Setup = scene.alice.into_setup();
    let mut core = setup.open();
    let now = Timestamp(harness::START);
    core.reclaim(now, bob, vec![list]).unwrap();
    drop(core);
    let alice = setup.node();
    assert_eq!(alice.rows("due_list"), Vec::<String>::new());
    let expected = sorted(&[owner, scene.bob.identity, DORA, EMIL]);
    assert_eq!(alice.readers("messages", talk), expected);
}

#[test]
fn merge_that_was_put_off_is_tried_again() {
    let (scene, base) = scene();
    let (alice, bob) = (&scene.alice, &scene.bob);
    scene.set(&[(EMIL, READ)]);
    let all = [(bob.identity, FULL), (DORA, FULL)];
    let (peer, list) = (bob.peer_id(), alice.sign(&lost(&scene, 2, base, &all)));
    let scope = alice.parent("messages", scene.talk).unwrap().scope_id;
    alice
        .write(move |core, now| {
            core.reclaim(now, peer, vec![list])?;
            core.write(now, |graph| graph.tx().hold_list(scope))
        })
        .map_err(|error: StoreError| error)
        .unwrap();
    assert_eq!(alice.rows("due_list").len(), 1);
    alice
        .write(|core, now| core.retry_lists(now))
        .map_err(|error: StoreError| error)
        .unwrap();
    let expected = sorted(&[alice.identity, bob.identity, DORA, EMIL]);
    assert_eq!(members(&scene), expected);
}

#[test]
fn merge_of_a_disabled_app_names_the_app() {
    let (scene, base) = scene();
    let all = [(scene.bob.identity, FULL), (DORA, FULL)];
    scene.set(&[(EMIL, READ)]);
    let list = scene.alice.sign(&lost(&scene, 2, base, &all));
    let (peer, talk) = (scene.bob.peer_id(), scene.talk);
    let scope = scene.alice.parent("messages", talk).unwrap().scope_id;
    let mut setup = scene.alice.into_setup();
    let (mut core, now) = (setup.open(), setup.timestamp());
    core.reclaim(now, peer, vec![list]).unwrap();
    drop(core);
    let mut setup = setup.apps(&["identities"]);
    let mut core = setup.open();
    let refused = core.write(now, |graph| graph.merge_lists(scope));
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("the app `messages` is disabled"),
        "{refused}"
    );
    drop(core);
    let alice = setup.apps(&harness::ALL_APPS).node();
    assert_eq!(alice.rows("due_list"), Vec::<String>::new());
}

#[test]
fn change_before_the_merge_merges_too() {
    let (scene, base) = scene();
    let (alice, bob, talk) = (&scene.alice, &scene.bob, scene.talk);
    scene.set(&[(bob.identity, None)]);
    let all = [
        (bob.identity, FULL),
        (scene.carol.identity, FULL),
        (DORA, FULL),
    ];
    let (peer, list) = (bob.peer_id(), alice.sign(&lost(&scene, 2, base, &all)));
    let context = alice.context(alice.identity, "messages");
    alice
        .write(move |core, now| {
            core.reclaim(now, peer, vec![list])?;
            let changes = [(EMIL, READ)];
            core.write(now, |graph| {
                graph.save_rights(&context, "messages", &talk, &changes)
            })
        })
        .map_err(|error: SaveError| error)
        .unwrap();
    let expected = sorted(&[alice.identity, scene.carol.identity, DORA, EMIL]);
    assert_eq!(members(&scene), expected);
    assert_eq!(merges(&scene), 2);
}

#[test]
fn merged_list_bounds_the_number_of_members() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    let added = |first: u8| {
        (0..150).map(move |number| {
            let mut bytes = [first; 16];
            bytes[1] = number;
            Oid::from_bytes(bytes)
        })
    };
    let mut changes: Vec<_> = added(0xd0).map(|it| (it, READ)).collect();
    changes.push((bob.identity, None));
    scene.set(&changes);
    let mut all: Vec<_> = added(0xe0).map(|it| (it, Rights::READ)).collect();
    all.extend([(bob.identity, FULL), (carol.identity, FULL)]);
    let (peer, list) = (bob.peer_id(), alice.sign(&lost(&scene, 2, base, &all)));
    let (talk, added) = (scene.talk, bob.identity);
    let refused = alice
        .write(move |core, now| {
            core.reclaim(now, peer, vec![list])?;
            core.write(now, |graph| {
                rights::change(graph, "messages", talk, &[(added, READ)])
            })
        })
        .unwrap_err();
    assert!(matches!(refused, RightsError::TooMany), "{refused:?}");
}

#[test]
fn lists_that_name_each_other_end_no_merge() {
    let (scene, _) = scene();
    let (bob, carol) = (&scene.bob, &scene.carol);
    let all = [(bob.identity, FULL), (carol.identity, FULL), (DORA, FULL)];
    let one = lost(&scene, 5, Digest::of(b"replaced below"), &all);
    let other = lost(&scene, 6, digest_of(&one), &all[1..]);
    let one = Object {
        rights: Some(digest_of(&other)),
        ..one
    };
    let own = Object {
        rights: Some(digest_of(&lost(&scene, 7, digest_of(&one), &all))),
        ..lost(&scene, 7, digest_of(&one), &all)
    };
    returns(&scene, &[&one, &other, &own]);
    let expected = sorted(&[scene.alice.identity, carol.identity]);
    assert_eq!(members(&scene), expected, "Bob is no member by one of them");
}

#[test]
fn list_of_an_earlier_key_takes_rights_away_only() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    let others = [(carol.identity, Rights::READ), (DORA, FULL)];
    let stolen = alice.sign(&lost(&scene, 2, base, &others));
    let far = alice.sign(&lost(&scene, 1 << 7, base, &others));
    let far_version = list_object(
        "messages",
        99,
        scene.talk,
        1 << 40,
        (alice.identity, &others),
    );
    let too_far = alice.sign(&far_version);
    rotate(alice, alice.identity);
    let peer = bob.peer_id();
    let summary = alice
        .write(move |core, now| core.reclaim(now, peer, vec![stolen, too_far, far]))
        .unwrap();
    assert_eq!((summary.written, summary.refused), (2, 1));
    let expected = sorted(&[alice.identity, carol.identity]);
    let assert_rights = || {
        assert_eq!(scene.readers(alice), expected);
        let rights = alice.list_in_force("messages", scene.talk).unwrap().1;
        assert_eq!(rights.of(&carol.identity), Some(Rights::READ));
        assert_eq!(rights.of(&DORA), None);
    };
    assert_rights();
    // The returned lists are signed again, and change nothing.
    let peer = bob.peer_id();
    alice
        .write(move |core, now| core.note_reclaimed_from(now, &peer, &[]).map(drop))
        .unwrap();
    assert_rights();
    assert_eq!(members(&scene), expected);
}

#[test]
fn lists_of_a_retired_owner_are_merged_too() {
    let (scene, base) = scene();
    let (alice, bob, carol) = (&scene.alice, &scene.bob, &scene.carol);
    scene.set(&[(bob.identity, None)]);
    let identity = alice.identity;
    alice
        .graph(move |graph| {
            let mut profile = graph.profile(&identity)?.unwrap();
            profile.retired = true;
            graph.save_profile(identity, &profile)
        })
        .unwrap();
    let all = [(bob.identity, FULL), (carol.identity, FULL)];
    returns(&scene, &[&lost(&scene, 2, base, &all)]);
    assert_eq!(members(&scene), sorted(&[alice.identity, carol.identity]));
}

//! A hostile owner signs two rights lists, or two `leave`, with one oid. Every node that met both
//! judges alike, whichever came first.

use harness::TestNode;
use harness::forge::salted;
use harness::message;
use harness::rights::{core_object, digest_of, list_object};
use keys::protocol::LEAVE_TYPE;
use keys::{Digest, Oid};
use postern::object::{Attrs, Object, Place, Rights};

use crate::rights::{BOTH, Scene, sorted};

/// Sends objects of `from` to `to`, each in a package of its own.
fn send(from: &TestNode, to: &TestNode, objects: &[&Object]) {
    for object in objects {
        let sent = from.sign(object);
        from.force(to, "messages", vec![sent]).unwrap();
    }
}

/// The lists of a node in the conversation, each with the number of its entries.
fn lists(node: &TestNode, scope: Oid, lists: &[Digest]) -> Vec<usize> {
    let scope = node.parent("messages", scope).unwrap().scope_id;
    let lists = lists.to_vec();
    node.read(move |view| {
        let ids = lists.iter().map(|list| view.rows.rights_list(scope, list));
        let ids: Vec<Option<i64>> = ids.collect::<Result<_, _>>()?;
        let lists = ids.iter().flatten().map(|id| view.rows.rights(*id));
        lists.map(|list| Ok(list?.entries())).collect()
    })
}

fn charged(node: &TestNode, by: &TestNode) -> (i64, i64) {
    let peer = by.peer_id();
    let stored = node.read(move |view| view.rows.stored_by(&peer));
    let usage = stored.unwrap().usage;
    (usage.objects, usage.bytes)
}

#[test]
fn both_lists_of_a_fork_judge_objects_on_every_node() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    // Carol may write by one of them only, and that one is never in force.
    let with = [
        (carol.identity, Rights::READ_WRITE),
        (bob.identity, Rights::READ),
    ];
    let one = list_object("messages", 1, *talk, 2, (alice.identity, &with));
    let other = list_object("messages", 1, *talk, 3, (alice.identity, &with[1..]));
    assert_eq!(one.oid, other.oid);
    let before = [bob, carol].map(|node| charged(node, alice));
    send(alice, bob, &[&one, &other, &one]);
    send(alice, carol, &[&other, &one, &other]);
    let attrs = Some(message(*talk, "by the first list"));
    let said = salted(("messages", 2), [7; 8], carol.identity, 1, attrs);
    let rights = Some(digest_of(&one));
    let said = Object { rights, ..said };
    send(carol, bob, &[&said]);
    let members = sorted(&[alice.identity, bob.identity]);
    for (node, before) in [bob, carol].into_iter().zip(before) {
        let both = [&one, &other].map(digest_of);
        assert_eq!(lists(node, *talk, &both), [3, 2], "both with their entries");
        assert_eq!(node.rows("waiting"), Vec::<String>::new());
        assert_eq!(scene.readers(node), members);
        assert_eq!(node.rejects().first().map(String::as_str), Some("fork"));
        let after = charged(node, alice);
        let bytes = [&one, &other].map(|it| it.to_bytes().len());
        let bytes = i64::try_from(bytes.iter().sum::<usize>() + 64 * 5).unwrap();
        let expected = (before.0 + 2, before.1 + bytes);
        // Rejects are charged too.
        assert!(after >= expected, "{after:?} {expected:?}");
    }
    assert!(bob.parent("messages", said.oid).is_some());
}

#[test]
fn list_that_lost_a_fork_may_be_in_force() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    for salt in 1..=4 {
        let (version, others) = (2 * u64::from(salt), [(bob.identity, Rights::READ_WRITE)]);
        let short = list_object("messages", salt, *talk, version, (alice.identity, &[]));
        let long = list_object(
            "messages",
            salt,
            *talk,
            version + 1,
            (alice.identity, &others),
        );
        send(alice, bob, &[&short, &long]);
        send(alice, carol, &[&long, &short]);
        for node in [bob, carol] {
            let members = sorted(&[alice.identity, bob.identity]);
            assert_eq!(
                scene.readers(node),
                members,
                "the higher version is in force"
            );
        }
    }
}

#[test]
fn both_leaves_of_a_fork_count() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    let scope = alice.parent("messages", *talk).unwrap().scope_id;
    let list = alice.read(move |view| view.rows.list_in_force(scope));
    let leave = |rights| {
        let kind = ("messages", LEAVE_TYPE);
        let place = Place::In(*talk);
        let left = core_object(kind, 9, bob.identity, place, Attrs::new());
        Object { rights, ..left }
    };
    let (early, late) = (leave(None), leave(Some(list.digest)));
    send(bob, alice, &[&early, &late]);
    send(bob, carol, &[&late, &early]);
    for node in [alice, carol] {
        assert_eq!(node.rows("leave").len(), 2);
        let members = sorted(&[alice.identity, carol.identity]);
        assert_eq!(scene.readers(node), members);
    }
}

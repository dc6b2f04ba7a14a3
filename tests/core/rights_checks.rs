//! Rights lists that are hostile, contradict each other, or were signed by another key.

use harness::TestNode;
use harness::forge::{object, salted};
use harness::rights::{core_object, digest_of, list_object};
use harness::{conversation, message};
use keys::protocol::{LEAVE_TYPE, RIGHTS_TYPE};
use keys::{Digest, Oid};
use postern::acl::Denied;
use postern::graph::SaveError;
use postern::object::{Attrs, Object, Place, Rights, RightsList, Value};

use crate::rights::{BOTH, READ, Scene, sorted, texts};
use crate::thieves::rotate;

#[test]
fn hostile_lists_are_refused() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let (owner, place) = (alice.identity, Place::In(*talk));
    let good = list_object("messages", 1, *talk, 1, (owner, &[]));
    let list = RightsList::from_iter([(owner, Rights::READ_WRITE)]);
    let with = |version: i64, entries: Vec<u8>| {
        let attrs = Attrs::from([
            (1, vec![Value::from(version)]),
            (2, vec![Value::Bytes(entries)]),
        ]);
        core_object(("messages", RIGHTS_TYPE), 1, owner, place, attrs)
    };
    let many = (0..257u16).map(|number| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        (Oid::from_bytes(bytes), Rights::READ)
    });
    let many: RightsList = many.chain([(owner, Rights::READ_WRITE)]).collect();
    let mut unsorted = RightsList::from_iter([
        (owner, Rights::READ_WRITE),
        (bob.identity, Rights::READ_WRITE),
    ])
    .to_bytes();
    let (head, entries) = unsorted.split_at_mut(1);
    let (one, other) = entries.split_at_mut(19);
    one.swap_with_slice(other);
    let unsorted = [&*head, entries].concat();
    let mut twice = list.to_bytes();
    twice[0] = 0x82;
    twice.extend_from_within(1..);
    let mut no_right = list.to_bytes();
    *no_right.last_mut().unwrap() = 0;
    let weak = RightsList::from_iter([(owner, Rights::READ)]);
    let without = RightsList::from_iter([(bob.identity, Rights::READ_WRITE)]);
    let merging = |merges: Vec<u8>| {
        let mut attrs = with(1, list.to_bytes()).attrs.unwrap();
        attrs.insert(3, vec![Value::Bytes(merges)]);
        core_object(("messages", RIGHTS_TYPE), 1, owner, place, attrs)
    };
    let named = |bytes: &[u8]| {
        let digests: Vec<Digest> = bytes
            .iter()
            .map(|it| Digest::from_bytes([*it; 32]))
            .collect();
        keys::codec::encode(&digests)
    };
    let merges_replaced = Object {
        rights: Some(Digest::from_bytes([2; 32])),
        ..merging(named(&[1, 2]))
    };
    let malformed = [
        merging(named(&[])),
        merging(named(&[2, 1])),
        merging(named(&[1, 1])),
        merging(named(&[1, 2, 3, 4, 5, 6, 7, 8])),
        merging(vec![0x81, 0x41, 0x01]),
        merging([&[0x98, 1], &named(&[1])[1..]].concat()),
        merges_replaced,
        with(0, list.to_bytes()),
        with(-1, list.to_bytes()),
        with(1, many.to_bytes()),
        with(1, unsorted),
        with(1, twice),
        with(1, no_right),
        with(1, vec![0x80]),
        with(1, Vec::new()),
        with(1, weak.to_bytes()),
        with(1, without.to_bytes()),
        Object {
            attrs: Some(Attrs::new()),
            ..good.clone()
        },
        core_object(
            ("messages", LEAVE_TYPE),
            1,
            bob.identity,
            place,
            with(1, vec![]).attrs.unwrap(),
        ),
        core_object(
            ("messages", RIGHTS_TYPE),
            1,
            owner,
            Place::Public,
            with(1, list.to_bytes()).attrs.unwrap(),
        ),
    ];
    for object in malformed.iter().filter(|it| it.owner == owner) {
        assert_eq!(
            scene.forced_on_bob(object).as_deref(),
            Some("bad_rights"),
            "{object:?}"
        );
    }
    let refused = |object: &Object, code: &str| {
        assert_eq!(
            scene.forced_on_bob(object).as_deref(),
            Some(code),
            "{object:?}"
        );
    };
    refused(
        &Object {
            rev: 2,
            ..good.clone()
        },
        "mode",
    );
    refused(
        &Object {
            attrs: None,
            ..good.clone()
        },
        "mode",
    );
    let founding = RightsList::from_iter([
        (owner, Rights::READ_WRITE),
        (bob.identity, Rights::READ_WRITE),
    ]);
    let rights = Some(founding.digest());
    refused(
        &Object {
            rights,
            ..good.clone()
        },
        "bad_rights",
    );
    // A member's list, also under the name of a member.
    let other = list_object("messages", 2, *talk, 9, (bob.identity, &[]));
    let sent = bob.sign(&other);
    let refused = bob.force_one(alice, "messages", sent);
    assert_eq!(refused.as_deref(), Some("not_scope_owner"));
    let leave = |author: &TestNode| {
        core_object(
            ("messages", LEAVE_TYPE),
            3,
            author.identity,
            place,
            Attrs::new(),
        )
    };
    let stays = scene.forced_on_bob(&leave(alice));
    assert_eq!(stays.as_deref(), Some("scope_owner_stays"));
    let stranger = carol.force_one(bob, "messages", carol.sign(&leave(carol)));
    assert_eq!(stranger.as_deref(), Some("not_participant"));
    // The domain must be that of the scope's Parent.
    let rejected = alice.force_one(bob, "rides.offers", alice.sign(&good));
    assert_eq!(rejected.as_deref(), Some("type_not_in_domain"));
    bob.assert_readers("after hostile lists");
    assert_eq!(scene.readers(bob).len(), 2);
    assert_eq!(scene.forced_on_bob(&good), None, "the good one is accepted");
    assert_eq!(scene.readers(bob), [owner]);
}

#[test]
fn of_two_lists_of_one_version_the_higher_digest_is_in_force_in_any_order() {
    for swap in [false, true] {
        let scene = Scene::new();
        let Scene {
            alice,
            bob,
            carol,
            talk,
        } = &scene;
        let list = |salt, rights| {
            let others = [(carol.identity, rights)];
            list_object("messages", salt, *talk, 1, (alice.identity, &others))
        };
        let mut lists = [list(1, Rights::READ), list(2, Rights::READ_WRITE)];
        lists.sort_by_key(digest_of);
        if swap {
            lists.reverse();
        }
        for list in &lists {
            assert_eq!(scene.forced_on_bob(list), None);
        }
        let highest = lists.iter().map(digest_of).max();
        let scope = bob.parent("messages", *talk).unwrap().scope_id;
        let in_force = bob.read(move |view| view.rows.list_in_force(scope));
        assert_eq!(Some(in_force.digest), highest);
    }
}

#[test]
fn one_list_that_is_signed_twice_keeps_both_objects_and_one_row() {
    let scene = Scene::new();
    let Scene {
        alice, bob, talk, ..
    } = &scene;
    let replaced = Some(Digest::of(b"a list that is not here"));
    let one = list_object("messages", 1, *talk, 1, (alice.identity, &[]));
    let other = Object {
        rights: replaced,
        ..list_object("messages", 2, *talk, 1, (alice.identity, &[]))
    };
    for list in [&one, &other] {
        assert_eq!(scene.forced_on_bob(list), None);
    }
    for list in [one, other] {
        assert_eq!(bob.object("messages", list.oid).unwrap().0, list);
    }
    assert_eq!(bob.rows("rights_list").len(), 2);
}

#[test]
fn rotation_reopens_no_reader_at_any_portion() {
    let scene = Scene::new();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    scene.set(&[(bob.identity, None)]);
    scene.sync();
    let readers = sorted(&[alice.identity, carol.identity]);
    use rand::SeedableRng as _;
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([5; 32]);
    alice.keys.rotate(alice.identity, &mut rng).unwrap();
    alice.write(|core, now| core.save_own_server(now)).unwrap();
    let identity = alice.identity;
    alice
        .graph(move |graph| {
            let profile = graph.profile(&identity)?.unwrap();
            graph.save_profile(identity, &profile)
        })
        .unwrap();
    loop {
        let found = alice
            .graph(move |graph| graph.resign_some(&identity, 1))
            .unwrap();
        assert_eq!(scene.readers(alice), readers);
        for member in [bob, carol] {
            member.pull_everything(alice);
            assert_eq!(scene.readers(member), readers);
            member.assert_readers("during a rotation");
        }
        if found == 0 {
            break;
        }
    }
    // Bob receives the lists up to the closing one under the new key, and nothing else.
    for (node, raised) in [(alice, 3), (bob, 2), (carol, 3)] {
        let rows = node.rows("rights_list").into_iter();
        assert_eq!(rows.filter(|it| it.contains(" | 1 | ")).count(), raised);
    }
    scene.say(carol, "after").unwrap();
    scene.sync();
    assert_eq!(texts(alice), ["after"]);
}

#[test]
fn list_of_a_stolen_key_counts_as_absent_after_the_rotation() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let thief = list_object(
        "messages",
        1,
        *talk,
        1_000_000,
        (alice.identity, &[(carol.identity, Rights::READ_WRITE)]),
    );
    assert_eq!(scene.forced_on_bob(&thief), None);
    assert_eq!(scene.readers(bob).len(), 2);
    let attrs = Some(message(*talk, "as a member"));
    let said = salted(("messages", 2), [5; 8], carol.identity, 1, attrs);
    let rights = Some(digest_of(&thief));
    let said = |salt: u8| Object {
        rights,
        ..salted(
            ("messages", 2),
            [salt; 8],
            carol.identity,
            1,
            said.attrs.clone(),
        )
    };
    assert_eq!(carol.force_one(bob, "messages", carol.sign(&said(1))), None);
    rotate(alice, alice.identity);
    bob.pull_everything(alice);
    let members = sorted(&[alice.identity, bob.identity]);
    assert_eq!(scene.readers(bob), members);
    bob.assert_readers("after the rotation");
    carol.force_one(bob, "messages", carol.sign(&said(2)));
    assert_eq!(bob.rows("waiting").len(), 1, "it waits for the list");
}

#[test]
fn scope_that_ends_has_no_readers_and_no_lists() {
    let scene = Scene::new();
    let Scene { alice, carol, .. } = &scene;
    scene.set(&[(carol.identity, READ)]);
    scene.sync();
    // Conversations cannot be deleted, so this is a card.
    let card = alice
        .make("contacts", 1, harness::card(carol.identity, "Carol"))
        .unwrap()
        .oid;
    alice
        .set_rights("contacts", card, &[(scene.bob.identity, READ)])
        .unwrap();
    scene.sync();
    assert_eq!(scene.bob.readers("contacts", card).len(), 3);
    alice.change("contacts", 1, card, None).unwrap();
    scene.sync();
    let ended = alice.set_rights("contacts", card, &[(scene.bob.identity, None)]);
    assert!(matches!(ended, Err(SaveError::Denied(Denied::ScopeEnded))));
    rotate(alice, alice.identity);
    scene.sync();
    for node in [alice, carol, &scene.bob] {
        assert_eq!(node.readers("contacts", card), []);
        assert!(node.parent("contacts", card).unwrap().deleted);
    }
}

#[test]
fn entries_of_a_list_are_charged_when_it_is_stored() {
    let scene = Scene::new();
    let Scene { alice, bob, .. } = &scene;
    let peer = alice.peer_id();
    let charged = || {
        let stored = bob.read(move |view| view.rows.stored_by(&peer));
        stored.unwrap().usage.bytes
    };
    let people = conversation(&[alice.identity, bob.identity]);
    let talk = object("messages", 1, 7, alice.identity, 1, Some(people));
    let others = [(scene.carol.identity, Rights::READ)];
    let list = list_object("messages", 1, talk.oid, 1, (alice.identity, &others));
    let bytes = |object: &Object| i64::try_from(object.to_bytes().len()).unwrap();
    let before = charged();
    assert_eq!(scene.forced_on_bob(&list), None);
    assert_eq!(charged() - before, bytes(&list), "it waits for its scope");
    assert_eq!(scene.forced_on_bob(&talk), None);
    assert_eq!(bob.rows("waiting"), Vec::<String>::new());
    let both = bytes(&list) + bytes(&talk);
    assert_eq!(charged() - before, both + 2 * 64);
    assert_eq!(bob.readers("messages", talk.oid).len(), 2);
}

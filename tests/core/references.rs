//! References that do not decide the scope of an object: to itself, in circles, into other scopes.
//!
//! Such a reference is a value. So each reader gets the object, in any order, whether or not it
//! may see the target.

use std::collections::BTreeSet;

use harness::compare::portable_rows;
use harness::forge::oid;
use harness::pull::meet;
use harness::{Setup, TestNode};
use keys::{Oid, SignedObject};
use postern::graph::SaveError;
use postern::object::{Attrs, Object, OidParts, Place, Rights, Value};

use crate::returned::reclaim;

/// An app with two types of scopes, pages that refer to pages, and public news that refer to both.
const ATLAS: &str = r#"
slug = "atlas"
version = 1
[[type]]
number = 1
name = "atlas.room"
visibility = { participants_here = "members" }
attr = [{ number = 1, name = "members", kind = "identity", max = 8 }]
[[type]]
number = 2
name = "atlas.page"
visibility = { participants = "room" }
attr = [
  { number = 1, name = "room", kind = { parent = "atlas.room" } },
  { number = 2, name = "text", kind = "text", bytes_max = 100 },
  { number = 3, name = "before", kind = { parent = "atlas.page" }, min = 0, max = 3 },
]
[[type]]
number = 3
name = "atlas.news"
visibility = "public"
attr = [
  { number = 1, name = "about", kind = { parent = "atlas.room" }, min = 0 },
  { number = 2, name = "see", kind = { parent = "atlas.page" }, min = 0 },
]
[[type]]
number = 4
name = "atlas.map"
visibility = { participants_here = "members" }
attr = [{ number = 1, name = "members", kind = "identity", max = 8 }]
[[domain]]
name = "atlas"
parent_types = ["atlas.room", "atlas.page", "atlas.news", "atlas.map"]
mode = "allow_update"
"#;
const APP: &str = "atlas";
const ROOM: u16 = 1;
const PAGE: u16 = 2;
const NEWS: u16 = 3;
const MAP: u16 = 4;

fn cartographer(name: &str, id_offset: i64) -> TestNode {
    let setup = Setup::new(name).own_app(APP, ATLAS);
    setup.id_offset(id_offset).node()
}

fn oids(oids: &[Oid]) -> Vec<Value> {
    oids.iter().map(Value::from).collect()
}

fn members(nodes: &[&TestNode]) -> Attrs {
    let nodes: Vec<_> = nodes.iter().map(|node| node.identity).collect();
    Attrs::from([(1, oids(&nodes))])
}

fn page(room: Oid, text: &str, before: &[Oid]) -> Attrs {
    let attrs = [(1, oids(&[room])), (2, vec![Value::from(text)])];
    let before = Some((3, oids(before))).filter(|(_, oids)| !oids.is_empty());
    attrs.into_iter().chain(before).collect()
}

fn news(about: Oid, see: Oid) -> Attrs {
    Attrs::from([(1, oids(&[about])), (2, oids(&[see]))])
}

/// Alice owns a room that Bob reads, and another one that only she reads.
struct Atlas {
    alice: TestNode,
    bob: TestNode,
    room: Oid,
    /// Alice's other room, and a page in it.
    closed: [Oid; 2],
    /// A page that names itself, two that name each other, and one that names the closed page.
    hers: [Oid; 4],
    /// A page of Alice and one of Bob that name each other.
    both: [Oid; 2],
    /// Public, and names the closed room and page.
    news: Oid,
}

impl Atlas {
    fn new() -> Self {
        let (alice, bob) = (cartographer("alice", 0), cartographer("bob", 300));
        meet(&alice, &bob);
        let make = |node: &TestNode, type_number, attrs| {
            let saved = node.make(APP, type_number, attrs);
            saved.unwrap().oid
        };
        let room = make(&alice, ROOM, members(&[&alice, &bob]));
        let shut = make(&alice, ROOM, members(&[&alice]));
        let secret = make(&alice, PAGE, page(shut, "secret", &[]));
        let write = |node: &TestNode, before: &[Oid]| make(node, PAGE, page(room, "x", before));
        let refer = |node: &TestNode, oid, before| {
            let attrs = page(room, "y", &[before]);
            node.change(APP, PAGE, oid, Some(attrs)).unwrap();
        };
        let own = write(&alice, &[]);
        refer(&alice, own, own);
        let one = write(&alice, &[]);
        let two = write(&alice, &[one]);
        refer(&alice, one, two);
        let elsewhere = write(&alice, &[secret]);
        let page_of_alice = write(&alice, &[]);
        bob.pull_everything(&alice);
        let page_of_bob = write(&bob, &[page_of_alice]);
        alice.pull_everything(&bob);
        refer(&alice, page_of_alice, page_of_bob);
        let news = make(&alice, NEWS, news(shut, secret));
        bob.pull_everything(&alice);
        Self {
            alice,
            bob,
            room,
            closed: [shut, secret],
            hers: [own, one, two, elsewhere],
            both: [page_of_alice, page_of_bob],
            news,
        }
    }

    /// The objects that Bob reads.
    fn open(&self) -> Vec<Oid> {
        [&[self.room, self.news], &self.hers[..], &self.both].concat()
    }

    fn signed(&self, oid: Oid) -> SignedObject {
        self.alice.object(APP, oid).unwrap().1
    }
}

/// Asserts that a node has objects as another one has them, and that nothing waits or was refused.
fn assert_same(node: &TestNode, other: &TestNode, oids: &[Oid]) {
    assert_eq!(node.rejects(), [""; 0]);
    for oid in oids {
        assert!(other.object(APP, *oid).is_some());
        assert_eq!(node.object(APP, *oid), other.object(APP, *oid), "{oid:?}");
    }
    assert_eq!(node.rows("waiting").len(), 0);
}

#[test]
fn objects_reach_readers_that_lack_what_they_refer_to() {
    let atlas = Atlas::new();
    let Atlas { alice, bob, .. } = &atlas;
    assert_same(bob, alice, &atlas.open());
    assert!(atlas.closed.iter().all(|it| bob.parent(APP, *it).is_none()));
    // A node that reads no room gets the public object.
    let dora = cartographer("dora", 900);
    meet(&dora, alice);
    dora.pull_everything(alice);
    assert_same(&dora, alice, &[atlas.news]);
}

#[test]
fn objects_reach_a_late_reader() {
    let atlas = Atlas::new();
    let Atlas { alice, bob, .. } = &atlas;
    let carol = cartographer("carol", 600);
    meet(&carol, alice);
    meet(&carol, bob);
    meet(bob, alice);
    let added = [(carol.identity, Some(Rights::READ_WRITE))];
    alice.set_rights(APP, atlas.room, &added).unwrap();
    bob.pull_everything(alice);
    for peer in [bob, alice, bob] {
        carol.pull_everything(peer);
    }
    assert_same(&carol, alice, &atlas.open());
}

#[test]
fn objects_return_to_their_restored_owner_who_may_change_them() {
    let atlas = Atlas::new();
    let (open, bob) = (atlas.open(), &atlas.bob);
    let alice = atlas.alice.into_setup().elsewhere();
    let alice = alice.own_app(APP, ATLAS).node();
    meet(&alice, bob);
    reclaim(&alice, bob, "identities");
    reclaim(&alice, bob, APP);
    alice.pull_everything(bob);
    assert_same(&alice, bob, &open);
    // The page keeps a reference to an object that no node has.
    let [.., elsewhere] = atlas.hers;
    let [_, secret] = atlas.closed;
    let kept = page(atlas.room, "changed", &[secret]);
    let new = page(atlas.room, "changed", &[secret, oid(9)]);
    let change = |attrs| alice.change(APP, PAGE, elsewhere, attrs);
    let refused = change(Some(new));
    assert!(
        matches!(refused, Err(SaveError::Missing(it)) if it == oid(9)),
        "{refused:?}"
    );
    change(Some(kept)).unwrap();
    bob.pull_everything(&alice);
    assert_same(bob, &alice, &open);
    change(None).unwrap();
    bob.pull_everything(&alice);
    assert_same(bob, &alice, &open);
}

#[test]
fn order_of_arrival_does_not_matter() {
    let atlas = Atlas::new();
    let mut sent = vec![atlas.room, atlas.news];
    sent.extend(atlas.hers);
    sent.extend(atlas.closed);
    let mut rows: Vec<BTreeSet<String>> = Vec::new();
    for _ in 0..sent.len() {
        let node = cartographer("carol", 600);
        meet(&atlas.alice, &node);
        sent.rotate_left(1);
        for oid in &sent {
            let code = atlas.alice.force_one(&node, APP, atlas.signed(*oid));
            assert_eq!(code, None);
        }
        assert_same(&node, &atlas.alice, &sent);
        let found = portable_rows(&node.database());
        rows.push(found.into_iter().filter(|row| row.contains(APP)).collect());
    }
    assert!(!rows[0].is_empty());
    assert!(rows.iter().all(|it| *it == rows[0]), "{rows:#?}");
}

#[test]
fn new_reference_of_a_local_write_names_a_stored_object_of_the_right_type() {
    let Atlas {
        alice, room, hers, ..
    } = Atlas::new();
    for (before, is_missing) in [(oid(9), true), (room, false)] {
        let attrs = page(room, "x", &[before]);
        for refused in [
            alice.make(APP, PAGE, attrs.clone()),
            alice.change(APP, PAGE, hers[0], Some(attrs)),
        ] {
            match refused {
                Err(SaveError::Missing(it)) => assert!(is_missing && it == before),
                Err(SaveError::WrongReference) => assert!(!is_missing),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn reference_that_decides_the_scope_names_the_place_and_a_scope_of_its_type() {
    let Atlas {
        alice, bob, room, ..
    } = Atlas::new();
    let map = alice.make(APP, MAP, members(&[&alice, &bob])).unwrap().oid;
    bob.pull_everything(&alice);
    let placed = |scope, value| {
        let parts = OidParts {
            owner: &alice.identity,
            app: APP,
            type_number: PAGE,
            place: &Place::In(scope),
        };
        let object = Object {
            attrs: Some(page(value, "x", &[])),
            ..Object::create(&parts, 1_700_000_000_000, [1; 8])
        };
        alice.force_one(&bob, APP, alice.sign(&object))
    };
    for (scope, value, code) in [
        (room, map, "wrong_scope"),
        (room, oid(9), "wrong_scope"),
        (oid(9), room, "wrong_scope"),
        (map, map, "wrong_reference"),
    ] {
        assert_eq!(placed(scope, value).as_deref(), Some(code));
    }
    // The scope itself may arrive later.
    assert_eq!(placed(oid(9), oid(9)), None);
    assert_eq!(bob.rows("waiting").len(), 1);
}

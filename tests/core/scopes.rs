//! Scopes that end, references to deleted Parents, and an inbox that pages whole change groups.

use harness::forge::{object, tombstone};
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, meet, message, ride};
use keys::Oid;
use postern::acl::Denied;
use postern::graph::{SaveError, WriteRequest};
use postern::object::{Attrs, Object, Value};
use postern::services::messages::{self, Inbox};
use postern::store::{FeedCursor, Onlooker};
use proptest::prelude::*;

use crate::garden::gardener;
use crate::thieves::rotate;

/// An app with folders that name their readers, and pages in a folder.
const WIKI: &str = r#"
slug = "wiki"
version = 1
[[type]]
number = 1
name = "wiki.folder"
visibility = { participants_here = "members" }
  [[type.attr]]
  number = 1
  name = "members"
  kind = "identity"
  min = 1
  max = 8
  [[type.attr]]
  number = 2
  name = "title"
  kind = "text"
  bytes_max = 100
[[type]]
number = 2
name = "wiki.page"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 1000
[[type]]
number = 3
name = "wiki.sheet"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "wiki.folder" }
  [[type.attr]]
  number = 2
  name = "line"
  kind = "text"
  min = 1
  max = 255
  bytes_max = 10
"#;
const ONE_DOMAIN: &str = r#"
[[domain]]
name = "wiki"
parent_types = ["wiki.folder", "wiki.page", "wiki.sheet"]
mode = "allow_update"
"#;
const TWO_DOMAINS: &str = r#"
[[domain]]
name = "wiki.folders"
parent_types = ["wiki.folder"]
mode = "allow_update"
[[domain]]
name = "wiki.pages"
parent_types = ["wiki.page", "wiki.sheet"]
mode = "allow_update"
"#;
pub(crate) const FOLDER: u16 = 1;
pub(crate) const PAGE: u16 = 2;
pub(crate) const SHEET: u16 = 3;

/// A node with the wiki app.
pub(crate) fn writer(name: &str, id_offset: i64) -> TestNode {
    wiki(name, id_offset, ONE_DOMAIN)
}

/// A node with the wiki app, whose folders travel in one domain, and their pages in another one.
pub(crate) fn writer_of_two_domains(name: &str, id_offset: i64) -> TestNode {
    wiki(name, id_offset, TWO_DOMAINS)
}

fn wiki(name: &str, id_offset: i64, domains: &str) -> TestNode {
    let setup = Setup::new(name).own_app("wiki", &format!("{WIKI}{domains}"));
    setup.id_offset(id_offset).node()
}

/// Alice, Bob and Carol, who know each other, and a thief that knows Bob.
pub(crate) fn three_and_a_thief() -> [TestNode; 4] {
    let nodes = ["alice", "bob", "carol", "thief"].map(|it| writer(it, 0));
    let [alice, bob, carol, thief] = &nodes;
    for (one, other) in [(alice, bob), (alice, carol), (bob, carol), (bob, thief)] {
        meet(one, other);
    }
    nodes
}

pub(crate) fn folder(members: &[&TestNode], title: &str) -> Attrs {
    let members = members.iter().map(|node| Value::from(&node.identity));
    Attrs::from([(1, members.collect()), (2, vec![Value::from(title)])])
}

pub(crate) fn page(folder: Oid, text: &str) -> Attrs {
    Attrs::from([
        (1, vec![Value::from(&folder)]),
        (2, vec![Value::from(text)]),
    ])
}

/// Two members of one folder, each with a page in it that both have.
struct Wiki {
    alice: TestNode,
    bob: TestNode,
    folder: Oid,
    pages: [Oid; 2],
}

impl Wiki {
    fn new() -> Self {
        let (alice, bob) = (writer("alice", 0), writer("bob", 700));
        meet(&alice, &bob);
        let attrs = folder(&[&alice, &bob], "plans");
        let folder = alice.make("wiki", FOLDER, attrs).unwrap().oid;
        bob.pull_everything(&alice);
        let write = |node: &TestNode| node.make("wiki", PAGE, page(folder, "text")).unwrap().oid;
        let pages = [write(&alice), write(&bob)];
        bob.pull_everything(&alice);
        alice.pull_everything(&bob);
        Self {
            alice,
            bob,
            folder,
            pages,
        }
    }
}

#[test]
fn owner_deletes_an_object_that_names_its_own_readers() {
    let Wiki {
        alice, bob, folder, ..
    } = Wiki::new();
    let deleted = alice.change("wiki", FOLDER, folder, None).unwrap();
    assert_eq!(deleted.rev, 2);
    assert_eq!(alice.readers("wiki", folder), []);
    bob.pull_everything(&alice);
    assert!(bob.parent("wiki", folder).unwrap().deleted);
    assert_eq!(bob.readers("wiki", folder), []);
    assert_eq!(bob.object("wiki", folder), alice.object("wiki", folder));
    assert_eq!((alice.rejects().len(), bob.rejects().len()), (0, 0));
}

#[test]
fn member_who_does_not_own_a_scope_cannot_delete_it() {
    let Wiki { bob, folder, .. } = Wiki::new();
    let refused = bob.change("wiki", FOLDER, folder, None);
    assert!(
        matches!(refused, Err(SaveError::Denied(Denied::OwnerChanged))),
        "{refused:?}"
    );
}

#[test]
fn object_that_is_a_scope_changes_and_keeps_its_readers() {
    let Wiki {
        alice, bob, folder, ..
    } = Wiki::new();
    let renamed = self::folder(&[&alice, &bob], "better plans");
    alice.change("wiki", FOLDER, folder, Some(renamed)).unwrap();
    bob.pull_everything(&alice);
    assert_eq!(bob.parent("wiki", folder).unwrap().rev, 2);
    assert_eq!(bob.readers("wiki", folder).len(), 2);
    assert_eq!(bob.object("wiki", folder), alice.object("wiki", folder));
}

#[test]
fn objects_of_an_ended_scope_are_acknowledged_and_dropped() {
    let Wiki {
        alice,
        bob,
        folder,
        pages,
    } = Wiki::new();
    alice.change("wiki", FOLDER, folder, None).unwrap();
    // Bob has not heard of the deletion: his page and his change arrive without a reject.
    let late = bob.make("wiki", PAGE, page(folder, "late")).unwrap().oid;
    bob.change("wiki", PAGE, pages[1], Some(page(folder, "edited")))
        .unwrap();
    alice.pull_everything(&bob);
    assert_eq!(alice.parent("wiki", late), None);
    assert_eq!(alice.parent("wiki", pages[1]).unwrap().rev, 1);
    assert_eq!(alice.rejects().len(), 0);
    let after = alice.cursor(&bob, "wiki", postern::store::Direction::In);
    assert_eq!(after.unwrap().last_seq, bob.head(), "the cursor goes on");

    bob.pull_everything(&alice);
    for node in [&alice, &bob] {
        let more = node.make("wiki", PAGE, page(folder, "more"));
        assert!(
            matches!(more, Err(SaveError::Denied(Denied::ScopeEnded))),
            "{more:?}"
        );
    }
    // A newcomer who never had the folder reads nothing of it.
    let carol = writer("carol", 0);
    meet(&alice, &carol);
    carol.pull_everything(&alice);
    assert_eq!(carol.parent("wiki", folder), None);
}

#[test]
fn received_values_of_an_ended_scope_are_dropped_and_their_bytes_no_longer_charged() {
    let Wiki {
        alice,
        bob,
        folder,
        pages,
    } = Wiki::new();
    let peer = bob.peer_id();
    let charged = || {
        let stored = alice.read(move |view| view.rows.stored_by(&peer));
        stored.unwrap().usage
    };
    let before = charged();
    let step = |node: &TestNode| node.write(|core, now| core.drop_ended_step(now)).unwrap();
    assert!(!step(&alice), "no scope has ended");
    alice.change("wiki", FOLDER, folder, None).unwrap();
    assert!(step(&alice));
    assert!(!step(&alice));
    let row = alice.parent("wiki", pages[1]).unwrap();
    assert_eq!((row.rev, row.deleted, row.sync_flags), (0, true, 0));
    assert_eq!(alice.readers("wiki", folder), []);
    let after = charged();
    assert!(after.bytes < before.bytes, "Bob's page");
    assert_eq!(after.objects, before.objects, "its row stays");
    // Her own page is kept and hidden, because no other node may have it.
    assert_eq!(alice.rows("app_wiki_attr").len(), 2);
    let shown = alice.read(|view| {
        let app = view.rows.apps().get("wiki").unwrap();
        let mut sight = view.rows.sight(Onlooker::AnyAt(view.this_node()));
        let page = view.rows.listing(app, PAGE, 0, 100)?.rows;
        let shown = page.iter().map(|row| sight.shows(row));
        shown.collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(shown, [false]);
    // A rotation leaves rows without values alone, and the tombstone still travels.
    rotate(&alice, alice.identity);
    bob.pull_everything(&alice);
    assert!(bob.parent("wiki", folder).unwrap().deleted);
    assert_eq!(bob.rejects().len(), 0);
}

#[test]
fn scope_whose_deletion_is_overruled_is_pulled_again_from_every_peer() {
    let [alice, bob, carol, thief] = three_and_a_thief();
    let attrs = folder(&[&alice, &bob, &carol], "plans");
    let folder = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    for member in [&bob, &carol] {
        member.pull_everything(&alice);
    }
    bob.pull_everything(&carol);
    let his = bob.make("wiki", PAGE, page(folder, "his")).unwrap().oid;
    // A thief of Alice's key deletes the folder at Bob.
    let gone = tombstone(&alice.object("wiki", folder).unwrap().0, 2);
    let forged = StolenKeys::of_name("alice").sign(&gone);
    assert_eq!(thief.force_one(&bob, "wiki", forged), None);
    assert!(bob.parent("wiki", folder).unwrap().deleted);
    let page = carol.make("wiki", PAGE, page(folder, "text")).unwrap().oid;
    bob.pull_everything(&carol);
    assert_eq!(bob.parent("wiki", page), None, "dropped");
    while bob.write(|core, now| core.drop_ended_step(now)).unwrap() {}
    // Her next key overrules the thief.
    rotate(&alice, alice.identity);
    bob.pull_all(&alice, "identities");
    bob.pull_all(&alice, "wiki");
    assert_eq!(bob.readers("wiki", folder).len(), 3);
    for peer in [&carol, &alice, &thief] {
        bob.pull_everything(peer);
    }
    assert_eq!(bob.object("wiki", page), carol.object("wiki", page));
    carol.pull_everything(&bob);
    assert_eq!(carol.object("wiki", his), bob.object("wiki", his));
    assert!(carol.object("wiki", his).is_some());
    for peer in [&carol, &alice, &thief] {
        assert_eq!(bob.again_count(peer), 0);
    }
}

/// A version of one offer: revision, and its text; `None` for a tombstone.
type Version = (u64, Option<u8>);

/// Few tombstones, because they precede every other version.
fn any_text() -> impl Strategy<Value = Option<u8>> {
    proptest::option::weighted(0.9, 0u8..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two nodes that receive the owner's versions in different orders end with the same one.
    #[test]
    fn versions_of_an_object_converge_in_any_order(
        versions in proptest::collection::vec((1u64..3, any_text()), 1..6),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
        let mallory = TestNode::new("mallory", 300);
        meet(&alice, &mallory);
        meet(&bob, &mallory);
        let object = |(rev, text): Version| {
            let live = object("rides", 1, 1, mallory.identity, rev, Some(ride("Bern", 0)));
            let attrs = text.map(|text| ride("Bern", i64::from(text)));
            Object { attrs, ..live }
        };
        let send = |to: &TestNode, version| {
            let sent = mallory.sign(&object(version));
            mallory.force(to, "rides.offers", vec![sent]).unwrap();
        };
        for version in &versions {
            send(&alice, *version);
        }
        for version in order.iter().filter_map(|place| versions.get(*place)) {
            send(&bob, *version);
        }
        let oid = object(versions[0]).oid;
        prop_assert_eq!(alice.object("rides", oid), bob.object("rides", oid));
    }
}

/// The folder ended before, so that the values of others in it are dropped already.
#[test]
fn old_home_drops_what_an_identity_that_moved_wrote_in_an_ended_scope() {
    let wiki = Wiki::new();
    let (alice, bob, new) = (&wiki.alice, &wiki.bob, writer("new", 3000));
    meet(bob, &new);
    alice.change("wiki", FOLDER, wiki.folder, None).unwrap();
    bob.pull_everything(alice);
    drop_ended(bob);
    let revs = || wiki.pages.map(|page| bob.parent("wiki", page).unwrap().rev);
    assert_eq!(revs(), [0, 1]);
    new.receive(bob, bob.identity);
    bob.pull_everything(&new);
    drop_ended(bob);
    assert_eq!(revs(), [0, 0]);
    assert_eq!(bob.rows("ended_scope"), Vec::<String>::new());
}

/// Drops the values of all scopes that ended.
fn drop_ended(node: &TestNode) {
    while node.write(|core, now| core.drop_ended_step(now)).unwrap() {}
}

#[test]
fn child_of_a_deleted_parent_reaches_a_newcomer() {
    let (alice, bob) = (gardener("alice", 0), gardener("bob", 900));
    meet(&alice, &bob);
    let bed = |beside: Option<Oid>| {
        let beside = beside.iter().map(Value::from).collect();
        Attrs::from([(1, vec![Value::from("bed")]), (5, beside)])
    };
    let first = alice.make("garden", 1, bed(None)).unwrap().oid;
    let second = alice.make("garden", 1, bed(Some(first))).unwrap().oid;
    alice.change("garden", 1, first, None).unwrap();
    let third = alice.make("garden", 1, bed(Some(first))).unwrap().oid;
    bob.pull_everything(&alice);
    for oid in [first, second, third] {
        assert_eq!(bob.object("garden", oid), alice.object("garden", oid));
    }
    assert!(bob.rejects().is_empty() && bob.rows("waiting").is_empty());
}

fn inbox(node: &TestNode, after: FeedCursor, limit: usize) -> Inbox {
    let reader = node.identity;
    node.read(move |view| messages::inbox(&view, &reader, after, limit))
}

#[test]
fn rotation_shows_no_old_message_as_new() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    alice.send(bob.identity, "one");
    alice.send(bob.identity, "two");
    bob.pull_everything(&alice);
    let seen = [&alice, &bob].map(|node| inbox(node, FeedCursor::default(), 100));
    assert_eq!(seen.each_ref().map(|it| it.messages.len()), [2, 2]);
    rotate(&alice, alice.identity);
    bob.pull_everything(&alice);
    for (node, seen) in [&alice, &bob].into_iter().zip(&seen) {
        let oid = seen.messages[0].oid;
        assert_eq!(node.parent("messages", oid).unwrap().key_id, 1, "re-signed");
        let after = inbox(node, seen.after, 100);
        assert_eq!((after.messages.len(), after.after), (0, seen.after));
        let all = inbox(node, FeedCursor::default(), 100);
        assert!(all.messages == seen.messages, "order and numbers stay");
    }
    alice.send(bob.identity, "three");
    let new = inbox(&alice, seen[0].after, 100);
    assert_eq!(new.messages.len(), 1);
}

#[test]
fn page_of_the_inbox_ends_with_a_whole_change_group() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 0));
    meet(&alice, &bob);
    let talk = alice.send(bob.identity, "zero").conversation;
    let (context, owner) = (alice.context(alice.identity, "messages"), alice.identity);
    alice
        .graph(move |graph| {
            for text in ["one", "two", "three"] {
                let request = WriteRequest {
                    app: messages::APP.into(),
                    type_number: messages::MESSAGE,
                    oid: None,
                    owner,
                    attrs: Some(message(talk, text)),
                };
                graph.save_with_sync(&context, request)?;
            }
            Ok::<_, SaveError>(())
        })
        .unwrap();
    alice.send(bob.identity, "four");
    let (mut after, mut pages) = (FeedCursor::default(), Vec::new());
    loop {
        let page = inbox(&alice, after, 2);
        pages.push(page.messages.len());
        after = page.after;
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [4, 1], "no message is skipped");
}

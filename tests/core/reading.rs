//! Scopes as a peer reads them: it reads nothing of one that it cannot know, and all of one that it
//! reads late.

use harness::{Setup, TestNode, meet};
use keys::Oid;
use postern::object::Attrs;
use postern::state_engine::PullReply;

use crate::rights::{BOTH, Scene};
use crate::scopes::{FOLDER, PAGE, folder, page};

/// An app whose scopes travel in one domain, and their objects in another one.
const SHELF: &str = r#"
slug = "shelf"
version = 1
[[type]]
number = 1
name = "shelf.folder"
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
name = "shelf.page"
visibility = { participants = "folder" }
  [[type.attr]]
  number = 1
  name = "folder"
  kind = { parent = "shelf.folder" }
  [[type.attr]]
  number = 2
  name = "text"
  kind = "text"
  bytes_max = 1000
[[domain]]
name = "shelf.folders"
parent_types = ["shelf.folder"]
mode = "allow_update"
[[domain]]
name = "shelf.pages"
parent_types = ["shelf.page"]
mode = "allow_update"
"#;

fn shelf(name: &str, id_offset: i64) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shelf.toml"), SHELF).unwrap();
    Setup::new(name)
        .apps(&["identities", "shelf"])
        .id_offset(id_offset)
        .schema_dir(folder.path())
        .node()
}

/// The number of objects that a pull of what is new would get.
fn new_objects(to: &TestNode, from: &TestNode, domain: &str) -> usize {
    match from.answer(&to.request(from, domain)) {
        PullReply::Package { objects, .. } => objects,
        PullReply::UpToDate { .. } => 0,
    }
}

#[test]
fn objects_whose_scope_travels_in_an_unshared_domain_are_not_sent() {
    let (alice, bob) = (shelf("alice", 0), shelf("bob", 400));
    meet(&alice, &bob);
    let attrs: Attrs = folder(&[&alice, &bob], "title");
    let scope: Oid = alice.make("shelf", FOLDER, attrs).unwrap().oid;
    alice.make("shelf", PAGE, page(scope, "text")).unwrap();
    assert_eq!(new_objects(&bob, &alice, "shelf.pages"), 1);
    alice.note_peer(&bob, &["shelf.pages".to_owned()]);
    assert_eq!(new_objects(&bob, &alice, "shelf.pages"), 0);
}

#[test]
fn list_that_adds_a_member_comes_with_its_scope_only() {
    let scene = Scene::new();
    let Scene { alice, carol, .. } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    let reply = alice.answer(&carol.request(alice, "messages"));
    let PullReply::Package { objects, .. } = reply else {
        panic!("nothing names the scope")
    };
    assert_eq!(objects, 0, "the scope is named and not sent");
    carol.pull_everything(alice);
    assert!(carol.parent("messages", scene.talk).is_some());
    assert_eq!(carol.rows("waiting"), Vec::<String>::new());
}

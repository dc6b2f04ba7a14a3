//! Scopes as a peer reads them: it reads nothing of one that it cannot know, and all of one that it
//! reads late.

use harness::{TestNode, meet};
use keys::Oid;
use postern::object::Attrs;
use postern::state_engine::PullReply;

use crate::rights::{BOTH, Scene};
use crate::scopes::{FOLDER, PAGE, folder, page, writer_of_two_domains};

/// The number of objects that a pull of what is new would get.
fn new_objects(to: &TestNode, from: &TestNode, domain: &str) -> usize {
    match from.answer(&to.request(from, domain)) {
        PullReply::Package { objects, .. } => objects,
        PullReply::UpToDate { .. } => 0,
    }
}

#[test]
fn objects_whose_scope_travels_in_an_unshared_domain_are_not_sent() {
    let (alice, bob) = (
        writer_of_two_domains("alice", 0),
        writer_of_two_domains("bob", 400),
    );
    meet(&alice, &bob);
    let attrs: Attrs = folder(&[&alice, &bob], "title");
    let scope: Oid = alice.make("wiki", FOLDER, attrs).unwrap().oid;
    alice.make("wiki", PAGE, page(scope, "text")).unwrap();
    assert_eq!(new_objects(&bob, &alice, "wiki.pages"), 1);
    alice.note_peer(&bob, &["wiki.pages".to_owned()]);
    assert_eq!(new_objects(&bob, &alice, "wiki.pages"), 0);
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

//! Former readers of a scope: what they still receive, and that it wakes their waiting pulls.

use futures::FutureExt as _;
use harness::{TestNode, meet};
use keys::Oid;
use postern::graph::Exported;
use postern::services::identities;
use postern::store::Onlooker;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::rights::BOTH;
use crate::scopes::{FOLDER, PAGE, folder, page, writer};
use crate::thieves::rotate;

/// Alice's folder with Bob and Carol, a page of Alice, and a list. Then Bob is removed.
struct Scene {
    alice: TestNode,
    bob: TestNode,
    carol: TestNode,
    folder: Oid,
    page: Oid,
    /// The list that removed Bob.
    closing: Oid,
}

impl Scene {
    fn new() -> Self {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| writer(name, 0));
        meet(&alice, &bob);
        meet(&alice, &carol);
        let attrs = folder(&[&alice, &bob, &carol], "plans");
        let folder = alice.make("wiki", FOLDER, attrs).unwrap().oid;
        let page = alice.make("wiki", PAGE, page(folder, "old")).unwrap().oid;
        let stranger = Oid::from_bytes([0xd0; 16]);
        alice
            .set_rights("wiki", folder, &[(stranger, BOTH)])
            .unwrap();
        bob.pull_everything(&alice);
        let closing = alice
            .set_rights("wiki", folder, &[(bob.identity, None)])
            .unwrap()
            .oid;
        bob.pull_everything(&alice);
        assert_eq!(bob.readers("wiki", folder).len(), 3);
        Self {
            alice,
            bob,
            carol,
            folder,
            page,
            closing,
        }
    }

    /// Whether a change of Alice wakes the waiting pulls of Bob and Carol, and how many objects Bob
    /// receives.
    fn wakes(&self, change: impl FnOnce(&Self)) -> ([bool; 2], usize) {
        self.carol.pull_everything(&self.alice);
        let watch = |peer: &TestNode| {
            let alice = &self.alice.engine;
            alice.watch(&peer.peer_id(), "wiki", Exported::Own)
        };
        let news = [&self.bob, &self.carol].map(watch);
        change(self);
        let woken = news.map(|news| news.wait().now_or_never().is_some());
        (woken, self.bob.pull_everything(&self.alice))
    }

    fn delete(&self, type_number: u16, oid: Oid) {
        let deleted = self.alice.change("wiki", type_number, oid, None);
        assert!(deleted.unwrap().rev > 1);
    }
}

/// Whether an identity of a node sees a page.
fn sees(node: &TestNode, identity: Oid, page: Oid) -> bool {
    node.read(move |view| {
        let wiki = view.rows.apps().get("wiki").unwrap();
        let row = view.rows.parent(wiki, &page)?.unwrap();
        let mut sight = view.rows.sight(Onlooker::Identity(identity));
        sight.shows(&row)
    })
}

/// Another identity of the node still reads the scope, so that the node stores later revisions.
#[test]
fn former_reader_sees_old_pages_but_no_later_revision() {
    let [alice, bob] = ["alice", "bob"].map(|name| writer(name, 0));
    let second = bob.keys.add_identity(&mut ChaCha20Rng::from_seed([7; 32]));
    let second = second.unwrap();
    bob.graph(move |graph| identities::publish(graph, second, Some("Anne")))
        .unwrap();
    meet(&alice, &bob);
    alice.pull_all(&bob, "identities");
    let folder = alice.make("wiki", FOLDER, folder(&[&alice, &bob], "plans"));
    let folder = folder.unwrap().oid;
    let set = |rights| alice.set_rights("wiki", folder, &[rights]).unwrap();
    set((second, BOTH));
    let made = |text| alice.make("wiki", PAGE, page(folder, text)).unwrap().oid;
    let edit = |oid, text| {
        let edited = alice.change("wiki", PAGE, oid, Some(page(folder, text)));
        assert!(edited.unwrap().rev > 1);
    };
    let [kept, edited_before, edited] = ["kept", "before", "after"].map(made);
    edit(edited_before, "second");
    bob.pull_everything(&alice);
    set((bob.identity, None));
    bob.pull_everything(&alice);
    let late = made("late");
    bob.pull_everything(&alice);
    let seen = |identity| [kept, edited_before, edited, late].map(|it| sees(&bob, identity, it));
    assert_eq!(seen(bob.identity), [true, true, true, false]);
    edit(edited, "second");
    bob.pull_everything(&alice);
    assert_eq!(seen(bob.identity), [true, true, false, false]);
    assert_eq!(seen(second), [true; 4]);
    // A rotation hides no first revision.
    rotate(&alice, alice.identity);
    bob.pull_everything(&alice);
    assert!(seen(bob.identity)[0]);
    alice.change("wiki", PAGE, edited, None).unwrap();
    bob.pull_everything(&alice);
    assert!(sees(&bob, bob.identity, edited), "a tombstone");
}

#[test]
fn late_tombstone_wakes_a_former_reader() {
    let scene = Scene::new();
    let deleted = scene.wakes(|scene| scene.delete(PAGE, scene.page));
    assert_eq!(deleted, ([true, true], 1));
    assert!(scene.bob.parent("wiki", scene.page).unwrap().deleted);
}

#[test]
fn late_end_of_a_scope_wakes_a_former_reader() {
    let scene = Scene::new();
    let ended = scene.wakes(|scene| scene.delete(FOLDER, scene.folder));
    assert_eq!(ended, ([true, true], 1));
    assert!(scene.bob.parent("wiki", scene.folder).unwrap().deleted);
}

#[test]
fn list_that_is_signed_again_wakes_a_former_reader() {
    let scene = Scene::new();
    let key_number = || scene.bob.parent("wiki", scene.closing).unwrap().key_id;
    assert_eq!(key_number(), 0);
    let (woken, _) = scene.wakes(|scene| rotate(&scene.alice, scene.alice.identity));
    assert_eq!((woken, key_number()), ([true, true], 1));
}

#[test]
fn tombstone_that_a_peer_returned_wakes_a_former_reader() {
    let scene = Scene::new();
    let (mut object, _) = scene.alice.object("wiki", scene.page).unwrap();
    (object.rev, object.attrs) = (9, None);
    let (peer, gone) = (scene.carol.peer_id(), scene.alice.sign(&object));
    let returned = scene.wakes(|scene| {
        let reclaim = scene
            .alice
            .write(move |core, now| core.reclaim(now, peer, vec![gone]));
        assert_eq!(reclaim.unwrap().written, 1);
    });
    assert_eq!(returned, ([true, true], 1));
}

#[test]
fn what_a_former_reader_may_not_have_does_not_wake_it() {
    let scene = Scene::new();
    let make = |scene: &Scene| {
        let attrs = page(scene.folder, "new");
        scene.alice.make("wiki", PAGE, attrs).unwrap().oid
    };
    let mut new = None;
    let made = scene.wakes(|scene| new = Some(make(scene)));
    assert_eq!(made, ([false, true], 0));
    let deleted = scene.wakes(|scene| scene.delete(PAGE, new.unwrap()));
    assert_eq!(deleted, ([false, true], 0));
    let stranger = Oid::from_bytes([0xe0; 16]);
    let listed = scene.wakes(|scene| {
        let change = [(stranger, BOTH)];
        let saved = scene.alice.set_rights("wiki", scene.folder, &change);
        saved.unwrap();
    });
    assert_eq!(listed, ([false, true], 0));
}

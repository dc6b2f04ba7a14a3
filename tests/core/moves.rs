//! Identities that move from one node to another with their keys and objects.

use keys::Oid;
use postern::graph::{AcceptPolicy, SaveError};
use postern::object::Rights;
use postern::services::identities::{self, IdentityError};
use postern::services::{conversations, invitations};
use postern::state_engine::CoreLimits;
use postern::store::StoreError;

use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message, ride};

const MESSAGES: &str = "messages";
pub(crate) const ALICE: u64 = 81;

/// Alice moves from her old node to a new one. Bob and Carol are others.
pub(crate) struct Scene {
    pub(crate) old: TestNode,
    pub(crate) new: TestNode,
    pub(crate) bob: TestNode,
    pub(crate) alice: Oid,
}

impl Scene {
    /// All nodes know each other.
    pub(crate) fn new() -> Self {
        let scene = Self::apart();
        meet(&scene.new, &scene.bob);
        scene
    }

    /// The new node knows the old one only. The operators of both are asked about invitations.
    fn apart() -> Self {
        let mut limits = CoreLimits::default();
        limits.graph.accept = AcceptPolicy::Ask;
        let old = Setup::seeded("alice", ALICE).limits(limits).node();
        let new = Setup::new("new").id_offset(3000).limits(limits).node();
        let bob = TestNode::new("bob", 300);
        meet(&old, &new);
        meet(&old, &bob);
        let alice = old.identity;
        Self {
            old,
            new,
            bob,
            alice,
        }
    }

    pub(crate) fn receive(&self) {
        let taken = self.new.receive(&self.old, self.alice);
        assert_eq!((taken.left, taken.first_left), (0, None));
    }
}

/// The key number and the sender of a stored object. `true`: it was made on the node.
pub(crate) fn stored(node: &TestNode, app: &str, oid: Oid) -> Option<(u32, bool)> {
    let row = node.parent(app, oid).filter(|row| row.rev > 0)?;
    Some((row.key_id, row.origin.is_none()))
}

/// Writes nothing. The node then does the work that is left.
pub(crate) fn tick(node: &TestNode) {
    node.graph(|_| Ok::<_, StoreError>(())).unwrap();
}

/// Changes, at a node that takes its identity for its own.
pub(crate) fn change(node: &TestNode, identity: Oid, offer: Oid) -> Result<(), SaveError> {
    let context = node.context(identity, "rides");
    let draft = postern::graph::WriteRequest {
        app: "rides".into(),
        type_number: 1,
        oid: Some(offer),
        owner: identity,
        attrs: Some(ride("Chur", 2)),
    };
    node.save_as(context, draft).map(drop)
}

#[test]
fn identity_lives_at_its_new_home_with_all_objects() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    let gone = old.make("rides", 1, ride("Basel", 2)).unwrap().oid;
    old.change("rides", 1, gone, None).unwrap();
    let talk = conversation(&[alice, bob.identity]);
    let talk = old.make(MESSAGES, 1, talk).unwrap().oid;
    let said = old.make(MESSAGES, 2, message(talk, "hello")).unwrap().oid;
    bob.pull_everything(old);
    scene.receive();

    assert_eq!(new.home_of(alice), Some(new.peer_id()));
    assert_eq!(new.keys.key_id(alice), Ok(1));
    for (app, oid) in [
        ("rides", offer),
        ("rides", gone),
        (MESSAGES, talk),
        (MESSAGES, said),
    ] {
        assert_eq!(stored(new, app, oid), Some((1, true)));
    }
    let name = new.read(move |view| view.rows.contact(&alice));
    assert_eq!(name.map(|row| row.name), Some("alice".to_owned()));
    // Bob hears of it from the new home, and gets what she writes there.
    bob.pull_everything(new);
    assert_eq!(bob.home_of(alice), Some(new.peer_id()));
    assert_eq!(stored(bob, "rides", offer), Some((1, false)));
    assert_eq!(stored(bob, MESSAGES, said), Some((1, false)));
    change(new, alice, offer).unwrap();
    let written = new
        .graph(move |graph| conversations::send(graph, talk, alice, "from here"))
        .unwrap()
        .oid;
    let reply = bob.make(MESSAGES, 2, message(talk, "welcome")).unwrap().oid;
    bob.pull_everything(new);
    new.pull_everything(bob);
    assert_eq!(bob.parent("rides", offer).unwrap().rev, 2);
    assert!(stored(bob, MESSAGES, written).is_some());
    assert!(stored(new, MESSAGES, reply).is_some());
    for node in [old, new, bob] {
        assert_eq!(node.rejects(), Vec::<String>::new());
    }
}

#[test]
fn old_home_keeps_the_objects_as_received_ones() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    let talk = conversation(&[alice, bob.identity]);
    let talk = old.make(MESSAGES, 1, talk).unwrap().oid;
    let said = old.make(MESSAGES, 2, message(talk, "hello")).unwrap().oid;
    scene.receive();
    old.pull_everything(new);
    assert_eq!(old.home_of(alice), Some(new.peer_id()));
    let known = old.read(move |view| view.rows.identity(&alice)).unwrap();
    assert!(!known.frozen);
    // No identity here reads the conversation any more, so its later form does not come.
    for (app, oid, key_id) in [
        ("rides", offer, 1),
        (MESSAGES, talk, 0),
        (MESSAGES, said, 0),
    ] {
        assert_eq!(stored(old, app, oid), Some((key_id, false)));
    }
    // They count for no peer.
    let peer = new.peer_id();
    let used = old.read(move |view| view.rows.stored_by(&peer)).unwrap();
    assert_eq!(used.usage.objects, 2, "the records of the two identities");
    assert_eq!(old.parent("rides", offer).unwrap().sync_flags, 0);
    assert!(old.parent(MESSAGES, said).unwrap().sync_flags < 0);
    // A relay passes the new record on, and members fetch the form under the later key.
    bob.relay(old, MESSAGES);
    assert_eq!(bob.home_of(alice), Some(new.peer_id()));
    bob.pull_everything(new);
    assert_eq!(stored(bob, MESSAGES, said), Some((1, false)));
    // A later revision comes from the new home.
    change(new, alice, offer).unwrap();
    old.pull_everything(new);
    assert_eq!(old.parent("rides", offer).unwrap().rev, 2);
    assert_eq!(old.rejects(), Vec::<String>::new());
    // Keys leave the vault at last.
    let mut rng = rand::rng();
    assert!(old.keys.forget_identity(alice, &mut rng).unwrap());
}

#[test]
fn moving_identity_writes_nothing_at_its_old_home() {
    let scene = Scene::new();
    let (old, new, alice) = (&scene.old, &scene.new, scene.alice);
    let offer = old.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    old.begin_move(alice, new).unwrap();
    let refused = change(old, alice, offer).unwrap_err();
    assert!(matches!(refused, SaveError::Moves(it) if it == alice));
    let refused = old
        .graph(move |graph| identities::rename(graph, alice, Some("other")))
        .unwrap_err();
    assert!(matches!(refused, IdentityError::Save(SaveError::Moves(_))));
    // A start signs nothing for it either.
    let scene = Scene {
        old: scene.old.restart(),
        ..scene
    };
    let (old, bob) = (&scene.old, &scene.bob);
    old.complete_move(alice);
    tick(old);
    assert_eq!(stored(old, "rides", offer), Some((0, true)));
    bob.pull_everything(old);
    let known = bob.read(move |view| view.rows.identity(&alice)).unwrap();
    assert_eq!((known.home, known.key_id), (old.peer_id(), 0));
    assert_eq!(stored(bob, "rides", offer), Some((0, false)));
}

/// A crash after each step, and the same step again.
#[test]
fn interrupted_move_is_completed() {
    for step in 0..4 {
        let scene = Scene::new();
        let (old, alice) = (&scene.old, scene.alice);
        let offers: Vec<Oid> = (0..40)
            .map(|_| old.make("rides", 1, ride("Bern", 2)).unwrap().oid)
            .collect();
        old.begin_move(alice, &scene.new).unwrap();
        let mut scene = Scene {
            old: scene.old.restart(),
            ..scene
        };
        scene.old.begin_move(alice, &scene.new).unwrap();
        let handover = scene.old.keys.hand_over(alice).unwrap();
        let objects = scene.old.handed_over(alice);
        if step == 0 {
            let some = objects[..objects.len() / 2].to_vec();
            scene.new.take_objects(&handover, some).unwrap();
            // Until the record of the new home is written, the old one counts.
            scene.bob.pull_everything(&scene.new);
            assert_eq!(scene.bob.home_of(alice), Some(scene.old.peer_id()));
            assert_eq!(scene.bob.rows("waiting"), Vec::<String>::new());
            scene.new = scene.new.restart();
            assert_eq!(scene.new.home_of(alice), Some(scene.old.peer_id()));
        }
        scene.new.take_objects(&handover, objects.clone()).unwrap();
        if step == 1 {
            scene.new = scene.new.restart();
        }
        scene.new.take_keys(&handover).unwrap();
        if step == 2 {
            // The start completes it without the file.
            scene.new = scene.new.restart();
        } else {
            scene.new.complete_move(alice);
        }
        if step == 3 {
            let again = scene.new.take_objects(&handover, objects).unwrap();
            assert_eq!((again.written, again.left), (0, 0));
            scene.new.take_keys(&handover).unwrap();
            scene.new.complete_move(alice);
        }
        assert_eq!(
            scene.new.home_of(alice),
            Some(scene.new.peer_id()),
            "{step}"
        );
        for offer in &offers {
            assert_eq!(stored(&scene.new, "rides", *offer), Some((1, true)));
        }
        let known = scene.new.read(move |view| view.rows.identity(&alice));
        assert_eq!(known.unwrap().home_counter, 2);
        // The old home hears of it, and a crash interrupts what follows.
        scene.old.pull_everything(&scene.new);
        scene.old = scene.old.restart();
        tick(&scene.old);
        for offer in &offers {
            assert_eq!(stored(&scene.old, "rides", *offer), Some((1, false)));
        }
    }
}

/// The new node knew nothing of Bob's conversation, in which Alice wrote.
#[test]
fn objects_in_scopes_of_others_move_too() {
    let scene = Scene::apart();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let carol = TestNode::new("carol", 600);
    meet(bob, &carol);
    let talk = conversation(&[bob.identity, alice]);
    let talk = bob.make(MESSAGES, 1, talk).unwrap().oid;
    let theirs = bob.make(MESSAGES, 2, message(talk, "hello")).unwrap().oid;
    old.pull_everything(bob);
    let mine = old.make(MESSAGES, 2, message(talk, "hi")).unwrap().oid;
    scene.receive();
    assert_eq!(stored(new, MESSAGES, talk), Some((0, false)));
    assert_eq!(stored(new, MESSAGES, mine), Some((1, true)));
    // The old home relays what Bob wrote.
    old.pull_everything(new);
    new.relay(old, MESSAGES);
    assert!(stored(new, MESSAGES, theirs).is_some());
    // Bob meets the new home later.
    meet(new, bob);
    bob.pull_everything(new);
    assert_eq!(stored(bob, MESSAGES, mine), Some((1, false)));
    let later = bob.make(MESSAGES, 2, message(talk, "later")).unwrap().oid;
    new.pull_everything(bob);
    assert!(stored(new, MESSAGES, later).is_some());
}

#[test]
fn rights_lists_continue_at_the_new_home() {
    let scene = Scene::new();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let dora = bob.another("Dora", 7);
    old.pull_everything(bob);
    let eve = bob.another("Eve", 8);
    old.pull_everything(bob);
    let talk = conversation(&[alice, bob.identity, dora]);
    let talk = old.make(MESSAGES, 1, talk).unwrap().oid;
    // Received before, so that the objects are adopted.
    new.pull_everything(old);
    old.change_rights(talk, dora, None).unwrap();
    old.change_rights(talk, eve, Some(Rights::READ_WRITE))
        .unwrap();
    bob.pull_everything(old);
    scene.receive();
    let (version, list) = new.list_in_force(MESSAGES, talk).unwrap();
    assert_eq!((version, list.of(&dora), list.entries()), (2, None, 3));
    new.pull_everything(bob);
    new.change_rights(talk, dora, Some(Rights::READ_WRITE))
        .unwrap();
    bob.pull_everything(new);
    for node in [new, bob] {
        let (version, list) = node.list_in_force(MESSAGES, talk).unwrap();
        assert_eq!((version, list.entries()), (3, 4));
    }
    assert_eq!(new.rows("due_list"), Vec::<String>::new());
    old.pull_everything(new);
    assert_eq!(old.rows("list_named"), Vec::<String>::new());
}

#[test]
fn object_that_was_received_before_counts_for_its_sender_no_more() {
    let scene = Scene::new();
    let (old, new) = (&scene.old, &scene.new);
    for _ in 0..5 {
        old.make("rides", 1, ride("Bern", 2)).unwrap();
    }
    new.pull_everything(old);
    let peer = old.peer_id();
    let used = |node: &TestNode| {
        let used = node.read(move |view| view.rows.stored_by(&peer)).unwrap();
        (used.usage.objects, used.usage.bytes)
    };
    assert_eq!(used(new).0, 6);
    scene.receive();
    assert_eq!(used(new), (0, 0));
}

/// Of what the old home asked its operator, the new one asks its own.
#[test]
fn invitations_are_asked_again_unless_they_were_accepted() {
    let scene = Scene::apart();
    let (old, new, bob, alice) = (&scene.old, &scene.new, &scene.bob, scene.alice);
    let dora = bob.another("Dora", 7);
    old.pull_everything(bob);
    let talks = ["accepted", "open"].map(|title| {
        let people = conversation(&[bob.identity, dora, alice]);
        let talk = bob.make(MESSAGES, 1, people).unwrap().oid;
        bob.make(MESSAGES, 2, message(talk, title)).unwrap();
        talk
    });
    old.pull_everything(bob);
    let [accepted, open] = talks;
    old.graph(move |graph| invitations::accept(graph, MESSAGES, accepted, Some(alice)).map(drop))
        .unwrap();
    scene.receive();
    let state = |talk: Oid| {
        let scope = new.parent(MESSAGES, talk).unwrap().scope_id;
        let row = new.read(move |view| view.rows.invitation(scope, &alice));
        row.unwrap().state.is_hidden()
    };
    assert_eq!([state(accepted), state(open)], [false, true]);
}

//! Rights lists and `leave`: who reads and writes a scope after its owner changed the rights.

use harness::forge::salted;
use harness::pull::meet;
use harness::{TestNode, conversation, message};
use keys::Oid;
use keys::protocol::{LEAVE_TYPE, RIGHTS_TYPE};
use postern::acl::Denied;
use postern::graph::SaveError;
use postern::object::{Attrs, Object, OidProof, Place, Rights};
use postern::state_engine::PullRequest;

pub(crate) const READ: Option<Rights> = Some(Rights::READ);
pub(crate) const BOTH: Option<Rights> = Some(Rights::READ_WRITE);

/// Alice founded a conversation with Bob, and all three nodes are peers.
pub(crate) struct Scene {
    pub(crate) alice: TestNode,
    pub(crate) bob: TestNode,
    pub(crate) carol: TestNode,
    pub(crate) talk: Oid,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let alice = TestNode::new("alice", 0);
        let (bob, carol) = (TestNode::new("bob", 400), TestNode::new("carol", 800));
        meet(&alice, &bob);
        meet(&alice, &carol);
        meet(&bob, &carol);
        let people = conversation(&[alice.identity, bob.identity]);
        let talk = alice.make("messages", 1, people).unwrap().oid;
        let scene = Self {
            alice,
            bob,
            carol,
            talk,
        };
        scene.sync();
        scene
    }

    /// Every node pulls everything from the others, until nothing is new.
    pub(crate) fn sync(&self) {
        let nodes = [&self.alice, &self.bob, &self.carol];
        let pairs = |to: &TestNode| {
            let others = nodes.iter().filter(|it| it.peer_id() != to.peer_id());
            others.map(|from| to.pull_everything(from)).sum::<usize>()
        };
        while nodes.iter().map(|to| pairs(to)).sum::<usize>() > 0 {}
        for node in nodes {
            node.assert_readers("after a sync");
            assert_eq!(node.rejects(), Vec::<String>::new());
        }
    }

    pub(crate) fn say(&self, node: &TestNode, text: &str) -> Result<Oid, SaveError> {
        let saved = node.make("messages", 2, message(self.talk, text))?;
        Ok(saved.oid)
    }

    pub(crate) fn set(&self, changes: &[(Oid, Option<Rights>)]) {
        self.alice
            .set_rights("messages", self.talk, changes)
            .unwrap();
    }

    pub(crate) fn readers(&self, node: &TestNode) -> Vec<Oid> {
        node.readers("messages", self.talk)
    }

    /// A list of Alice's, at Bob.
    pub(crate) fn forced_on_bob(&self, object: &Object) -> Option<String> {
        let sent = self.alice.sign(object);
        self.alice.force_one(&self.bob, "messages", sent)
    }
}

pub(crate) fn texts(node: &TestNode) -> Vec<String> {
    let mut texts: Vec<_> = node.texts().into_iter().map(|(_, text)| text).collect();
    texts.sort();
    texts
}

pub(crate) fn sorted(oids: &[Oid]) -> Vec<Oid> {
    let mut oids = oids.to_vec();
    oids.sort();
    oids
}

#[test]
fn late_member_receives_the_whole_history_from_every_author() {
    let scene = Scene::new();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    scene.say(alice, "one").unwrap();
    scene.say(bob, "two").unwrap();
    scene.sync();
    assert_eq!(texts(carol), Vec::<String>::new());
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    assert_eq!(texts(carol), ["one", "two"]);
    scene.say(carol, "three").unwrap();
    scene.sync();
    for node in [alice, bob, carol] {
        assert_eq!(texts(node), ["one", "three", "two"]);
        let all = sorted(&[alice.identity, bob.identity, carol.identity]);
        assert_eq!(scene.readers(node), all);
    }
    assert_eq!(carol.rows("waiting"), Vec::<String>::new());
}

#[test]
fn removed_member_receives_the_closing_list_and_nothing_later() {
    let scene = Scene::new();
    let Scene { alice, bob, .. } = &scene;
    scene.say(alice, "before").unwrap();
    scene.sync();
    let closing = alice.set_rights("messages", scene.talk, &[(bob.identity, None)]);
    let after = scene.say(alice, "after").unwrap();
    scene.sync();
    assert!(bob.parent("messages", closing.unwrap().oid).is_some());
    assert_eq!(bob.parent("messages", after), None);
    assert_eq!(scene.readers(bob), [alice.identity]);
    assert_eq!(texts(bob), ["before"], "he still sees what he received");
    let refused = scene.say(bob, "may I");
    assert!(
        matches!(refused, Err(SaveError::Denied(Denied::NotParticipant))),
        "{refused:?}"
    );
    // A later list does not reach him.
    let later = alice.set_rights("messages", scene.talk, &[(scene.carol.identity, READ)]);
    scene.sync();
    assert_eq!(bob.parent("messages", later.unwrap().oid), None);
    // A new epoch changes nothing.
    alice
        .write(|core, now| core.start_recovery(postern::store::EpochReason::Restored, now))
        .unwrap();
}

#[test]
fn member_with_one_right_only_reads_or_only_writes() {
    let scene = Scene::new();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    scene.set(&[(carol.identity, READ), (bob.identity, Rights::from_bits(2))]);
    scene.sync();
    assert!(matches!(
        scene.say(carol, "no"),
        Err(SaveError::Denied(Denied::NotParticipant))
    ));
    scene.say(bob, "blind").unwrap();
    scene.say(alice, "seen").unwrap();
    scene.sync();
    assert_eq!(texts(carol), ["blind", "seen"]);
    assert_eq!(texts(bob), Vec::<String>::new());
}

#[test]
fn message_waits_for_the_list_that_it_names() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let (alice, bob, carol) = (alice, bob, carol);
    scene.set(&[(carol.identity, BOTH)]);
    carol.pull_everything(alice);
    let oid = scene.say(carol, "early").unwrap();
    bob.pull_everything(carol);
    assert_eq!(bob.parent("messages", oid), None);
    assert_eq!(bob.rows("waiting").len(), 2, "and that Carol accepted");
    bob.pull_everything(alice);
    assert!(bob.parent("messages", oid).is_some());
    assert_eq!(bob.rows("waiting"), Vec::<String>::new());
    let (object, _) = bob.object("messages", oid).unwrap();
    assert!(object.rights.is_some(), "it names the list in force");
    assert_eq!(bob.object("messages", oid), carol.object("messages", oid));
    assert_eq!(bob.readers("messages", *talk).len(), 3);
}

#[test]
fn objects_are_judged_by_the_list_that_they_name() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let say = |author: &TestNode, salt, rights| {
        let attrs = Some(message(*talk, "forged"));
        let said = salted(("messages", 2), [salt; 8], author.identity, 1, attrs);
        author.sign(&Object { rights, ..said })
    };
    scene.set(&[(carol.identity, BOTH)]);
    scene.sync();
    let list = alice.read({
        let scope = alice.parent("messages", *talk).unwrap().scope_id;
        move |view| view.rows.list_in_force(scope)
    });
    assert_eq!(list.version, 1);
    scene.set(&[(bob.identity, None)]);
    scene.sync();
    // A former member can back-date: it names the founding list, or a list that contained it.
    for (salt, rights) in [(1, None), (2, Some(list.digest))] {
        let dated = say(bob, salt, rights);
        assert_eq!(bob.force_one(alice, "messages", dated), None);
    }
    assert_eq!(alice.texts().len(), 2);
    // A later member is not in the founding list, and others are in none.
    let early = say(carol, 3, None);
    let refused = carol.force_one(alice, "messages", early);
    assert_eq!(refused.as_deref(), Some("not_participant"));
    let founding = alice.object("messages", *talk).unwrap().0;
    let OidProof::Bound {
        place: Place::Founds(founding),
        ..
    } = founding.proof
    else {
        unreachable!("a scope");
    };
    let named = say(bob, 4, Some(founding));
    let refused = bob.force_one(alice, "messages", named);
    assert_eq!(refused.as_deref(), Some("bad_rights"));
    // A list of another scope does not count.
    let other = conversation(&[alice.identity, bob.identity]);
    let other = alice.make("messages", 1, other).unwrap().oid;
    alice.pull_everything(bob);
    bob.pull_everything(alice);
    let attrs = Some(message(other, "forged"));
    let said = salted(("messages", 2), [5; 8], bob.identity, 1, attrs);
    let rights = Some(list.digest);
    let sent = bob.sign(&Object { rights, ..said });
    bob.force_one(alice, "messages", sent);
    assert_eq!(alice.rows("waiting").len(), 1);
}

#[test]
fn member_leaves_and_is_added_again() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    bob.leave("messages", *talk).unwrap();
    assert_eq!(scene.readers(bob), [alice.identity]);
    scene.sync();
    let unseen = scene.say(alice, "unseen").unwrap();
    scene.sync();
    assert_eq!(scene.readers(alice), [alice.identity]);
    assert_eq!(bob.parent("messages", unseen), None);
    // The owner's next list leaves Bob out, and so does the list after it.
    scene.set(&[(carol.identity, READ)]);
    scene.sync();
    let members = sorted(&[alice.identity, carol.identity]);
    assert_eq!(scene.readers(alice), members);
    // He is added again, and reads what he missed.
    scene.set(&[(bob.identity, BOTH)]);
    scene.sync();
    assert_eq!(texts(bob), ["unseen"]);
    scene.set(&[(carol.identity, None)]);
    scene.sync();
    let members = sorted(&[alice.identity, bob.identity]);
    assert_eq!(scene.readers(alice), members, "his leave no longer counts");
}

#[test]
fn adding_a_member_that_left_under_the_list_in_force_writes_two_lists() {
    let scene = Scene::new();
    let Scene {
        alice, bob, talk, ..
    } = &scene;
    bob.leave("messages", *talk).unwrap();
    scene.sync();
    scene.set(&[(bob.identity, BOTH)]);
    let scope = alice.parent("messages", *talk).unwrap().scope_id;
    let version = alice
        .read(move |view| view.rows.list_in_force(scope))
        .version;
    assert_eq!(version, 2, "one without Bob, one with him");
    scene.set(&[(scene.carol.identity, READ)]);
    scene.sync();
    assert_eq!(scene.readers(bob).len(), 3);
}

#[test]
fn only_the_owner_of_a_scope_changes_its_rights_and_only_others_leave_it() {
    let scene = Scene::new();
    let Scene {
        alice,
        bob,
        carol,
        talk,
    } = &scene;
    let denied = |done: Result<_, SaveError>| match done {
        Err(SaveError::Denied(denied)) => denied.code(),
        other => panic!("{other:?}"),
    };
    let add = [(carol.identity, BOTH)];
    assert_eq!(denied(bob.set_rights("messages", *talk, &add)), "not_owner");
    assert_eq!(denied(alice.leave("messages", *talk)), "scope_owner_stays");
    for rights in [None, READ] {
        let change = [(alice.identity, rights)];
        let done = alice.set_rights("messages", *talk, &change);
        assert_eq!(denied(done), "scope_owner_stays");
    }
    scene.set(&[(carol.identity, Rights::from_bits(2))]);
    scene.sync();
    let done = carol.leave("messages", *talk);
    assert!(
        matches!(done, Err(SaveError::Missing(_))),
        "she cannot read it"
    );
    let many = (0..256u16).map(|number| {
        let mut bytes = [9; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        (Oid::from_bytes(bytes), READ)
    });
    let many: Vec<_> = many.collect();
    let done = alice.set_rights("messages", *talk, &many);
    assert!(matches!(done, Err(SaveError::Rights(_))), "{done:?}");
    let missing = alice.set_rights("messages", Oid::from_bytes([1; 16]), &add);
    assert!(matches!(missing, Err(SaveError::Missing(_))), "{missing:?}");
    // Rights lists and leaves have no other way in, and do not change.
    let list = alice.rows("rights_list");
    assert_eq!(list.len(), 2);
    let stored = alice.stored_objects();
    let (oid, _) = stored
        .iter()
        .find(|(oid, _)| {
            alice
                .parent("messages", **oid)
                .is_some_and(|it| it.type_number == RIGHTS_TYPE)
        })
        .unwrap();
    assert_eq!(
        denied(alice.change("messages", RIGHTS_TYPE, *oid, None)),
        "mode"
    );
    let made = alice.make("messages", LEAVE_TYPE, Attrs::new());
    assert!(matches!(made, Err(SaveError::UnknownType)), "{made:?}");
}

#[test]
fn scope_without_exported_objects_is_not_named() {
    let scene = Scene::new();
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    scene.set(&[(carol.identity, BOTH)]);
    bob.pull_everything(alice);
    carol.pull(bob, "messages");
    assert_eq!(carol.again_count(bob), 0);
    // Alice exports the scope, so that her package names it.
    carol.pull(alice, "messages");
    assert_eq!(carol.again_count(alice), 1);
    scene.sync();
    let said = scene.say(bob, "hello").unwrap();
    scene.sync();
    assert!(carol.parent("messages", said).is_some());
}

#[test]
fn list_in_force_follows_directly_after_its_scope() {
    let scene = Scene::new();
    let Scene {
        alice, carol, talk, ..
    } = &scene;
    for text in ["one", "two"] {
        scene.say(alice, text).unwrap();
    }
    let list = alice
        .set_rights("messages", *talk, &[(carol.identity, READ)])
        .unwrap();
    let request = PullRequest {
        again: Some(vec![*talk]),
        ..carol.request(alice, "messages")
    };
    let bytes = harness::pull::package_bytes(alice.answer(&request));
    let limits = carol.limits();
    let mut package = carol.verify(alice, &bytes).unwrap();
    let objects = package.take_objects();
    let oids: Vec<Oid> = objects
        .iter()
        .map(|object| {
            Object::from_bytes(object.bytes(), &limits.graph.object)
                .unwrap()
                .oid
        })
        .collect();
    assert_eq!(oids[..2], [*talk, list.oid]);
    assert_eq!((oids.len(), oids[4]), (5, list.oid), "it comes again last");
}

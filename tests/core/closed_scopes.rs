//! Scopes that a recovery closes, and opens exactly once when it has ended.

use harness::pull::meet;
use harness::rights::list_object;
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, conversation, message};
use keys::Oid;
use postern::object::Rights;
use postern::state_engine::RecoveryRequest;
use postern::store::{EpochReason, WriteMode};

/// Seeds of Bob's and of Dave's node.
const BOB: u64 = 71;
const DAVE: u64 = 72;

/// Alice recovers. Carol's and Dave's nodes were asked, Bob's was not.
struct Scene {
    alice: TestNode,
    bob: TestNode,
    carol: TestNode,
    dave: TestNode,
    /// A conversation of Alice, Bob, Carol and Dave. Carol and Dave are no peers.
    talk: Oid,
    /// A conversation of Alice and Carol.
    aside: Oid,
}

fn settle(node: &TestNode) {
    while node.write(|core, now| core.settle_step(now)).unwrap() {}
}

/// Notes that a node has returned all of Alice's objects. Returns whether the recovery ended.
fn note_asked(alice: &TestNode, asked: &TestNode) -> bool {
    let peer = asked.peer_id();
    let is_over = alice.write(move |core, now| core.note_reclaimed_from(now, &peer, &[]));
    settle(alice);
    is_over.unwrap()
}

fn reclaim(node: &TestNode, peer: &TestNode) {
    for domain in ["identities", "messages"] {
        let (domain, after) = (domain.to_owned(), None);
        let request = RecoveryRequest {
            peer: node.peer_id(),
            domain,
            after,
        };
        let batch = peer.read(move |view| view.recovery_batch(&request));
        let peer = peer.peer_id();
        let taken = node.write(move |core, now| core.reclaim(now, peer, batch.objects));
        assert_eq!(taken.unwrap().refused, 0);
    }
}

impl Scene {
    fn new() -> Self {
        let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 800));
        let bob = Setup::seeded("bob", BOB).node();
        let dave = Setup::seeded("dave", DAVE).node();
        for other in [&bob, &carol, &dave] {
            meet(&alice, other);
        }
        let members = [&alice, &bob, &carol, &dave].map(|it| it.identity);
        let talk = alice
            .make("messages", 1, conversation(&members))
            .unwrap()
            .oid;
        alice.make("messages", 2, message(talk, "one")).unwrap();
        let two = conversation(&[alice.identity, carol.identity]);
        let aside = alice.make("messages", 1, two).unwrap().oid;
        for other in [&carol, &dave] {
            other.pull_everything(&alice);
        }
        let recovered = alice.write(|core, now| core.start_recovery(EpochReason::Restored, now));
        recovered.unwrap();
        let alice = alice.restart();
        for asked in [&carol, &dave] {
            assert!(!note_asked(&alice, asked));
        }
        assert_eq!(alice.write_mode(), WriteMode::NewObjectsOnly);
        Self {
            alice,
            bob,
            carol,
            dave,
            talk,
            aside,
        }
    }

    fn say(&self, text: &str) {
        let message = message(self.talk, text);
        self.alice.make("messages", 2, message).unwrap();
    }

    /// The texts of the conversation at Carol's node, after a pull. Then a message of another
    /// conversation moves her cursor.
    fn texts(&self) -> Vec<String> {
        self.carol.pull_everything(&self.alice);
        let message = message(self.aside, "aside");
        self.alice.make("messages", 2, message).unwrap();
        self.carol.pull_everything(&self.alice);
        let texts = self.carol.texts().into_iter().map(|(_, text)| text);
        let mut texts: Vec<_> = texts.filter(|text| text != "aside").collect();
        texts.sort();
        texts
    }

    /// Bob's identity moves to a node with this seed, as Alice learns from that node.
    fn move_bob(&self, to: &TestNode, seed: u64) {
        let record = self.bob.stored_objects()[&self.bob.identity].clone();
        let moved = StolenKeys::of(BOB).claim_home(&record, seed, 2, record.rev + 1);
        to.force(&self.alice, "identities", vec![moved]).unwrap();
        self.alice.confirm_home(self.bob.identity, to);
        assert_eq!(self.alice.home_of(self.bob.identity), Some(to.peer_id()));
    }

    /// The recovery ends, because Bob's node was asked.
    fn end(&self) {
        assert!(note_asked(&self.alice, &self.bob));
        assert_eq!(self.alice.write_mode(), WriteMode::ReadWrite);
        assert_eq!(self.alice.read(|view| view.rows.closed_scopes()).len(), 0);
    }
}

#[test]
fn scope_opens_when_the_last_node_was_asked() {
    let scene = Scene::new();
    scene.say("two");
    assert_eq!(scene.texts(), ["one"]);
    scene.end();
    assert_eq!(scene.texts(), ["one", "two"]);
}

#[test]
fn messages_of_other_members_come_when_the_scope_opens() {
    let scene = Scene::new();
    let Scene {
        alice, carol, dave, ..
    } = &scene;
    let said = dave.make("messages", 2, message(scene.talk, "of Dave"));
    let said = said.unwrap().oid;
    alice.relay(dave, "messages");
    alice
        .make("messages", 2, message(scene.aside, "aside"))
        .unwrap();
    let got = carol.relay(alice, "messages");
    assert!(!got.fetched.contains(&said), "the scope is closed");
    scene.end();
    let got = carol.relay(alice, "messages");
    assert!(got.fetched.contains(&said), "{got:?}");
}

#[test]
fn scope_opens_also_if_the_identity_that_closed_it_moved() {
    let scene = Scene::new();
    scene.say("two");
    assert_eq!(scene.texts(), ["one"]);
    scene.move_bob(&scene.dave, DAVE);
    assert_eq!(
        scene.texts(),
        ["one"],
        "Bob's first node may hold a later list"
    );
    scene.end();
    assert_eq!(scene.texts(), ["one", "two"]);
    scene.say("three");
    assert_eq!(scene.texts(), ["one", "three", "two"]);
}

#[test]
fn member_that_a_returned_list_adds_closes_the_scope() {
    let scene = Scene::new();
    let Scene { alice, bob, .. } = &scene;
    // A conversation of Alice and Carol, to which a list adds Bob, whose node was not asked.
    let others = [bob, &scene.carol].map(|it| (it.identity, Rights::READ_WRITE));
    let list = list_object("messages", 9, scene.aside, 1, (alice.identity, &others));
    scene.carol.pull_everything(alice);
    let (peer, signed) = (scene.carol.peer_id(), alice.sign(&list));
    let taken = alice.write(move |core, now| core.reclaim(now, peer, vec![signed]));
    assert_eq!(taken.unwrap().written, 1);
    settle(alice);
    alice
        .make("messages", 2, message(scene.aside, "closed"))
        .unwrap();
    scene.carol.pull_everything(alice);
    let has = || scene.carol.texts().iter().any(|(_, text)| text == "closed");
    assert!(!has(), "Bob's node may hold a list that removes Carol");
    scene.end();
    scene.carol.pull_everything(alice);
    assert!(has());
}

#[test]
fn home_that_was_not_asked_closes_the_scopes_of_an_identity_that_moves_to_it() {
    let scene = Scene::new();
    let Scene { alice, carol, .. } = &scene;
    // A conversation of Alice, Carol and Dave, whose nodes were asked.
    let three = conversation(&[alice.identity, carol.identity, scene.dave.identity]);
    let talk = alice.make("messages", 1, three).unwrap().oid;
    carol.pull_everything(alice);
    let record = scene.dave.stored_objects()[&scene.dave.identity].clone();
    let moved = StolenKeys::of(DAVE).claim_home(&record, BOB, 2, record.rev + 1);
    scene.bob.force(alice, "identities", vec![moved]).unwrap();
    alice.confirm_home(scene.dave.identity, &scene.bob);
    alice.make("messages", 2, message(talk, "closed")).unwrap();
    assert!(!scene.texts().contains(&"closed".to_owned()));
    scene.end();
    assert!(scene.texts().contains(&"closed".to_owned()));
}

#[test]
fn removed_member_gets_the_list_that_removed_it_after_a_recovery() {
    for pulls_meanwhile in [false, true] {
        let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
        let carol = TestNode::new("carol", 800);
        for (one, other) in [(&alice, &bob), (&alice, &carol), (&bob, &carol)] {
            meet(one, other);
        }
        let three = conversation(&[alice.identity, bob.identity, carol.identity]);
        let talk = alice.make("messages", 1, three).unwrap().oid;
        let two = conversation(&[alice.identity, carol.identity]);
        let aside = alice.make("messages", 1, two).unwrap().oid;
        for to in [&bob, &carol] {
            to.pull_everything(&alice);
        }
        let copy = tempfile::tempdir().unwrap();
        let copy = copy.path().join("copy.db");
        postern::store::snapshot(&alice.database(), &copy).unwrap();
        // Bob alone receives the list that removes Carol.
        let removed = alice.set_rights("messages", talk, &[(carol.identity, None)]);
        let closing = removed.unwrap().oid;
        bob.pull_everything(&alice);
        let again = alice.into_setup().elsewhere();
        let again = again.new_epoch(EpochReason::Restored);
        std::fs::rename(&copy, again.database()).unwrap();
        let alice = again.node();
        reclaim(&alice, &carol);
        note_asked(&alice, &carol);
        carol.pull_everything(&alice);
        reclaim(&alice, &bob);
        assert_eq!(
            alice.readers("messages", talk).len(),
            2,
            "Carol was removed"
        );
        // The change of the readers wakes Carol's pull.
        if pulls_meanwhile {
            carol.pull_everything(&alice);
        }
        assert!(note_asked(&alice, &bob));
        carol.pull_everything(&alice);
        // A message of another conversation moves Carol's cursor.
        alice.make("messages", 2, message(aside, "later")).unwrap();
        carol.pull_everything(&alice);
        assert!(
            carol.parent("messages", closing).is_some(),
            "the closing list; pulls meanwhile: {pulls_meanwhile}"
        );
    }
}

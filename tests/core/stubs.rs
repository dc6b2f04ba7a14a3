//! Stubs: members of a scope get its objects from nodes that did not make them, each once
//! (docs/DECISIONS.md 10).

use harness::forge::stub_of;
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message};
use keys::{Oid, Signature, SignedObject};
use postern::object::{Attrs, Value};
use postern::state_engine::{CoreLimits, Stub};
use postern::store::{Direction, PeerRow};
use rusqlite::Connection;

use crate::club::{NOTE, ROOM, Versions, room, words};
use crate::rights::BOTH;
use crate::thieves::rotate;

pub(crate) const MESSAGES: &str = "messages";

/// Alice and Bob are peers, and so are Bob and Carol. Dave is a peer of Bob and no member.
pub(crate) struct Chain {
    pub(crate) alice: TestNode,
    pub(crate) bob: TestNode,
    pub(crate) carol: TestNode,
    pub(crate) dave: TestNode,
    pub(crate) talk: Oid,
}

impl Chain {
    /// Bob knows all; he founds a conversation with Alice and Carol.
    pub(crate) fn new() -> Self {
        Self::with(CoreLimits::default())
    }

    /// The same, with other limits of Carol's node.
    pub(crate) fn with(limits: CoreLimits) -> Self {
        let [alice, bob, dave] = [("alice", 0), ("bob", 300), ("dave", 900)]
            .map(|(name, id_offset)| TestNode::new(name, id_offset));
        let carol = Setup::new("carol").id_offset(600).limits(limits).node();
        meet(&alice, &bob);
        meet(&bob, &carol);
        meet(&bob, &dave);
        let people = [bob.identity, alice.identity, carol.identity];
        let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
        alice.relay(&bob, MESSAGES);
        Self {
            alice,
            bob,
            carol,
            dave,
            talk,
        }
    }

    /// A message of a member.
    pub(crate) fn say(&self, member: &TestNode, body: &str) -> Oid {
        let said = member.make(MESSAGES, 2, message(self.talk, body));
        said.unwrap().oid
    }
}

pub(crate) fn has(node: &TestNode, oid: Oid) -> bool {
    node.parent(MESSAGES, oid).is_some()
}

#[test]
fn message_reaches_a_member_that_never_meets_its_author() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    let got = carol.relay(bob, MESSAGES);
    assert!(got.fetched.contains(&said), "{got:?}");
    assert_eq!(
        got.records, 2,
        "those of both owners, because the place is new"
    );
    assert_eq!(got.applied.rejected + got.applied.waiting, 0);
    assert_eq!(carol.texts(), [(alice.identity, "hello".to_owned())]);
    assert_eq!(carol.home_of(alice.identity), Some(alice.peer_id()));
}

#[test]
fn nothing_comes_twice_when_the_author_is_met_later() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    meet(alice, carol);
    let got = carol.relay(alice, MESSAGES);
    assert!(got.stubs.iter().any(|stub| stub.oid == said));
    assert_eq!((got.whole, got.fetched.len()), (0, 0), "{got:?}");
    let cursor = carol.cursor(alice, MESSAGES, Direction::In);
    assert_eq!(cursor.unwrap().last_seq, alice.head());
}

#[test]
fn object_that_was_written_during_the_session_comes_whole_from_its_author() {
    let chain = Chain::new();
    let Chain { alice, bob, .. } = &chain;
    bob.relay(alice, MESSAGES);
    let start_seq = alice.head();
    chain.say(alice, "live");
    let got = bob.relay_since(alice, MESSAGES, start_seq);
    assert_eq!((got.whole, got.fetched.len()), (1, 0), "{got:?}");
}

#[test]
fn objects_of_a_conversation_of_two_come_whole() {
    let chain = Chain::new();
    let Chain { alice, bob, .. } = &chain;
    alice.send(bob.identity, "between us");
    let got = bob.relay(alice, MESSAGES);
    let is_of_three = |stub: &Stub| stub.place == chain.talk;
    assert_eq!(got.whole, 2, "{got:?}");
    assert!(got.stubs.iter().all(is_of_three), "{got:?}");
}

#[test]
fn session_without_the_feature_gets_only_what_was_made_there() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.pull_everything(bob);
    assert!(has(carol, chain.talk) && !has(carol, said));
}

#[test]
fn node_without_a_reader_fetches_neither_objects_nor_records() {
    let chain = Chain::new();
    let Chain {
        alice, bob, dave, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    let got = dave.relay(bob, MESSAGES);
    assert_eq!((got.whole, got.stubs.len()), (0, 0));
    for records in [false, true] {
        let fetched = bob.fetched_by(dave, MESSAGES, &[said, chain.talk], records);
        assert_eq!((fetched.objects.len(), fetched.looked_up), (0, 2));
    }
    let unknown = bob.fetched_by(dave, MESSAGES, &[Oid::from_bytes([9; 16])], false);
    assert_eq!((unknown.objects.len(), unknown.looked_up), (0, 1));
}

/// Three nodes with the club, which all meet, and a room of all three that Bob's identity founds.
fn room_of_three(versions: &Versions) -> ([TestNode; 3], Oid) {
    let nodes = [("bob", 0), ("erin", 300), ("frank", 600)]
        .map(|(name, offset)| versions.setup(name, 1).id_offset(offset).node());
    let [bob, erin, frank] = &nodes;
    meet(bob, erin);
    meet(bob, frank);
    meet(erin, frank);
    let members = nodes.each_ref().map(|node| node.identity);
    let made = bob.make("club", ROOM, room(&members)).unwrap().oid;
    (nodes, made)
}

#[test]
fn deletion_of_a_scope_reaches_a_member_through_another() {
    let versions = Versions::new();
    let ([bob, erin, frank], made) = room_of_three(&versions);
    erin.relay(&bob, "club");
    frank.relay(&erin, "club");
    assert!(!frank.parent("club", made).unwrap().deleted);
    bob.change("club", ROOM, made, None).unwrap();
    erin.relay(&bob, "club");
    frank.relay(&erin, "club");
    assert!(frank.parent("club", made).unwrap().deleted);
}

#[test]
fn change_replaces_the_stored_revision_through_another_node() {
    let versions = Versions::new();
    let ([bob, erin, frank], made) = room_of_three(&versions);
    let text = |text: &str| Attrs::from([(1, vec![Value::from(&made)]), (2, words(text))]);
    let note = bob.make("club", NOTE, text("one")).unwrap().oid;
    erin.relay(&bob, "club");
    frank.relay(&erin, "club");
    bob.change("club", NOTE, note, Some(text("two"))).unwrap();
    erin.relay(&bob, "club");
    let got = frank.relay(&erin, "club");
    assert_eq!(got.fetched, [note]);
    let stored = frank.object("club", note).unwrap().0;
    assert_eq!(stored.attrs.unwrap()[&2], words("two"));
    let late = frank.relay(&bob, "club");
    assert_eq!((late.whole, late.fetched.len()), (0, 0), "{late:?}");
}

#[test]
fn rotation_reaches_a_member_through_another_with_the_later_record() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    rotate(alice, alice.identity);
    bob.pull_everything(alice);
    bob.relay(alice, MESSAGES);
    let got = carol.relay(bob, MESSAGES);
    assert_eq!((got.records, got.applied.rejected), (1, 0), "{got:?}");
    assert_eq!(
        carol.public_key_of(alice.identity),
        bob.public_key_of(alice.identity)
    );
    assert_eq!(carol.texts(), [(alice.identity, "hello".to_owned())]);
}

/// Otherwise a peer could find out which identities live here, are banned or are known.
#[test]
fn stub_in_a_place_that_its_sender_does_not_read_is_always_fetched() {
    let chain = Chain::new();
    let Chain {
        alice, bob, dave, ..
    } = &chain;
    let unknown = Oid::from_bytes([9; 16]);
    let oid = chain.say(bob, "hello");
    for place in [unknown, chain.talk] {
        for owner in [bob.identity, alice.identity, unknown] {
            let (stubs, dave) = (stub_of(place, owner, oid), dave.peer_id());
            let now = bob.clock.timestamp();
            let lacking = bob.read(move |view| view.lacking(&dave, MESSAGES, &stubs, now));
            assert_eq!(
                (&*lacking.objects, &*lacking.owners),
                (&[oid][..], &[oid][..])
            );
            assert!(lacking.homes.is_empty(), "nothing to wait for");
        }
    }
}

#[test]
fn former_reader_gets_the_list_that_removed_it_and_no_records() {
    let chain = Chain::new();
    let Chain { bob, carol, .. } = &chain;
    carol.relay(bob, MESSAGES);
    let removed = [(carol.identity, None)];
    let list = bob.set_rights(MESSAGES, chain.talk, &removed).unwrap().oid;
    let fetched = |records| bob.fetched_by(carol, MESSAGES, &[list], records);
    assert_eq!(fetched(false).objects.len(), 1);
    assert_eq!(fetched(true).objects, []);
}

#[test]
fn push_ends_before_a_received_object() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    carol.relay(bob, MESSAGES);
    let own = chain.say(bob, "first");
    chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    let later = chain.say(bob, "last");
    let window = |acked| bob.push_relayed(carol, MESSAGES, acked);
    let before = bob.parent(MESSAGES, own).unwrap().change_seq;
    let (pushed, to_seq) = window(before - 1).unwrap();
    assert_eq!(pushed, 1);
    assert!(to_seq >= before && to_seq < bob.parent(MESSAGES, later).unwrap().change_seq);
    assert_eq!(window(to_seq), None, "the peer pulls what follows");
}

#[test]
fn cursors_start_again_when_the_feature_enters_the_sessions() {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    carol.pull_everything(bob);
    let save = |relays| {
        let peer = bob.peer_id();
        carol.graph(move |graph| {
            let row = graph.tx().peer(&peer).unwrap().unwrap();
            graph.save_peer(&PeerRow { relays, ..row })
        })
    };
    save(true).unwrap();
    assert!(carol.relay(bob, MESSAGES).fetched.contains(&said));
    let cursor = || {
        carol
            .cursor(bob, MESSAGES, Direction::In)
            .map(|it| it.last_seq)
    };
    let at = cursor();
    save(true).unwrap();
    assert_eq!(cursor(), at, "the feature was there before");
    save(false).unwrap();
    assert_eq!(cursor(), at, "the cursor passed more than is sent now");
}

/// Starts a node whose received objects have no bits, as an earlier version stored them. `also` is
/// further SQL.
fn without_bits(node: TestNode, also: &str) -> TestNode {
    let (database, setup) = (node.database(), node.into_setup());
    let sql = "UPDATE app_messages_parent SET sync_flags = 0 WHERE origin IS NOT NULL;";
    let connection = Connection::open(database).unwrap();
    connection.execute_batch(&format!("{sql}{also}")).unwrap();
    setup.node()
}

#[test]
fn received_objects_of_an_earlier_version_are_sent_on_after_an_upgrade() {
    let chain = Chain::new();
    let said = chain.say(&chain.alice, "hello");
    chain.bob.relay(&chain.alice, MESSAGES);
    let before = chain.bob.parent(MESSAGES, said).unwrap().change_seq;
    let bob = without_bits(
        chain.bob,
        "INSERT INTO settling (needs_kind, needs, after_id, until_id)
           SELECT 68, unhex(printf('%016x%02x', app.id, domain_bit.bit)), 0, 1000000
           FROM app, domain_bit WHERE app.slug = 'messages' AND domain = 'messages';",
    );
    bob.make(MESSAGES, 2, message(chain.talk, "later")).unwrap();
    bob.settle();
    let got = chain.carol.relay(&bob, MESSAGES);
    assert!(got.fetched.contains(&said), "{got:?}");
    assert_eq!(bob.parent(MESSAGES, said).unwrap().change_seq, before);
}

/// The later signature has a number above those whose bits are still to be set.
#[test]
fn object_without_bits_gets_them_with_its_later_signature() {
    let chain = Chain::new();
    let said = chain.say(&chain.alice, "hello");
    chain.bob.relay(&chain.alice, MESSAGES);
    let bob = without_bits(chain.bob, "");
    rotate(&chain.alice, chain.alice.identity);
    bob.pull_everything(&chain.alice);
    bob.relay(&chain.alice, MESSAGES);
    let got = chain.carol.relay(&bob, MESSAGES);
    assert!(got.fetched.contains(&said), "{got:?}");
}

#[test]
fn restart_finds_the_received_rows_of_scopes_again() {
    let chain = Chain::new();
    let said = chain.say(&chain.alice, "hello");
    chain.bob.relay(&chain.alice, MESSAGES);
    let bob = chain.bob.restart();
    let got = chain.carol.relay(&bob, MESSAGES);
    assert!(got.fetched.contains(&said));
}

#[test]
fn fetch_of_more_than_a_package_is_answered_in_turns() {
    let chain = Chain::new();
    let Chain { alice, bob, .. } = &chain;
    let small = CoreLimits {
        package: postern::state_engine::PackageLimits {
            bytes_max: 4000,
            ..Default::default()
        },
        ..Default::default()
    };
    let carol = Setup::new("small").limits(small).node();
    meet(&carol, bob);
    let people = [carol.identity, alice.identity, bob.identity];
    let talk = carol.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let long = "x".repeat(900);
    let said: Vec<Oid> = (0..6)
        .map(|_| carol.make(MESSAGES, 2, message(talk, &long)).unwrap().oid)
        .collect();
    let fetched = carol.fetched_by(bob, MESSAGES, &said, false);
    assert!((1..6).contains(&fetched.looked_up), "{fetched:?}");
    assert_eq!(fetched.objects.len(), fetched.looked_up);
    let got = bob.relay(&carol, MESSAGES);
    assert_eq!(got.fetched.len(), 7, "{got:?}");
}

#[test]
fn former_member_gets_no_later_list_from_a_member_that_lacks_the_removal() {
    let chain = Chain::new();
    let Chain {
        alice,
        bob,
        carol,
        dave,
        talk,
    } = &chain;
    carol.relay(bob, MESSAGES);
    meet(carol, dave);
    let change = |member: &TestNode, rights| {
        let changed = bob.set_rights(MESSAGES, *talk, &[(member.identity, rights)]);
        changed.unwrap().oid
    };
    let removal = change(carol, None);
    let later = change(dave, BOTH);
    dave.relay(bob, MESSAGES);
    assert!(has(dave, removal) && has(dave, later));
    carol.relay(dave, MESSAGES);
    assert!(!has(carol, later), "names members that joined later");
    alice.relay(bob, MESSAGES);
    meet(carol, alice);
    carol.relay(alice, MESSAGES);
    assert!(has(carol, removal) && !has(carol, later));
}

#[test]
fn waiting_object_that_no_key_verified_does_not_replace_the_one_of_a_stub() {
    let chain = Chain::new();
    let Chain {
        alice,
        bob,
        carol,
        dave,
        ..
    } = &chain;
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    meet(carol, dave);
    let (_, genuine) = alice.object(MESSAGES, said).unwrap();
    let mut signature = *genuine.signature().as_bytes();
    signature[40] ^= 1;
    let signature = Signature::from_bytes(signature);
    let forged = SignedObject::from_parts(0, genuine.bytes().to_vec(), signature);
    assert_eq!(
        dave.force(carol, MESSAGES, vec![forged]).unwrap().waiting,
        1
    );
    let got = carol.relay(bob, MESSAGES);
    assert!(got.fetched.contains(&said), "{got:?}");
    assert_eq!(carol.texts(), [(alice.identity, "hello".to_owned())]);
}

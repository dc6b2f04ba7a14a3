//! Moves of identities between nodes, as other nodes judge them: which home counts, and when.

use keys::{Genesis, HomeRecord, KeyChain, Oid, OnionKey, PeerId, SecretKey, SignedObject, codec};
use postern::graph::ConfirmHomeError;
use postern::object::Value;
use postern::schema::identities::{CHAIN, HOME, PUBLIC_KEY};
use postern::services::identities::{self, IdentityError};
use postern::store::StoreError;

use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use harness::pull::meet;
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, ride};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Seeds of Bob's node, and of nodes to which his identity moves.
const BOB: u64 = 71;
const DAVE: u64 = 72;
const EVE: u64 = 73;

/// Alice's node knows Bob's identity, and the nodes of Dave and Eve.
struct Scene {
    alice: TestNode,
    bob: TestNode,
    dave: TestNode,
    eve: TestNode,
}

/// Bob's key of a number: the first two of his vault, and others that his chain commits to.
fn key(number: u32) -> SecretKey {
    let mut rng = ChaCha20Rng::seed_from_u64(BOB);
    drop(OnionKey::generate(&mut rng));
    // The keys of his node come first.
    let [_, _, first, second] = std::array::from_fn(|_| SecretKey::generate(&mut rng));
    match number {
        0 => first,
        1 => second,
        number => SecretKey::from_seed(&[u8::try_from(number).unwrap(); 32]),
    }
}

impl Scene {
    fn new() -> Self {
        let alice = TestNode::new("alice", 0);
        let bob = Setup::seeded("bob", BOB).id_offset(300).node();
        let dave = Setup::seeded("dave", DAVE).id_offset(600).node();
        let eve = Setup::seeded("eve", EVE).id_offset(900).node();
        for other in [&bob, &dave, &eve] {
            meet(&alice, other);
        }
        Self {
            alice,
            bob,
            dave,
            eve,
        }
    }

    fn identity(&self) -> Oid {
        self.bob.identity
    }

    /// Bob's record under a key, with a home.
    fn record(&self, key_id: u32, (home, counter): (u64, u64), rev: u64) -> SignedObject {
        record(&self.bob, key_id, (home, counter), rev)
    }

    /// A record that a node sends to Alice. Returns how many were written and refused.
    fn takes(&self, from: &TestNode, record: SignedObject) -> (usize, usize) {
        let applied = from.force(&self.alice, "identities", vec![record]).unwrap();
        (applied.written, applied.rejected)
    }

    fn home(&self) -> PeerId {
        self.alice.home_of(self.identity()).unwrap()
    }

    fn key_id(&self) -> u32 {
        let identity = self.identity();
        let known = self.alice.read(move |view| view.rows.identity(&identity));
        known.unwrap().key_id
    }

    fn is_frozen(&self) -> bool {
        let identity = self.identity();
        let known = self.alice.read(move |view| view.rows.identity(&identity));
        known.unwrap().frozen
    }

    fn pending(&self) -> Option<(PeerId, bool)> {
        let identity = self.identity();
        let pending = self
            .alice
            .read(move |view| view.rows.pending_home(&identity));
        pending.map(|pending| (pending.home, pending.is_due_later()))
    }

    fn confirm(&self, home: &TestNode) -> Result<(), IdentityError> {
        let (identity, home) = (self.identity(), home.peer_id());
        self.alice
            .graph(move |graph| identities::confirm_home(graph, identity, home))
    }
}

/// A record of Bob's identity after so many rotations.
fn record(bob: &TestNode, key_id: u32, (home, counter): (u64, u64), rev: u64) -> SignedObject {
    let stored = bob.stored_objects()[&bob.identity].clone();
    let mut object = StolenKeys::of(BOB).object(&stored);
    let mut chain = bob.keys.identity_chain(bob.identity).unwrap();
    for number in 1..=key_id {
        chain.rotate(&key(number), &key(number + 1).public());
    }
    let (signer, home) = (key(key_id), StolenKeys::of(home));
    let genesis = Genesis::new(home.node.public(), &home.node_next.public());
    let node = KeyChain::new(genesis);
    let home = HomeRecord::sign(object.oid, (key_id, &signer), node, &home.node, counter);
    let attrs = object.attrs.as_mut().unwrap();
    let bytes = |bytes: Vec<u8>| vec![Value::Bytes(bytes)];
    attrs.insert(PUBLIC_KEY, bytes(signer.public().as_bytes().to_vec()));
    attrs.insert(CHAIN, bytes(codec::encode(&chain)));
    attrs.insert(HOME, bytes(codec::encode(&home)));
    object.rev = rev;
    SignedObject::sign(key_id, &signer, object.to_bytes())
}

/// A write after which the node looks for due work.
fn tick(node: &TestNode) {
    node.graph(|_| Ok::<_, StoreError>(())).unwrap();
}

#[test]
fn later_key_moves_the_home_at_once() {
    let scene = Scene::new();
    let record = scene.record(1, (DAVE, 2), 2);
    assert_eq!(scene.takes(&scene.dave, record), (1, 0));
    assert_eq!((scene.home(), scene.key_id()), (scene.dave.peer_id(), 1));
    assert_eq!(scene.pending(), None);
    // Under an earlier key, nothing moves back.
    let old = scene.record(0, (BOB, 1 << 40), 1 << 40);
    assert_eq!(scene.takes(&scene.bob, old), (0, 0));
    assert_eq!(scene.home(), scene.dave.peer_id());
}

#[test]
fn second_move_of_a_day_waits_and_its_key_counts_at_once() {
    let scene = Scene::new();
    let (alice, identity) = (&scene.alice, scene.identity());
    scene.takes(&scene.dave, scene.record(1, (DAVE, 2), 2));
    alice.clock.advance_ms(DAY_MS / 2);
    let second = scene.record(2, (EVE, 3), 3);
    assert_eq!(scene.takes(&scene.eve, second), (1, 0));
    assert_eq!((scene.home(), scene.key_id()), (scene.dave.peer_id(), 2));
    assert_eq!(scene.pending(), Some((scene.eve.peer_id(), true)));
    // Another revision of the record changes nothing of that.
    let renamed = scene.record(2, (EVE, 3), 4);
    assert_eq!(scene.takes(&scene.eve, renamed), (1, 0));
    assert!(!scene.is_frozen());
    // Another home under this key waits for the next one.
    let stored = alice.object("identities", identity).unwrap();
    assert_eq!(stored.1.key_id(), 2);
    let third = scene.record(2, (BOB, 4), 5);
    assert_eq!(scene.takes(&scene.bob, third), (0, 0));
    alice.clock.advance_ms(DAY_MS / 2 - 1);
    tick(alice);
    assert_eq!(scene.home(), scene.dave.peer_id());
    let before = alice.head();
    alice.clock.advance_ms(1);
    tick(alice);
    assert_eq!(scene.home(), scene.eve.peer_id());
    // The home is told what its identity reads by the number of this write.
    let known = alice.read(move |view| view.rows.identity(&identity));
    let known = known.unwrap();
    assert!(known.home_since_seq > before && known.home_since_seq <= alice.head());
    // The third home was judged again: the key is the same, so that the operator decides.
    assert_eq!(scene.pending(), Some((scene.bob.peer_id(), false)));
}

#[test]
fn rotation_of_a_node_is_no_move() {
    let scene = Scene::new();
    scene.takes(&scene.dave, scene.record(1, (DAVE, 2), 2));
    let rotated = scene.record(2, (DAVE, 3), 3);
    assert_eq!(scene.takes(&scene.dave, rotated), (1, 0));
    assert_eq!((scene.home(), scene.key_id()), (scene.dave.peer_id(), 2));
    assert_eq!(scene.pending(), None);
}

#[test]
fn home_under_the_same_key_waits_for_the_operator() {
    let scene = Scene::new();
    let moved = scene.record(0, (DAVE, 2), 2);
    assert_eq!(scene.takes(&scene.dave, moved), (0, 0));
    assert_eq!(scene.home(), scene.bob.peer_id());
    assert_eq!(scene.pending(), Some((scene.dave.peer_id(), false)));
    // Meanwhile the known home serves.
    let offer = scene.bob.make("rides", 1, ride("Bern", 2)).unwrap().oid;
    scene.alice.pull_everything(&scene.bob);
    assert!(scene.alice.parent("rides", offer).is_some());
    let other = scene.confirm(&scene.eve).unwrap_err();
    assert!(matches!(
        other,
        IdentityError::Home(ConfirmHomeError::OtherHome)
    ));
    scene.confirm(&scene.dave).unwrap();
    assert_eq!(scene.home(), scene.dave.peer_id());
    assert_eq!(scene.pending(), None);
    let again = scene.confirm(&scene.dave).unwrap_err();
    assert!(matches!(
        again,
        IdentityError::Home(ConfirmHomeError::NoneWaits)
    ));
    assert_eq!(scene.alice.rejects(), Vec::<String>::new());
}

#[test]
fn record_of_another_home_than_the_sender_counts_under_a_later_key_only() {
    let scene = Scene::new();
    let claim = scene.record(0, (EVE, 2), 2);
    assert_eq!(scene.takes(&scene.dave, claim), (0, 1));
    assert_eq!(scene.pending(), None);
    assert_eq!((scene.home(), scene.key_id()), (scene.bob.peer_id(), 0));
    assert_eq!(scene.alice.rejects(), ["owner_not_at_sender"]);
    // Only the owner has the later key, so that any node may pass the record on.
    let moved = scene.record(1, (EVE, 2), 2);
    assert_eq!(scene.takes(&scene.dave, moved), (1, 0));
    assert_eq!((scene.home(), scene.key_id()), (scene.eve.peer_id(), 1));
}

#[test]
fn highest_home_waits_and_an_equal_one_freezes() {
    let scene = Scene::new();
    scene.takes(&scene.dave, scene.record(0, (DAVE, 2), 2));
    scene.takes(&scene.eve, scene.record(0, (EVE, 3), 3));
    assert_eq!(scene.pending(), Some((scene.eve.peer_id(), false)));
    scene.takes(&scene.dave, scene.record(0, (DAVE, 2), 4));
    assert_eq!(scene.pending(), Some((scene.eve.peer_id(), false)));
    assert!(!scene.is_frozen());
    let equal = scene.record(0, (DAVE, 3), 5);
    assert_eq!(scene.takes(&scene.dave, equal), (0, 1));
    assert!(scene.is_frozen());
    // The operator knows which one is right.
    scene.confirm(&scene.eve).unwrap();
    assert!(!scene.is_frozen());
    assert_eq!(scene.home(), scene.eve.peer_id());
}

#[test]
fn later_key_ends_what_waits_for_the_operator() {
    let scene = Scene::new();
    scene.takes(&scene.eve, scene.record(0, (EVE, 1 << 40), 2));
    assert!(scene.pending().is_some());
    scene.takes(&scene.dave, scene.record(1, (DAVE, 2), 3));
    assert_eq!(scene.pending(), None);
    assert_eq!(scene.home(), scene.dave.peer_id());
}

#[test]
fn home_that_was_never_met_is_replaced_under_the_same_key() {
    let (alice, carol) = (TestNode::new("alice", 0), TestNode::new("carol", 100));
    let bob = Setup::seeded("bob", BOB).id_offset(300).node();
    meet(&alice, &carol);
    // A thief's record comes first, by a relay.
    let thiefs = record(&bob, 0, (EVE, 2), 2);
    alice.take_records(&carol, vec![thiefs]);
    assert_ne!(alice.home_of(bob.identity), Some(bob.peer_id()));
    let own = record(&bob, 0, (BOB, 3), 3);
    // No relay moves the home under one key.
    alice.take_records(&carol, vec![own.clone()]);
    assert_ne!(alice.home_of(bob.identity), Some(bob.peer_id()));
    meet(&alice, &bob);
    bob.force(&alice, "identities", vec![own]).unwrap();
    assert_eq!(alice.home_of(bob.identity), Some(bob.peer_id()));
    let identity = bob.identity;
    let known = alice.read(move |view| view.rows.identity(&identity));
    assert_eq!(known.unwrap().home_moved_at.0, 0, "it did not move");
    // Now the node was met.
    let dave = Setup::seeded("dave", DAVE).id_offset(600).node();
    meet(&alice, &dave);
    let claim = record(&bob, 0, (DAVE, 9), 9);
    dave.force(&alice, "identities", vec![claim]).unwrap();
    assert_eq!(alice.home_of(bob.identity), Some(bob.peer_id()));
}

#[test]
fn records_for_the_operator_are_bounded_for_each_node() {
    let alice = TestNode::new("alice", 0);
    let dave = Setup::seeded("dave", DAVE).id_offset(600).node();
    meet(&alice, &dave);
    let people: Vec<_> = (0..70)
        .map(|number| Setup::seeded("bob", 1000 + number).id_offset(2000).node())
        .collect();
    for (number, person) in (1000..).zip(&people) {
        meet(&alice, person);
        let stored = person.stored_objects()[&person.identity].clone();
        let claim = StolenKeys::of(number).claim_home(&stored, DAVE, 2, 2);
        dave.force(&alice, "identities", vec![claim]).unwrap();
    }
    assert_eq!(alice.rows("pending_home").len(), 64);
    assert_eq!(alice.rejects().len(), 6);
}

#[test]
fn confirmed_record_counts_for_its_sender_and_frees_the_former_one() {
    let scene = Scene::new();
    let stored = |node: &TestNode| {
        let peer = node.peer_id();
        let stored = scene.alice.read(move |view| view.rows.stored_by(&peer));
        stored.unwrap().usage.objects
    };
    let before = [stored(&scene.bob), stored(&scene.dave)];
    scene.takes(&scene.dave, scene.record(0, (DAVE, 2), 2));
    assert_eq!([stored(&scene.bob), stored(&scene.dave)], before);
    scene.confirm(&scene.dave).unwrap();
    assert_eq!(stored(&scene.bob), before[0] - 1);
    assert_eq!(stored(&scene.dave), before[1] + 1);
}

//! Waiting objects: each is tried once its cause has occurred, in portions, across restarts.

use bastion::Features;
use harness::forge::{object, oid, salted, tombstone};
use harness::pull::meet;
use harness::{Setup, TestNode, conversation, message, ride};
use keys::{Oid, SecretKey, SignedObject};
use postern::object::{Attrs, Object, Value};
use postern::op_context::Timestamp;
use postern::services::identities;
use postern::state_engine::CoreLimits;
use postern::store::{StoreError, Usage};

use crate::remote_writes::Scene;
use crate::thieves::rotate;

fn salt(number: u32) -> [u8; 8] {
    u64::from(number).to_be_bytes()
}

/// A conversation of the sender with others.
pub(super) fn talk(sender: &TestNode, others: &[Oid]) -> Object {
    let people = [&[sender.identity], others].concat();
    let attrs = Some(conversation(&people));
    object("messages", 1, 7, sender.identity, 1, attrs)
}

/// A message of the sender in a conversation.
pub(super) fn line(sender: &TestNode, talk: &Object, number: u32) -> Object {
    let attrs = Some(message(talk.oid, &format!("message {number}")));
    salted(("messages", 2), salt(number), sender.identity, 1, attrs)
}

/// Messages of the sender in a conversation that the receiver does not have yet.
pub(super) fn early(sender: &TestNode, talk: &Object, count: u32) -> Vec<SignedObject> {
    let lines = (0..count).map(|number| line(sender, talk, number));
    lines.map(|line| sender.sign(&line)).collect()
}

fn set_frozen(node: &TestNode, identity: Oid) {
    node.graph(move |graph| graph.tx().set_frozen(&identity, true))
        .unwrap();
}

#[test]
fn object_of_a_frozen_owner_comes_after_the_unfreezing() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    set_frozen(&scene.alice, mallory);
    let ride = scene.ride(1, 1, "Bern");
    assert_eq!(scene.refused(&ride), None);
    assert_eq!(scene.alice.parent("rides", ride.oid), None);
    scene
        .alice
        .graph(move |graph| graph.unfreeze(&mallory))
        .unwrap();
    assert!(scene.alice.parent("rides", ride.oid).is_some());
    assert_eq!(scene.alice.rows("waiting").len(), 0);
}

#[test]
fn object_that_is_frozen_again_waits_again_and_is_tried_again() {
    let scene = Scene::new();
    let mallory = scene.mallory.identity;
    set_frozen(&scene.alice, mallory);
    let ride = scene.ride(1, 1, "Bern");
    scene.refused(&ride);
    // Frozen again before the waiting object is tried.
    scene
        .alice
        .graph(move |graph| {
            graph.unfreeze(&mallory)?;
            graph.tx().set_frozen(&mallory, true)
        })
        .unwrap();
    assert_eq!(scene.alice.rows("waiting").len(), 1);
    scene
        .alice
        .graph(move |graph| graph.unfreeze(&mallory))
        .unwrap();
    assert!(scene.alice.parent("rides", ride.oid).is_some());
}

#[test]
fn object_of_an_app_that_is_disabled_when_its_cause_occurs_is_pulled_again() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let id = bob.identity;
    set_frozen(&alice, id);
    let offer = bob.make("rides", 1, ride("Bern", 1)).unwrap().oid;
    alice.pull_all(&bob, "rides.offers");
    assert_eq!(alice.rows("waiting").len(), 1);
    let alice = alice.into_setup().apps(&["identities"]).node();
    alice.graph(move |graph| graph.unfreeze(&id)).unwrap();
    assert_eq!(alice.rows("waiting").len(), 0);
    assert!(alice.rejects().is_empty());
    let alice = alice.into_setup().apps(&harness::ALL_APPS).node();
    meet(&alice, &bob);
    alice.clock.advance_ms(24 * 60 * 60 * 1000);
    alice.pull_all(&bob, "rides.offers");
    assert!(alice.parent("rides", offer).is_some());
}

#[test]
fn rotation_ends_a_freeze_and_its_new_signatures_are_accepted() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let id = bob.identity;
    set_frozen(&alice, id);
    bob.make("rides", 1, ride("Bern", 1)).unwrap();
    alice.pull_everything(&bob);
    assert_eq!(
        alice.rows("waiting").len(),
        1,
        "the stored record is the same"
    );
    use rand::SeedableRng as _;
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
    bob.keys.rotate(id, &mut rng).unwrap();
    while bob
        .write(move |core, now| core.rotation_step(now, id))
        .unwrap()
    {}
    alice.pull_everything(&bob);
    assert_eq!(alice.rows("app_rides_parent").len(), 1);
    assert_eq!(alice.rows("waiting").len(), 0);
}

#[test]
fn later_key_ends_the_wait_for_an_earlier_one() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let id = bob.identity;
    rotate(&bob, id);
    let offer = object("rides", 1, 7, id, 1, Some(ride("Bern", 1)));
    let under_second_key = bob.sign(&offer);
    rotate(&bob, id);
    let code = bob.force_one(&alice, "rides.offers", under_second_key);
    assert_eq!(code, None);
    assert_eq!(alice.rows("waiting").len(), 1);
    alice.pull_all(&bob, "identities");
    assert_eq!(alice.rows("waiting").len(), 0);
}

#[test]
fn objects_that_no_key_verifies_have_a_small_allowance() {
    let scene = Scene::new();
    let (alice, mallory) = (&scene.alice, &scene.mallory);
    let later = |number| {
        let attrs = Some(ride("Bern", 1));
        let ride = salted(("rides", 1), salt(number), mallory.identity, 1, attrs);
        SignedObject::sign(1, &SecretKey::from_seed(&[5; 32]), ride.to_bytes())
    };
    let many = (0..1000).map(later).collect();
    let applied = mallory.force(alice, "rides.offers", many).unwrap();
    assert_eq!((applied.waiting, applied.rejected), (1000, 0));
    let waiting = alice.rows("waiting");
    assert_eq!(waiting.len(), 64);
    // Revisions of the identity under the known key are no cause for any of them.
    let id = mallory.identity;
    for _ in 0..10 {
        mallory
            .graph(move |graph| identities::rename(graph, id, Some("M")).map(|_| ()))
            .unwrap();
        let (record, _) = mallory.object("identities", id).unwrap();
        let record = mallory.sign(&record);
        assert_eq!(mallory.force_one(alice, "identities", record), None);
        assert_eq!(alice.rows("settling"), Vec::<String>::new());
    }
    assert_eq!(alice.rows("waiting"), waiting);
}

#[test]
fn key_number_beyond_every_chain_is_refused() {
    let scene = Scene::new();
    let ride = scene.ride(1, 1, "Bern").to_bytes();
    let signed = SignedObject::sign(33, &SecretKey::from_seed(&[5; 32]), ride);
    let code = scene
        .mallory
        .force_one(&scene.alice, "rides.offers", signed);
    assert_eq!(code.as_deref(), Some("key_number"));
}

#[test]
fn forged_object_does_not_wait() {
    let scene = Scene::new();
    let attrs = Some(message(oid(7), "x"));
    let forged = object("messages", 2, 8, scene.mallory.identity, 1, attrs);
    let forged = harness::forge::sign_with_unknown_key(&forged);
    let code = scene.mallory.force_one(&scene.alice, "messages", forged);
    assert_eq!(code.as_deref(), Some("bad_signature"));
    assert_eq!(scene.alice.rows("waiting").len(), 0);
}

/// Bob's conversation comes to Alice's node after its messages. Returns how many messages wait
/// after each portion.
fn left_after_portions(alice: &TestNode, bob: TestNode, body: &str, count: u32) -> Vec<usize> {
    let talk = talk(&bob, &[alice.identity]);
    let line = |number| {
        let attrs = Some(message(talk.oid, body));
        let object = salted(("messages", 2), salt(number), bob.identity, 1, attrs);
        bob.sign(&object)
    };
    bob.force(alice, "messages", (0..count).map(line).collect())
        .unwrap();
    let founding = bob.sign(&talk);
    let package = bob.package(alice, "messages", (2, 2), vec![founding]);
    let left = alice.write(move |core, now| {
        // The driver settles only after this closure.
        apply(core, now, &bob, package);
        let mut left = vec![waiting_rows(core)];
        while core.settle_step(now)? {
            left.push(waiting_rows(core));
        }
        Ok::<_, StoreError>(left)
    });
    left.unwrap()
}

#[test]
fn thousand_waiting_objects_are_settled_in_portions() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let left = left_after_portions(&alice, bob, "hello", 1000);
    assert!((17..=18).contains(&left.len()), "{left:?}");
    assert_eq!(left[..3], [1000, 936, 872]);
    assert_eq!(alice.texts().len(), 1000);
}

#[test]
fn portion_has_fewer_objects_if_they_are_long() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let left = left_after_portions(&alice, bob, &"x".repeat(10_000), 8);
    assert_eq!(left[..4], [8, 5, 2, 0]);
    assert_eq!(alice.texts().len(), 8);
}

#[test]
fn object_that_is_longer_than_a_portion_is_settled_alone() {
    const ALBUM: &str = r#"
slug = "album"
version = 1
[[type]]
number = 1
name = "album.page"
visibility = "public"
attr = [{ number = 1, name = "text", kind = "text", bytes_max = 60000 }]
[[domain]]
name = "album"
parent_types = ["album.page"]
mode = "allow_update"
"#;
    let node = |name, id_offset| {
        let setup = Setup::new(name).own_app("album", ALBUM);
        setup.id_offset(id_offset).node()
    };
    let (alice, bob) = (node("alice", 0), node("bob", 300));
    meet(&alice, &bob);
    let id = bob.identity;
    set_frozen(&alice, id);
    let text = Value::from("x".repeat(50_000).as_str());
    let page = bob
        .make("album", 1, Attrs::from([(1, vec![text])]))
        .unwrap();
    alice.pull_all(&bob, "album");
    assert_eq!(alice.rows("waiting").len(), 1);
    alice.graph(move |graph| graph.unfreeze(&id)).unwrap();
    assert!(alice.parent("album", page.oid).is_some());
}

fn waiting_rows(core: &postern::state_engine::StateEngine) -> usize {
    let rows = core.view().rows;
    let always = (Timestamp(0), Timestamp(u64::MAX >> 1));
    rows.waiting_since(always, 10_000).unwrap().len()
}

/// Applies a package of Bob on a core, without settling.
fn apply(
    core: &mut postern::state_engine::StateEngine,
    now: Timestamp,
    bob: &TestNode,
    package: postern::state_engine::Package,
) {
    let bytes = package.sign(&bob.keys, &Features::none());
    let limits = core.context().limits;
    let (key, local) = (bob.public_key(), core.view().this_node());
    let expected = postern::state_engine::Expected {
        sender: &bob.peer_id(),
        key: &key,
        recipient: &local,
        epoch: bob.epoch(),
        features: &Features::none(),
    };
    let verified =
        postern::state_engine::VerifiedPackage::verify(&bytes, &limits.package, &expected);
    let mut package = verified.unwrap();
    let objects = package.take_objects().into_iter();
    let decoded: Vec<_> = objects
        .map(|object| postern::graph::decode_object(object, &limits.graph))
        .collect();
    let owners: Vec<Oid> = decoded.iter().flatten().map(|it| it.owner()).collect();
    let known = postern::state_engine::known_keys(&core.view().rows, &owners).unwrap();
    let checked = postern::state_engine::check_objects(decoded, &known);
    core.apply_package(now, &package, checked).unwrap();
}

#[test]
fn settling_continues_after_a_restart() {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let talk = talk(&bob, &[alice.identity]);
    bob.force(&alice, "messages", early(&bob, &talk, 300))
        .unwrap();
    let founding = vec![bob.sign(&talk)];
    let package = bob.package(&alice, "messages", (2, 2), founding);
    let mut setup = alice.into_setup();
    let mut core = setup.open();
    let now = Timestamp(harness::START);
    apply(&mut core, now, &bob, package);
    assert!(core.settle_step(now).unwrap());
    drop(core);
    let alice = setup.node();
    assert_eq!(alice.texts().len(), 300);
    assert_eq!(alice.rows("settling"), Vec::<String>::new());
}

#[test]
fn waiting_object_is_pulled_again_after_thirty_days() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 300));
    meet(&alice, &bob);
    let talk = talk(&bob, &[alice.identity]);
    bob.force(&alice, "messages", early(&bob, &talk, 3))
        .unwrap();
    let expire = || alice.write(|core, now| core.expire_step(now)).unwrap();
    alice.clock.advance_ms(29 * DAY_MS);
    assert!(!expire());
    alice.clock.advance_ms(2 * DAY_MS);
    assert!(expire() && !expire());
    assert_eq!(alice.rows("waiting").len(), 0);
    assert_eq!(alice.next_again(&bob, "messages"), None);
    alice.clock.advance_ms(DAY_MS);
    assert!(alice.next_again(&bob, "messages").is_some());
}

#[test]
fn waiting_objects_are_bounded_for_each_peer() {
    let mut limits = CoreLimits::default();
    limits.aside.waiting_per_peer_max = 2;
    let alice = Setup::new("alice").limits(limits).node();
    let bob = TestNode::new("bob", 300);
    meet(&alice, &bob);
    let talk = talk(&bob, &[alice.identity]);
    let sent = |count| bob.force(&alice, "messages", early(&bob, &talk, count));
    let applied = sent(5).unwrap();
    assert_eq!((applied.waiting, applied.rejected), (5, 0));
    assert_eq!(alice.rows("waiting").len(), 2);
    assert_eq!(alice.rows("pull_again").len(), 1);
    sent(2).unwrap();
    assert_eq!(alice.rows("waiting").len(), 2, "the same objects wait once");
}

#[test]
fn object_whose_tombstone_came_while_it_waited_stays_deleted() {
    let scene = Scene::new();
    let (alice, mallory) = (&scene.alice, scene.mallory.identity);
    // Waits, because its owner is frozen.
    set_frozen(alice, mallory);
    let ride = scene.ride(1, 1, "Bern");
    assert_eq!(scene.refused(&ride), None);
    assert_eq!(scene.refused(&tombstone(&ride, 2)), None);
    alice.graph(move |graph| graph.unfreeze(&mallory)).unwrap();
    assert!(alice.parent("rides", ride.oid).unwrap().deleted);
    assert_eq!(alice.rows("waiting").len(), 0);
}

#[test]
fn tombstone_deletes_waiting_lower_versions_and_releases_their_quota() {
    let scene = Scene::new();
    let (alice, mallory) = (&scene.alice, &scene.mallory);
    let peer = mallory.peer_id();
    let counted = || {
        alice
            .read(move |view| view.rows.stored_by(&peer))
            .unwrap()
            .usage
    };
    let before = counted();
    let owner = mallory.identity;
    set_frozen(alice, owner);
    let first = scene.ride(1, 1, "Bern");
    let other = scene.ride(2, 1, "Bern");
    let higher_tombstone = tombstone(&first, 9);
    for version in [
        &first,
        &scene.ride(1, 3, "Basel"),
        &tombstone(&first, 2),
        &other,
    ] {
        assert_eq!(scene.refused(version), None);
    }
    assert_eq!(alice.rows("waiting").len(), 4);
    assert_eq!(scene.refused(&higher_tombstone), None);
    assert_eq!(alice.rows("waiting").len(), 5);
    // The tombstone of revision 5 is written while the others wait.
    let deletion = mallory.sign(&tombstone(&first, 5));
    alice
        .graph(move |graph| graph.tx().set_frozen(&owner, false))
        .unwrap();
    assert_eq!(mallory.force_one(alice, "rides.offers", deletion), None);
    let row = alice.parent("rides", first.oid).unwrap();
    assert_eq!((row.deleted, row.rev), (true, 5));
    let left = alice.rows("waiting");
    assert_eq!(left.len(), 2, "another object, and the later tombstone");
    let bytes = [&other, &higher_tombstone, &tombstone(&first, 5)].map(|it| it.to_bytes().len());
    let mut expected = before;
    bytes
        .into_iter()
        .for_each(|bytes| expected += Usage::one(bytes));
    assert_eq!(counted(), expected);
}

//! After a recovery scopes open and rotations are completed in portions, and no crash loses any.

use harness::pull::meet;
use harness::{START, Setup, TestNode, conversation};
use keys::Oid;
use postern::op_context::Timestamp;
use postern::state_engine::StateEngine;
use postern::store::EpochReason;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

const TALKS: usize = 200;

/// Alice recovers and waits for Bob, whose identity reads all her conversations. Her key was
/// rotated meanwhile.
fn recovering() -> (TestNode, TestNode, Vec<Oid>) {
    let (alice, bob) = (TestNode::new("alice", 0), TestNode::new("bob", 400));
    meet(&alice, &bob);
    let people = conversation(&[alice.identity, bob.identity]);
    let talk = |_| alice.make("messages", 1, people.clone()).unwrap().oid;
    let talks: Vec<Oid> = (0..TALKS).map(talk).collect();
    alice
        .write(|core, now| core.start_recovery(EpochReason::Restored, now))
        .unwrap();
    let alice = alice.restart();
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    alice.keys.rotate(alice.identity, &mut rng).unwrap();
    // Bob's cursor passes the closed scopes.
    bob.pull_all(&alice, "messages");
    assert_eq!(bob.parent("messages", talks[0]), None);
    (alice, bob, talks)
}

fn closed(core: &StateEngine) -> usize {
    core.view().rows.closed_scopes().unwrap().len()
}

/// How many of these objects Alice has signed with her second key.
fn signed_again(core: &StateEngine, talks: &[Oid]) -> usize {
    let rows = core.view().rows;
    let app = rows.apps().get("messages").unwrap();
    let parents = talks
        .iter()
        .map(|oid| rows.parent(app, oid).unwrap().unwrap());
    parents.filter(|parent| parent.key_id == 1).count()
}

/// Opens the database as a start does, and does `work` before anything is settled.
fn open(alice: TestNode, work: impl FnOnce(&mut StateEngine)) -> Setup {
    let mut setup = alice.into_setup();
    let mut core = setup.open();
    work(&mut core);
    setup
}

#[test]
fn scopes_open_in_portions_and_those_that_a_crash_left_closed_open_at_the_next_start() {
    let (alice, bob, talks) = recovering();
    let asked = bob.peer_id();
    let setup = open(alice, |core| {
        let now = Timestamp(START);
        assert!(core.note_reclaimed_from(now, &asked, &[]).unwrap());
        assert_eq!((closed(core), signed_again(core, &talks)), (TALKS, 0));
        assert!(core.view().recovery().unwrap().waits_for.is_empty());
        assert!(core.settle_step(now).unwrap());
        let left = closed(core);
        assert!(left > 0 && left < TALKS, "{left}");
    });
    let alice = setup.node();
    assert_eq!(alice.read(|view| view.rows.closed_scopes()).len(), 0);
    bob.pull_all(&alice, "identities");
    bob.pull_all(&alice, "messages");
    for talk in talks {
        assert!(
            bob.parent("messages", talk).is_some(),
            "{talk:?} never came"
        );
    }
}

#[test]
fn rotation_that_waited_for_the_end_of_a_recovery_is_completed_in_portions() {
    let (alice, _, talks) = recovering();
    open(alice, |core| {
        let now = Timestamp(START);
        assert!(core.end_recovery(now).unwrap());
        let mut before = 0;
        while core.settle_step(now).unwrap() {
            let signed = signed_again(core, &talks);
            assert!(
                signed - before <= TALKS * 3 / 4,
                "{before} and then {signed}"
            );
            before = signed;
        }
        assert_eq!((before, closed(core)), (TALKS, 0));
    });
}

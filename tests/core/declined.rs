//! Declined invitations: nothing of the scope is kept, and no node learns the decision
//! (docs/DECISIONS.md 10).

use harness::conversation;
use keys::Oid;
use postern::graph::{AcceptPolicy, IdentityProfile};
use postern::services::invitations::{self, InvitationError};
use postern::services::rights::{self, RightsError};
use postern::state_engine::{CoreLimits, PackageProgress};
use postern::store::InvitationState;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::consent::{Scene, invitations_at, shown, work};
use crate::parts::work_up_to;
use crate::rights::BOTH;
use crate::stubs::{MESSAGES, has};

#[test]
fn declined_conversation_takes_no_room_and_no_node_learns_it() {
    let scene = Scene::new(AcceptPolicy::Ask);
    let (carol, bob) = (&scene.carol, &scene.bob);
    let welcome = bob.inbox()[0].oid;
    let head = carol.head();
    assert_eq!(scene.decline().unwrap(), carol.identity);
    work(carol);
    assert_eq!(carol.head(), head, "no object was written");
    assert_eq!(carol.parent(MESSAGES, welcome).unwrap().rev, 0);
    let later = scene.say(bob, "later").unwrap();
    scene.sync();
    assert!(!has(carol, later));
    assert_eq!(carol.rejects(), [""; 0]);
    assert_eq!(invitations_at(carol, false), []);
    assert_eq!(invitations_at(carol, true).len(), 1);
    assert_eq!(
        (scene.carol_reads(), shown(carol)),
        (Vec::new(), Vec::new())
    );
    // Lists are kept, because the operator may accept later.
    bob.set_rights(MESSAGES, scene.talk, &[(scene.alice.identity, None)])
        .unwrap();
    scene.sync();
    assert_eq!(carol.list_in_force(MESSAGES, scene.talk).unwrap().0, 1);
    scene.accept().unwrap();
    scene.sync();
    assert_eq!(scene.carol_reads(), ["welcome", "later"]);
}

#[test]
fn declined_scope_stays_declined_when_its_owner_asks_again() {
    let scene = Scene::new(AcceptPolicy::Ask);
    scene.decline().unwrap();
    let carol = scene.carol.identity;
    for rights in [None, BOTH] {
        scene
            .bob
            .set_rights(MESSAGES, scene.talk, &[(carol, rights)])
            .unwrap();
        scene.sync();
    }
    assert_eq!(scene.state(), Some(InvitationState::Declined));
    assert_eq!(invitations_at(&scene.carol, false), []);
}

#[test]
fn only_a_hidden_invitation_can_be_declined() {
    let scene = Scene::new(AcceptPolicy::Ask);
    scene.accept().unwrap();
    let refused = scene.decline();
    assert!(
        matches!(refused, Err(InvitationError::TakesPart(who)) if who == scene.carol.identity),
        "{refused:?}"
    );
    let talk = scene.talk;
    let of_bob = scene
        .bob
        .graph(move |graph| invitations::decline(graph, MESSAGES, talk, None));
    assert!(
        matches!(of_bob, Err(InvitationError::NotInvited(oid)) if oid == talk),
        "{of_bob:?}"
    );
    let nowhere = Oid::from_bytes([7; 16]);
    let unknown = scene
        .carol
        .graph(move |graph| invitations::accept(graph, MESSAGES, nowhere, None));
    assert!(
        matches!(unknown, Err(InvitationError::NotInvited(oid)) if oid == nowhere),
        "{unknown:?}"
    );
}

/// The node fetches also what it stores. A stub of an own object would be skipped otherwise.
#[test]
fn fetching_does_not_show_whether_an_invitation_is_open_or_declined() {
    let scene = Scene::new(AcceptPolicy::Ask);
    let Scene {
        alice, bob, carol, ..
    } = &scene;
    let fetched = |text: &str| {
        let said = scene.say(alice, text).unwrap();
        carol.relay(alice, MESSAGES);
        bob.relay(alice, MESSAGES);
        carol.relay(bob, MESSAGES).fetched.contains(&said)
    };
    assert!(fetched("while it is open"));
    scene.decline().unwrap();
    assert!(fetched("while it is declined"));
    scene.accept().unwrap();
    assert!(!fetched("when the member takes part"));
}

#[test]
fn other_identity_of_the_node_that_takes_part_keeps_the_scope() {
    let scene = Scene::unfounded(AcceptPolicy::Ask);
    let (bob, carol) = (&scene.bob, &scene.carol);
    let other = carol.another("Cleo", 1);
    scene.sync();
    let people = [bob.identity, carol.identity, other];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let scene = Scene { talk, ..scene };
    scene.say(&scene.bob, "welcome").unwrap();
    scene.sync();
    let unclear = scene.accept();
    assert!(
        matches!(unclear, Err(InvitationError::Several(oid)) if oid == talk),
        "{unclear:?}"
    );
    let decide = |identity: Oid, accepts: bool| {
        scene.carol.graph(move |graph| match accepts {
            true => invitations::accept(graph, MESSAGES, talk, Some(identity)).map(drop),
            false => invitations::decline(graph, MESSAGES, talk, Some(identity)).map(drop),
        })
    };
    decide(other, true).unwrap();
    decide(scene.carol.identity, false).unwrap();
    work(&scene.carol);
    let me = scene.carol.identity;
    let left = scene
        .carol
        .graph(move |graph| rights::leave(graph, MESSAGES, talk, me));
    assert!(
        matches!(left, Err(RightsError::NotAccepted(who)) if who == me),
        "{left:?}"
    );
    let later = scene.say(&scene.bob, "later").unwrap();
    scene.sync();
    assert!(has(&scene.carol, later));
    assert_eq!(scene.carol_reads(), [""; 0], "her own inbox hides it");
    // Without the other one nothing is kept.
    let carol = &scene.carol;
    carol
        .graph(move |graph| rights::leave(graph, MESSAGES, talk, other))
        .unwrap();
    work(carol);
    assert_eq!(carol.parent(MESSAGES, later).unwrap().rev, 0);
}

/// A package whose first part was dropped moves the cursor after the scope was accepted. Bob sends
/// one object in a package, so that the scope is pulled again in several.
fn accepts_between_two_parts(has_cursor: bool) {
    let mut limits = CoreLimits {
        part_objects_max: 1,
        ..CoreLimits::default()
    };
    limits.graph.accept = AcceptPolicy::Ask;
    let mut of_one = CoreLimits::default();
    of_one.package.objects_max = 1;
    let scene = Scene::with_both(limits, of_one);
    scene.decline().unwrap();
    let (bob, carol) = (&scene.bob, &scene.carol);
    let oids = ["one", "two"].map(|text| scene.say(bob, text).unwrap());
    let signed = oids.map(|oid| bob.object(MESSAGES, oid).unwrap().1);
    if !has_cursor {
        let peer = bob.peer_id();
        carol
            .graph(move |graph| graph.tx().restart_all_in(&peer))
            .unwrap();
    }
    let work = work_up_to(bob.head(), MESSAGES, (carol, bob), signed.to_vec());
    let step = |work| carol.write(move |core, now| core.apply_part(now, work));
    let PackageProgress::More(rest) = step(work).unwrap() else {
        panic!("one part");
    };
    scene.accept().unwrap();
    let end = step(rest).unwrap();
    assert!(matches!(end, PackageProgress::Done(_)), "{end:?}");
    carol.pull_everything(bob);
    assert_eq!(scene.carol_reads(), ["welcome", "two", "one"]);
}

#[test]
fn scope_that_is_accepted_between_two_parts_of_a_package_is_complete() {
    accepts_between_two_parts(true);
}

#[test]
fn scope_that_is_accepted_between_two_parts_of_the_first_package_is_complete() {
    accepts_between_two_parts(false);
}

/// An identity that may read the scope moves to the node at which another one declined it.
#[test]
fn identity_that_moves_to_the_node_gets_what_was_dropped() {
    let scene = Scene::unfounded(AcceptPolicy::Ask);
    let dora = scene.alice.another("Dora", 7);
    scene.sync();
    let people = [scene.bob.identity, scene.carol.identity, dora];
    let talk = scene.bob.make(MESSAGES, 1, conversation(&people));
    let talk = talk.unwrap().oid;
    let scene = Scene { talk, ..scene };
    let said = scene.say(&scene.bob, "welcome").unwrap();
    scene.sync();
    scene.decline().unwrap();
    let (bob, carol) = (&scene.bob, &scene.carol);
    work(carol);
    assert_eq!(carol.parent(MESSAGES, said).unwrap().rev, 0);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    assert_eq!(carol.keys.add_identity(&mut rng).unwrap(), dora);
    carol.keys.rotate(dora, &mut rng).unwrap();
    let profile = IdentityProfile::named(Some("Dora"));
    carol
        .graph(move |graph| graph.save_profile(dora, &profile))
        .unwrap();
    assert_eq!(carol.home_of(dora), Some(carol.peer_id()));
    carol.pull_everything(bob);
    assert_eq!(carol.parent(MESSAGES, said).unwrap().rev, 1);
}

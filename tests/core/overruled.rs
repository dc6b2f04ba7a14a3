//! Scopes whose deletion a later key overruled are pulled again: from the nodes of their members
//! only, and a bounded number of each owner.

use harness::forge::{salted, tombstone};
use harness::{TestNode, card, meet};
use keys::Oid;
use postern::graph::GraphManager;
use postern::object::Object;
use postern::op_context::Timestamp;
use postern::store::StoreError;

use crate::rights::BOTH;
use crate::scopes::{FOLDER, folder, writer};
use crate::thieves::rotate;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Mallory sends tombstones of contact cards of a subject, and the cards under her next key.
fn revive(alice: &TestNode, mallory: &TestNode, subject: Oid, count: u64) {
    let card = |number: u64| {
        let attrs = Some(card(subject, "name"));
        let salt = number.to_be_bytes();
        salted(("contacts", 1), salt, mallory.identity, 1, attrs)
    };
    let cards: Vec<Object> = (0..count).map(card).collect();
    let send = |objects: &[Object]| {
        let signed = objects.iter().map(|it| mallory.sign(it)).collect();
        mallory.force(alice, "contacts", signed).unwrap();
    };
    let gone: Vec<Object> = cards.iter().map(|it| tombstone(it, 2)).collect();
    gone.chunks(250).for_each(send);
    rotate(mallory, mallory.identity);
    alice.pull_all(mallory, "identities");
    cards.chunks(250).for_each(send);
    assert_eq!(alice.rejects(), Vec::<String>::new());
}

fn pending(node: &TestNode) -> bool {
    let end = Timestamp(u64::MAX >> 1);
    node.read(move |view| view.rows.next_overruled(end))
        .is_some()
}

/// Alice pulled the card of each of these nodes.
fn alice_and<const N: usize>(names: [&str; N]) -> (TestNode, [TestNode; N]) {
    let alice = TestNode::new("alice", 0);
    let others = names.map(|name| TestNode::new(name, 300));
    for other in &others {
        meet(&alice, other);
        let about = card(alice.identity, "Alice");
        other.make("contacts", 1, about).unwrap();
        alice.pull_everything(other);
    }
    (alice, others)
}

#[test]
fn one_peer_cannot_make_this_node_pull_a_domain_again_from_all_others() {
    let (alice, [mallory, bob, carol]) = alice_and(["mallory", "bob", "carol"]);
    revive(&alice, &mallory, alice.identity, 270);
    for other in [&bob, &carol] {
        assert_eq!(alice.again_count(other), 0);
    }
    assert_eq!(alice.again_count(&mallory), 32, "of one owner at once");
}

#[test]
fn scopes_of_one_owner_that_name_a_peer_never_become_its_whole_domain() {
    let (alice, [mallory, bob]) = alice_and(["mallory", "bob"]);
    revive(&alice, &mallory, bob.identity, 270);
    let at_bob = || alice.next_again(&bob, "contacts").unwrap().scopes.len();
    assert_eq!(at_bob(), 32);
    let day = || {
        alice.clock.advance_ms(DAY_MS);
        alice.graph(|_| Ok::<_, StoreError>(())).unwrap();
    };
    (0..4).for_each(|_| day());
    assert_eq!(at_bob(), 128);
    assert!(pending(&alice));
    // Nothing is forgotten.
    for _ in 0..6 {
        day();
        alice.pull_everything(&bob);
    }
    assert_eq!(alice.again_count(&bob), 0);
    assert!(!pending(&alice));
}

#[test]
fn scope_with_many_lists_is_noted_in_portions_at_the_nodes_of_all_members() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|it| writer(it, 0));
    for (one, other) in [(&alice, &bob), (&alice, &carol), (&bob, &carol)] {
        meet(one, other);
    }
    let first = alice.make("wiki", FOLDER, folder(&[&alice, &bob], "plans"));
    let first = first.unwrap().oid;
    let own = carol.make("wiki", FOLDER, folder(&[&carol, &bob], "own"));
    own.unwrap();
    bob.pull_everything(&carol);
    // Carol is a member by the last list only.
    for number in 0..30u8 {
        let others: Vec<_> = (0..10)
            .map(|it| (Oid::from_bytes([0x80 + 10 * (number % 4) + it; 16]), BOTH))
            .collect();
        alice.set_rights("wiki", first, &others).unwrap();
    }
    alice
        .set_rights("wiki", first, &[(carol.identity, BOTH)])
        .unwrap();
    bob.pull_everything(&alice);
    let scope = bob.parent("wiki", first).unwrap().scope_id;
    let owner = alice.identity;
    let work = move |graph: &mut GraphManager<'_>| {
        let now = graph.now();
        graph.tx().note_overruled(scope, &owner, now)?;
        assert!(graph.pull_overruled()?, "one portion");
        let now = graph.now();
        Ok::<_, StoreError>(graph.tx().next_overruled(now)?.is_some())
    };
    assert!(bob.graph(work).unwrap(), "more is left");
    assert!(!pending(&bob));
    for peer in [&alice, &carol] {
        assert_eq!(bob.again_count(peer), 1);
    }
}

#[test]
fn scopes_that_were_overruled_while_the_clock_was_ahead_are_pulled_again_now() {
    let (alice, [mallory, bob]) = alice_and(["mallory", "bob"]);
    let right = alice.clock.timestamp().0;
    alice.clock.advance_ms(400 * DAY_MS);
    revive(&alice, &mallory, bob.identity, 80);
    let at_bob = || alice.next_again(&bob, "contacts").unwrap().scopes.len();
    assert_eq!(at_bob(), 32);
    let settle = || alice.graph(|_| Ok::<_, StoreError>(())).unwrap();
    alice.clock.set(right);
    settle();
    assert_eq!(at_bob(), 64, "the bound of one owner holds");
    assert!(pending(&alice));
    alice.clock.advance_ms(DAY_MS);
    settle();
    assert_eq!(at_bob(), 80);
    assert!(!pending(&alice));
}

/// Alice without the app, after a day. 48 scopes were left.
fn alice_disables_the_app(peers: &[&TestNode], alice: TestNode, has_session: bool) -> TestNode {
    let alice = alice.into_setup().apps(&["identities"]).node();
    if has_session {
        peers.iter().for_each(|peer| meet(&alice, peer));
    }
    alice.clock.advance_ms(DAY_MS);
    alice.graph(|_| Ok::<_, StoreError>(())).unwrap();
    assert!(!due(&alice));
    alice
}

fn due(node: &TestNode) -> bool {
    let now = node.clock.timestamp();
    node.read(move |view| view.rows.next_overruled(now))
        .is_some()
}

/// Scopes of an app that is disabled when they are due are pulled again after it is enabled.
fn scopes_of_a_disabled_app_are_pulled_again(has_session: bool) {
    let (alice, [mallory, bob]) = alice_and(["mallory", "bob"]);
    revive(&alice, &mallory, bob.identity, 80);
    let alice = alice_disables_the_app(&[&mallory, &bob], alice, has_session);
    let alice = alice.restart();
    assert!(pending(&alice), "also after another start");
    let alice = alice.into_setup().apps(&harness::ALL_APPS).node();
    let at_bob = || alice.next_again(&bob, "contacts").unwrap().scopes.len();
    assert_eq!(at_bob(), 64, "the bound of one owner holds");
    alice.clock.advance_ms(DAY_MS);
    alice.graph(|_| Ok::<_, StoreError>(())).unwrap();
    assert_eq!(at_bob(), 80);
    assert!(!pending(&alice));
}

#[test]
fn scopes_of_an_app_that_is_disabled_meanwhile_are_pulled_again() {
    scopes_of_a_disabled_app_are_pulled_again(false);
}

#[test]
fn scopes_of_an_app_that_peers_saw_disabled_are_pulled_again() {
    scopes_of_a_disabled_app_are_pulled_again(true);
}

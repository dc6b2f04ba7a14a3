//! Bans and relayed objects: objects of a banned node's identities are refused from every relay.
//! They are pulled again when the ban ends (docs/DECISIONS.md 10).

use harness::pull::meet;
use harness::stolen_keys::StolenKeys;
use harness::{Setup, TestNode, card, conversation, message};
use keys::Oid;
use postern::op_context::Timestamp;
use postern::services::verdicts::{self, Reason, VerdictError};
use postern::store::{Direction, StoreError};

use crate::rights::BOTH;
use crate::stubs::{Chain, MESSAGES, has};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn ban(node: &TestNode, banned: &TestNode, until: Option<Timestamp>) {
    let peer = banned.peer_id();
    node.graph::<_, VerdictError>(move |graph| {
        verdicts::ban(graph, peer, Reason::default(), until)
    })
    .unwrap();
}

fn unban(node: &TestNode, banned: &TestNode) {
    let peer = banned.peer_id();
    node.graph::<_, VerdictError>(move |graph| verdicts::unban(graph, peer))
        .unwrap();
}

/// Lets a node do the work that is due.
fn work(node: &TestNode) {
    node.graph(|_| Ok::<_, StoreError>(())).unwrap();
}

/// Carol knows Alice through Bob, and bans Alice's node. Then Alice writes.
fn banned_chain(until: impl Fn(Timestamp) -> Option<Timestamp>) -> (Chain, Oid) {
    let chain = Chain::new();
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    chain.say(alice, "before the ban");
    bob.relay(alice, MESSAGES);
    carol.relay(bob, MESSAGES);
    ban(carol, alice, until(carol.engine.now()));
    let said = chain.say(alice, "hello");
    bob.relay(alice, MESSAGES);
    (chain, said)
}

#[test]
fn content_of_a_banned_node_is_not_fetched_and_others_are() {
    let (chain, said) = banned_chain(|_| None);
    let Chain { bob, carol, .. } = &chain;
    let answer = chain.say(bob, "an answer");
    let got = carol.relay(bob, MESSAGES);
    assert!(got.stubs.iter().any(|stub| stub.oid == said));
    assert_eq!(got.fetched, [answer]);
    assert!(!has(carol, said) && has(carol, answer));
    let cursor = carol.cursor(bob, MESSAGES, Direction::In).unwrap();
    assert_eq!(cursor.last_seq, bob.head());
}

#[test]
fn content_of_a_banned_node_that_is_sent_anyway_is_dropped_without_a_reject() {
    let (chain, said) = banned_chain(|_| None);
    let Chain { bob, carol, .. } = &chain;
    let sent = bob.object(MESSAGES, said).unwrap().1;
    let applied = bob.force(carol, MESSAGES, vec![sent]).unwrap();
    assert_eq!((applied.already_stored, applied.rejected), (1, 0));
    assert!(!has(carol, said));
    assert_eq!(carol.rejects(), [""; 0]);
}

#[test]
fn scopes_lists_and_leaves_of_a_banned_node_are_taken() {
    let nodes = [("alice", 0), ("bob", 300), ("carol", 600), ("dave", 900)];
    let [alice, bob, carol, dave] = nodes.map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &bob);
    meet(&bob, &carol);
    meet(&bob, &dave);
    meet(&alice, &dave);
    meet(&alice, &carol);
    ban(&carol, &alice, None);
    let people = [alice.identity, bob.identity, carol.identity];
    let talk = alice.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    let hidden = alice.make(MESSAGES, 2, message(talk, "hidden")).unwrap();
    bob.relay(&alice, MESSAGES);
    carol.relay(&bob, MESSAGES);
    assert!(has(&carol, talk) && !has(&carol, hidden.oid));
    alice
        .set_rights(MESSAGES, talk, &[(dave.identity, BOTH)])
        .unwrap();
    bob.relay(&alice, MESSAGES);
    let later = bob
        .make(MESSAGES, 2, message(talk, "under the list"))
        .unwrap();
    carol.relay(&bob, MESSAGES);
    assert!(has(&carol, later.oid), "the list came");
    assert!(carol.readers(MESSAGES, talk).contains(&dave.identity));
    assert_eq!(carol.rows("waiting").len(), 0);
}

#[test]
fn unban_lets_what_was_refused_be_pulled_from_a_relay() {
    let (chain, said) = banned_chain(|_| None);
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    carol.relay(bob, MESSAGES);
    assert!(carol.next_again(bob, MESSAGES).is_none());
    unban(carol, alice);
    assert_eq!(
        carol.next_again(bob, MESSAGES).unwrap().scopes,
        [chain.talk]
    );
    carol.relay(bob, MESSAGES);
    assert!(has(carol, said));
    assert_eq!(carol.rows("ended_ban").len(), 0);
}

#[test]
fn end_of_a_ban_by_its_time_lets_what_was_refused_be_pulled() {
    let (chain, said) = banned_chain(|now| Some(Timestamp(now.0 + HOUR_MS)));
    let Chain { bob, carol, .. } = &chain;
    carol.relay(bob, MESSAGES);
    work(carol);
    assert!(carol.next_again(bob, MESSAGES).is_none());
    carol.clock.advance_ms(HOUR_MS);
    work(carol);
    carol.relay(bob, MESSAGES);
    assert!(has(carol, said));
}

#[test]
fn ban_without_an_end_replaces_one_with_an_end() {
    let (chain, said) = banned_chain(|now| Some(Timestamp(now.0 + HOUR_MS)));
    let Chain {
        alice, bob, carol, ..
    } = &chain;
    ban(carol, alice, None);
    carol.clock.advance_ms(2 * HOUR_MS);
    work(carol);
    carol.relay(bob, MESSAGES);
    assert!(!has(carol, said));
    unban(carol, alice);
    carol.relay(bob, MESSAGES);
    assert!(has(carol, said));
}

#[test]
fn identity_that_moves_away_from_a_banned_node_is_pulled_again() {
    let alice = Setup::seeded("alice", 71).node();
    let dave = Setup::seeded("dave", 72).id_offset(900).node();
    let [bob, carol] = [("bob", 300), ("carol", 600)].map(|(name, id)| TestNode::new(name, id));
    for (one, other) in [
        (&alice, &bob),
        (&bob, &carol),
        (&alice, &carol),
        (&dave, &carol),
    ] {
        meet(one, other);
    }
    let people = [bob.identity, alice.identity, carol.identity];
    let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    alice.relay(&bob, MESSAGES);
    let said = alice.make(MESSAGES, 2, message(talk, "hello")).unwrap().oid;
    bob.relay(&alice, MESSAGES);
    ban(&carol, &alice, None);
    carol.relay(&bob, MESSAGES);
    assert!(!has(&carol, said));
    let record = alice.stored_objects()[&alice.identity].clone();
    let moved = StolenKeys::of(71).claim_home(&record, 72, 2, record.rev + 1);
    dave.force(&carol, "identities", vec![moved]).unwrap();
    carol.confirm_home(alice.identity, &dave);
    assert_eq!(carol.home_of(alice.identity), Some(dave.peer_id()));
    carol.relay(&bob, MESSAGES);
    assert!(has(&carol, said));
}

#[test]
fn many_scopes_of_a_banned_node_are_noted_in_portions() {
    let [alice, carol] = [("alice", 0), ("carol", 600)].map(|(name, id)| TestNode::new(name, id));
    meet(&alice, &carol);
    for number in 0..700 {
        let about = card(alice.identity, &number.to_string());
        carol.make("contacts", 1, about).unwrap();
    }
    ban(
        &carol,
        &alice,
        Some(Timestamp(carol.engine.now().0 + HOUR_MS)),
    );
    carol.clock.advance_ms(HOUR_MS);
    let portions = carol.write(|core, now| {
        let mut portions = 0;
        while core.settle_step(now)? {
            portions += 1;
        }
        Ok::<_, StoreError>(portions)
    });
    // Scopes of one owner are due 32 at once.
    let portions = portions.unwrap() - 32;
    assert!((3..700).contains(&portions), "{portions}");
    assert_eq!(carol.rows("overruled").len(), 700);
    assert_eq!(carol.rows("ended_ban").len(), 0);
}

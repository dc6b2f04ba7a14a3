//! Introductions: members of a scope that accepted learn each other's onion services
//! (docs/DECISIONS.md 10).

use std::collections::BTreeSet;

use harness::pull::meet;
use harness::{Setup, TestNode, conversation};
use keys::{AddressRecord, KeyManager, Oid, PeerId, VerifiedAddress};
use postern::graph::AcceptPolicy;
use postern::op_context::Timestamp;
use postern::services::{invitations, rights};
use postern::state_engine::{
    AddressRequest, CoreLimits, DialFacts, IntroductionDial, MeetingPlace,
};
use postern::store::{ScopeId, Verdict, VerdictRow};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::stubs::MESSAGES;

const IDENTITIES: &str = "identities";
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Alice's and Carol's nodes are peers of Bob's, and not of each other. Bob founds a conversation
/// of all three.
pub(crate) struct Trio {
    pub(crate) alice: TestNode,
    pub(crate) bob: TestNode,
    pub(crate) carol: TestNode,
    pub(crate) talk: Oid,
}

fn node(name: &str, id_offset: i64, accept: AcceptPolicy) -> TestNode {
    let mut limits = CoreLimits::default();
    limits.graph.accept = accept;
    Setup::new(name).id_offset(id_offset).limits(limits).node()
}

/// Decodes and verifies what a reply has.
pub(crate) fn verified(records: Vec<AddressRecord>) -> Vec<VerifiedAddress> {
    records.into_iter().map(|it| it.verify().unwrap()).collect()
}

impl Trio {
    /// Carol's node has the given policy. The other nodes accept all.
    pub(crate) fn new(policy: AcceptPolicy) -> Self {
        let alice = node("alice", 0, AcceptPolicy::All);
        let bob = node("bob", 300, AcceptPolicy::All);
        let carol = node("carol", 600, policy);
        meet(&alice, &bob);
        meet(&bob, &carol);
        for other in [&alice, &carol] {
            bob.relay(other, IDENTITIES);
            other.relay(&bob, IDENTITIES);
        }
        let people = [bob.identity, alice.identity, carol.identity];
        let talk = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
        let trio = Self {
            alice,
            bob,
            carol,
            talk,
        };
        trio.sync();
        trio
    }

    fn nodes(&self) -> [&TestNode; 3] {
        [&self.alice, &self.bob, &self.carol]
    }

    /// Synchronises along the two sessions until every node has everything.
    fn sync(&self) {
        for _ in 0..3 {
            for node in self.nodes() {
                node.settle();
            }
            for other in [&self.alice, &self.carol] {
                self.bob.relay(other, MESSAGES);
                other.relay(&self.bob, MESSAGES);
            }
        }
    }

    /// The records that one node gives another.
    fn ask(&self, at: &TestNode, by: &TestNode) -> Vec<VerifiedAddress> {
        self.ask_as(at, by.peer_id())
    }

    fn ask_as(&self, at: &TestNode, peer: PeerId) -> Vec<VerifiedAddress> {
        let request = AddressRequest {
            peer,
            scope: self.talk,
            domain: MESSAGES.to_owned(),
            after: None,
        };
        let now = at.engine.now();
        verified(at.read(move |view| view.addresses(&request, now)).records)
    }

    pub(crate) fn scope(&self, at: &TestNode) -> ScopeId {
        at.parent(MESSAGES, self.talk).unwrap().scope_id
    }

    /// Takes records; returns how many were new.
    fn take(&self, at: &TestNode, records: Vec<VerifiedAddress>) -> usize {
        let scope = self.scope(at);
        at.write(move |core, now| core.take_addresses(now, scope, &records))
            .unwrap()
    }

    /// Each node gets what the others give it. Bob's node has the records of the others then.
    pub(crate) fn exchange(&self) {
        for other in [&self.alice, &self.carol] {
            self.take(&self.bob, self.ask(other, &self.bob));
        }
        for other in [&self.alice, &self.carol] {
            self.take(other, self.ask(&self.bob, other));
        }
    }

    pub(crate) fn places(&self, at: &TestNode) -> Vec<MeetingPlace> {
        at.read(|view| view.meeting_places(ScopeId(0))).places
    }

    /// The dials that are due at a node at a time, without delay.
    pub(crate) fn plan_at(
        &self,
        at: &TestNode,
        now: Timestamp,
        facts: DialFacts,
    ) -> Vec<IntroductionDial> {
        let places = self.places(at);
        at.write(move |core, _| core.plan_introductions(now, &places, &facts))
            .unwrap()
    }

    pub(crate) fn plan(&self, at: &TestNode) -> Vec<IntroductionDial> {
        self.plan_at(at, at.engine.now(), facts())
    }

    fn accept(&self) {
        let talk = self.talk;
        self.carol
            .graph(move |graph| invitations::accept(graph, MESSAGES, talk, None))
            .unwrap();
        self.sync();
    }
}

fn nodes_of(records: &[VerifiedAddress]) -> BTreeSet<PeerId> {
    records.iter().map(VerifiedAddress::node).collect()
}

fn of(nodes: &[&TestNode]) -> BTreeSet<PeerId> {
    nodes.iter().map(|node| node.peer_id()).collect()
}

/// Facts without sessions, under which two dials may begin without delay.
pub(crate) fn facts() -> DialFacts {
    DialFacts {
        dials_max: 2,
        ..DialFacts::default()
    }
}

pub(crate) fn dial_of(node: &TestNode) -> IntroductionDial {
    IntroductionDial {
        peer: node.peer_id(),
        onion: node.onion(),
    }
}

fn ban(at: &TestNode, node: &TestNode) {
    let peer_id = node.peer_id();
    at.graph(move |graph| {
        graph.tx().put_verdict(&VerdictRow {
            peer_id,
            verdict: Verdict::Banned,
            reason: String::new(),
            at: graph.now(),
            until: None,
            tickets_void_until: 0,
        })
    })
    .unwrap();
}

#[test]
fn members_learn_each_others_addresses_from_a_common_peer() {
    let trio = Trio::new(AcceptPolicy::All);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    assert_eq!(nodes_of(&trio.ask(alice, bob)), of(&[alice]));
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob]));
    assert_eq!(trio.plan(alice), []);
    trio.exchange();
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob, carol]));
    assert_eq!(trio.plan(alice), [dial_of(carol)]);
    assert_eq!(trio.plan(carol), [dial_of(alice)]);
    assert_eq!(
        trio.plan(bob).len(),
        0,
        "Bob's node keeps no peer that it trusts"
    );
}

#[test]
fn address_of_a_member_that_did_not_accept_is_given_to_no_peer() {
    let trio = Trio::new(AcceptPolicy::Ask);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    trio.exchange();
    assert_eq!(trio.ask(carol, bob), []);
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob]));
    assert_eq!(trio.plan(alice), []);
    // Carol has not accepted, so that her node learns no address either.
    assert_eq!(trio.ask(bob, carol), []);
    assert_eq!(trio.places(carol), []);
    trio.accept();
    trio.exchange();
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob, carol]));
}

/// Bob's node has the address of Carol's by another conversation, and must not show that she is
/// invited to this one.
#[test]
fn address_is_given_only_in_scopes_in_which_its_member_takes_part() {
    let trio = Trio::new(AcceptPolicy::Ask);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    let people = [bob.identity, carol.identity, Oid::from_bytes([9; 16])];
    let other = bob.make(MESSAGES, 1, conversation(&people)).unwrap().oid;
    trio.sync();
    carol
        .graph(move |graph| invitations::accept(graph, MESSAGES, other, None))
        .unwrap();
    trio.sync();
    let now = bob.engine.now().0 / 1000;
    let own = verified(vec![carol.keys.address_record(now)]);
    let scope = bob.parent(MESSAGES, other).unwrap().scope_id;
    let taken = bob.write(move |core, now| core.take_addresses(now, scope, &own));
    assert_eq!(taken.unwrap(), 1);
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob]));
    trio.accept();
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob, carol]));
}

#[test]
fn address_of_a_member_that_left_is_not_given_any_more() {
    let trio = Trio::new(AcceptPolicy::All);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    trio.exchange();
    assert_eq!(trio.plan(alice), [dial_of(carol)]);
    let (talk, leaving) = (trio.talk, carol.identity);
    carol
        .graph(move |graph| rights::leave(graph, MESSAGES, talk, leaving))
        .unwrap();
    trio.sync();
    assert_eq!(nodes_of(&trio.ask(bob, alice)), of(&[bob]));
    assert_eq!(trio.ask(bob, carol), []);
    let later = Timestamp(alice.engine.now().0 + HOUR_MS);
    assert_eq!(trio.plan_at(alice, later, facts()), []);
}

#[test]
fn node_that_is_no_member_and_a_conversation_of_two_get_nothing() {
    let trio = Trio::new(AcceptPolicy::All);
    let (alice, bob) = (&trio.alice, &trio.bob);
    let eve = node("eve", 900, AcceptPolicy::All);
    meet(&eve, bob);
    assert_eq!(trio.ask(bob, &eve), []);
    let two = [bob.identity, alice.identity];
    let two = bob.make(MESSAGES, 1, conversation(&two)).unwrap().oid;
    trio.sync();
    let request = AddressRequest {
        peer: alice.peer_id(),
        scope: two,
        domain: MESSAGES.to_owned(),
        after: None,
    };
    let now = bob.engine.now();
    assert_eq!(
        bob.read(move |view| view.addresses(&request, now)).records,
        []
    );
}

#[test]
fn record_is_taken_only_for_the_home_of_a_member_and_in_order() {
    let trio = Trio::new(AcceptPolicy::All);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    let own = |node: &TestNode, counter| verified(vec![node.keys.address_record(counter)]);
    let now = alice.engine.now().0 / 1000;
    let stranger = KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(99));
    let stranger = verified(vec![stranger.address_record(now)]);
    assert_eq!(trio.take(alice, stranger), 0);
    assert_eq!(trio.take(alice, own(alice, now)), 0);
    assert_eq!(
        trio.take(alice, own(carol, now + 2 * 24 * 3600)),
        0,
        "ahead"
    );
    assert_eq!(trio.take(alice, own(carol, now)), 1);
    assert_eq!(trio.take(alice, own(carol, now)), 0);
    assert_eq!(trio.take(alice, own(carol, now - 1)), 0);
    assert_eq!(trio.take(alice, own(carol, now + 1)), 1);
    ban(bob, carol);
    assert_eq!(trio.take(bob, own(carol, now)), 0);
}

#[test]
fn only_a_record_that_equals_the_stored_one_is_not_verified_again() {
    let trio = Trio::new(AcceptPolicy::All);
    let (alice, carol) = (&trio.alice, &trio.carol);
    let now = alice.engine.now().0 / 1000;
    let record = carol.keys.address_record(now);
    let later = carol.keys.address_record(now + 1);
    let forged = AddressRecord {
        onion_signature: later.onion_signature,
        ..record.clone()
    };
    let unstored = |records: &[&AddressRecord]| {
        let records = records.iter().copied().cloned().collect();
        alice.read(move |view| view.unstored_addresses(records))
    };
    assert_eq!(unstored(&[&record]).len(), 1);
    trio.take(alice, verified(vec![record.clone()]));
    let left = unstored(&[&record, &later, &forged]);
    assert_eq!(left, [later, forged]);
}

#[test]
fn record_under_a_later_key_of_the_node_ends_those_under_earlier_keys() {
    let trio = Trio::new(AcceptPolicy::All);
    let (alice, carol) = (&trio.alice, &trio.carol);
    let now = alice.engine.now().0 / 1000;
    let before = carol.keys.address_record(now + 10);
    let server = carol.keys.server_oid();
    carol
        .keys
        .rotate(server, &mut ChaCha20Rng::seed_from_u64(1))
        .unwrap();
    let after = carol.keys.address_record(now);
    assert_eq!(trio.take(alice, verified(vec![before.clone()])), 1);
    assert_eq!(trio.take(alice, verified(vec![after])), 1);
    assert_eq!(trio.take(alice, verified(vec![before])), 0);
}

#[test]
fn banned_node_is_neither_dialled_nor_named() {
    let trio = Trio::new(AcceptPolicy::All);
    let Trio {
        alice, bob, carol, ..
    } = &trio;
    trio.exchange();
    ban(alice, carol);
    assert_eq!(trio.plan(alice), []);
    ban(bob, alice);
    assert_eq!(nodes_of(&trio.ask(bob, carol)), of(&[bob]));
}

#[test]
fn node_with_a_session_or_that_the_operator_keeps_is_not_dialled() {
    let trio = Trio::new(AcceptPolicy::All);
    let (alice, carol) = (&trio.alice, &trio.carol);
    trio.exchange();
    let now = alice.engine.now();
    let live = DialFacts {
        live: BTreeSet::from([carol.peer_id()]),
        ..facts()
    };
    assert_eq!(trio.plan_at(alice, now, live), []);
    let kept = DialFacts {
        kept: BTreeSet::from([carol.onion()]),
        ..facts()
    };
    assert_eq!(trio.plan_at(alice, now, kept), []);
    assert_eq!(trio.plan(alice), [dial_of(carol)]);
}

//! Dials to the nodes of other members: when they begin, and how often they are repeated.

use keys::{Oid, OnionAddr, PeerId, PublicKey, codec};
use postern::graph::AcceptPolicy;
use postern::op_context::Timestamp;
use postern::state_engine::{DialFacts, IntroductionOutcome, MeetingPlace};
use postern::store::AddressRow;

use crate::introductions::{Trio, dial_of, facts, verified};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The hours until each of the next dials, if all of them have this outcome.
fn pauses(trio: &Trio, outcome: IntroductionOutcome, count: usize) -> Vec<u64> {
    let (alice, peer) = (&trio.alice, trio.carol.peer_id());
    let mut now = alice.engine.now();
    let mut pauses = Vec::new();
    for _ in 0..count {
        assert_eq!(trio.plan_at(alice, now, facts()), [dial_of(&trio.carol)]);
        alice
            .write(move |core, _| core.note_introduction(now, &peer, outcome))
            .unwrap();
        let next = alice
            .read(move |view| view.rows.introduction(&peer))
            .unwrap();
        let before = Timestamp(next.next_at.0 - 1);
        assert_eq!(trio.plan_at(alice, before, facts()), []);
        // Chance takes up to a half.
        pauses.push((next.next_at.0 - now.0).div_ceil(HOUR_MS));
        now = next.next_at;
    }
    pauses
}

#[test]
fn node_that_is_not_reached_is_dialled_less_and_less_often() {
    let trio = Trio::new(AcceptPolicy::All);
    trio.exchange();
    let pauses = pauses(&trio, IntroductionOutcome::Failed, 4);
    for (pause, longest) in pauses.into_iter().zip([1, 4, 12, 24]) {
        assert!(
            (longest / 2..=longest).contains(&pause),
            "{pause} of {longest}"
        );
    }
}

#[test]
fn session_that_lasts_ends_the_pauses() {
    let trio = Trio::new(AcceptPolicy::All);
    trio.exchange();
    pauses(&trio, IntroductionOutcome::Reached, 5);
    let (alice, peer) = (&trio.alice, trio.carol.peer_id());
    let row = || {
        alice
            .read(move |view| view.rows.introduction(&peer))
            .unwrap()
    };
    assert_eq!(row().failures, 4);
    let live = DialFacts {
        live: [peer].into(),
        ..facts()
    };
    let later = Timestamp(row().next_at.0 + HOUR_MS);
    assert_eq!(trio.plan_at(alice, later, live), []);
    assert_eq!(row().failures, 0);
}

#[test]
fn node_that_ends_its_sessions_at_once_is_dialled_less_and_less_often() {
    let trio = Trio::new(AcceptPolicy::All);
    trio.exchange();
    let pauses = pauses(&trio, IntroductionOutcome::Reached, 8);
    assert!(pauses.iter().all(|pause| *pause <= 4), "{pauses:?}");
    assert!(pauses[7] >= 2, "{pauses:?}");
}

#[test]
fn address_at_which_another_node_answers_is_forgotten() {
    let trio = Trio::new(AcceptPolicy::All);
    let (alice, peer) = (&trio.alice, trio.carol.peer_id());
    trio.exchange();
    trio.plan(alice);
    let outcome = IntroductionOutcome::AnotherNode;
    alice
        .write(move |core, now| core.note_introduction(now, &peer, outcome))
        .unwrap();
    assert_eq!(alice.read(move |view| view.rows.address(&peer)), None);
}

/// Places with many members of one owner, whose nodes have addresses at Alice's node.
fn crowd(trio: &Trio, owners: u8, nodes: u8) -> Vec<MeetingPlace> {
    let (alice, scope) = (&trio.alice, trio.scope(&trio.alice));
    let place = trio.places(alice).remove(0);
    let peer = |owner: u8, node: u8| PeerId::from_bytes([owner * 100 + node; 32]);
    let mut places = Vec::new();
    for owner in 1..=owners {
        let mut place = place.clone();
        place.owner = Oid::from_bytes([owner; 16]);
        let mut member = place.members[0];
        place.members.clear();
        for node in 0..nodes {
            member.home = peer(owner, node);
            place.members.push(member);
            let record = verified(vec![trio.carol.keys.address_record(1)]).remove(0);
            let onion = OnionAddr::from_public_key(PublicKey::from_bytes([node; 32]));
            alice
                .graph(move |graph| {
                    graph.tx().put_address(&AddressRow {
                        peer: member.home,
                        record: codec::encode(&[record.record()]),
                        onion,
                        key_id: 0,
                        counter: 1,
                        scope_owner: Oid::from_bytes([owner; 16]),
                        at: graph.now(),
                    })
                })
                .unwrap();
        }
        assert_eq!(place.scope, scope);
        places.push(place);
    }
    places
}

fn begin(trio: &Trio, places: Vec<MeetingPlace>, now: Timestamp) -> usize {
    let facts = DialFacts {
        delay_ms_max: HOUR_MS,
        ..DialFacts::default()
    };
    trio.alice
        .write(move |core, _| core.plan_introductions(now, &places, &facts))
        .unwrap();
    trio.alice.read(|view| view.rows.introductions()).len()
}

#[test]
fn dials_of_a_day_are_bounded_for_each_owner_and_in_all() {
    let trio = Trio::new(AcceptPolicy::All);
    let places = crowd(&trio, 2, 20);
    let now = trio.alice.engine.now();
    assert_eq!(begin(&trio, places[..1].to_vec(), now), 8);
    assert_eq!(begin(&trio, places.clone(), now), 16);
    assert_eq!(
        begin(&trio, places.clone(), Timestamp(now.0 + DAY_MS - 1)),
        16
    );
    // The members of the first day do not take part in the scope, so that those dials end.
    let next_day = Timestamp(now.0 + DAY_MS);
    begin(&trio, places, next_day);
    begin(&trio, Vec::new(), next_day);
    assert_eq!(begin(&trio, Vec::new(), next_day), 16);
    let trio = Trio::new(AcceptPolicy::All);
    let places = crowd(&trio, 2, 20);
    let of_owners = (10..20).map(|owner| MeetingPlace {
        owner: Oid::from_bytes([owner; 16]),
        ..places[usize::from(owner) % 2].clone()
    });
    assert_eq!(begin(&trio, of_owners.collect(), now), 32);
}

#[test]
fn clock_that_was_ahead_blocks_no_dial() {
    let trio = Trio::new(AcceptPolicy::All);
    let alice = &trio.alice;
    trio.exchange();
    let now = alice.engine.now();
    let ahead = Timestamp(now.0 + 1000 * DAY_MS);
    assert_eq!(trio.plan_at(alice, ahead, facts()).len(), 1);
    assert_eq!(trio.plan_at(alice, now, facts()).len(), 1);
}

//! Tickets in the handshake: what they spare, and what they do not.

use keys::Context;
use serde_bytes::{ByteArray, ByteBuf};

use super::testing::{NOW, Side, bend, check, easy, error, sign};
use super::*;
use crate::config::GateConfig;
use crate::error::RefusalCode;
use crate::messages::Cookie;
use crate::ticket::Ticket;

/// Nobody solves this.
fn dear() -> GateConfig {
    GateConfig {
        effort_idle: 1 << 40,
        effort_base: 1 << 40,
        effort_max: 1 << 40,
        ..GateConfig::default()
    }
}

/// Alice has given Bob a ticket, and Bob answers her challenge with it.
fn shown() -> (Side, Side, Ticket, Vec<u8>, AwaitWelcome) {
    let (mut alice, bob) = (Side::alice(dear()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW - 10);
    let challenge = alice.challenge_for(Some(&ticket));
    let (solution, awaiting) = bob.show(&ticket, &challenge, alice.onion());
    (alice, bob, ticket, solution, awaiting)
}

#[test]
fn a_ticket_spares_the_work_and_nothing_else() {
    let (mut alice, bob, _, solution, awaiting) = shown();
    let verified = alice.judge(&solution, NOW).unwrap();
    assert_eq!(verified.claims().peer_id(), bob.peer_id());
    assert_eq!(verified.effort(), 0);
    assert_eq!(
        verified.ticket().map(|standing| standing.issued),
        Some(NOW - 10)
    );
    let (welcome, at_alice) = alice.welcome(verified);
    let at_bob = awaiting.receive(&welcome).unwrap();
    assert_eq!((at_alice.effort(), at_bob.effort()), (0, 0));
    // The serial is used like any other.
    check(
        alice.judge(&solution, NOW),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn a_welcome_brings_the_next_ticket_under_its_signature() {
    let (mut alice, bob, _, solution, awaiting) = shown();
    let next = alice.ticket_for(&bob.peer_id(), NOW);
    let verified = alice.judge(&solution, NOW).unwrap();
    let (welcome, _) = verified.welcome(
        alice.profile.clone(),
        Tier::Untrusted,
        Some(next.as_bytes().to_vec()),
    );
    assert_eq!(awaiting.receive(&welcome).unwrap().ticket(), Some(&next));
}

#[test]
fn a_ticket_is_worth_nothing_without_its_owners_fresh_signature() {
    // Stolen: Mallory signs in her own name, then in Bob's.
    let (mut alice, bob, ticket, solution, _) = shown();
    let mallory = Side::mallory();
    let challenge = alice.challenge_for(Some(&ticket));
    let (hers, _) = mallory.show(&ticket, &challenge, alice.onion());
    check(
        alice.judge(&hers, NOW),
        Misbehaviour::Ticket,
        RefusalCode::Expired,
    );
    let bent = bend(&solution, |solution| {
        sign(solution, &mallory, Context::Solution, &alice)
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Right key, another context.
    let (mut alice, .., solution, _) = shown();
    let bent = bend(&solution, |solution| {
        sign(solution, &bob, Context::Welcome, &alice)
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Swapped after signing: another ticket of Bob's own.
    let (mut alice, bob, _, solution, _) = shown();
    let other = alice.ticket_for(&bob.peer_id(), NOW);
    let bent = bend(&solution, |solution| {
        solution.ticket = Some(ByteBuf::from(other.as_bytes()))
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // An old signature over an old challenge: used, then expired.
    let (mut alice, .., solution, _) = shown();
    check(
        alice.judge(&solution, NOW + 601),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
}

#[test]
fn a_ticket_is_good_for_its_issuer_its_time_and_its_peer() {
    // At another node it is as good as none: there is work to do.
    let (_, bob, ticket, ..) = shown();
    let mut carol = Side::new(4000, &["messages"], easy());
    let challenge = carol.challenge_for(Some(&ticket));
    let (solution, _) = bob.solve(&challenge, carol.onion());
    assert!(carol.judge(&solution, NOW).is_ok());
    // From the future, and too old.
    for issued in [NOW + 1, NOW - 31 * 24 * 3600] {
        let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
        let ticket = alice.ticket_for(&bob.peer_id(), issued);
        let challenge = alice.challenge_for(Some(&ticket));
        let Message::Challenge(challenge) = Message::decode(&challenge, 8192).unwrap() else {
            panic!()
        };
        assert_eq!(Cookie::decode(&challenge.cookie).unwrap().effort, 1);
    }
    // It expired between hello and solution.
    let (mut alice, bob) = (Side::alice(dear()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW - 30 * 24 * 3600);
    let challenge = alice.challenge_for(Some(&ticket));
    let (solution, _) = bob.show(&ticket, &challenge, alice.onion());
    check(
        alice.judge(&solution, NOW + 1),
        Misbehaviour::Ticket,
        RefusalCode::Expired,
    );
}

#[test]
fn a_free_challenge_is_of_no_use_without_a_ticket_nor_a_ticket_with_a_dear_one() {
    let (mut alice, bob, ticket, solution, _) = shown();
    let bent = bend(&solution, |solution| {
        solution.ticket = None;
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Ticket,
        RefusalCode::Expired,
    );
    let Message::Challenge(dear) = Message::decode(&alice.challenge(), 8192).unwrap() else {
        panic!()
    };
    let bent = bend(&solution, |solution| {
        (solution.cookie, solution.sealed) = (dear.cookie, dear.sealed);
        solution.ticket = Some(ByteBuf::from(ticket.as_bytes()));
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Claims("a ticket where work was asked"),
        RefusalCode::Malformed,
    );
}

#[test]
fn a_ticket_is_used_so_often_a_minute_and_then_one_works() {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW);
    let mut spare = Vec::new();
    for _ in 0..7 {
        let challenge = alice.challenge_for(Some(&ticket));
        spare.push(bob.show(&ticket, &challenge, alice.onion()).0);
    }
    for solution in &spare[..6] {
        assert!(alice.judge(solution, NOW).is_ok());
    }
    // Asked for before the limit was reached, and shown after.
    assert!(matches!(
        error(alice.judge(&spare[6], NOW)),
        HandshakeError::Busy
    ));
    let challenge = alice.challenge_for(Some(&ticket));
    let (worked, _) = bob.solve(&challenge, alice.onion());
    assert!(alice.judge(&worked, NOW).is_ok());
    // The one that was told busy kept its serial.
    assert!(alice.judge(&spare[6], NOW + 60).is_ok());
}

#[test]
fn more_work_than_asked_is_claimed_at_a_price() {
    let config = GateConfig {
        effort_idle: 4,
        effort_base: 4,
        inner_bits: 2,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve_more(&challenge, alice.onion(), 3);
    let verified = alice.judge(&solution, NOW).unwrap();
    assert_eq!(verified.effort(), 32);
    let (welcome, at_alice) = alice.welcome(verified);
    assert_eq!(
        (
            at_alice.effort(),
            awaiting.receive(&welcome).unwrap().effort()
        ),
        (32, 32)
    );
    // Claimed and not done: the first nonce that solves what was asked fails what is claimed.
    let challenge = alice.challenge();
    let (solution, _) = bob.solve(&challenge, alice.onion());
    let solving = bob.accept(&challenge, alice.onion()).unwrap();
    let harder = solving.puzzle(4).unwrap().unwrap();
    let bent = bend(&solution, |solution| {
        solution.more = 4;
        sign(solution, &bob, Context::Solution, &alice);
    });
    let nonce = bend_nonce(&bent);
    assert!(!harder.inner_holds(&nonce));
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::InnerCondition,
        RefusalCode::Work,
    );
    // The claim alone: the cheap condition of so many doublings holds, the work does not.
    let (passes, memory) = (
        |nonce: &u128| harder.inner_holds(&nonce.to_be_bytes()),
        &mut crate::puzzle::Algorithm::Argon2id1m.memory(),
    );
    let claimed = (0u128..)
        .filter(passes)
        .find(|nonce| !harder.work_holds(&nonce.to_be_bytes(), memory));
    let bent = bend(&bent, |solution| {
        solution.nonce = ByteArray::new(claimed.unwrap().to_be_bytes());
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
    // More than may be claimed at all.
    let challenge = alice.challenge();
    let (solution, _) = bob.solve(&challenge, alice.onion());
    let bent = bend(&solution, |solution| {
        solution.more = 5;
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Claims("too many doublings of the effort"),
        RefusalCode::Malformed,
    );
}

fn bend_nonce(frame: &[u8]) -> [u8; 16] {
    let mut nonce = [0; 16];
    bend(frame, |solution| {
        nonce.copy_from_slice(solution.nonce.as_slice())
    });
    nonce
}

#[test]
fn nobody_works_more_than_it_wants_however_busy_the_other_side_is() {
    let config = GateConfig {
        effort_idle: 4,
        effort_base: 4,
        effort_accept_max: 9,
        inner_bits: 2,
        inner_bits_accept_max: 3,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let challenge = alice.challenge();
    let solving = bob.accept(&challenge, alice.onion()).unwrap();
    assert!(solving.puzzle(0).is_ok() && solving.puzzle(1).is_ok());
    assert!(solving.puzzle(2).is_err());
}

#[test]
fn a_cookie_of_calm_times_opens_no_gate_in_a_storm() {
    let config = GateConfig {
        effort_idle: 2,
        effort_base: 16,
        inner_bits: 1,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let (hello, _) = AwaitChallenge::begin(bob.here.clone(), alice.onion(), None);
    let mut open = |frame: &[u8], effort| {
        AwaitHello::new(alice.here.clone()).receive(
            frame,
            &mut alice.desk,
            effort,
            NOW,
            &mut alice.rng,
        )
    };
    let Opening::Hello { challenge, .. } = open(&hello, 2).unwrap() else {
        panic!("a hello is no solution")
    };
    let (solution, _) = bob.solve(&challenge, Side::alice(easy()).onion());
    check(
        open(&solution, 16).map(drop),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
    // Its serial was not used: should it be calm again, it is as good as before.
    assert!(open(&solution, 2).is_ok());
    // What was given at the base or above is good at any price.
    let Opening::Hello { challenge, .. } = open(&hello, 16).unwrap() else {
        panic!("a hello is no solution")
    };
    let (solution, _) = bob.solve(&challenge, Side::alice(easy()).onion());
    assert!(open(&solution, 1 << 20).is_ok());
}

#[test]
fn hashing_counts_where_a_node_says_what_it_works_at_most() {
    let ask = |effort, inner_bits| GateConfig {
        effort_idle: effort,
        effort_base: effort,
        inner_bits,
        ..GateConfig::default()
    };
    // A default client: 131072 evaluations at 13 bits; at 16 each is worth four and a half.
    for (effort, inner_bits, is_taken) in [
        (131_072, 13, true),
        (131_073, 13, false),
        (131_073, 0, false),
        (29_000, 16, true),
        (30_000, 16, false),
    ] {
        let mut alice = Side::alice(ask(effort, inner_bits));
        let bob = Side::bob(GateConfig::default());
        let challenge = alice.challenge();
        assert_eq!(
            bob.accept(&challenge, alice.onion()).is_ok(),
            is_taken,
            "{effort} at {inner_bits}"
        );
    }
}

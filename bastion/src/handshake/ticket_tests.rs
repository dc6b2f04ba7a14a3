//! Tickets and extra doublings in the handshake.

use keys::Context;
use serde_bytes::{ByteArray, ByteBuf};

use super::testing::{NOW, Side, check, easy, edit_solution, error, sign};
use super::{AwaitChallenge, AwaitHello, AwaitWelcome, FirstMessage, Moment};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour};
use crate::messages::{Cookie, HandshakeMessage, RefusalCode};
use crate::ticket::{Ticket, Tier};

/// An effort that no client can solve.
fn unsolvable() -> GateConfig {
    GateConfig {
        effort_idle: 1 << 40,
        effort_base: 1 << 40,
        effort_max: 1 << 40,
        ..GateConfig::default()
    }
}

/// Returns Alice, Bob, Bob's ticket, Bob's solution with that ticket, and Bob's next state.
fn shown_ticket() -> (Side, Side, Ticket, Vec<u8>, AwaitWelcome) {
    let (mut alice, bob) = (Side::alice(unsolvable()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW - 10);
    let challenge = alice.challenge_for(Some(&ticket));
    let (solution, awaiting) = bob.show_ticket(&ticket, &challenge, alice.onion());
    (alice, bob, ticket, solution, awaiting)
}

#[test]
fn ticket_replaces_the_work_and_uses_the_serial() {
    let (mut alice, bob, _, solution, awaiting) = shown_ticket();
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    assert_eq!(verified.claims().peer_id(), bob.peer_id());
    assert_eq!(verified.effort(), 0);
    assert_eq!(
        verified.ticket().map(|ticket| ticket.issued),
        Some(NOW - 10)
    );
    let (welcome, at_alice) = alice.welcome(verified);
    let at_bob = awaiting.receive(&welcome).unwrap();
    assert_eq!((at_alice.effort(), at_bob.effort()), (0, 0));
    // The serial is used as with work.
    check(
        alice.verify_solution(&solution, NOW),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn welcome_carries_the_next_ticket() {
    let (mut alice, bob, _, solution, awaiting) = shown_ticket();
    let next = alice.ticket_for(&bob.peer_id(), NOW);
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    let (welcome, _) = verified.welcome(
        alice.profile.clone(),
        Tier::Untrusted,
        Some(next.as_bytes().to_vec()),
    );
    assert_eq!(awaiting.receive(&welcome).unwrap().ticket(), Some(&next));
}

#[test]
fn ticket_needs_a_new_signature_of_its_owner() {
    // Mallory stole the ticket. Mallory signs with her own claims, then with Bob's.
    let (mut alice, bob, ticket, solution, _) = shown_ticket();
    let mallory = Side::mallory();
    let challenge = alice.challenge_for(Some(&ticket));
    let (hers, _) = mallory.show_ticket(&ticket, &challenge, alice.onion());
    check(
        alice.verify_solution(&hers, NOW),
        Misbehaviour::InvalidTicket,
        RefusalCode::Expired,
    );
    let edited = edit_solution(&solution, |solution| {
        sign(solution, &mallory, Context::Solution, &alice)
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // The right key signs in another context.
    let (mut alice, .., solution, _) = shown_ticket();
    let edited = edit_solution(&solution, |solution| {
        sign(solution, &bob, Context::Welcome, &alice)
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // The ticket is replaced after signing by another ticket of Bob's.
    let (mut alice, bob, _, solution, _) = shown_ticket();
    let other = alice.ticket_for(&bob.peer_id(), NOW);
    let edited = edit_solution(&solution, |solution| {
        solution.ticket = Some(ByteBuf::from(other.as_bytes()))
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // An old solution of an expired challenge.
    let (mut alice, .., solution, _) = shown_ticket();
    check(
        alice.verify_solution(&solution, NOW + 601),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
}

#[test]
fn ticket_is_valid_for_its_issuer_until_its_expiry() {
    // Another server ignores the ticket and demands work.
    let (_, bob, ticket, ..) = shown_ticket();
    let mut carol = Side::new(4000, &["messages"], easy());
    let challenge = carol.challenge_for(Some(&ticket));
    let (solution, _) = bob.solve(&challenge, carol.onion());
    assert!(carol.verify_solution(&solution, NOW).is_ok());
    // Issued in the future, and expired.
    for issued in [NOW + 1, NOW - 31 * 24 * 3600] {
        let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
        let ticket = alice.ticket_for(&bob.peer_id(), issued);
        let challenge = alice.challenge_for(Some(&ticket));
        let HandshakeMessage::Challenge(challenge) =
            HandshakeMessage::decode(&challenge, 8192).unwrap()
        else {
            panic!()
        };
        assert_eq!(Cookie::decode(&challenge.cookie).unwrap().effort, 1);
    }
    // The ticket expires between hello and solution.
    let (mut alice, bob) = (Side::alice(unsolvable()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW - 30 * 24 * 3600);
    let challenge = alice.challenge_for(Some(&ticket));
    let (solution, _) = bob.show_ticket(&ticket, &challenge, alice.onion());
    check(
        alice.verify_solution(&solution, NOW + 1),
        Misbehaviour::InvalidTicket,
        RefusalCode::Expired,
    );
}

#[test]
fn challenge_without_work_needs_a_ticket_and_challenge_with_work_rejects_one() {
    let (mut alice, bob, ticket, solution, _) = shown_ticket();
    let edited = edit_solution(&solution, |solution| {
        solution.ticket = None;
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::InvalidTicket,
        RefusalCode::Expired,
    );
    let HandshakeMessage::Challenge(with_work) =
        HandshakeMessage::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    let edited = edit_solution(&solution, |solution| {
        (solution.cookie, solution.sealed) = (with_work.cookie, with_work.sealed);
        solution.ticket = Some(ByteBuf::from(ticket.as_bytes()));
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Claims("a ticket where work was asked"),
        RefusalCode::Malformed,
    );
}

#[test]
fn ticket_uses_per_minute_are_limited_and_then_work_is_demanded() {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW);
    let mut spare = Vec::new();
    for _ in 0..7 {
        let challenge = alice.challenge_for(Some(&ticket));
        spare.push(bob.show_ticket(&ticket, &challenge, alice.onion()).0);
    }
    for solution in &spare[..6] {
        assert!(alice.verify_solution(solution, NOW).is_ok());
    }
    // Requested before the limit was reached, and shown after.
    assert!(matches!(
        error(alice.verify_solution(&spare[6], NOW)),
        HandshakeError::Busy
    ));
    let challenge = alice.challenge_for(Some(&ticket));
    let (worked, _) = bob.solve(&challenge, alice.onion());
    assert!(alice.verify_solution(&worked, NOW).is_ok());
    // The solution that got `busy` kept its serial.
    assert!(alice.verify_solution(&spare[6], NOW + 60).is_ok());
}

#[test]
fn extra_doublings_need_the_claimed_work_and_inner_bits() {
    let config = GateConfig {
        effort_idle: 4,
        effort_base: 4,
        inner_bits: 2,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve_with_extra(&challenge, alice.onion(), 3);
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    assert_eq!(verified.effort(), 32);
    let (welcome, at_alice) = alice.welcome(verified);
    assert_eq!(
        (
            at_alice.effort(),
            awaiting.receive(&welcome).unwrap().effort()
        ),
        (32, 32)
    );
    // Claimed without the work: the nonce for the cookie's effort fails the claimed inner
    // condition.
    let challenge = alice.challenge();
    let (solution, _) = bob.solve(&challenge, alice.onion());
    let solving = bob.accept(&challenge, alice.onion()).unwrap();
    let harder = solving.puzzle(4).unwrap().unwrap();
    let edited = edit_solution(&solution, |solution| {
        solution.extra_doublings = 4;
        sign(solution, &bob, Context::Solution, &alice);
    });
    let nonce = nonce_of(&edited);
    assert!(!harder.inner_holds(&nonce));
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::InnerCondition,
        RefusalCode::Work,
    );
    // The claimed inner condition holds, the claimed work does not.
    let (passes, memory) = (
        |nonce: &u128| harder.inner_holds(&nonce.to_be_bytes()),
        &mut crate::puzzle::Algorithm::Argon2id1m.memory(),
    );
    let claimed = (0u128..)
        .filter(passes)
        .find(|nonce| !harder.work_holds(&nonce.to_be_bytes(), memory));
    let edited = edit_solution(&edited, |solution| {
        solution.nonce = ByteArray::new(claimed.unwrap().to_be_bytes());
        sign(solution, &bob, Context::Solution, &alice);
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
}

fn nonce_of(frame: &[u8]) -> [u8; 16] {
    let mut nonce = [0; 16];
    edit_solution(frame, |solution| {
        nonce.copy_from_slice(solution.nonce.as_slice())
    });
    nonce
}

#[test]
fn extra_doublings_stay_within_the_clients_limits() {
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
fn low_effort_cookie_is_rejected_under_load() {
    let config = GateConfig {
        effort_idle: 2,
        effort_base: 16,
        inner_bits: 1,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config.clone()), Side::bob(config));
    let (hello, _) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
    let mut open = |frame: &[u8], effort| {
        AwaitHello::new(alice.context.clone()).receive(
            frame,
            &mut alice.server,
            Moment { effort, now: NOW },
            &mut alice.rng,
        )
    };
    let FirstMessage::Hello { challenge, .. } = open(&hello, 2).unwrap() else {
        panic!("a hello is no solution")
    };
    let (solution, _) = bob.solve(&challenge, Side::alice(easy()).onion());
    check(
        open(&solution, 16).map(drop),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
    // The serial is unused: when the gate is idle again, the cookie is accepted.
    assert!(open(&solution, 2).is_ok());
    // A cookie of the base effort or more is accepted at any load.
    let FirstMessage::Hello { challenge, .. } = open(&hello, 16).unwrap() else {
        panic!("a hello is no solution")
    };
    let (solution, _) = bob.solve(&challenge, Side::alice(easy()).onion());
    assert!(open(&solution, 1 << 20).is_ok());
}

#[test]
fn effort_limit_counts_the_hashes_of_the_inner_condition() {
    let demand = |effort, inner_bits| GateConfig {
        effort_idle: effort,
        effort_base: effort,
        inner_bits,
        ..GateConfig::default()
    };
    // A default client accepts 131072 evaluations at 13 bits. At 14 bits each counts 1.5 times, at
    // 16 bits 4.5 times, rounded down.
    for (effort, inner_bits, is_accepted) in [
        (131_072, 13, true),
        (131_073, 13, false),
        (131_073, 0, false),
        (87_381, 14, true),
        (87_382, 14, false),
        (29_127, 16, true),
        (29_128, 16, false),
    ] {
        let mut alice = Side::alice(demand(effort, inner_bits));
        let bob = Side::bob(GateConfig::default());
        let challenge = alice.challenge();
        assert_eq!(
            bob.accept(&challenge, alice.onion()).is_ok(),
            is_accepted,
            "{effort} at {inner_bits}"
        );
    }
}

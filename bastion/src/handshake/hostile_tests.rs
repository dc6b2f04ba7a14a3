//! The server against hostile clients. One test per attack.

use std::time::Duration;

use keys::{Context, Malformed, Signature};
use proptest::prelude::*;
use serde_bytes::ByteArray;

use super::testing::{
    NOW, Side, alice_and_bob, check, easy, edit_claims, edit_solution, error, sign,
};
use super::{AwaitChallenge, FirstMessage, Moment, Work};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::features::Features;
use crate::messages::{
    Challenge, Cookie, HandshakeMessage, Hello, Refusal, RefusalCode, Solution, Welcome,
};
use crate::puzzle::{ChallengeBytes, Puzzle};

#[test]
fn truncated_and_oversized_solutions_are_malformed() {
    let (mut alice, _, solution, _) = alice_and_bob();
    for cut in 0..solution.len() {
        assert!(matches!(
            error(alice.verify_solution(&solution[..cut], NOW)),
            HandshakeError::Malformed(_)
        ));
    }
    let long = edit_solution(&solution, |solution| solution.claims = vec![0; 9000].into());
    let error = error(alice.verify_solution(&long, NOW));
    assert!(matches!(
        error,
        HandshakeError::Malformed(Malformed::TooLong(_))
    ));
    assert_eq!(error.code(), Some(RefusalCode::Malformed));
}

#[test]
fn rejects_messages_out_of_order() {
    let (mut alice, bob, solution, awaiting) = alice_and_bob();
    let challenge = alice.challenge();
    let out_of_order = |awaited, got| Misbehaviour::OutOfOrder { awaited, got };
    check(
        alice.open(&challenge, NOW),
        out_of_order("hello or solution", "challenge"),
        RefusalCode::Malformed,
    );
    let (hello, _) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
    let FirstMessage::Hello { next, .. } = alice.open(&hello, NOW).unwrap() else {
        panic!()
    };
    let moment = Moment {
        effort: 1,
        now: NOW,
    };
    check(
        next.receive(&hello, &mut alice.server, moment),
        out_of_order("solution", "hello"),
        RefusalCode::Malformed,
    );
    check(
        bob.accept(&solution, alice.onion()),
        out_of_order("challenge", "solution"),
        RefusalCode::Malformed,
    );
    check(
        awaiting.receive(&challenge),
        out_of_order("welcome", "challenge"),
        RefusalCode::Malformed,
    );
}

#[test]
fn hello_without_a_common_version_is_incompatible() {
    let mut alice = Side::alice(easy());
    let hello = HandshakeMessage::Hello(Hello {
        ticket: None,
        features: Features::none(),
        versions: vec![2, 3],
    })
    .encode();
    let error = error(alice.open(&hello, NOW));
    assert!(matches!(
        error,
        HandshakeError::PeerIncompatible(Incompatibility::Version)
    ));
    assert_eq!(error.code(), Some(RefusalCode::Version));
}

#[test]
fn client_names_the_older_node_when_no_version_is_common() {
    let text = |versions: Vec<u64>| {
        let (.., awaiting) = alice_and_bob();
        let refused = HandshakeMessage::Refused(Refusal {
            code: RefusalCode::Version,
            retry_s: None,
            versions: Some(versions),
        });
        error(awaiting.receive(&refused.encode())).to_string()
    };
    assert_eq!(
        text(vec![2, 3]),
        "refused by the peer: version: the peer speaks protocol versions 2, 3, this node 1: \
         update this node"
    );
    assert!(text(vec![0]).ends_with("this node 1: update the peer"));
}

#[test]
fn client_returns_the_refusal_code() {
    let (_, bob, _, awaiting) = alice_and_bob();
    let refused = HandshakeMessage::Refused(Refusal {
        code: RefusalCode::Banned,
        retry_s: None,
        versions: None,
    })
    .encode();
    assert!(matches!(
        error(awaiting.receive(&refused)),
        HandshakeError::Refused {
            code: RefusalCode::Banned,
            retry_s: None,
            ..
        }
    ));
    assert!(matches!(
        error(bob.accept(&refused, bob.onion())),
        HandshakeError::Refused {
            code: RefusalCode::Banned,
            retry_s: None,
            ..
        }
    ));
}

#[test]
fn solution_is_accepted_once() {
    let (mut alice, _, solution, _) = alice_and_bob();
    assert!(alice.verify_solution(&solution, NOW).is_ok());
    check(
        alice.verify_solution(&solution, NOW),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn one_solution_on_two_streams_is_verified_once() {
    let (mut alice, _, solution, _) = alice_and_bob();
    let mut precheck = || match alice.open(&solution, NOW).unwrap() {
        FirstMessage::Solution(prechecked) => *prechecked,
        FirstMessage::Hello { .. } => panic!("expected a solution"),
    };
    // Both pass the cheap checks before either is reserved.
    let (first, second) = (precheck(), precheck());
    assert!(alice.reserve(first).is_ok());
    check(
        alice.reserve(second),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn solution_is_rejected_after_the_expiry() {
    let (mut alice, _, solution, _) = alice_and_bob();
    check(
        alice.verify_solution(&solution, NOW + 601),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
    assert!(alice.verify_solution(&solution, NOW + 600).is_ok());
}

#[test]
fn solution_for_one_server_is_rejected_by_another() {
    let (_, _, solution, _) = alice_and_bob();
    check(
        Side::mallory().verify_solution(&solution, NOW),
        Misbehaviour::CookieUnknown,
        RefusalCode::Expired,
    );
}

#[test]
fn changed_cookie_is_unknown() {
    let (mut alice, _, solution, _) = alice_and_bob();
    let edited = edit_solution(&solution, |solution| {
        let mut cookie = Cookie::decode(&solution.cookie).unwrap();
        cookie.expiry += 1000;
        solution.cookie = cookie.encode().into();
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::CookieUnknown,
        RefusalCode::Expired,
    );
}

#[test]
fn nonce_without_work_fails_the_cheaper_check_first() {
    let config = GateConfig {
        effort_base: 1 << 40,
        inner_bits: 8,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config), Side::bob(easy()));
    let HandshakeMessage::Challenge(Challenge { cookie, sealed }) =
        HandshakeMessage::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    // Bob's solution of an easy challenge gives the form of the message, without the work.
    let (.., template, _) = alice_and_bob();
    let forge = |nonce: u128| {
        edit_solution(&template, |solution| {
            (solution.cookie, solution.sealed) = (cookie.clone(), sealed.clone());
            solution.nonce = ByteArray::new(nonce.to_be_bytes());
            sign(solution, &bob, Context::Solution, &Side::alice(easy()));
        })
    };
    let challenge = ChallengeBytes {
        cookie: &cookie,
        sealed: &sealed,
    };
    let passes = |nonce: &u128| Puzzle::inner_condition(8, challenge, &nonce.to_be_bytes());
    let outside = (0..).find(|nonce| !passes(nonce)).unwrap();
    check(
        alice.verify_solution(&forge(outside), NOW),
        Misbehaviour::InnerCondition,
        RefusalCode::Work,
    );
    let inside = (0..).find(passes).unwrap();
    check(
        alice.verify_solution(&forge(inside), NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
}

#[test]
fn work_of_one_solver_is_rejected_from_another() {
    // With these fixed keys Bob's nonce does not solve Mallory's puzzle by chance.
    let config = GateConfig {
        effort_idle: 64,
        effort_base: 64,
        inner_bits: 0,
        ..GateConfig::default()
    };
    let (mut alice, bob, mallory) = (Side::alice(config), Side::bob(easy()), Side::mallory());
    let challenge = alice.challenge();
    let (solution, _) = bob.solve(&challenge, alice.onion());
    let solving = mallory.accept(&challenge, alice.onion()).unwrap();
    let (frame, _) = solving.solved(Work::NONE, mallory.profile.clone(), Duration::ZERO);
    let stolen = edit_solution(&frame, |hers| {
        edit_solution(&solution, |his| hers.nonce = his.nonce);
        sign(hers, &mallory, Context::Solution, &alice);
    });
    check(
        alice.verify_solution(&stolen, NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
}

#[test]
fn solution_needs_the_solvers_signature_in_the_solution_context() {
    let mallory = Side::mallory();
    for (context, by_mallory) in [
        (Context::Solution, true),
        (Context::Welcome, false),
        (Context::Object, false),
    ] {
        let (mut alice, bob, solution, _) = alice_and_bob();
        let by = if by_mallory { &mallory } else { &bob };
        let edited = edit_solution(&solution, |solution| sign(solution, by, context, &alice));
        check(
            alice.verify_solution(&edited, NOW),
            Misbehaviour::Signature,
            RefusalCode::Signature,
        );
    }
}

#[test]
fn signature_covers_claims_nonce_and_challenge() {
    let (mut alice, bob, solution, _) = alice_and_bob();
    // The claims are changed after signing.
    let edited = edit_claims(&solution, &bob, &alice, |claims| {
        claims.sync_domains.clear()
    });
    let unsigned = edit_solution(&solution, |solution| copy_claims(&edited, solution));
    check(
        alice.verify_solution(&unsigned, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // The nonce is changed; every nonce solves this puzzle.
    let (mut alice, .., solution, _) = alice_and_bob();
    let edited = edit_solution(&solution, |solution| {
        solution.nonce = ByteArray::new([9; 16])
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Cookie and seal are replaced by another challenge of Alice's.
    let (mut alice, .., solution, _) = alice_and_bob();
    let HandshakeMessage::Challenge(other) =
        HandshakeMessage::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    let edited = edit_solution(&solution, |solution| {
        (solution.cookie, solution.sealed) = (other.cookie, other.sealed)
    });
    check(
        alice.verify_solution(&edited, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
}

/// Copies the claims of another solution, without signing again.
fn copy_claims(from: &[u8], into: &mut Solution) {
    edit_solution(from, |from| into.claims = from.claims.clone());
}

#[test]
fn man_in_the_middle_cannot_relay_challenge_solution_or_welcome() {
    let (mut alice, bob, mut mallory) = (Side::alice(easy()), Side::bob(easy()), Side::mallory());
    // Bob dialled Mallory, who relays Alice's challenge. The challenge names another onion service.
    let challenge = alice.challenge();
    check(
        bob.accept(&challenge, mallory.onion()),
        Misbehaviour::CookieForAnotherOnion,
        RefusalCode::Malformed,
    );
    // Mallory challenges Bob and puts Alice's cookie into Bob's solution.
    let (solution, awaiting) = bob.solve(&mallory.challenge(), mallory.onion());
    let HandshakeMessage::Challenge(hers) = HandshakeMessage::decode(&challenge, 8192).unwrap()
    else {
        panic!()
    };
    let relayed = edit_solution(&solution, |solution| {
        (solution.cookie, solution.sealed) = (hers.cookie, hers.sealed);
    });
    check(
        alice.verify_solution(&relayed, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Mallory relays Alice's welcome for Mallory to Bob.
    let challenge = alice.challenge();
    let (own, _) = mallory.solve(&challenge, alice.onion());
    let verified = alice.verify_solution(&own, NOW).unwrap();
    let (welcome, _) = alice.welcome(verified);
    check(
        awaiting.receive(&welcome),
        Misbehaviour::OnionNotDialled,
        RefusalCode::Onion,
    );
}

#[test]
fn handshake_with_the_own_peer_id_is_refused() {
    let mut alice = Side::alice(easy());
    let challenge = alice.challenge();
    let (solution, awaiting) = alice.solve(&challenge, alice.onion());
    check(
        alice.verify_solution(&solution, NOW),
        Misbehaviour::OwnPeerId,
        RefusalCode::OwnPeerId,
    );
    // Alice's own claims in a welcome to Alice.
    let mirror = HandshakeMessage::Welcome(Welcome {
        claims: alice
            .context
            .encode_claims(alice.profile.clone(), 8192)
            .into(),
        ticket: None,
        domains: Vec::new(),
        features: Features::none(),
        signature: Signature::from_bytes([0; 64]),
    });
    check(
        awaiting.receive(&mirror.encode()),
        Misbehaviour::OwnPeerId,
        RefusalCode::OwnPeerId,
    );
}

proptest! {
    #[test]
    fn random_frames_are_rejected_in_every_state(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let (mut alice, bob, _, awaiting) = alice_and_bob();
        prop_assert!(alice.open(&bytes, NOW).is_err());
        prop_assert!(bob.accept(&bytes, alice.onion()).is_err());
        prop_assert!(awaiting.receive(&bytes).is_err());
    }

    #[test]
    fn solution_with_a_changed_byte_is_rejected(index: prop::sample::Index, change in 1u8..) {
        let (mut alice, _, mut solution, _) = alice_and_bob();
        let index = index.index(solution.len());
        solution[index] ^= change;
        prop_assert!(alice.verify_solution(&solution, NOW).is_err());
    }
}

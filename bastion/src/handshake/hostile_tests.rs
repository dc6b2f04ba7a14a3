//! Against hostile callers. One test per act.

use keys::codec;
use keys::{Context, Malformed, SecretKey, Signature};
use proptest::prelude::*;
use serde_bytes::ByteArray;

use super::testing::{NOW, Side, alice_and_bob, bend, check, easy, error, sign};
use super::*;
use crate::claims::Claims;
use crate::error::{Incompatibility, RefusalCode};
use crate::messages::{Challenge, Cookie, Hello, Refused, Solution, Welcome};
use crate::puzzle::Puzzle;

/// Changes Bob's claims inside a solution and signs them as Bob.
fn bend_claims(
    frame: &[u8],
    bob: &Side,
    alice: &Side,
    change: impl FnOnce(&mut Claims),
) -> Vec<u8> {
    bend(frame, |solution| {
        let mut claims = Claims::decode(&solution.claims, &easy()).unwrap();
        change(&mut claims);
        solution.claims = codec::encode(&claims).into();
        sign(solution, bob, Context::Solution, alice);
    })
}

#[test]
fn a_truncated_or_oversized_message_is_malformed() {
    let (mut alice, _, solution, _) = alice_and_bob();
    for cut in 0..solution.len() {
        assert!(matches!(
            error(alice.judge(&solution[..cut], NOW)),
            HandshakeError::Malformed(_)
        ));
    }
    let long = bend(&solution, |solution| solution.claims = vec![0; 9000].into());
    let error = error(alice.judge(&long, NOW));
    assert!(matches!(
        error,
        HandshakeError::Malformed(Malformed::TooLong(_))
    ));
    assert_eq!(error.code(), Some(RefusalCode::Malformed));
}

#[test]
fn messages_out_of_order_are_refused() {
    let (mut alice, bob, solution, awaiting) = alice_and_bob();
    let challenge = alice.challenge();
    let out_of_order = |awaited, got| Misbehaviour::OutOfOrder { awaited, got };
    check(
        alice.open(&challenge, NOW),
        out_of_order("hello or solution", "challenge"),
        RefusalCode::Malformed,
    );
    let (hello, _) = AwaitChallenge::begin(bob.here.clone(), alice.onion(), None);
    let Opening::Hello { next, .. } = alice.open(&hello, NOW).unwrap() else {
        panic!()
    };
    check(
        next.receive(&hello, &mut alice.desk, 1, NOW),
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
fn no_version_in_common_is_incompatible() {
    let mut alice = Side::alice(easy());
    let hello = Message::Hello(Hello {
        ticket: None,
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
fn a_refusal_is_passed_on_as_its_code() {
    let (_, bob, _, awaiting) = alice_and_bob();
    let refused = Message::Refused(Refused {
        code: RefusalCode::Banned,
        retry_s: None,
    })
    .encode();
    assert!(matches!(
        error(awaiting.receive(&refused)),
        HandshakeError::Refused {
            code: RefusalCode::Banned,
            retry_s: None
        }
    ));
    assert!(matches!(
        error(bob.accept(&refused, bob.onion())),
        HandshakeError::Refused {
            code: RefusalCode::Banned,
            retry_s: None
        }
    ));
}

#[test]
fn a_solution_is_good_once() {
    let (mut alice, _, solution, _) = alice_and_bob();
    assert!(alice.judge(&solution, NOW).is_ok());
    check(
        alice.judge(&solution, NOW),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn of_two_streams_with_one_solution_one_is_verified() {
    let (mut alice, _, solution, _) = alice_and_bob();
    let mut screen = || match alice.open(&solution, NOW).unwrap() {
        Opening::Solution(screened) => *screened,
        Opening::Hello { .. } => panic!("a solution is no hello"),
    };
    // Both pass what is cheap before either is taken.
    let (first, second) = (screen(), screen());
    assert!(alice.take(first).is_ok());
    check(
        alice.take(second),
        Misbehaviour::CookieUsed,
        RefusalCode::Used,
    );
}

#[test]
fn a_solution_comes_in_time_or_not_at_all() {
    let (mut alice, _, solution, _) = alice_and_bob();
    check(
        alice.judge(&solution, NOW + 601),
        Misbehaviour::CookieExpired,
        RefusalCode::Expired,
    );
    assert!(alice.judge(&solution, NOW + 600).is_ok());
}

#[test]
fn a_solution_for_one_node_is_none_for_another() {
    let (_, _, solution, _) = alice_and_bob();
    check(
        Side::mallory().judge(&solution, NOW),
        Misbehaviour::CookieNotOurs,
        RefusalCode::Expired,
    );
}

#[test]
fn a_changed_cookie_is_not_ours() {
    let (mut alice, _, solution, _) = alice_and_bob();
    let bent = bend(&solution, |solution| {
        let mut cookie = Cookie::decode(&solution.cookie).unwrap();
        cookie.expiry += 1000;
        solution.cookie = cookie.encode().into();
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::CookieNotOurs,
        RefusalCode::Expired,
    );
}

#[test]
fn a_nonce_without_work_is_refused_by_the_cheaper_check_first() {
    let config = GateConfig {
        effort_base: 1 << 40,
        inner_bits: 8,
        ..GateConfig::default()
    };
    let (mut alice, bob) = (Side::alice(config), Side::bob(easy()));
    let Message::Challenge(Challenge { cookie, sealed }) =
        Message::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    // Bob has the proper form from an easy challenge of Alice's, but not the work.
    let (.., template, _) = alice_and_bob();
    let forge = |nonce: u128| {
        bend(&template, |solution| {
            (solution.cookie, solution.sealed) = (cookie.clone(), sealed.clone());
            solution.nonce = ByteArray::new(nonce.to_be_bytes());
            sign(solution, &bob, Context::Solution, &Side::alice(easy()));
        })
    };
    let passes =
        |nonce: &u128| Puzzle::inner_condition(8, (&cookie, &sealed), &nonce.to_be_bytes());
    let outside = (0..).find(|nonce| !passes(nonce)).unwrap();
    check(
        alice.judge(&forge(outside), NOW),
        Misbehaviour::InnerCondition,
        RefusalCode::Work,
    );
    let inside = (0..).find(passes).unwrap();
    check(
        alice.judge(&forge(inside), NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
}

#[test]
fn work_for_one_solver_is_none_for_another() {
    // Fixed keys: that the first nonces of this puzzle do not happen to solve Mallory's was tried once and stays so.
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
    let stolen = bend(&frame, |hers| {
        bend(&solution, |his| hers.nonce = his.nonce);
        sign(hers, &mallory, Context::Solution, &alice);
    });
    check(
        alice.judge(&stolen, NOW),
        Misbehaviour::Work,
        RefusalCode::Work,
    );
}

#[test]
fn only_the_solver_signs_its_solution_and_only_as_a_solution() {
    let mallory = Side::mallory();
    for (context, by_mallory) in [
        (Context::Solution, true),
        (Context::Welcome, false),
        (Context::Object, false),
    ] {
        let (mut alice, bob, solution, _) = alice_and_bob();
        let by = if by_mallory { &mallory } else { &bob };
        let bent = bend(&solution, |solution| sign(solution, by, context, &alice));
        check(
            alice.judge(&bent, NOW),
            Misbehaviour::Signature,
            RefusalCode::Signature,
        );
    }
}

#[test]
fn every_signed_part_is_signed() {
    let (mut alice, bob, solution, _) = alice_and_bob();
    // Claims, changed after signing.
    let bent = bend_claims(&solution, &bob, &alice, |claims| {
        claims.sync_domains.clear()
    });
    let unsigned = bend(&solution, |solution| bend_into(&bent, solution));
    check(
        alice.judge(&unsigned, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Nonce: any is a solution here.
    let (mut alice, .., solution, _) = alice_and_bob();
    let bent = bend(&solution, |solution| {
        solution.nonce = ByteArray::new([9; 16])
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Cookie and seal: another challenge of Alice's.
    let (mut alice, .., solution, _) = alice_and_bob();
    let Message::Challenge(other) = Message::decode(&alice.challenge(), 8192).unwrap() else {
        panic!()
    };
    let bent = bend(&solution, |solution| {
        (solution.cookie, solution.sealed) = (other.cookie, other.sealed)
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
}

/// Takes over the claims of another solution frame, leaving the signature as it is.
fn bend_into(from: &[u8], into: &mut Solution) {
    bend(from, |from| into.claims = from.claims.clone());
}

#[test]
fn a_man_in_the_middle_cannot_pass_on_what_bob_gives_him() {
    let (mut alice, bob, mut mallory) = (Side::alice(easy()), Side::bob(easy()), Side::mallory());
    // Bob dialled Mallory, who hands him Alice's challenge: Bob sees another onion in it.
    let challenge = alice.challenge();
    check(
        bob.accept(&challenge, mallory.onion()),
        Misbehaviour::CookieOfAnotherOnion,
        RefusalCode::Malformed,
    );
    // Mallory challenges Bob himself and puts Alice's cookie under Bob's solution.
    let (solution, awaiting) = bob.solve(&mallory.challenge(), mallory.onion());
    let Message::Challenge(hers) = Message::decode(&challenge, 8192).unwrap() else {
        panic!()
    };
    let relayed = bend(&solution, |solution| {
        (solution.cookie, solution.sealed) = (hers.cookie, hers.sealed);
    });
    check(
        alice.judge(&relayed, NOW),
        Misbehaviour::Signature,
        RefusalCode::Signature,
    );
    // Mallory answers Bob with Alice's welcome to Mallory.
    let challenge = alice.challenge();
    let (own, _) = mallory.solve(&challenge, alice.onion());
    let verified = alice.judge(&own, NOW).unwrap();
    let (welcome, _) = alice.welcome(verified);
    check(
        awaiting.receive(&welcome),
        Misbehaviour::OnionNotDialled,
        RefusalCode::Onion,
    );
}

#[test]
fn claims_that_break_a_rule_are_refused() {
    type Change = fn(&mut Claims);
    let rules: [(Change, &str); 6] = [
        (
            |claims| claims.apps = vec!["b".into(), "a".into()],
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = vec!["a".into(), "a".into()],
            "names are not sorted, or repeat",
        ),
        (
            |claims| claims.apps = vec!["Not A Slug".into()],
            "a name breaks the grammar",
        ),
        (
            |claims| claims.sync_domains = vec!["a.b.c".into()],
            "a name breaks the grammar",
        ),
        (
            |claims| claims.apps = (10..75).map(|number| format!("a{number}")).collect(),
            "too many names",
        ),
        (
            |claims| {
                let key = SecretKey::from_seed(&[1; 32]);
                claims.identities = vec![keys::SignedObject::sign(0, &key, vec![0x80]); 9];
            },
            "too many identities",
        ),
    ];
    for (change, why) in rules {
        let (mut alice, bob, solution, _) = alice_and_bob();
        let bent = bend_claims(&solution, &bob, &alice, change);
        check(
            alice.judge(&bent, NOW),
            Misbehaviour::Claims(why),
            RefusalCode::Malformed,
        );
    }
}

#[test]
fn an_onion_address_is_believed_only_with_its_own_signature_for_this_node() {
    let carol = Side::new(4000, &[], easy());
    let stolen = |claims: &mut Claims| claims.onion = carol.onion();
    let (mut alice, bob, solution, _) = alice_and_bob();
    let bent = bend_claims(&solution, &bob, &alice, stolen);
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::OnionUnproved,
        RefusalCode::Onion,
    );
    // Carol's signature for Carol is none for Bob.
    let (mut alice, bob, solution, _) = alice_and_bob();
    let bent = bend_claims(&solution, &bob, &alice, |claims| {
        claims.onion = carol.onion();
        claims.onion_signature = carol
            .here
            .keys
            .sign_as_onion(Context::OnionBinding, &[carol.peer_id().as_bytes()]);
    });
    check(
        alice.judge(&bent, NOW),
        Misbehaviour::OnionUnproved,
        RefusalCode::Onion,
    );
}

#[test]
fn nobody_meets_itself() {
    let mut alice = Side::alice(easy());
    let challenge = alice.challenge();
    let (solution, awaiting) = alice.solve(&challenge, alice.onion());
    check(
        alice.judge(&solution, NOW),
        Misbehaviour::OwnPeerId,
        RefusalCode::OwnPeerId,
    );
    // Her own claims, mirrored in a welcome.
    let mirror = Message::Welcome(Welcome {
        claims: crate::claims::claims_of(alice.profile.clone(), &alice.here.keys, 8192).into(),
        ticket: None,
        domains: Vec::new(),
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
    fn random_frames_never_panic_and_never_pass(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (mut alice, bob, _, awaiting) = alice_and_bob();
        prop_assert!(alice.open(&bytes, NOW).is_err());
        prop_assert!(bob.accept(&bytes, alice.onion()).is_err());
        prop_assert!(awaiting.receive(&bytes).is_err());
    }

    #[test]
    fn a_solution_with_any_changed_byte_never_passes(place: prop::sample::Index, change in 1u8..) {
        let (mut alice, _, mut solution, _) = alice_and_bob();
        let place = place.index(solution.len());
        solution[place] ^= change;
        prop_assert!(alice.judge(&solution, NOW).is_err());
    }
}

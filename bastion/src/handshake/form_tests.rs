//! Every limit that the grammar of docs/PROTOCOL.md 3 states: a message at the limit is well
//! formed, one beyond it is malformed.

use keys::{Digest, KeyEvent, PublicKey, Signature, SignedObject, codec};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::testing::{NOW, Side, alice_and_bob, easy, edit_claims, edit_solution, error};
use super::{AwaitChallenge, FirstMessage};
use crate::claims::{AppClaim, Claims};
use crate::error::HandshakeError;
use crate::messages::{HandshakeMessage, Refusal, RefusalCode, Solution, Welcome};

/// A hello without the checks of its types.
#[derive(Clone, Serialize)]
struct RawHello {
    ticket: Option<ByteBuf>,
    features: Vec<String>,
    versions: Vec<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum RawMessage {
    Hello(RawHello),
}

fn raw(edit: impl FnOnce(&mut RawHello)) -> Vec<u8> {
    let mut hello = RawHello {
        ticket: None,
        features: Vec::new(),
        versions: vec![1],
    };
    edit(&mut hello);
    codec::encode(&RawMessage::Hello(hello))
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number:02}"))
        .collect()
}

#[track_caller]
fn is_malformed<T>(result: Result<T, HandshakeError>) {
    let error = error(result);
    assert_eq!(error.code(), Some(RefusalCode::Malformed), "{error}");
}

#[test]
fn each_limit_of_a_hello_is_malformed() {
    let mut alice = Side::alice(easy());
    let mut of = |edit: fn(&mut RawHello)| alice.open(&raw(edit), NOW);
    for within in [
        of(|hello| hello.versions = (1..17).collect()),
        of(|hello| hello.ticket = Some(vec![7; 256].into())),
        of(|hello| hello.features = names("f", 16)),
        of(|hello| hello.features = vec!["f".repeat(32)]),
    ] {
        assert!(matches!(within.unwrap(), FirstMessage::Hello { .. }));
    }
    for beyond in [
        of(|hello| hello.versions = (1..18).collect()),
        of(|hello| hello.versions.clear()),
        of(|hello| hello.ticket = Some(vec![7; 257].into())),
        of(|hello| hello.features = names("f", 17)),
        of(|hello| hello.features = vec!["f".repeat(33)]),
    ] {
        is_malformed(beyond);
    }
}

/// Opens Bob's solution after an edit that breaks the signature, which is verified later.
fn opened(edit: impl FnOnce(&mut Solution)) -> Result<FirstMessage, HandshakeError> {
    let (mut alice, _, solution, _) = alice_and_bob();
    alice.open(&edit_solution(&solution, edit), NOW)
}

#[test]
fn each_limit_of_a_solution_is_malformed() {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let challenge = alice.challenge();
    let (solution, _) = bob.solve_with_extra(&challenge, alice.onion(), 4);
    assert!(alice.open(&solution, NOW).is_ok());
    is_malformed(opened(|solution| solution.extra_doublings = 5));
    is_malformed(opened(|solution| {
        solution.ticket = Some(vec![7; 257].into())
    }));
    // The form is judged before the cookie, which another node sealed.
    let strange = |solution: &mut Solution| {
        solution.sealed = vec![0; 44].into();
        solution.extra_doublings = 5;
    };
    is_malformed(opened(strange));
    // With a ticket there is no work to be doubled.
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let ticket = alice.ticket_for(&bob.peer_id(), NOW);
    let challenge = alice.challenge_for(Some(&ticket));
    let (solution, _) = bob.show_ticket(&ticket, &challenge, alice.onion());
    let doubled = edit_solution(&solution, |solution| solution.extra_doublings = 1);
    is_malformed(alice.open(&doubled, NOW));
    assert!(alice.open(&solution, NOW).is_ok());
}

#[test]
fn each_limit_of_the_claims_is_malformed() {
    let of = |edit: &dyn Fn(&mut Claims)| {
        let (mut alice, bob, solution, _) = alice_and_bob();
        alice.open(&edit_claims(&solution, &bob, &alice, edit), NOW)
    };
    let events = |count| {
        move |claims: &mut Claims| {
            let event = KeyEvent {
                key: PublicKey::from_bytes([1; 32]),
                next: Digest::from_bytes([2; 32]),
                signature: Signature::from_bytes([3; 64]),
            };
            claims.node.events = vec![event; count];
        }
    };
    let apps = |count| {
        move |claims: &mut Claims| {
            let digest = keys::SchemaDigest::from_bytes([1; 16]);
            claims.apps = names("a", count)
                .into_iter()
                .map(|slug| AppClaim::new(slug, 1, digest))
                .collect();
        }
    };
    let domains = |count| move |claims: &mut Claims| claims.sync_domains = names("d", count);
    let name = |length| move |claims: &mut Claims| claims.sync_domains = vec!["d".repeat(length)];
    let identities = |count| {
        move |claims: &mut Claims| {
            let signature = Signature::from_bytes([3; 64]);
            claims.identities = vec![SignedObject::from_parts(0, vec![0x80], signature); count];
        }
    };
    for (within, beyond) in [
        (of(&events(32)), of(&events(33))),
        (of(&apps(64)), of(&apps(65))),
        (of(&domains(64)), of(&domains(65))),
        (of(&name(64)), of(&name(65))),
        (of(&identities(8)), of(&identities(9))),
    ] {
        assert!(within.is_ok());
        is_malformed(beyond);
    }
}

#[test]
fn each_limit_of_a_reply_is_malformed() {
    let (mut alice, bob, solution, awaiting) = alice_and_bob();
    let HandshakeMessage::Challenge(challenge) =
        HandshakeMessage::decode(&alice.challenge(), 8192).unwrap()
    else {
        panic!()
    };
    for (length, is_valid) in [(256, true), (257, false)] {
        let mut challenge = challenge.clone();
        challenge.sealed = vec![0; length].into();
        let frame = HandshakeMessage::Challenge(challenge).encode();
        let (_, next) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
        match is_valid {
            true => assert!(next.receive(&frame).is_ok()),
            false => is_malformed(next.receive(&frame)),
        }
    }
    let verified = alice.verify_solution(&solution, NOW).unwrap();
    let (welcome, _) = alice.welcome(verified);
    let with_ticket = |length: usize| match HandshakeMessage::decode(&welcome, 8192).unwrap() {
        HandshakeMessage::Welcome(welcome) => HandshakeMessage::Welcome(Welcome {
            ticket: Some(vec![7; length].into()),
            ..welcome
        }),
        other => panic!("{}", other.kind()),
    };
    // A longer ticket than the signed one.
    let unsigned = error(awaiting.clone().receive(&with_ticket(256).encode()));
    assert_eq!(unsigned.code(), Some(RefusalCode::Signature));
    is_malformed(awaiting.clone().receive(&with_ticket(257).encode()));
    for count in [0, 17] {
        let refused = HandshakeMessage::Refused(Refusal {
            code: RefusalCode::Version,
            retry_s: None,
            versions: Some((0..count).collect()),
        });
        is_malformed(awaiting.clone().receive(&refused.encode()));
    }
}

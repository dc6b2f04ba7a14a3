//! Every message in every state: truncated, extended, oversized, out of order and repeated.
//!
//! `hostile_tests`, `client_tests` and `ticket_tests` cover the fields of each message.

use serde_bytes::ByteBuf;

use super::testing::{NOW, Side, easy, error};
use super::{AwaitChallenge, AwaitWelcome, FirstMessage, Moment};
use crate::error::{HandshakeError, Misbehaviour};
use crate::features::Features;
use crate::messages::{HandshakeMessage, Hello, Refusal, RefusalCode};

/// One genuine message of each kind, from one handshake.
struct Exchange {
    alice: Side,
    bob: Side,
    messages: [(&'static str, Vec<u8>); 5],
    awaiting: AwaitWelcome,
}

fn exchange() -> Exchange {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let (hello, _) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    // Bob's other solution is admitted, so that the first one stays unused.
    let other = alice.challenge();
    let (other, _) = bob.solve(&other, alice.onion());
    let verified = alice.verify_solution(&other, NOW).unwrap();
    let (welcome, _) = alice.welcome(verified);
    let refused = HandshakeMessage::Refused(Refusal {
        code: RefusalCode::Busy,
        retry_s: Some(1),
        versions: None,
    });
    Exchange {
        alice,
        bob,
        messages: [
            ("hello", hello),
            ("challenge", challenge),
            ("solution", solution),
            ("welcome", welcome),
            ("refused", refused.encode()),
        ],
        awaiting,
    }
}

/// Passes a frame to one of the four states that wait for a message.
fn pass_to(exchange: &mut Exchange, state: &str, frame: &[u8]) -> Result<(), HandshakeError> {
    let Exchange {
        alice,
        bob,
        awaiting,
        ..
    } = exchange;
    let (hello, await_challenge) = AwaitChallenge::begin(bob.context.clone(), alice.onion(), None);
    match state {
        "awaits hello" => alice.open(frame, NOW).map(drop),
        "awaits challenge" => await_challenge.receive(frame).map(drop),
        "awaits welcome" => awaiting.clone().receive(frame).map(drop),
        _ => {
            let FirstMessage::Hello { next, .. } = alice.open(&hello, NOW).unwrap() else {
                panic!("a hello is no solution")
            };
            let moment = Moment {
                effort: 1,
                now: NOW,
            };
            next.receive(frame, &mut alice.server, moment).map(drop)
        }
    }
}

const STATES: [&str; 4] = [
    "awaits hello",
    "awaits challenge",
    "awaits solution",
    "awaits welcome",
];

#[test]
fn every_state_rejects_truncated_extended_and_oversized_messages() {
    let mut exchange = exchange();
    for (kind, message) in exchange.messages.clone() {
        for state in STATES {
            let mut is_malformed = |frame: &[u8], what: &str| {
                let error = error(pass_to(&mut exchange, state, frame));
                assert!(
                    matches!(error, HandshakeError::Malformed(_)),
                    "{what} {kind}, {state}: {error}"
                );
                assert_eq!(error.code(), Some(RefusalCode::Malformed));
            };
            for cut in 0..message.len() {
                is_malformed(&message[..cut], "truncated");
            }
            is_malformed(&[&message[..], &[0]].concat(), "extended");
            let mut long = message.clone();
            long.resize(8193, 0);
            is_malformed(&long, "oversized");
        }
    }
}

#[test]
fn every_state_accepts_only_the_expected_messages() {
    let expected = [
        ("awaits hello", &["hello", "solution"][..]),
        ("awaits challenge", &["challenge"]),
        ("awaits solution", &["solution"]),
        // The welcome of the exchange belongs to another solution, so its signature is wrong.
        ("awaits welcome", &[]),
    ];
    for (state, kinds) in expected {
        for index in 0..5 {
            let mut exchange = exchange();
            let (kind, message) = exchange.messages[index].clone();
            let result = pass_to(&mut exchange, state, &message);
            match result {
                Ok(()) => assert!(kinds.contains(&kind), "{kind} was accepted, {state}"),
                Err(_) if kinds.contains(&kind) => panic!("{kind} was rejected, {state}"),
                Err(HandshakeError::Refused { code, retry_s, .. }) => {
                    let from_alice = state == "awaits challenge" || state == "awaits welcome";
                    assert!(kind == "refused" && from_alice);
                    assert_eq!((code, retry_s), (RefusalCode::Busy, Some(1)));
                }
                Err(HandshakeError::PeerMisbehaved(Misbehaviour::Signature)) => {
                    assert_eq!((kind, state), ("welcome", "awaits welcome"));
                }
                Err(HandshakeError::PeerMisbehaved(Misbehaviour::OutOfOrder { got, .. })) => {
                    assert_eq!(got, kind)
                }
                Err(other) => panic!("{kind}, {state}: {other}"),
            }
        }
    }
}

#[test]
fn repeated_messages_gain_nothing() {
    let mut exchange = exchange();
    let [(_, hello), (_, challenge), (_, solution), (_, welcome), _] = exchange.messages.clone();
    // Two hellos get two challenges, neither of which is stored. A second hello on the same stream
    // is out of order.
    for state in ["awaits hello", "awaits hello"] {
        pass_to(&mut exchange, state, &hello).unwrap();
    }
    assert!(pass_to(&mut exchange, "awaits solution", &hello).is_err());
    // A challenge does not make a client that waits for a welcome solve again.
    assert!(pass_to(&mut exchange, "awaits welcome", &challenge).is_err());
    // A solution's serial is accepted once, on any stream.
    assert!(exchange.alice.verify_solution(&solution, NOW).is_ok());
    for state in ["awaits hello", "awaits solution"] {
        assert!(matches!(
            pass_to(&mut exchange, state, &solution),
            Err(HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed))
        ));
    }
    // A welcome is valid for one solution only.
    for _ in 0..2 {
        assert!(pass_to(&mut exchange, "awaits welcome", &welcome).is_err());
    }
}

#[test]
fn rejects_unknown_versions_and_ignores_an_invalid_ticket() {
    let mut alice = Side::alice(easy());
    let mut hello = |ticket: Option<usize>, versions: Vec<u64>| {
        let ticket = ticket.map(|length| ByteBuf::from(vec![7; length]));
        let hello = Hello {
            ticket,
            features: Features::none(),
            versions,
        };
        alice
            .open(&HandshakeMessage::Hello(hello).encode(), NOW)
            .map(drop)
    };
    hello(None, vec![1, 2]).unwrap();
    assert_eq!(
        error(hello(None, vec![2])).code(),
        Some(RefusalCode::Version)
    );
    // An invalid ticket of any valid length is ignored.
    for length in [0, 1, 88, 89, 90, 256] {
        hello(Some(length), vec![1]).unwrap();
    }
}

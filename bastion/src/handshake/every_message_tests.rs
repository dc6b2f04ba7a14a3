//! Every message in every wrong shape and at every wrong place: truncated, oversized, out of order, twice.
//!
//! What is particular to one message is in `hostile_tests`, `client_tests` and `ticket_tests`.

use serde_bytes::ByteBuf;

use super::testing::{NOW, Side, easy, error};
use super::*;
use crate::error::RefusalCode;
use crate::messages::{Hello, Refused};

/// One genuine message of each kind, from one handshake.
struct Said {
    alice: Side,
    bob: Side,
    messages: [(&'static str, Vec<u8>); 5],
    awaiting: AwaitWelcome,
}

fn said() -> Said {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let (hello, _) = AwaitChallenge::begin(bob.here.clone(), alice.onion(), None);
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    // Another solution of Bob's is admitted, so that this one is still good.
    let other = alice.challenge();
    let (other, _) = bob.solve(&other, alice.onion());
    let verified = alice.judge(&other, NOW).unwrap();
    let (welcome, _) = alice.welcome(verified);
    let refused = Message::Refused(Refused {
        code: RefusalCode::Busy,
        retry_s: Some(1),
    });
    Said {
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

/// What each of the four places that await a message makes of a frame.
fn received(said: &mut Said, place: &str, frame: &[u8]) -> Result<(), HandshakeError> {
    let Said {
        alice,
        bob,
        awaiting,
        ..
    } = said;
    let (hello, begun) = AwaitChallenge::begin(bob.here.clone(), alice.onion(), None);
    match place {
        "awaits hello" => alice.open(frame, NOW).map(drop),
        "awaits challenge" => begun.receive(frame).map(drop),
        "awaits welcome" => awaiting.clone().receive(frame).map(drop),
        _ => {
            let Opening::Hello { next, .. } = alice.open(&hello, NOW).unwrap() else {
                panic!("a hello is no solution")
            };
            next.receive(frame, &mut alice.desk, 1, NOW).map(drop)
        }
    }
}

const PLACES: [&str; 4] = [
    "awaits hello",
    "awaits challenge",
    "awaits solution",
    "awaits welcome",
];

#[test]
fn every_message_is_malformed_when_truncated_extended_or_oversized_wherever_it_comes() {
    let mut said = said();
    for (kind, message) in said.messages.clone() {
        for place in PLACES {
            let mut is_malformed = |frame: &[u8], what: &str| {
                let error = error(received(&mut said, place, frame));
                assert!(
                    matches!(error, HandshakeError::Malformed(_)),
                    "{what} {kind}, {place}: {error}"
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
fn every_message_is_taken_only_where_it_is_awaited() {
    let awaited = [
        ("awaits hello", &["hello", "solution"][..]),
        ("awaits challenge", &["challenge"]),
        ("awaits solution", &["solution"]),
        // The welcome above answers another solution: it is the right kind, and still wrong.
        ("awaits welcome", &[]),
    ];
    for (place, kinds) in awaited {
        for index in 0..5 {
            let mut said = said();
            let (kind, message) = said.messages[index].clone();
            let result = received(&mut said, place, &message);
            match result {
                Ok(()) => assert!(kinds.contains(&kind), "{kind} was taken, {place}"),
                Err(_) if kinds.contains(&kind) => panic!("{kind} was not taken, {place}"),
                Err(HandshakeError::Refused { code, retry_s }) => {
                    let from_alice = place == "awaits challenge" || place == "awaits welcome";
                    assert!(kind == "refused" && from_alice);
                    assert_eq!((code, retry_s), (RefusalCode::Busy, Some(1)));
                }
                Err(HandshakeError::PeerMisbehaved(Misbehaviour::Signature)) => {
                    assert_eq!((kind, place), ("welcome", "awaits welcome"));
                }
                Err(HandshakeError::PeerMisbehaved(Misbehaviour::OutOfOrder { got, .. })) => {
                    assert_eq!(got, kind)
                }
                Err(other) => panic!("{kind}, {place}: {other}"),
            }
        }
    }
}

#[test]
fn every_message_said_twice_gains_nothing() {
    let mut said = said();
    let [(_, hello), (_, challenge), (_, solution), (_, welcome), _] = said.messages.clone();
    // A hello: two challenges, neither of which is kept; a second one on the same stream is out of order.
    for place in ["awaits hello", "awaits hello"] {
        received(&mut said, place, &hello).unwrap();
    }
    assert!(received(&mut said, "awaits solution", &hello).is_err());
    // A challenge: whoever awaits a welcome does not begin to work anew.
    assert!(received(&mut said, "awaits welcome", &challenge).is_err());
    // A solution: its serial is good once, whatever the stream.
    assert!(said.alice.judge(&solution, NOW).is_ok());
    for place in ["awaits hello", "awaits solution"] {
        assert!(matches!(
            received(&mut said, place, &solution),
            Err(HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed))
        ));
    }
    // A welcome: good for the solution that it answers and for no other, however often.
    for _ in 0..2 {
        assert!(received(&mut said, "awaits welcome", &welcome).is_err());
    }
}

#[test]
fn a_hello_of_the_future_or_with_more_than_it_may_hold_is_refused() {
    let mut alice = Side::alice(easy());
    let mut hello = |ticket: Option<usize>, versions: Vec<u64>| {
        let ticket = ticket.map(|length| ByteBuf::from(vec![7; length]));
        alice
            .open(&Message::Hello(Hello { ticket, versions }).encode(), NOW)
            .map(drop)
    };
    hello(None, vec![1, 2]).unwrap();
    assert_eq!(
        error(hello(None, vec![2])).code(),
        Some(RefusalCode::Version)
    );
    assert_eq!(
        error(hello(None, Vec::new())).code(),
        Some(RefusalCode::Version)
    );
    assert_eq!(
        error(hello(None, vec![1; 17])).code(),
        Some(RefusalCode::Malformed)
    );
    // A ticket that is none makes a stranger of its holder, whatever its length.
    for length in [0, 1, 88, 89, 90, 256, 8000] {
        hello(Some(length), vec![1]).unwrap();
    }
    assert_eq!(
        error(hello(Some(8192), vec![1])).code(),
        Some(RefusalCode::Malformed)
    );
}

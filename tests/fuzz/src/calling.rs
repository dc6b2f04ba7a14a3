//! The calling side as a whole: what answers a hello, and what answers a solution.
//!
//! Never works: no puzzle is solved for a stranger's bytes. Invariant: Bob takes a challenge only of the onion service
//! that he dialled and within his limits, and believes to be welcome only where Alice signed exactly that.

use std::time::Duration;

use bastion::handshake::{AwaitChallenge, Work};
use bastion::messages::{Challenge, Cookie, HandshakeMessage, Welcome};
use keys::Context;
use keys::codec::encode;
use keys::protocol::EXTRA_DOUBLINGS_MAX;
use serde_bytes::ByteBuf;

use crate::Orders;
use crate::claims::{FRAME_BYTES_MAX, Wire, in_common};
use crate::stage::stage;

/// Answers Bob's solution; otherwise his hello.
pub(crate) const WELCOME: u8 = 1;
/// Bob showed a ticket in his hello.
pub(crate) const TICKET: u8 = 2;
/// Puts Alice's onion address into the challenge, or her claims into the welcome.
pub(crate) const GENUINE: u8 = 4;
/// Signs the welcome as Alice.
pub(crate) const SIGN: u8 = 8;

/// One frame to the calling side.
pub fn calling(data: &[u8]) -> bool {
    match Orders::split(data) {
        None => false,
        Some((orders, frame)) if orders.has(WELCOME) => awaits_welcome(orders, frame),
        Some((orders, frame)) => awaits_challenge(orders, frame),
    }
}

fn awaits_challenge(orders: Orders, frame: &[u8]) -> bool {
    let stage = stage();
    let mut frame = frame.to_vec();
    if let Ok(HandshakeMessage::Challenge(mut challenge)) =
        HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
        && orders.has(GENUINE)
        && let Ok(mut cookie) = Cookie::decode(&challenge.cookie)
    {
        cookie.onion = stage.alice.onion();
        challenge.cookie = ByteBuf::from(cookie.encode());
        frame = HandshakeMessage::Challenge(challenge).encode();
    }
    let ticket = orders.has(TICKET).then(|| stage.ticket.clone());
    let (_, waiting) = AwaitChallenge::begin(
        stage.bob.context.clone(),
        stage.alice.onion(),
        ticket.clone(),
    );
    let Ok(solving) = waiting.receive(&frame) else {
        return false;
    };
    let Ok(HandshakeMessage::Challenge(Challenge {
        cookie: bytes,
        sealed,
    })) = HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
    else {
        panic!("accepted what is no challenge");
    };
    let cookie = Cookie::decode(&bytes).unwrap();
    let config = &stage.bob.context.config;
    assert_eq!(
        cookie.onion,
        stage.alice.onion(),
        "a challenge of somebody else"
    );
    assert_eq!(cookie.algorithm, "argon2id-1m");
    assert!(
        cookie.effort <= config.effort_accept_max
            && cookie.inner_bits <= config.inner_bits_accept_max
    );
    assert!(
        cookie.effort > 0 || ticket.is_some(),
        "without work and without a ticket"
    );
    for extra_doublings in 0..=EXTRA_DOUBLINGS_MAX {
        if let Ok(puzzle) = solving.puzzle(extra_doublings) {
            let effort = puzzle.as_ref().map_or(0, |puzzle| puzzle.effort());
            assert_eq!(puzzle.is_some(), cookie.effort > 0);
            assert_eq!(effort, cookie.effort << extra_doublings);
            assert!(effort <= config.effort_accept_max, "more work than allowed");
        }
    }
    let (solution, _) = solving.solved(Work::NONE, stage.bob.profile.clone(), Duration::ZERO);
    let Ok(HandshakeMessage::Solution(solution)) =
        HandshakeMessage::decode(&solution, 3 * FRAME_BYTES_MAX)
    else {
        panic!("a solution that is none");
    };
    assert!(
        solution.cookie == bytes && solution.sealed == sealed,
        "the challenge was changed"
    );
    assert_eq!(solution.ticket.is_some(), cookie.effort == 0);
    assert!(stage.is_signed(&solution));
    true
}

/// What the welcome's signature covers (docs/PROTOCOL.md).
fn with_parts<R>(welcome: &Welcome, use_them: impl FnOnce(&[&[u8]]) -> R) -> R {
    let ticket: &[u8] = welcome
        .ticket
        .as_ref()
        .map_or(&[], |ticket| ticket.as_slice());
    use_them(&[
        stage().transcript.as_bytes(),
        &welcome.claims,
        &encode(&welcome.domains),
        ticket,
    ])
}

fn awaits_welcome(orders: Orders, frame: &[u8]) -> bool {
    let stage = stage();
    let keys = &stage.alice.context.keys;
    let mut frame = frame.to_vec();
    if let Ok(HandshakeMessage::Welcome(mut welcome)) =
        HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
    {
        if orders.has(GENUINE) {
            welcome.claims = stage.alice_claims.clone().into();
        }
        if orders.has(SIGN) {
            welcome.signature =
                with_parts(&welcome, |parts| keys.sign_as_node(Context::Welcome, parts));
        }
        frame = HandshakeMessage::Welcome(welcome).encode();
    }
    let Ok(admitted) = stage.await_welcome.clone().receive(&frame) else {
        return false;
    };
    let Ok(HandshakeMessage::Welcome(welcome)) = HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
    else {
        panic!("welcome by what is no welcome");
    };
    let current = keys.node_chain().verify().unwrap().current();
    let held = with_parts(&welcome, |parts| {
        current.verify(Context::Welcome, parts, &welcome.signature)
    });
    assert!(held.is_ok(), "Alice never said so");
    let claims = Wire::read(&welcome.claims).unwrap();
    assert!(claims.is_well_formed() && claims.onion == stage.alice.onion());
    assert_eq!(
        welcome.domains,
        in_common(&stage.bob.profile.sync_domains, &claims.sync_domains)
    );
    assert_eq!(admitted.claims().peer_id(), stage.alice.peer_id());
    assert_eq!(admitted.domains(), welcome.domains);
    let ticket = welcome
        .ticket
        .filter(|ticket| !ticket.is_empty())
        .map(ByteBuf::into_vec);
    assert_eq!(
        admitted.ticket().map(|ticket| ticket.as_bytes().to_vec()),
        ticket
    );
    assert!(ticket.is_none_or(|ticket| ticket.len() <= 256) && admitted.we_dialled());
    true
}

//! The client side of the handshake: the reply to a hello, and the reply to a solution.
//!
//! The target solves no puzzle. Invariant: Bob accepts a challenge only from the onion service that
//! he dialled and within his limits. He accepts a welcome only with Alice's signature over exactly
//! its content.

use std::time::Duration;

use bastion::handshake::{AwaitChallenge, Work};
use bastion::messages::{Challenge, Cookie, HandshakeMessage, Welcome};
use keys::Context;
use keys::codec::encode;
use keys::protocol::EXTRA_DOUBLINGS_MAX;
use serde_bytes::ByteBuf;

use crate::claims::{FRAME_BYTES_MAX, Wire, in_common};
use crate::fixture::fixture;
use crate::flags::Flags;

/// Delivers the frame as the reply to Bob's solution; otherwise to his hello.
pub(crate) const WELCOME: u8 = 1;
/// Bob's hello contained a ticket.
pub(crate) const TICKET: u8 = 2;
/// Inserts Alice's onion address into the challenge, or her claims into the welcome.
pub(crate) const GENUINE: u8 = 4;
/// Signs the welcome as Alice.
pub(crate) const SIGN: u8 = 8;

/// Delivers one frame to the client side.
pub fn client(data: &[u8]) -> bool {
    match Flags::split(data) {
        None => false,
        Some((flags, frame)) if flags.has(WELCOME) => awaits_welcome(flags, frame),
        Some((flags, frame)) => awaits_challenge(flags, frame),
    }
}

fn awaits_challenge(flags: Flags, frame: &[u8]) -> bool {
    let fixture = fixture();
    let mut frame = frame.to_vec();
    if let Ok(HandshakeMessage::Challenge(mut challenge)) =
        HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
        && flags.has(GENUINE)
        && let Ok(mut cookie) = Cookie::decode(&challenge.cookie)
    {
        cookie.onion = fixture.alice.onion();
        challenge.cookie = ByteBuf::from(cookie.encode());
        frame = HandshakeMessage::Challenge(challenge).encode();
    }
    let ticket = flags.has(TICKET).then(|| fixture.ticket.clone());
    let (_, waiting) = AwaitChallenge::begin(
        fixture.bob.context.clone(),
        fixture.alice.onion(),
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
        panic!("a frame that is no challenge was accepted");
    };
    let cookie = Cookie::decode(&bytes).unwrap();
    let config = &fixture.bob.context.config;
    assert_eq!(
        cookie.onion,
        fixture.alice.onion(),
        "a challenge of another onion service"
    );
    assert_eq!(cookie.algorithm, "argon2id-1m");
    assert!(
        cookie.effort <= config.effort_accept_max
            && cookie.inner_bits <= config.inner_bits_accept_max
    );
    assert!(
        cookie.effort > 0 || ticket.is_some(),
        "effort 0 without a ticket"
    );
    for extra_doublings in 0..=EXTRA_DOUBLINGS_MAX {
        if let Ok(puzzle) = solving.puzzle(extra_doublings) {
            let effort = puzzle.as_ref().map_or(0, |puzzle| puzzle.effort());
            assert_eq!(puzzle.is_some(), cookie.effort > 0);
            assert_eq!(effort, cookie.effort << extra_doublings);
            assert!(effort <= config.effort_accept_max, "more work than allowed");
        }
    }
    let (solution, _) = solving.solved(Work::NONE, fixture.bob.profile.clone(), Duration::ZERO);
    let Ok(HandshakeMessage::Solution(solution)) =
        HandshakeMessage::decode(&solution, 3 * FRAME_BYTES_MAX)
    else {
        panic!("the solution does not decode");
    };
    assert!(
        solution.cookie == bytes && solution.sealed == sealed,
        "the challenge was changed"
    );
    assert_eq!(solution.ticket.is_some(), cookie.effort == 0);
    assert!(fixture.is_signed(&solution));
    true
}

/// Calls `use_them` with the parts that the welcome's signature covers (docs/PROTOCOL.md).
fn with_parts<R>(welcome: &Welcome, use_them: impl FnOnce(&[&[u8]]) -> R) -> R {
    let ticket: &[u8] = welcome
        .ticket
        .as_ref()
        .map_or(&[], |ticket| ticket.as_slice());
    use_them(&[
        fixture().transcript.as_bytes(),
        &welcome.claims,
        &encode(&welcome.domains),
        &encode(&welcome.features),
        ticket,
    ])
}

fn awaits_welcome(flags: Flags, frame: &[u8]) -> bool {
    let fixture = fixture();
    let keys = &fixture.alice.context.keys;
    let mut frame = frame.to_vec();
    if let Ok(HandshakeMessage::Welcome(mut welcome)) =
        HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
    {
        if flags.has(GENUINE) {
            welcome.claims = fixture.alice_claims.clone().into();
        }
        if flags.has(SIGN) {
            welcome.signature =
                with_parts(&welcome, |parts| keys.sign_as_node(Context::Welcome, parts));
        }
        frame = HandshakeMessage::Welcome(welcome).encode();
    }
    let Ok(admitted) = fixture.await_welcome.clone().receive(&frame) else {
        return false;
    };
    let Ok(HandshakeMessage::Welcome(welcome)) = HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)
    else {
        panic!("a frame that is no welcome was accepted");
    };
    let current = keys.node_chain().verify().unwrap().current();
    let signature = with_parts(&welcome, |parts| {
        current.verify(Context::Welcome, parts, &welcome.signature)
    });
    assert!(signature.is_ok(), "Alice did not sign this welcome");
    let claims = Wire::read(&welcome.claims).unwrap();
    assert!(claims.is_well_formed() && claims.onion == fixture.alice.onion());
    assert_eq!(
        welcome.domains,
        in_common(&fixture.bob.profile.sync_domains, &claims.sync_domains)
    );
    assert_eq!(admitted.claims().peer_id(), fixture.alice.peer_id());
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

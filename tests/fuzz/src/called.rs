//! The called side as a whole: a first frame or one after the challenge, up to the welcome.
//!
//! The first byte asks for what no stranger can guess, so that what lies behind a seal or a signature is reached.
//! Invariant: nobody is admitted but Bob, for a challenge of Alice's, in time, once, with his signature over all of it,
//! and with the work done or a ticket of his.

use bastion::handshake::{
    AwaitHello, FirstMessage, Moment, PrecheckedSolution, ReservedSolution, Verified,
};
use bastion::messages::{Challenge, Cookie, HandshakeMessage, Hello, Solution};
use bastion::ticket::TicketClaims;
use bastion::{HandshakeError, Misbehaviour, Tier};
use serde_bytes::{ByteArray, ByteBuf};

use crate::Orders;
use crate::claims::{FRAME_BYTES_MAX, Wire, in_common};
use crate::stage::{EFFORT, Fresh, NOW, stage};

/// Puts in the challenge that asks for work, or else the one that asks for a ticket.
pub(crate) const WORK: u8 = 1;
pub(crate) const SHOW: u8 = 2;
/// Puts in Bob's ticket, Bob's claims, a nonce that solves the first challenge; then signs as Bob.
pub(crate) const TICKET: u8 = 4;
pub(crate) const CLAIMS: u8 = 8;
pub(crate) const SOLVE: u8 = 16;
pub(crate) const SIGN: u8 = 32;
/// Comes when every challenge has expired.
pub(crate) const LATE: u8 = 64;
/// Comes as the stream's first frame.
pub(crate) const FIRST: u8 = 128;

/// Seconds after [`NOW`] at which a challenge of [`NOW`] has expired; tickets have not.
const LATE_S: u64 = 601;

/// One frame to the called side.
pub fn called(data: &[u8]) -> bool {
    let Some((orders, frame)) = Orders::split(data) else {
        return false;
    };
    let mut fresh = stage().server();
    let frame = mended(orders, frame, &fresh);
    let now = if orders.has(LATE) { NOW + LATE_S } else { NOW };
    match receive(orders.has(FIRST), &frame, &mut fresh, now) {
        Ok(FirstMessage::Solution(prechecked)) => judge(*prechecked, &frame, &mut fresh, now),
        Ok(FirstMessage::Hello {
            challenge, ticket, ..
        }) => {
            check_challenge(&frame, &challenge, ticket, now);
            true
        }
        // Whatever is wrong, there is a word for it.
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn receive(
    first: bool,
    frame: &[u8],
    fresh: &mut Fresh,
    now: u64,
) -> Result<FirstMessage, HandshakeError> {
    let begin = || AwaitHello::new(stage().alice.context.clone());
    let moment = Moment {
        effort: EFFORT,
        now,
    };
    if first {
        return begin().receive(frame, &mut fresh.server, moment, &mut fresh.rng);
    }
    let hello = HandshakeMessage::Hello(Hello {
        ticket: None,
        versions: vec![1],
    });
    match begin().receive(&hello.encode(), &mut fresh.server, moment, &mut fresh.rng) {
        Ok(FirstMessage::Hello { next, .. }) => next
            .receive(frame, &mut fresh.server, moment)
            .map(|prechecked| FirstMessage::Solution(Box::new(prechecked))),
        _ => panic!("a hello gets a challenge"),
    }
}

/// The frame, with what was ordered put in.
fn mended(orders: Orders, frame: &[u8], fresh: &Fresh) -> Vec<u8> {
    let stage = stage();
    let ticket = || Some(ByteBuf::from(stage.ticket.as_bytes()));
    match HandshakeMessage::decode(frame, FRAME_BYTES_MAX) {
        Ok(HandshakeMessage::Hello(mut hello)) => {
            if orders.has(TICKET) {
                hello.ticket = ticket();
            }
            HandshakeMessage::Hello(hello).encode()
        }
        Ok(HandshakeMessage::Solution(mut solution)) => {
            if orders.has(WORK | SHOW) {
                let challenge = if orders.has(WORK) {
                    &fresh.work
                } else {
                    &fresh.show
                };
                solution.cookie = challenge.cookie.clone();
                solution.sealed = challenge.sealed.clone();
            }
            if orders.has(TICKET) {
                solution.ticket = ticket();
            }
            if orders.has(CLAIMS) {
                solution.claims = stage.bob_claims.clone().into();
            }
            if orders.has(SOLVE) {
                solution.nonce = ByteArray::new(stage.nonce(solution.extra_doublings));
            }
            if orders.has(SIGN) {
                solution.signature = stage.sign(&solution);
            }
            HandshakeMessage::Solution(solution).encode()
        }
        _ => frame.to_vec(),
    }
}

/// What a hello got: Alice's own challenge, without work only for whose ticket holds.
fn check_challenge(hello: &[u8], challenge: &[u8], known: Option<TicketClaims>, now: u64) {
    let Ok(HandshakeMessage::Hello(hello)) = HandshakeMessage::decode(hello, FRAME_BYTES_MAX)
    else {
        panic!("a challenge for what is no hello");
    };
    assert!(hello.versions.contains(&1) && hello.versions.len() <= 16);
    let has_ticket = hello
        .ticket
        .is_some_and(|ticket| ticket == stage().ticket.as_bytes());
    let known = known.map(|standing| (standing.peer, standing.tier));
    let expected = (stage().bob.peer_id(), Tier::Trusted);
    assert_eq!(known, has_ticket.then_some(expected), "who is known");
    let Ok(HandshakeMessage::Challenge(challenge)) =
        HandshakeMessage::decode(challenge, FRAME_BYTES_MAX)
    else {
        panic!("a challenge that is none");
    };
    let cookie = Cookie::decode(&challenge.cookie).unwrap();
    assert_eq!(cookie.onion, stage().alice.onion());
    assert_eq!(cookie.effort, if has_ticket { 0 } else { EFFORT });
    assert!(cookie.expiry >= now);
}

/// Everything behind the cheap checks.
fn judge(prechecked: PrecheckedSolution, frame: &[u8], fresh: &mut Fresh, now: u64) -> bool {
    let Ok(HandshakeMessage::Solution(solution)) = HandshakeMessage::decode(frame, FRAME_BYTES_MAX)
    else {
        panic!("prechecked what is no solution");
    };
    let sent = Challenge {
        cookie: solution.cookie.clone(),
        sealed: solution.sealed.clone(),
    };
    assert!(
        sent == fresh.work || sent == fresh.show,
        "a challenge that nobody sent"
    );
    let cookie = Cookie::decode(&sent.cookie).unwrap();
    assert!(now <= cookie.expiry, "an answer too late");
    assert_eq!(prechecked.effort().is_none(), cookie.effort == 0);
    assert_eq!(prechecked.ticket().is_some(), cookie.effort == 0);
    assert!(prechecked.expiry() == cookie.expiry);

    let taken = prechecked
        .reserve(&mut fresh.server.sealer)
        .unwrap_or_else(|error| panic!("the first to come: {error}"));
    let again = receive(true, frame, fresh, now);
    assert!(
        matches!(
            again,
            Err(HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed))
        ),
        "one challenge was answered twice"
    );
    let verified = stage().with_memory(|memory| ReservedSolution::verify(taken, memory));
    let is_proved = is_proved(&solution, &cookie);
    assert_eq!(verified.is_ok(), is_proved, "{:?}", verified.as_ref().err());
    verified.is_ok_and(|verified| {
        welcome(verified, &solution);
        true
    })
}

/// Whether Bob may come in, found out another way.
fn is_proved(solution: &Solution, cookie: &Cookie) -> bool {
    let stage = stage();
    let bob = Wire::read(&stage.bob_claims).unwrap();
    let is_bob = Wire::read(&solution.claims).is_some_and(|claims| {
        let same = (&claims.node, claims.onion) == (&bob.node, bob.onion);
        same && claims.onion_signature == bob.onion_signature && claims.is_well_formed()
    });
    let is_paid = match cookie.effort {
        0 => solution
            .ticket
            .as_ref()
            .is_some_and(|ticket| ticket == stage.ticket.as_bytes()),
        _ => {
            solution.ticket.is_none()
                && solution.extra_doublings <= 4
                && stage.is_solved(solution, cookie)
        }
    };
    is_bob && stage.is_signed(solution) && is_paid
}

fn welcome(verified: Verified, solution: &Solution) {
    let stage = stage();
    let claims = Wire::read(&solution.claims).unwrap();
    assert_eq!(verified.claims().peer_id(), stage.bob.peer_id());
    let (frame, admitted) = verified.welcome(stage.alice.profile.clone(), Tier::Untrusted, None);
    let domains = in_common(&stage.alice.profile.sync_domains, &claims.sync_domains);
    assert_eq!(admitted.domains(), domains);
    assert!(!admitted.we_dialled());
    match HandshakeMessage::decode(&frame, FRAME_BYTES_MAX) {
        Ok(HandshakeMessage::Welcome(welcome)) => assert_eq!(welcome.domains, domains),
        _ => panic!("a welcome that is none"),
    }
}

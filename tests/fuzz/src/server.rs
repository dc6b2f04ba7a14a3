//! The server side of the handshake: a first frame or a frame after the challenge, up to the
//! welcome.
//!
//! The first input byte holds flags that insert sealed or signed fields, because mutation cannot
//! find them. Invariant: the server admits only Bob, for an unexpired challenge of Alice that was
//! not used before. Bob's signature must cover the solution, and the work must be done or the
//! ticket be Bob's.

use bastion::handshake::{
    AwaitHello, FirstMessage, Moment, PrecheckedSolution, ReservedSolution, Verified,
};
use bastion::messages::{Challenge, Cookie, HandshakeMessage, Hello, Solution};
use bastion::ticket::TicketClaims;
use bastion::{Features, HandshakeError, Misbehaviour, Tier};
use serde_bytes::{ByteArray, ByteBuf};

use crate::claims::{FRAME_BYTES_MAX, Wire, in_common};
use crate::fixture::{EFFORT, FreshServer, NOW, fixture};
use crate::flags::Flags;

/// Inserts the challenge that requires work.
pub(crate) const WORK: u8 = 1;
/// Inserts the challenge that requires a ticket.
pub(crate) const SHOW: u8 = 2;
/// Inserts Bob's ticket.
pub(crate) const TICKET: u8 = 4;
/// Inserts Bob's claims.
pub(crate) const CLAIMS: u8 = 8;
/// Inserts a nonce that solves the challenge of [`WORK`].
pub(crate) const SOLVE: u8 = 16;
/// Signs the solution as Bob, after all other changes.
pub(crate) const SIGN: u8 = 32;
/// Delivers the frame after every challenge has expired.
pub(crate) const LATE: u8 = 64;
/// Delivers the frame as the first one of the stream.
pub(crate) const FIRST: u8 = 128;

/// Seconds after [`NOW`] at which a challenge from [`NOW`] has expired and a ticket has not.
const LATE_S: u64 = 601;

/// Delivers one frame to the server side.
pub fn server(data: &[u8]) -> bool {
    let Some((flags, frame)) = Flags::split(data) else {
        return false;
    };
    let mut fresh = fixture().server();
    let frame = with_flags(flags, frame, &fresh);
    let now = if flags.has(LATE) { NOW + LATE_S } else { NOW };
    match receive(flags.has(FIRST), &frame, &mut fresh, now) {
        Ok(FirstMessage::Solution(prechecked)) => judge(*prechecked, &frame, &mut fresh, now),
        Ok(FirstMessage::Hello {
            challenge, ticket, ..
        }) => {
            check_challenge(&frame, &challenge, ticket, now);
            true
        }
        // Every error must have a message.
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn receive(
    first: bool,
    frame: &[u8],
    fresh: &mut FreshServer,
    now: u64,
) -> Result<FirstMessage, HandshakeError> {
    let begin = || AwaitHello::new(fixture().alice.context.clone());
    let moment = Moment {
        effort: EFFORT,
        now,
    };
    if first {
        return begin().receive(frame, &mut fresh.server, moment, &mut fresh.rng);
    }
    let hello = HandshakeMessage::Hello(Hello {
        ticket: None,
        features: Features::none(),
        versions: vec![1],
    });
    match begin().receive(&hello.encode(), &mut fresh.server, moment, &mut fresh.rng) {
        Ok(FirstMessage::Hello { next, .. }) => next
            .receive(frame, &mut fresh.server, moment)
            .map(|prechecked| FirstMessage::Solution(Box::new(prechecked))),
        _ => panic!("the reply to a hello is not a challenge"),
    }
}

/// Returns the frame with the fields that `flags` select inserted.
fn with_flags(flags: Flags, frame: &[u8], fresh: &FreshServer) -> Vec<u8> {
    let fixture = fixture();
    let ticket = || Some(ByteBuf::from(fixture.ticket.as_bytes()));
    match HandshakeMessage::decode(frame, FRAME_BYTES_MAX) {
        Ok(HandshakeMessage::Hello(mut hello)) => {
            if flags.has(TICKET) {
                hello.ticket = ticket();
            }
            HandshakeMessage::Hello(hello).encode()
        }
        Ok(HandshakeMessage::Solution(mut solution)) => {
            if flags.has(WORK | SHOW) {
                let challenge = if flags.has(WORK) {
                    &fresh.work
                } else {
                    &fresh.show
                };
                solution.cookie = challenge.cookie.clone();
                solution.sealed = challenge.sealed.clone();
            }
            if flags.has(TICKET) {
                solution.ticket = ticket();
            }
            if flags.has(CLAIMS) {
                solution.claims = fixture.bob_claims.clone().into();
            }
            if flags.has(SOLVE) {
                solution.nonce = ByteArray::new(fixture.nonce(solution.extra_doublings));
            }
            if flags.has(SIGN) {
                solution.signature = fixture.sign(&solution);
            }
            HandshakeMessage::Solution(solution).encode()
        }
        _ => frame.to_vec(),
    }
}

/// Checks the reply to a hello: a challenge of Alice, with effort 0 only for a valid ticket.
fn check_challenge(hello: &[u8], challenge: &[u8], known: Option<TicketClaims>, now: u64) {
    let Ok(HandshakeMessage::Hello(hello)) = HandshakeMessage::decode(hello, FRAME_BYTES_MAX)
    else {
        panic!("a challenge in reply to a frame that is no hello");
    };
    assert!(hello.versions.contains(&1) && hello.versions.len() <= 16);
    let has_ticket = hello
        .ticket
        .is_some_and(|ticket| ticket == fixture().ticket.as_bytes());
    let known = known.map(|claims| (claims.peer, claims.tier));
    let expected = (fixture().bob.peer_id(), Tier::Trusted);
    assert_eq!(
        known,
        has_ticket.then_some(expected),
        "claims of the ticket"
    );
    let Ok(HandshakeMessage::Challenge(challenge)) =
        HandshakeMessage::decode(challenge, FRAME_BYTES_MAX)
    else {
        panic!("the challenge does not decode");
    };
    let cookie = Cookie::decode(&challenge.cookie).unwrap();
    assert_eq!(cookie.onion, fixture().alice.onion());
    assert_eq!(cookie.effort, if has_ticket { 0 } else { EFFORT });
    assert!(cookie.expiry >= now);
}

/// Checks the steps after the precheck: reservation, verification and welcome.
fn judge(prechecked: PrecheckedSolution, frame: &[u8], fresh: &mut FreshServer, now: u64) -> bool {
    let Ok(HandshakeMessage::Solution(solution)) = HandshakeMessage::decode(frame, FRAME_BYTES_MAX)
    else {
        panic!("a frame that is no solution passed the precheck");
    };
    let sent = Challenge {
        cookie: solution.cookie.clone(),
        sealed: solution.sealed.clone(),
    };
    assert!(
        sent == fresh.work || sent == fresh.show,
        "a challenge that was not sent"
    );
    let cookie = Cookie::decode(&sent.cookie).unwrap();
    assert!(now <= cookie.expiry, "the challenge has expired");
    assert_eq!(prechecked.effort().is_none(), cookie.effort == 0);
    assert_eq!(prechecked.ticket().is_some(), cookie.effort == 0);
    assert!(prechecked.expiry() == cookie.expiry);

    let taken = prechecked
        .reserve(&mut fresh.server.sealer)
        .unwrap_or_else(|error| panic!("the first use of a challenge: {error}"));
    let again = receive(true, frame, fresh, now);
    assert!(
        matches!(
            again,
            Err(HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed))
        ),
        "a challenge was accepted twice"
    );
    let verified = fixture().with_memory(|memory| ReservedSolution::verify(taken, memory));
    let is_proved = is_proved(&solution, &cookie);
    assert_eq!(verified.is_ok(), is_proved, "{:?}", verified.as_ref().err());
    verified.is_ok_and(|verified| {
        welcome(verified, &solution);
        true
    })
}

/// Decides independently of the code under test whether Bob must be admitted.
fn is_proved(solution: &Solution, cookie: &Cookie) -> bool {
    let fixture = fixture();
    let bob = Wire::read(&fixture.bob_claims).unwrap();
    let is_bob = Wire::read(&solution.claims).is_some_and(|claims| {
        let same = (&claims.node, claims.onion) == (&bob.node, bob.onion);
        same && claims.onion_signature == bob.onion_signature && claims.is_well_formed()
    });
    let is_paid = match cookie.effort {
        0 => solution
            .ticket
            .as_ref()
            .is_some_and(|ticket| ticket == fixture.ticket.as_bytes()),
        _ => {
            solution.ticket.is_none()
                && solution.extra_doublings <= 4
                && fixture.is_solved(solution, cookie)
        }
    };
    is_bob && fixture.is_signed(solution) && is_paid
}

fn welcome(verified: Verified, solution: &Solution) {
    let fixture = fixture();
    let claims = Wire::read(&solution.claims).unwrap();
    assert_eq!(verified.claims().peer_id(), fixture.bob.peer_id());
    let (frame, admitted) = verified.welcome(fixture.alice.profile.clone(), Tier::Untrusted, None);
    let domains = in_common(&fixture.alice.profile.sync_domains, &claims.sync_domains);
    assert_eq!(admitted.domains(), domains);
    assert!(!admitted.we_dialled());
    match HandshakeMessage::decode(&frame, FRAME_BYTES_MAX) {
        Ok(HandshakeMessage::Welcome(welcome)) => assert_eq!(welcome.domains, domains),
        _ => panic!("the welcome does not decode"),
    }
}

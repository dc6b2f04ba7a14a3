//! The called side. Checks cheapest first; keeps nothing for a challenge that it sent.
//!
//! Frame length and form, cookie seal, expiry, serial unused, inner condition or ticket, claims' form ([`Screened`]);
//! then, once a worker is free, the serial is taken ([`Taken`]) and work and signatures are verified ([`Verified`]).
//! Never decides policy: the gate asks the gatekeeper between [`Verified`] and the welcome.

use std::sync::Arc;
use std::time::Duration;

use keys::{Context, Digest, PeerId, Signature, codec};
use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::{Admitted, Desk, Here, out_of_order, solution_parts, transcript};
use crate::claims::{
    Claims, PeerClaims, Profile, claims_of, intersection, room_for_claims, sorted,
};
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{
    Challenge, Cookie, Hello, MORE_MAX, Message, Solution, VERSION, VERSIONS_MAX, Welcome,
};
use crate::puzzle::{Algorithm, CookieJar, Memory, Puzzle, Serial};
use crate::ticket::{Standing, Tier};

/// Nothing has come yet.
pub struct AwaitHello {
    here: Arc<Here>,
}

/// What a stranger may begin with.
pub enum Opening {
    /// It said hello.
    Hello {
        /// The frame to send.
        challenge: Vec<u8>,
        /// What its ticket says; none for a stranger.
        known: Option<Standing>,
        /// What to await.
        next: AwaitSolution,
    },
    /// It came back with the solution of an earlier challenge.
    Solution(Box<Screened>),
}

/// A challenge was sent. Knows nothing of it: any cookie of ours will do.
pub struct AwaitSolution {
    here: Arc<Here>,
}

/// A solution that passed everything cheap.
pub struct Screened {
    here: Arc<Here>,
    serial: Serial,
    expiry: u64,
    proof: Proof,
    solution: Solution,
    claims: Claims,
    transcript: Digest,
}

/// What stands for the work.
enum Proof {
    /// The work itself.
    Work(Puzzle),
    /// A ticket of ours.
    Ticket(Standing),
}

/// A screened solution whose serial is now used.
pub struct Taken(Screened);

/// Work or ticket, signatures and onion address hold.
pub struct Verified {
    here: Arc<Here>,
    serial: Serial,
    claims: PeerClaims,
    transcript: Digest,
    effort: u64,
    ticket: Option<Standing>,
}

impl AwaitHello {
    /// For a new stream.
    pub fn new(here: Arc<Here>) -> Self {
        Self { here }
    }

    /// The first frame. `effort` is what the load calls for, `now` in unix seconds.
    pub fn receive(
        self,
        frame: &[u8],
        desk: &mut Desk,
        effort: u64,
        now: u64,
        rng: &mut dyn CryptoRng,
    ) -> Result<Opening, HandshakeError> {
        match Message::decode(frame, self.here.config.unadmitted_frame_bytes_max)? {
            Message::Hello(Hello { ticket, versions }) => {
                if versions.len() > VERSIONS_MAX {
                    return Err(Misbehaviour::Claims("too many versions").into());
                }
                if !versions.contains(&VERSION) {
                    return Err(Incompatibility::Version.into());
                }
                // A ticket that is old, or used too often, makes its holder a stranger like any other.
                let known = ticket
                    .and_then(|ticket| desk.tickets.open(&ticket, now))
                    .filter(|standing| desk.tickets.may_use(standing, now));
                let effort = if known.is_some() { 0 } else { effort.max(1) };
                let challenge = desk.jar.challenge(self.here.keys.onion(), effort, now, rng);
                Ok(Opening::Hello {
                    challenge: Message::Challenge(challenge).encode(),
                    known,
                    next: AwaitSolution { here: self.here },
                })
            }
            Message::Solution(solution) => {
                let screened = screen(self.here, solution, frame, desk, (effort, now))?;
                Ok(Opening::Solution(Box::new(screened)))
            }
            other => Err(out_of_order("hello or solution", &other)),
        }
    }
}

impl AwaitSolution {
    /// The frame after the challenge. `effort` is what the load calls for by now. Marks nothing as used.
    pub fn receive(
        self,
        frame: &[u8],
        desk: &mut Desk,
        effort: u64,
        now: u64,
    ) -> Result<Screened, HandshakeError> {
        match Message::decode(frame, self.here.config.unadmitted_frame_bytes_max)? {
            Message::Solution(solution) => screen(self.here, solution, frame, desk, (effort, now)),
            other => Err(out_of_order("solution", &other)),
        }
    }
}

/// Everything that costs microseconds, cheapest first.
fn screen(
    here: Arc<Here>,
    solution: Solution,
    frame: &[u8],
    desk: &mut Desk,
    (effort, now): (u64, u64),
) -> Result<Screened, HandshakeError> {
    let (cookie, serial) = desk
        .jar
        .recognise(&solution.cookie, &solution.sealed, now)?;
    // Sealed by us, so its fields are ours; but under another onion key than now, the work was for another address.
    if cookie.onion != here.keys.onion() {
        return Err(Misbehaviour::CookieNotOurs.into());
    }
    // Calm is over: what was given away for nearly nothing, perhaps in heaps, opens no gate in a storm.
    let base = here.config.effort_base;
    if (1..base).contains(&cookie.effort) && effort >= base {
        return Err(Misbehaviour::CookieExpired.into());
    }
    let (proof, claims) = if cookie.effort == 0 {
        screen_ticket(&here, &solution, desk, now)?
    } else {
        screen_work(&here, &solution, &cookie)?
    };
    // One canonical form: the challenge as it was sent, made again from the parts that came back.
    let challenge = Message::Challenge(Challenge {
        cookie: solution.cookie.clone(),
        sealed: solution.sealed.clone(),
    });
    let transcript = transcript(&challenge.encode(), frame);
    Ok(Screened {
        here,
        serial,
        expiry: cookie.expiry,
        proof,
        solution,
        claims,
        transcript,
    })
}

/// The inner condition does not depend on the solver, so it can be judged before the claims are decoded.
fn screen_work(
    here: &Here,
    solution: &Solution,
    cookie: &Cookie,
) -> Result<(Proof, Claims), HandshakeError> {
    if solution.ticket.is_some() {
        return Err(Misbehaviour::Claims("a ticket where work was asked").into());
    }
    if solution.more > MORE_MAX {
        return Err(Misbehaviour::Claims("too many doublings of the effort").into());
    }
    let algorithm = Algorithm::from_name(&cookie.algorithm).ok_or(Misbehaviour::CookieNotOurs)?;
    let (effort, inner_bits) = with_more(cookie, solution.more);
    let sealed: (&[u8], &[u8]) = (&solution.cookie, &solution.sealed);
    if !Puzzle::inner_condition(inner_bits, sealed, &solution.nonce) {
        return Err(Misbehaviour::InnerCondition.into());
    }
    let claims = foreign_claims(here, solution)?;
    let puzzle = Puzzle::new(
        (algorithm, effort, inner_bits),
        sealed,
        &here.keys.onion(),
        &claims.peer_id(),
    );
    Ok((Proof::Work(puzzle), claims))
}

/// Opened again, since nothing was kept of the hello; and counted, since from here on it costs us signatures.
fn screen_ticket(
    here: &Here,
    solution: &Solution,
    desk: &mut Desk,
    now: u64,
) -> Result<(Proof, Claims), HandshakeError> {
    let standing = solution
        .ticket
        .as_ref()
        .and_then(|ticket| desk.tickets.open(ticket, now))
        .ok_or(Misbehaviour::Ticket)?;
    let claims = foreign_claims(here, solution)?;
    if claims.peer_id() != standing.peer {
        return Err(Misbehaviour::Ticket.into());
    }
    if !desk.tickets.take(&standing, now) {
        return Err(HandshakeError::Busy);
    }
    Ok((Proof::Ticket(standing), claims))
}

fn foreign_claims(here: &Here, solution: &Solution) -> Result<Claims, HandshakeError> {
    let claims = Claims::decode(&solution.claims, &here.config)?;
    if claims.peer_id() == here.keys.peer_id() {
        return Err(Misbehaviour::OwnPeerId.into());
    }
    Ok(claims)
}

/// Effort and inner bits with `more` doublings. A claim to have worked more gets its sender a better place in the queue
/// before the work is verified, so it must itself have cost something.
pub(crate) fn with_more(cookie: &Cookie, more: u8) -> (u64, u8) {
    (
        cookie.effort.saturating_mul(1 << more.min(MORE_MAX)),
        cookie.inner_bits.saturating_add(more),
    )
}

impl Screened {
    /// The effort that was worked, as claimed; none where a ticket stands for it. Who worked more is verified first.
    pub fn effort(&self) -> Option<u64> {
        match &self.proof {
            Proof::Work(puzzle) => Some(puzzle.effort()),
            Proof::Ticket(_) => None,
        }
    }

    /// Whom it claims to be from: proved only once it is verified.
    pub fn peer_id(&self) -> PeerId {
        self.claims.peer_id()
    }

    /// When the cookie expires, in unix seconds.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// What the ticket says that stands for the work.
    pub fn known(&self) -> Option<&Standing> {
        match &self.proof {
            Proof::Work(_) => None,
            Proof::Ticket(standing) => Some(standing),
        }
    }

    /// Uses the serial up, now that a worker is free. Fails when another stream was faster.
    pub fn take(self, jar: &mut CookieJar) -> Result<Taken, HandshakeError> {
        jar.take(self.serial)?;
        Ok(Taken(self))
    }
}

impl Taken {
    /// One evaluation of the work function, then the signatures. Half a millisecond: not on a thread that must answer.
    pub fn verify(self, memory: &mut Memory) -> Result<Verified, HandshakeError> {
        let Self(Screened {
            here,
            serial,
            proof,
            solution,
            claims,
            transcript,
            ..
        }) = self;
        let (effort, ticket) = match proof {
            Proof::Work(puzzle) => {
                puzzle.verify(&solution.nonce, memory)?;
                (puzzle.effort(), None)
            }
            Proof::Ticket(standing) => (0, Some(standing)),
        };
        let onion = here.keys.onion();
        let signature = &solution.signature;
        let claims = solution_parts(&solution, &onion, |signed| {
            claims.verify(Context::Solution, signed, signature)
        })?;
        Ok(Verified {
            here,
            serial,
            claims,
            transcript,
            effort,
            ticket,
        })
    }
}

impl Verified {
    /// Who asks to be admitted.
    pub fn claims(&self) -> &PeerClaims {
        &self.claims
    }

    /// The work that was proved, in expected evaluations; 0 with a ticket.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// What the ticket says that stood in for the work.
    pub fn ticket(&self) -> Option<Standing> {
        self.ticket
    }

    /// The cookie's serial: to be given back where there is no room now, so that the same solution may come again.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Admits the peer: the frame to send, and the proof. To be called after policy has agreed. `ticket` spares the peer
    /// the work next time.
    pub fn welcome(
        self,
        mut profile: Profile,
        tier: Tier,
        ticket: Option<Vec<u8>>,
    ) -> (Vec<u8>, Admitted) {
        profile.sync_domains = sorted(profile.sync_domains);
        let domains = intersection(&profile.sync_domains, &self.claims.sync_domains);
        let (listed, shown) = (
            codec::encode(&domains),
            ticket.as_deref().unwrap_or_default(),
        );
        let mut welcome = Welcome {
            claims: ByteBuf::new(),
            ticket: ticket.as_deref().map(ByteBuf::from),
            domains: domains.clone(),
            signature: Signature::from_bytes([0; Signature::LEN]),
        };
        let bytes_max = self.here.config.unadmitted_frame_bytes_max;
        let room = room_for_claims(&Message::Welcome(welcome.clone()), bytes_max);
        welcome.claims = claims_of(profile, &self.here.keys, room).into();
        let signed = [
            self.transcript.as_bytes(),
            &welcome.claims[..],
            &listed,
            shown,
        ];
        welcome.signature = self.here.keys.sign_as_node(Context::Welcome, &signed);
        let admitted = Admitted {
            claims: self.claims,
            domains,
            tier,
            ticket: None,
            we_dialled: false,
            effort: self.effort,
            solving_time: Duration::ZERO,
        };
        (Message::Welcome(welcome).encode(), admitted)
    }
}

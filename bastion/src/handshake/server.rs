//! The server side of the handshake. The checks run in order of cost, cheapest first. The server
//! keeps nothing for a challenge that it sent.
//!
//! [`PrecheckedSolution`]: frame length and form, cookie seal, expiry, serial unused, inner
//! condition or ticket, and the form of the claims. [`ReservedSolution`]: a worker is free and the
//! serial is used. [`Verified`]: work and signatures hold.
//!
//! Policy is decided elsewhere: the gate asks its [`crate::policy::AdmissionPolicy`] between
//! [`Verified`] and the welcome.

use std::sync::Arc;
use std::time::Duration;

use keys::protocol::{PROTOCOL_VERSION, UNADMITTED_FRAME_BYTES_MAX};
use keys::{Context, Digest, PeerId, Signature, codec};
use rand::CryptoRng;
use serde_bytes::ByteBuf;

use super::admitted::Admitted;
use super::context::{HandshakeContext, Moment, ServerState};
use super::signed_parts::{transcript, with_solution_parts};
use crate::claims::{Claims, NodeProfile, PeerClaims, claims_space, intersection, sorted};
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{Challenge, Cookie, HandshakeMessage, Hello, Solution, Welcome};
use crate::puzzle::{ChallengeBytes, ChallengeSealer, Difficulty, Memory, Puzzle, Serial};
use crate::ticket::{TicketClaims, Tier};

/// State of a new stream: waits for hello, or for a solution in its place.
pub struct AwaitHello {
    context: Arc<HandshakeContext>,
}

/// The first message of a client, decoded and checked.
pub enum FirstMessage {
    /// The client sent hello.
    Hello {
        /// The frame to send.
        challenge: Vec<u8>,
        /// The claims of the client's ticket; none without a valid ticket.
        ticket: Option<TicketClaims>,
        /// The next state.
        next: AwaitSolution,
    },
    /// The client sent the solution of an earlier challenge.
    Solution(Box<PrecheckedSolution>),
}

/// State after sending a challenge. Stateless by design: accepts any unexpired cookie sealed by
/// this node.
pub struct AwaitSolution {
    context: Arc<HandshakeContext>,
}

/// A solution that passed every cheap check. Work and signatures are not verified yet.
pub struct PrecheckedSolution {
    context: Arc<HandshakeContext>,
    serial: Serial,
    expiry: u64,
    proof: Proof,
    solution: Solution,
    claims: Claims,
    transcript: Digest,
}

/// The proof that a client offers for admission.
enum Proof {
    /// A solved puzzle.
    Work(Puzzle),
    /// A ticket that this node issued.
    Ticket(TicketClaims),
}

/// A prechecked solution whose serial is now used: no other stream can verify it too.
pub struct ReservedSolution(PrecheckedSolution);

/// A solution whose work or ticket, signatures and onion address hold.
pub struct Verified {
    context: Arc<HandshakeContext>,
    serial: Serial,
    claims: PeerClaims,
    transcript: Digest,
    effort: u64,
    ticket: Option<TicketClaims>,
}

impl AwaitHello {
    /// Returns the state for a new stream.
    pub fn new(context: Arc<HandshakeContext>) -> Self {
        Self { context }
    }

    /// Handles the first frame. A hello gets a challenge of at least `moment.effort`, or of effort
    /// 0 with a valid ticket. A solution is prechecked.
    pub fn receive(
        self,
        frame: &[u8],
        server: &mut ServerState,
        moment: Moment,
        rng: &mut dyn CryptoRng,
    ) -> Result<FirstMessage, HandshakeError> {
        let Moment { effort, now } = moment;
        match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
            HandshakeMessage::Hello(Hello {
                ticket, versions, ..
            }) => {
                if !versions.contains(&PROTOCOL_VERSION) {
                    return Err(Incompatibility::Version.into());
                }
                // A client whose ticket is invalid or used too often has to work.
                let ticket = ticket
                    .and_then(|ticket| server.tickets.open(&ticket, now))
                    .filter(|ticket| server.tickets.may_use(ticket, now));
                let effort = if ticket.is_some() { 0 } else { effort.max(1) };
                let onion = self.context.keys.onion();
                let challenge = server.sealer.challenge(onion, effort, now, rng);
                Ok(FirstMessage::Hello {
                    challenge: HandshakeMessage::Challenge(challenge).encode(),
                    ticket,
                    next: AwaitSolution {
                        context: self.context,
                    },
                })
            }
            HandshakeMessage::Solution(solution) => {
                let prechecked = precheck(self.context, solution, frame, server, moment)?;
                Ok(FirstMessage::Solution(Box::new(prechecked)))
            }
            other => Err(HandshakeError::out_of_order("hello or solution", &other)),
        }
    }
}

impl AwaitSolution {
    /// Prechecks the solution that follows the challenge. Leaves the serial unused.
    pub fn receive(
        self,
        frame: &[u8],
        server: &mut ServerState,
        moment: Moment,
    ) -> Result<PrecheckedSolution, HandshakeError> {
        match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
            HandshakeMessage::Solution(solution) => {
                precheck(self.context, solution, frame, server, moment)
            }
            other => Err(HandshakeError::out_of_order("solution", &other)),
        }
    }
}

/// Runs every check that costs microseconds, cheapest first.
fn precheck(
    context: Arc<HandshakeContext>,
    solution: Solution,
    frame: &[u8],
    server: &mut ServerState,
    moment: Moment,
) -> Result<PrecheckedSolution, HandshakeError> {
    let Moment { effort, now } = moment;
    let (cookie, serial) = server
        .sealer
        .open(&solution.cookie, &solution.sealed, now)?;
    // The seal proves that this node made the cookie. After a change of the onion key the work was
    // done for another address.
    if cookie.onion != context.keys.onion() {
        return Err(Misbehaviour::CookieUnknown.into());
    }
    // Cookies issued below the base effort are rejected under load, because clients can collect
    // them while the gate is idle.
    let base = context.config.effort_base;
    if (1..base).contains(&cookie.effort) && effort >= base {
        return Err(Misbehaviour::CookieExpired.into());
    }
    let (proof, claims) = if cookie.effort == 0 {
        precheck_ticket(&context, &solution, server, now)?
    } else {
        precheck_work(&context, &solution, &cookie)?
    };
    // Messages have one canonical form, so the parts that came back give the challenge as sent.
    let challenge = HandshakeMessage::Challenge(Challenge {
        cookie: solution.cookie.clone(),
        sealed: solution.sealed.clone(),
    });
    let transcript = transcript(&challenge.encode(), frame);
    Ok(PrecheckedSolution {
        context,
        serial,
        expiry: cookie.expiry,
        proof,
        solution,
        claims,
        transcript,
    })
}

/// Checks the inner condition before it decodes the claims, because the inner condition does not
/// depend on the solver.
fn precheck_work(
    context: &HandshakeContext,
    solution: &Solution,
    cookie: &Cookie,
) -> Result<(Proof, Claims), HandshakeError> {
    if solution.ticket.is_some() {
        return Err(Misbehaviour::Claims("a ticket where work was asked").into());
    }
    let difficulty = Difficulty::of_cookie(cookie)
        .ok_or(Misbehaviour::CookieUnknown)?
        .with_extra_doublings(solution.extra_doublings);
    let challenge = ChallengeBytes {
        cookie: &solution.cookie,
        sealed: &solution.sealed,
    };
    if !Puzzle::inner_condition(difficulty.inner_bits, challenge, &solution.nonce) {
        return Err(Misbehaviour::InnerCondition.into());
    }
    let claims = decode_peer_claims(context, solution)?;
    let onion = context.keys.onion();
    let puzzle = Puzzle::new(difficulty, challenge, &onion, &claims.peer_id());
    Ok((Proof::Work(puzzle), claims))
}

/// Opens the ticket again, because nothing was kept of the hello. Counts the use, because the
/// following steps cost signature checks.
fn precheck_ticket(
    context: &HandshakeContext,
    solution: &Solution,
    server: &mut ServerState,
    now: u64,
) -> Result<(Proof, Claims), HandshakeError> {
    if solution.extra_doublings > 0 {
        return Err(Misbehaviour::Claims("a ticket and doublings of the effort").into());
    }
    let ticket = solution
        .ticket
        .as_ref()
        .and_then(|ticket| server.tickets.open(ticket, now))
        .ok_or(Misbehaviour::InvalidTicket)?;
    let claims = decode_peer_claims(context, solution)?;
    if claims.peer_id() != ticket.peer {
        return Err(Misbehaviour::InvalidTicket.into());
    }
    if !server.tickets.count_use(&ticket, now) {
        return Err(HandshakeError::Busy);
    }
    Ok((Proof::Ticket(ticket), claims))
}

fn decode_peer_claims(
    context: &HandshakeContext,
    solution: &Solution,
) -> Result<Claims, HandshakeError> {
    let claims = Claims::decode(&solution.claims)?;
    if claims.peer_id() == context.keys.peer_id() {
        return Err(Misbehaviour::OwnPeerId.into());
    }
    Ok(claims)
}

impl PrecheckedSolution {
    /// Returns the claimed effort, which orders the verification queue; none with a ticket.
    pub fn effort(&self) -> Option<u64> {
        match &self.proof {
            Proof::Work(puzzle) => Some(puzzle.effort()),
            Proof::Ticket(_) => None,
        }
    }

    /// Returns the claimed peer id. Verification proves it.
    pub fn peer_id(&self) -> PeerId {
        self.claims.peer_id()
    }

    /// Returns the cookie's expiry in Unix seconds.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// Returns the claims of the ticket that replaces the work.
    pub fn ticket(&self) -> Option<&TicketClaims> {
        match &self.proof {
            Proof::Work(_) => None,
            Proof::Ticket(ticket) => Some(ticket),
        }
    }

    /// Marks the serial used, once a worker is free. Fails when another stream reserved it first.
    pub fn reserve(self, sealer: &mut ChallengeSealer) -> Result<ReservedSolution, HandshakeError> {
        sealer.reserve(self.serial)?;
        Ok(ReservedSolution(self))
    }
}

impl ReservedSolution {
    /// Verifies the work by one evaluation of the work function, then the signatures. Takes about
    /// half a millisecond, so it runs on a worker thread.
    pub fn verify(self, memory: &mut Memory) -> Result<Verified, HandshakeError> {
        let Self(PrecheckedSolution {
            context,
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
            Proof::Ticket(ticket) => (0, Some(ticket)),
        };
        let onion = context.keys.onion();
        let signature = &solution.signature;
        let claims = with_solution_parts(&solution, &onion, |signed| {
            claims.verify(Context::Solution, signed, signature)
        })?;
        Ok(Verified {
            context,
            serial,
            claims,
            transcript,
            effort,
            ticket,
        })
    }
}

impl Verified {
    /// Returns the verified claims of the applicant.
    pub fn claims(&self) -> &PeerClaims {
        &self.claims
    }

    /// Returns the proved effort in expected evaluations; 0 with a ticket.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// Returns the claims of the ticket that replaced the work.
    pub fn ticket(&self) -> Option<TicketClaims> {
        self.ticket
    }

    /// Returns the cookie's serial. The gate releases it when no session slot is free, so that the
    /// client can send the same solution later.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Admits the peer after the policy decided so. Returns the frame to send and the proof of
    /// admission. `ticket` replaces the work in the peer's next handshake.
    pub fn welcome(
        self,
        mut profile: NodeProfile,
        tier: Tier,
        ticket: Option<Vec<u8>>,
    ) -> (Vec<u8>, Admitted) {
        profile.sync_domains = sorted(profile.sync_domains);
        let domains = intersection(&profile.sync_domains, &self.claims.sync_domains);
        let features = self
            .context
            .config
            .features
            .intersection(&self.claims.features);
        let ticket_bytes = ticket.as_deref().unwrap_or_default();
        let mut welcome = Welcome {
            claims: ByteBuf::new(),
            ticket: ticket.as_deref().map(ByteBuf::from),
            domains: domains.clone(),
            features: features.clone(),
            signature: Signature::from_bytes([0; Signature::LEN]),
        };
        let bytes_max = UNADMITTED_FRAME_BYTES_MAX;
        let space = claims_space(&HandshakeMessage::Welcome(welcome.clone()), bytes_max);
        welcome.claims = self.context.encode_claims(profile, space).into();
        let signed: [&[u8]; 5] = [
            self.transcript.as_bytes(),
            &welcome.claims,
            &codec::encode(&domains),
            &features.encode(),
            ticket_bytes,
        ];
        welcome.signature = self.context.keys.sign_as_node(Context::Welcome, &signed);
        let admitted = Admitted {
            claims: self.claims,
            domains,
            features,
            tier,
            ticket: None,
            we_dialled: false,
            effort: self.effort,
            solving_time: Duration::ZERO,
        };
        (HandshakeMessage::Welcome(welcome).encode(), admitted)
    }
}

//! The client side of the handshake. The client works only for the onion service that it dialled,
//! and only within its own limits.
//!
//! The client does not judge a cookie's expiry, because clocks differ and only the server's counts.
//! Invariant: a solution's signature names the dialled onion service, so no other node can use it.
//! The accepted welcome is signed over the solution that was sent.

use std::sync::Arc;
use std::time::Duration;

use keys::protocol::{NONCE_BYTES, PROTOCOL_VERSION, UNADMITTED_FRAME_BYTES_MAX};
use keys::{Context, Digest, OnionAddr, PeerId, Signature, codec};
use serde_bytes::{ByteArray, ByteBuf};

use super::admitted::Admitted;
use super::context::HandshakeContext;
use super::signed_parts::{transcript, with_solution_parts};
use crate::claims::{Claims, NodeProfile, claims_space, intersection, sorted};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{Challenge, Cookie, HandshakeMessage, Hello, Solution, Welcome};
use crate::puzzle::{ChallengeBytes, Difficulty, Nonce, Puzzle};
use crate::ticket::{Ticket, Tier};

/// The tier, the work and the node that this node accepts for a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialTerms {
    /// How far the node is trusted.
    pub tier: Tier,
    /// Highest effort that this node solves, in evaluations at 13 inner bits.
    pub effort_max: u64,
    /// The node that must answer; none: whichever serves the onion address.
    pub peer: Option<PeerId>,
}

impl DialTerms {
    /// Those for a node that the operator chose: whichever serves the address is trusted.
    pub fn chosen(config: &GateConfig) -> Self {
        Self {
            tier: Tier::Trusted,
            effort_max: config.effort_accept_max,
            peer: None,
        }
    }
}

/// Hashes for one evaluation at 13 inner bits, the default: 2^13.
const USUAL_HASHES: u128 = 1 << 13;

/// State after sending hello.
pub struct AwaitChallenge {
    context: Arc<HandshakeContext>,
    onion: OnionAddr,
    terms: DialTerms,
    ticket: Option<Ticket>,
}

/// A challenge within this client's limits. The client may solve it more than once, with more work
/// each time.
#[derive(Clone)]
pub struct Solving {
    context: Arc<HandshakeContext>,
    onion: OnionAddr,
    terms: DialTerms,
    challenge: Challenge,
    /// Effort 0 means that the ticket replaces the work.
    difficulty: Difficulty,
    ticket: Option<Ticket>,
}

/// The nonce that solves a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Solves the puzzle with `extra_doublings`.
    pub nonce: Nonce,
    /// Doublings of the effort above the cookie's.
    pub extra_doublings: u8,
}

impl Work {
    /// The value to send when a ticket replaces the work.
    pub const NONE: Self = Self {
        nonce: [0; NONCE_BYTES],
        extra_doublings: 0,
    };
}

/// State after solving. The client may send the same solution on several streams; the server gives
/// the same reply.
#[derive(Clone)]
pub struct AwaitWelcome {
    context: Arc<HandshakeContext>,
    onion: OnionAddr,
    terms: DialTerms,
    sync_domains: Vec<String>,
    pub(super) transcript: Digest,
    effort: u64,
    solving_time: Duration,
}

/// Returns the cost of a puzzle in evaluations at 13 inner bits. Hashing for the inner condition is
/// taken to be half of that cost at 13 bits (measured: three fifths). With fewer bits the cost is
/// at most the effort.
fn equivalent_effort(difficulty: Difficulty) -> u64 {
    let hashes = 1u128 << difficulty.inner_bits.min(64);
    let effort = u128::from(difficulty.effort);
    let equivalent = effort.saturating_mul(USUAL_HASHES + hashes) / (2 * USUAL_HASHES);
    u64::try_from(equivalent).unwrap_or(u64::MAX)
}

impl AwaitChallenge {
    /// Returns the hello to send to the dialled onion service, and the next state.
    pub fn begin(
        context: Arc<HandshakeContext>,
        onion: OnionAddr,
        ticket: Option<Ticket>,
    ) -> (Vec<u8>, Self) {
        let hello = HandshakeMessage::Hello(Hello {
            ticket: ticket
                .as_ref()
                .map(|ticket| ByteBuf::from(ticket.as_bytes())),
            features: context.config.features.clone(),
            versions: vec![PROTOCOL_VERSION],
        });
        let terms = DialTerms::chosen(&context.config);
        let next = Self {
            context,
            onion,
            terms,
            ticket,
        };
        (hello.encode(), next)
    }

    /// Replaces the terms, which are [`DialTerms::chosen`] by default.
    #[must_use]
    pub fn under(mut self, terms: DialTerms) -> Self {
        self.terms = terms;
        self
    }

    /// Handles the challenge, or a refusal. Fails when the challenge exceeds this client's limits.
    pub fn receive(self, frame: &[u8]) -> Result<Solving, HandshakeError> {
        let challenge = match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
            HandshakeMessage::Challenge(challenge) => challenge,
            HandshakeMessage::Refused(refusal) => return Err(HandshakeError::refused(&refusal)),
            other => return Err(HandshakeError::out_of_order("challenge", &other)),
        };
        let cookie = Cookie::decode(&challenge.cookie)?;
        if cookie.onion != self.onion {
            return Err(Misbehaviour::CookieForAnotherOnion.into());
        }
        // Effort 0 requires a ticket. A higher effort means that the server rejected the ticket.
        let ticket = match (cookie.effort, self.ticket) {
            (0, None) => return Err(Misbehaviour::InvalidChallenge.into()),
            (0, ticket) => ticket,
            (_, _) => None,
        };
        let solving = Solving {
            context: self.context,
            onion: self.onion,
            terms: self.terms,
            challenge,
            difficulty: Difficulty::of_cookie(&cookie).ok_or(Incompatibility::Algorithm)?,
            ticket,
        };
        solving.within_limits(0)?;
        Ok(solving)
    }
}

impl Solving {
    /// Returns the puzzle with `extra_doublings`; none when a ticket replaces the work. Fails when
    /// the puzzle exceeds this client's limits.
    pub fn puzzle(&self, extra_doublings: u8) -> Result<Option<Puzzle>, Incompatibility> {
        let difficulty = self.within_limits(extra_doublings)?;
        if self.difficulty.effort == 0 {
            return Ok(None);
        }
        let challenge = ChallengeBytes {
            cookie: &self.challenge.cookie,
            sealed: &self.challenge.sealed,
        };
        let solver = self.context.keys.peer_id();
        Ok(Some(Puzzle::new(
            difficulty,
            challenge,
            &self.onion,
            &solver,
        )))
    }

    fn within_limits(&self, extra_doublings: u8) -> Result<Difficulty, Incompatibility> {
        let config = &self.context.config;
        let difficulty = self.difficulty.with_extra_doublings(extra_doublings);
        let asked = difficulty.effort.max(equivalent_effort(difficulty));
        if asked > self.terms.effort_max {
            let limit = self.terms.effort_max;
            return Err(Incompatibility::Effort { asked, limit });
        }
        if difficulty.inner_bits > config.inner_bits_accept_max {
            let (asked, limit) = (difficulty.inner_bits, config.inner_bits_accept_max);
            return Err(Incompatibility::InnerBits { asked, limit });
        }
        Ok(difficulty)
    }

    /// Returns the solution to send, and the next state.
    pub fn solved(
        self,
        work: Work,
        profile: NodeProfile,
        solving_time: Duration,
    ) -> (Vec<u8>, AwaitWelcome) {
        let sync_domains = sorted(profile.sync_domains.clone());
        let mut solution = Solution {
            nonce: ByteArray::new(work.nonce),
            claims: ByteBuf::new(),
            cookie: self.challenge.cookie.clone(),
            sealed: self.challenge.sealed.clone(),
            ticket: self
                .ticket
                .as_ref()
                .map(|ticket| ByteBuf::from(ticket.as_bytes())),
            signature: Signature::from_bytes([0; Signature::LEN]),
            extra_doublings: work.extra_doublings,
        };
        let bytes_max = UNADMITTED_FRAME_BYTES_MAX;
        let space = claims_space(&HandshakeMessage::Solution(solution.clone()), bytes_max);
        solution.claims = self.context.encode_claims(profile, space).into();
        solution.signature = with_solution_parts(&solution, &self.onion, |parts| {
            self.context.keys.sign_as_node(Context::Solution, parts)
        });
        let solution = HandshakeMessage::Solution(solution).encode();
        let difficulty = self.difficulty.with_extra_doublings(work.extra_doublings);
        let challenge = HandshakeMessage::Challenge(self.challenge).encode();
        let awaiting = AwaitWelcome {
            context: self.context,
            onion: self.onion,
            terms: self.terms,
            sync_domains,
            transcript: transcript(&challenge, &solution),
            effort: difficulty.effort,
            solving_time,
        };
        (solution, awaiting)
    }
}

impl AwaitWelcome {
    /// Handles the welcome, or a refusal.
    pub fn receive(self, frame: &[u8]) -> Result<Admitted, HandshakeError> {
        let Welcome {
            claims: claims_bytes,
            ticket,
            domains,
            features,
            signature,
        } = match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
            HandshakeMessage::Welcome(welcome) => welcome,
            HandshakeMessage::Refused(refusal) => return Err(HandshakeError::refused(&refusal)),
            other => return Err(HandshakeError::out_of_order("welcome", &other)),
        };
        let claims = Claims::decode(&claims_bytes)?;
        if claims.peer_id() == self.context.keys.peer_id() {
            return Err(Misbehaviour::OwnPeerId.into());
        }
        if claims.onion != self.onion {
            return Err(Misbehaviour::OnionNotDialled.into());
        }
        if self.terms.peer.is_some_and(|peer| peer != claims.peer_id()) {
            return Err(HandshakeError::AnotherNode);
        }
        let ticket_bytes: &[u8] = ticket.as_deref().map_or(&[], |ticket| ticket);
        let signed: [&[u8]; 5] = [
            self.transcript.as_bytes(),
            &claims_bytes,
            &codec::encode(&domains),
            &features.encode(),
            ticket_bytes,
        ];
        let claims = claims.verify(Context::Welcome, &signed, &signature)?;
        if domains != intersection(&self.sync_domains, &claims.sync_domains) {
            return Err(Misbehaviour::DomainsDiffer.into());
        }
        if features != self.context.config.features.intersection(&claims.features) {
            return Err(Misbehaviour::FeaturesDiffer.into());
        }
        Ok(Admitted {
            claims,
            domains,
            features,
            tier: self.terms.tier,
            ticket: Ticket::from_bytes(ticket_bytes),
            we_dialled: true,
            effort: self.effort,
            solving_time: self.solving_time,
        })
    }
}

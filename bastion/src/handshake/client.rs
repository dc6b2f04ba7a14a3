//! The calling side. Works only for the onion service that it dialled, within its own limits, and believes nobody.
//!
//! Never judges a cookie's expiry: clocks differ, and only its maker's counts. Invariant: what it signs names the onion
//! dialled, so that no other node can use it; what it accepts is signed over what it sent.

use std::sync::Arc;
use std::time::Duration;

use keys::{Context, Digest, OnionAddr, Signature, codec};
use serde_bytes::{ByteArray, ByteBuf};

use super::server::with_more;
use super::{Admitted, Here, out_of_order, solution_parts, transcript};
use crate::claims::{Claims, Profile, claims_of, intersection, room_for_claims, sorted};
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{
    Challenge, Cookie, Hello, Message, NONCE_BYTES, SEALED_BYTES_MAX, Solution, VERSION, Welcome,
};
use crate::puzzle::{Algorithm, Nonce, Puzzle};
use crate::ticket::{TICKET_BYTES_MAX, Ticket, Tier};

/// Hello was sent.
pub struct AwaitChallenge {
    here: Arc<Here>,
    onion: OnionAddr,
    ticket: Option<Ticket>,
}

/// A challenge that we accept. May be answered more than once, with more work each time.
#[derive(Clone)]
pub struct Solving {
    here: Arc<Here>,
    onion: OnionAddr,
    challenge: Challenge,
    cookie: Cookie,
    algorithm: Algorithm,
    ticket: Option<Ticket>,
}

/// What answers a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Solves the puzzle of that many doublings.
    pub nonce: Nonce,
    /// Doublings of the effort beyond what was asked.
    pub more: u8,
}

impl Work {
    /// Where a ticket stands in for it.
    pub const NONE: Self = Self {
        nonce: [0; NONCE_BYTES],
        more: 0,
    };
}

/// The solution was made. It may be sent more than once, on different streams; the answer is the same.
#[derive(Clone)]
pub struct AwaitWelcome {
    here: Arc<Here>,
    onion: OnionAddr,
    sync_domains: Vec<String>,
    pub(super) transcript: Digest,
    effort: u64,
    solving_time: Duration,
}

/// What a puzzle costs in evaluations of a usual one, of which hashing for the inner condition is taken to be one half at 13
/// bits (measured: three fifths). Fewer bits make no puzzle dearer than its effort says.
fn worth(effort: u64, inner_bits: u8) -> u64 {
    let hashing = 1u128 << inner_bits.min(64);
    let worth = u128::from(effort).saturating_mul(USUAL_HASHES + hashing) / (2 * USUAL_HASHES);
    u64::try_from(worth).unwrap_or(u64::MAX)
}

/// Hashes for one evaluation at the default inner condition: 2^13.
const USUAL_HASHES: u128 = 1 << 13;

impl AwaitChallenge {
    /// The frame to send to the onion service that was dialled, and what to await.
    pub fn begin(here: Arc<Here>, onion: OnionAddr, ticket: Option<Ticket>) -> (Vec<u8>, Self) {
        let hello = Message::Hello(Hello {
            ticket: ticket
                .as_ref()
                .map(|ticket| ByteBuf::from(ticket.as_bytes())),
            versions: vec![VERSION],
        });
        (
            hello.encode(),
            Self {
                here,
                onion,
                ticket,
            },
        )
    }

    /// The challenge, or a refusal.
    pub fn receive(self, frame: &[u8]) -> Result<Solving, HandshakeError> {
        let config = &self.here.config;
        let challenge = match Message::decode(frame, config.unadmitted_frame_bytes_max)? {
            Message::Challenge(challenge) => challenge,
            Message::Refused(refused) => return Err(HandshakeError::refused(&refused)),
            other => return Err(out_of_order("challenge", &other)),
        };
        let cookie = Cookie::decode(&challenge.cookie)?;
        // It goes back beside our claims, in one frame.
        if challenge.sealed.len() > SEALED_BYTES_MAX {
            return Err(Misbehaviour::CookieAbsurd.into());
        }
        if cookie.onion != self.onion {
            return Err(Misbehaviour::CookieOfAnotherOnion.into());
        }
        // Without work it takes a ticket; with work the ticket was not taken, and is of no use.
        let ticket = match (cookie.effort, self.ticket) {
            (0, None) => return Err(Misbehaviour::CookieAbsurd.into()),
            (0, ticket) => ticket,
            (_, _) => None,
        };
        let algorithm =
            Algorithm::from_name(&cookie.algorithm).ok_or(Incompatibility::Algorithm)?;
        let solving = Solving {
            here: self.here,
            onion: self.onion,
            challenge,
            cookie,
            algorithm,
            ticket,
        };
        solving.within_limits(0)?;
        Ok(solving)
    }
}

impl Solving {
    /// What to solve with `more` doublings of the effort asked; none where a ticket stands in for the work. Fails where
    /// that is more than we are willing to do.
    pub fn puzzle(&self, more: u8) -> Result<Option<Puzzle>, Incompatibility> {
        let (effort, inner_bits) = self.within_limits(more)?;
        if self.cookie.effort == 0 {
            return Ok(None);
        }
        Ok(Some(Puzzle::new(
            (self.algorithm, effort, inner_bits),
            (&self.challenge.cookie, &self.challenge.sealed),
            &self.onion,
            &self.here.keys.peer_id(),
        )))
    }

    fn within_limits(&self, more: u8) -> Result<(u64, u8), Incompatibility> {
        let config = &self.here.config;
        let (effort, inner_bits) = with_more(&self.cookie, more);
        let asked = effort.max(worth(effort, inner_bits));
        if asked > config.effort_accept_max {
            let limit = config.effort_accept_max;
            return Err(Incompatibility::Effort { asked, limit });
        }
        if inner_bits > config.inner_bits_accept_max {
            let (asked, limit) = (inner_bits, config.inner_bits_accept_max);
            return Err(Incompatibility::InnerBits { asked, limit });
        }
        Ok((effort, inner_bits))
    }

    /// The frame to send, and what to await.
    pub fn solved(
        self,
        work: Work,
        profile: Profile,
        solving_time: Duration,
    ) -> (Vec<u8>, AwaitWelcome) {
        let sync_domains = sorted(profile.sync_domains.clone());
        let mut solution = Solution {
            more: work.more,
            nonce: ByteArray::new(work.nonce),
            claims: ByteBuf::new(),
            cookie: self.challenge.cookie.clone(),
            sealed: self.challenge.sealed.clone(),
            ticket: self
                .ticket
                .as_ref()
                .map(|ticket| ByteBuf::from(ticket.as_bytes())),
            signature: Signature::from_bytes([0; Signature::LEN]),
        };
        let bytes_max = self.here.config.unadmitted_frame_bytes_max;
        let room = room_for_claims(&Message::Solution(solution.clone()), bytes_max);
        solution.claims = claims_of(profile, &self.here.keys, room).into();
        solution.signature = solution_parts(&solution, &self.onion, |parts| {
            self.here.keys.sign_as_node(Context::Solution, parts)
        });
        let solution = Message::Solution(solution).encode();
        let (effort, _) = with_more(&self.cookie, work.more);
        let transcript = transcript(&Message::Challenge(self.challenge).encode(), &solution);
        let awaiting = AwaitWelcome {
            here: self.here,
            onion: self.onion,
            sync_domains,
            transcript,
            effort,
            solving_time,
        };
        (solution, awaiting)
    }
}

impl AwaitWelcome {
    /// The welcome, or a refusal.
    pub fn receive(self, frame: &[u8]) -> Result<Admitted, HandshakeError> {
        let config = &self.here.config;
        let Welcome {
            claims: bytes,
            ticket,
            domains,
            signature,
        } = match Message::decode(frame, config.unadmitted_frame_bytes_max)? {
            Message::Welcome(welcome) => welcome,
            Message::Refused(refused) => return Err(HandshakeError::refused(&refused)),
            other => return Err(out_of_order("welcome", &other)),
        };
        let claims = Claims::decode(&bytes, config)?;
        if claims.peer_id() == self.here.keys.peer_id() {
            return Err(Misbehaviour::OwnPeerId.into());
        }
        if claims.onion != self.onion {
            return Err(Misbehaviour::OnionNotDialled.into());
        }
        let ticket_bytes: &[u8] = ticket.as_deref().map_or(&[], |ticket| ticket);
        if ticket_bytes.len() > TICKET_BYTES_MAX {
            return Err(Misbehaviour::Claims("too long a ticket").into());
        }
        let listed = codec::encode(&domains);
        let signed: [&[u8]; 4] = [self.transcript.as_bytes(), &bytes, &listed, ticket_bytes];
        let claims = claims.verify(Context::Welcome, &signed, &signature)?;
        if domains != intersection(&self.sync_domains, &claims.sync_domains) {
            return Err(Misbehaviour::DomainsDiffer.into());
        }
        Ok(Admitted {
            claims,
            domains,
            tier: Tier::Trusted,
            ticket: Ticket::from_bytes(ticket_bytes),
            we_dialled: true,
            effort: self.effort,
            solving_time: self.solving_time,
        })
    }
}

//! The handshake as values: one state per message awaited, consumed by that message. No stream, clock or chance inside.
//!
//! Who is called: [`AwaitHello`] -> [`AwaitSolution`] -> [`Screened`] -> [`Taken`] -> [`Verified`] -> [`Admitted`].
//! Who calls: [`AwaitChallenge`] -> [`Solving`] -> [`AwaitWelcome`] -> [`Admitted`].
//! Invariant: an [`Admitted`] exists only where work, signatures and onion address were proved by the right side.

mod client;
mod server;

use std::sync::Arc;
use std::time::Duration;

use keys::signing::signing_input;
use keys::{Context, Digest, KeyManager, OnionAddr};

pub use client::{AwaitChallenge, AwaitWelcome, Solving, Work};
pub use server::{AwaitHello, AwaitSolution, Opening, Screened, Taken, Verified};

use crate::claims::PeerClaims;
use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour};
use crate::messages::{Message, Solution};
use crate::puzzle::CookieJar;
use crate::ticket::{Ticket, Tickets, Tier};

/// Who we are and what we allow.
pub struct Here {
    /// Our limits.
    pub config: GateConfig,
    /// Our keys.
    pub keys: Arc<KeyManager>,
}

/// What lets the called side know its own challenges and tickets again.
pub struct Desk {
    /// Challenges.
    pub jar: CookieJar,
    /// Tickets.
    pub tickets: Tickets,
}

/// A peer that has been admitted, or has admitted us. Only a completed handshake makes one.
#[derive(Debug, Clone)]
pub struct Admitted {
    claims: PeerClaims,
    domains: Vec<String>,
    tier: Tier,
    ticket: Option<Ticket>,
    we_dialled: bool,
    effort: u64,
    solving_time: Duration,
}

impl Admitted {
    /// What the peer proved and claimed.
    pub fn claims(&self) -> &PeerClaims {
        &self.claims
    }

    /// The sync domains of both, sorted.
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// How far the peer is trusted; whom we dialled is.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// What the peer gave us to spare us the work next time.
    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    /// Whether the stream is one that we opened: then the peer's onion address is confirmed.
    pub fn we_dialled(&self) -> bool {
        self.we_dialled
    }

    /// The work of the side that dialled, in expected evaluations; 0 with a ticket.
    pub fn effort(&self) -> u64 {
        self.effort
    }

    /// How long we solved; zero when the peer dialled.
    pub fn solving_time(&self) -> Duration {
        self.solving_time
    }
}

/// Digest of challenge and solution exactly as sent: what a welcome answers.
fn transcript(challenge: &[u8], solution: &[u8]) -> Digest {
    Digest::of(&signing_input(Context::Transcript, &[challenge, solution]))
}

/// Hands over what a solution's signature covers: every other field, and the onion service addressed.
fn solution_parts<R>(
    solution: &Solution,
    onion: &OnionAddr,
    use_them: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    use_them(&[
        &solution.cookie,
        &solution.sealed,
        solution.nonce.as_slice(),
        &[solution.more],
        solution
            .ticket
            .as_ref()
            .map_or(&[], |ticket| ticket.as_slice()),
        &solution.claims,
        onion.public_key().as_bytes(),
    ])
}

fn out_of_order(awaited: &'static str, got: &Message) -> HandshakeError {
    Misbehaviour::OutOfOrder {
        awaited,
        got: got.kind(),
    }
    .into()
}

#[cfg(test)]
pub(crate) use server::with_more;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod every_message_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod ticket_tests;

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
use keys::{Context, Digest, KeyManager};

pub use client::{AwaitChallenge, AwaitWelcome, Solving};
pub use server::{AwaitHello, AwaitSolution, Opening, Screened, Taken, Verified};

use crate::claims::PeerClaims;
use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour};
use crate::messages::Message;

/// Who we are and what we allow.
pub struct Here {
    /// Our limits.
    pub config: GateConfig,
    /// Our keys.
    pub keys: Arc<KeyManager>,
}

/// A peer that has been admitted, or has admitted us. Only a completed handshake makes one.
#[derive(Debug, Clone)]
pub struct Admitted {
    claims: PeerClaims,
    domains: Vec<String>,
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

    /// Whether the stream is one that we opened: then the peer's onion address is confirmed.
    pub fn we_dialled(&self) -> bool {
        self.we_dialled
    }

    /// The effort that was asked of the side that dialled, in expected evaluations.
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

fn out_of_order(awaited: &'static str, got: &Message) -> HandshakeError {
    Misbehaviour::OutOfOrder {
        awaited,
        got: got.kind(),
    }
    .into()
}

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod testing;

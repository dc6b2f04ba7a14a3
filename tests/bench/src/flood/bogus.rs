//! What a stranger sends who does not mean it: each kind is refused at another step.
//!
//! Never solves a puzzle. Invariant: what is made here is well formed as far as its kind says, and no further.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bastion::handshake::{AwaitChallenge, HandshakeContext, Work};
use bastion::messages::{Challenge, HandshakeMessage, Hello, NONCE_BYTES, Solution, VERSION};
use bastion::puzzle::{ChallengeBytes, ChallengeSealer, Nonce, Puzzle};
use bastion::ticket::TICKET_BYTES;
use bastion::{GateConfig, NodeProfile};
use keys::{BootId, Epoch, KeyManager};
use rand::{Rng as _, RngExt as _};
use serde_bytes::{ByteArray, ByteBuf};

use super::reach;

/// How a hello begins.
pub(super) const HELLO: &[u8] = b"\xa1\x65hello";
/// Bytes of a garbage frame.
const GARBAGE_BYTES: usize = 300;
/// The effort of the sink's challenge: nobody works on it.
const EFFORT: u64 = 1024;
const FRAME_BYTES_MAX: usize = 8192;

/// The kinds, and how many of a hundred messages are of each.
pub(super) const MIX: [(Kind, u32); 6] = [
    (Kind::Hello, 30),
    (Kind::Ticket, 15),
    (Kind::Garbage, 15),
    (Kind::Forged, 15),
    (Kind::Inner, 17),
    (Kind::Work, 8),
];

/// A kind of bogus message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A good hello whose challenge is never answered.
    Hello,
    /// The same with a ticket that is none.
    Ticket,
    /// A frame that is no message.
    Garbage,
    /// A solution whose cookie was tampered with.
    Forged,
    /// A solution with a good cookie whose nonce fails the inner condition.
    Inner,
    /// A solution with a good cookie whose nonce passes the inner condition, by trial, and fails the work.
    Work,
}

impl Kind {
    /// A word for the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello, never answered",
            Self::Ticket => "hello, garbage ticket",
            Self::Garbage => "garbage frame",
            Self::Forged => "solution, forged cookie",
            Self::Inner => "solution, inner condition fails",
            Self::Work => "solution, inner passes, work fails",
        }
    }
}

/// A challenge of the victim's onion service as another node would forge it.
pub(super) fn challenge() -> Result<Vec<u8>> {
    let mut rng = rand::rng();
    let mut sealer = ChallengeSealer::new(&GateConfig::default(), 0, &mut rng);
    let onion = reach::victim()?;
    Ok(
        HandshakeMessage::Challenge(sealer.challenge(onion, EFFORT, u64::from(u32::MAX), &mut rng))
            .encode(),
    )
}

/// Makes bogus messages.
pub(super) struct Forger {
    hello: Vec<u8>,
    /// Well formed and signed, for a challenge that nobody gave.
    template: Solution,
}

impl Forger {
    pub(super) fn new() -> Result<Self> {
        let keys = Arc::new(KeyManager::generate(&mut rand::rng()));
        let config = GateConfig::default();
        let profile = NodeProfile {
            apps: vec!["messages".into()],
            sync_domains: vec!["messages".into()],
            epoch: Epoch::from_bytes([1; 16]),
            boot_id: BootId::from_bytes([1; 16]),
            identities: Vec::new(),
        };
        let onion = reach::victim()?;
        let (hello, next) =
            AwaitChallenge::begin(Arc::new(HandshakeContext { config, keys }), onion, None);
        let work = Work {
            nonce: [0; NONCE_BYTES],
            extra_doublings: 0,
        };
        let (frame, _) = next
            .receive(&challenge()?)?
            .solved(work, profile, Duration::ZERO);
        match HandshakeMessage::decode(&frame, FRAME_BYTES_MAX)? {
            HandshakeMessage::Solution(template) => Ok(Self { hello, template }),
            other => bail!("{} is no solution", other.kind()),
        }
    }

    /// A good hello.
    pub(super) fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// A hello with a ticket of the right length.
    pub(super) fn hello_with_ticket(&self) -> Vec<u8> {
        let mut ticket = vec![0; TICKET_BYTES];
        rand::rng().fill_bytes(&mut ticket);
        HandshakeMessage::Hello(Hello {
            ticket: Some(ByteBuf::from(ticket)),
            versions: vec![VERSION],
        })
        .encode()
    }

    /// Anything.
    pub(super) fn garbage(&self) -> Vec<u8> {
        let mut bytes = vec![0; GARBAGE_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }

    /// A solution of this challenge with this nonce; its signature is of another.
    pub(super) fn solution(&self, challenge: &Challenge, nonce: Nonce) -> Vec<u8> {
        HandshakeMessage::Solution(Solution {
            nonce: ByteArray::new(nonce),
            cookie: challenge.cookie.clone(),
            sealed: challenge.sealed.clone(),
            ..self.template.clone()
        })
        .encode()
    }

    /// A solution of a challenge that was tampered with.
    pub(super) fn forged(&self, challenge: &Challenge) -> Vec<u8> {
        let mut sealed = challenge.sealed.clone();
        if let Some(byte) = sealed.last_mut() {
            *byte ^= 1;
        }
        let challenge = Challenge {
            sealed,
            ..challenge.clone()
        };
        self.solution(&challenge, rand::rng().random())
    }
}

/// The challenge in a frame; an error for a refusal.
pub(super) fn read_challenge(frame: &[u8]) -> Result<Challenge> {
    match HandshakeMessage::decode(frame, FRAME_BYTES_MAX)? {
        HandshakeMessage::Challenge(challenge) => Ok(challenge),
        other => bail!("a {} instead of a challenge", other.kind()),
    }
}

/// A nonce that passes the inner condition, or fails it, found by trial.
pub(super) fn nonce(challenge: &Challenge, passes: bool) -> Result<Nonce> {
    let inner_bits = bastion::messages::Cookie::decode(&challenge.cookie)?.inner_bits;
    let parts = ChallengeBytes {
        cookie: &challenge.cookie,
        sealed: &challenge.sealed,
    };
    let mut place: u128 = rand::rng().random();
    for _ in 0..1u64 << 24 {
        let nonce = place.to_be_bytes();
        if Puzzle::inner_condition(inner_bits, parts, &nonce) == passes {
            return Ok(nonce);
        }
        place = place.wrapping_add(1);
    }
    None.context("no such nonce within 2^24")
}

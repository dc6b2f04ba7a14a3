//! Bogus handshake messages. The gate refuses each kind at another step.
//!
//! No puzzle is solved. Invariant: a message passes all checks before the one that its kind names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bastion::handshake::{AwaitChallenge, HandshakeContext, Work};
use bastion::messages::{Challenge, HandshakeMessage, Hello, Solution};
use bastion::puzzle::{ChallengeBytes, ChallengeSealer, Nonce, Puzzle};
use bastion::ticket::TICKET_BYTES;
use bastion::{AppClaim, Features, GateConfig, NodeProfile};
use keys::protocol::{NONCE_BYTES, PROTOCOL_VERSION, UNADMITTED_FRAME_BYTES_MAX};
use keys::{BootId, Epoch, KeyManager, SchemaDigest};
use rand::{Rng as _, RngExt as _};
use serde_bytes::{ByteArray, ByteBuf};

use super::access;

/// The first bytes of an encoded hello.
pub(super) const HELLO: &[u8] = b"\xa1\x65hello";
/// Bytes of a garbage frame.
const GARBAGE_BYTES: usize = 300;
/// Effort of the sink's challenge, which no client solves.
const EFFORT: u64 = 1024;

/// The kinds with their shares in percent.
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
    /// A valid hello; no reply to its challenge follows.
    Hello,
    /// A hello with an invalid ticket.
    Ticket,
    /// A frame that does not decode.
    Garbage,
    /// A solution with a modified cookie.
    Forged,
    /// A solution with a valid cookie whose nonce fails the inner condition.
    Inner,
    /// A solution with a valid cookie whose nonce passes the inner condition and fails the work.
    Work,
}

impl Kind {
    /// Returns the row label.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello, no solution",
            Self::Ticket => "hello, garbage ticket",
            Self::Garbage => "garbage frame",
            Self::Forged => "solution, forged cookie",
            Self::Inner => "solution, inner condition fails",
            Self::Work => "solution, inner passes, work fails",
        }
    }
}

/// Returns a challenge that names the victim's onion service and is sealed with another key.
pub(super) fn challenge() -> Result<Vec<u8>> {
    let mut rng = rand::rng();
    let mut sealer = ChallengeSealer::new(&GateConfig::default(), 0, &mut rng);
    let onion = access::victim()?;
    Ok(
        HandshakeMessage::Challenge(sealer.challenge(onion, EFFORT, u64::from(u32::MAX), &mut rng))
            .encode(),
    )
}

/// Creates bogus messages.
pub(super) struct Forger {
    hello: Vec<u8>,
    /// A well-formed, signed solution of a challenge that the victim did not issue.
    template: Solution,
}

impl Forger {
    pub(super) fn new() -> Result<Self> {
        let keys = Arc::new(KeyManager::generate(&mut rand::rng()));
        let config = GateConfig::default();
        let profile = NodeProfile {
            apps: vec![AppClaim::new(
                "messages",
                1,
                SchemaDigest::from_bytes([1; 16]),
            )],
            sync_domains: vec!["messages".into()],
            epoch: Epoch::from_bytes([1; 16]),
            boot_id: BootId::from_bytes([1; 16]),
            identities: Vec::new(),
        };
        let onion = access::victim()?;
        let (hello, next) =
            AwaitChallenge::begin(Arc::new(HandshakeContext { config, keys }), onion, None);
        let work = Work {
            nonce: [0; NONCE_BYTES],
            extra_doublings: 0,
        };
        let (frame, _) = next
            .receive(&challenge()?)?
            .solved(work, profile, Duration::ZERO);
        match HandshakeMessage::decode(&frame, UNADMITTED_FRAME_BYTES_MAX)? {
            HandshakeMessage::Solution(template) => Ok(Self { hello, template }),
            other => bail!("{} is no solution", other.kind()),
        }
    }

    /// Returns a valid hello.
    pub(super) fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Returns a hello with a random ticket of the correct length.
    pub(super) fn hello_with_ticket(&self) -> Vec<u8> {
        let mut ticket = vec![0; TICKET_BYTES];
        rand::rng().fill_bytes(&mut ticket);
        HandshakeMessage::Hello(Hello {
            ticket: Some(ByteBuf::from(ticket)),
            features: Features::none(),
            versions: vec![PROTOCOL_VERSION],
        })
        .encode()
    }

    /// Returns a frame of random bytes.
    pub(super) fn garbage(&self) -> Vec<u8> {
        let mut bytes = vec![0; GARBAGE_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }

    /// Returns a solution of the challenge with the nonce and the signature of another solution.
    pub(super) fn solution(&self, challenge: &Challenge, nonce: Nonce) -> Vec<u8> {
        HandshakeMessage::Solution(Solution {
            nonce: ByteArray::new(nonce),
            cookie: challenge.cookie.clone(),
            sealed: challenge.sealed.clone(),
            ..self.template.clone()
        })
        .encode()
    }

    /// Returns a solution of the challenge with a modified seal.
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

/// Decodes a challenge. Every other message is an error.
pub(super) fn read_challenge(frame: &[u8]) -> Result<Challenge> {
    match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
        HandshakeMessage::Challenge(challenge) => Ok(challenge),
        other => bail!("a {} instead of a challenge", other.kind()),
    }
}

/// Finds a nonce that passes or fails the inner condition, by trial.
pub(super) fn nonce(challenge: &Challenge, passes: bool) -> Result<Nonce> {
    let inner_bits = bastion::messages::Cookie::decode(&challenge.cookie)?.inner_bits;
    let parts = ChallengeBytes {
        cookie: &challenge.cookie,
        sealed: &challenge.sealed,
    };
    let mut candidate: u128 = rand::rng().random();
    for _ in 0..1u64 << 24 {
        let nonce = candidate.to_be_bytes();
        if Puzzle::inner_condition(inner_bits, parts, &nonce) == passes {
            return Ok(nonce);
        }
        candidate = candidate.wrapping_add(1);
    }
    None.context("no such nonce within 2^24")
}

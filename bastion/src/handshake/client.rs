//! The calling side. Works only for the onion service that it dialled, within its own limits, and believes nobody.
//!
//! Never judges a cookie's expiry: clocks differ, and only its maker's counts. Invariant: what it signs names the onion
//! dialled, so that no other node can use it; what it accepts is signed over what it sent.

use std::sync::Arc;
use std::time::Duration;

use keys::{Context, Digest, OnionAddr, codec};
use serde_bytes::{ByteArray, ByteBuf};

use super::{Admitted, Here, out_of_order, transcript};
use crate::claims::{Claims, Profile, claims_of, intersection, sorted};
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{Challenge, Cookie, Hello, Message, Solution, VERSION, Welcome};
use crate::puzzle::{Algorithm, Nonce, Puzzle};

/// Hello was sent.
pub struct AwaitChallenge {
    here: Arc<Here>,
    onion: OnionAddr,
}

/// A challenge that we accept.
pub struct Solving {
    here: Arc<Here>,
    onion: OnionAddr,
    challenge: Challenge,
    puzzle: Puzzle,
}

/// The solution was made. It may be sent more than once, on different streams; the answer is the same.
pub struct AwaitWelcome {
    here: Arc<Here>,
    onion: OnionAddr,
    sync_domains: Vec<String>,
    transcript: Digest,
    effort: u64,
    solving_time: Duration,
}

impl AwaitChallenge {
    /// The frame to send to the onion service that was dialled, and what to await.
    pub fn begin(here: Arc<Here>, onion: OnionAddr) -> (Vec<u8>, Self) {
        let hello = Message::Hello(Hello {
            versions: vec![VERSION],
        });
        (hello.encode(), Self { here, onion })
    }

    /// The challenge, or a refusal.
    pub fn receive(self, frame: &[u8]) -> Result<Solving, HandshakeError> {
        let config = &self.here.config;
        let challenge = match Message::decode(frame, config.stranger_frame_bytes_max)? {
            Message::Challenge(challenge) => challenge,
            Message::Refused(refused) => return Err(HandshakeError::Refused(refused.code)),
            other => return Err(out_of_order("challenge", &other)),
        };
        let cookie = Cookie::decode(&challenge.cookie)?;
        if cookie.onion != self.onion {
            return Err(Misbehaviour::CookieOfAnotherOnion.into());
        }
        if cookie.effort == 0 {
            return Err(Misbehaviour::CookieAbsurd.into());
        }
        if cookie.effort > config.effort_accept_max {
            let (asked, limit) = (cookie.effort, config.effort_accept_max);
            return Err(Incompatibility::Effort { asked, limit }.into());
        }
        if cookie.inner_bits > config.inner_bits_accept_max {
            let (asked, limit) = (cookie.inner_bits, config.inner_bits_accept_max);
            return Err(Incompatibility::InnerBits { asked, limit }.into());
        }
        let algorithm = Algorithm::from_name(&cookie.algorithm).ok_or(Incompatibility::Algorithm)?;
        let puzzle = Puzzle::new(
            (algorithm, cookie.effort, cookie.inner_bits),
            (&challenge.cookie, &challenge.sealed),
            &self.onion,
            &self.here.keys.peer_id(),
        );
        Ok(Solving {
            here: self.here,
            onion: self.onion,
            challenge,
            puzzle,
        })
    }
}

impl Solving {
    /// What to solve.
    pub fn puzzle(&self) -> &Puzzle {
        &self.puzzle
    }

    /// The frame to send, and what to await.
    pub fn solved(self, nonce: Nonce, profile: Profile, solving_time: Duration) -> (Vec<u8>, AwaitWelcome) {
        let sync_domains = sorted(profile.sync_domains.clone());
        let claims = claims_of(profile, &self.here.keys);
        let Challenge { cookie, sealed } = &self.challenge;
        let parts: [&[u8]; 5] = [cookie, sealed, &nonce, &claims, self.onion.public_key().as_bytes()];
        let signature = self.here.keys.sign_as_node(Context::Solution, &parts);
        let solution = Message::Solution(Solution {
            nonce: ByteArray::new(nonce),
            claims: ByteBuf::from(claims),
            cookie: cookie.clone(),
            sealed: sealed.clone(),
            signature,
        })
        .encode();
        let transcript = transcript(&Message::Challenge(self.challenge).encode(), &solution);
        let awaiting = AwaitWelcome {
            here: self.here,
            onion: self.onion,
            sync_domains,
            transcript,
            effort: self.puzzle.effort(),
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
            domains,
            signature,
        } = match Message::decode(frame, config.stranger_frame_bytes_max)? {
            Message::Welcome(welcome) => welcome,
            Message::Refused(refused) => return Err(HandshakeError::Refused(refused.code)),
            other => return Err(out_of_order("welcome", &other)),
        };
        let claims = Claims::decode(&bytes, config)?;
        if claims.peer_id() == self.here.keys.peer_id() {
            return Err(Misbehaviour::OwnPeerId.into());
        }
        if claims.onion() != self.onion {
            return Err(Misbehaviour::OnionNotDialled.into());
        }
        let signed: [&[u8]; 3] = [self.transcript.as_bytes(), &bytes, &codec::encode(&domains)];
        let claims = claims.verify(Context::Welcome, &signed, &signature, config)?;
        if domains != intersection(&self.sync_domains, &claims.sync_domains) {
            return Err(Misbehaviour::DomainsDiffer.into());
        }
        Ok(Admitted {
            claims,
            domains,
            we_dialled: true,
            effort: self.effort,
            solving_time: self.solving_time,
        })
    }
}

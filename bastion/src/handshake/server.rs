//! The called side. Checks cheapest first; keeps nothing for a challenge that it sent.
//!
//! Frame length and form, cookie seal, expiry, serial unused, inner condition, claims' form ([`Screened`]); then,
//! once a worker is free, the serial is taken ([`Taken`]) and work and signatures are verified ([`Verified`]).
//! Never decides policy: the gate asks the gatekeeper between [`Verified`] and the welcome.

use std::sync::Arc;
use std::time::Duration;

use keys::{Context, Digest, codec};
use rand::CryptoRng;

use super::{Admitted, Here, out_of_order, transcript};
use crate::claims::{Claims, PeerClaims, Profile, claims_of, intersection, sorted};
use crate::error::{HandshakeError, Incompatibility, Misbehaviour};
use crate::messages::{Challenge, Cookie, Hello, Message, Solution, VERSION, VERSIONS_MAX, Welcome};
use crate::puzzle::{Algorithm, CookieJar, Puzzle, Serial};

/// Nothing has come yet.
pub struct AwaitHello {
    here: Arc<Here>,
}

/// What a stranger may begin with.
pub enum Opening {
    /// It said hello: send this frame and wait.
    Hello(Vec<u8>, AwaitSolution),
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
    puzzle: Puzzle,
    solution: Solution,
    claims: Claims,
    transcript: Digest,
}

/// A screened solution whose serial is now used.
pub struct Taken(Screened);

/// Work, signatures and onion address hold.
pub struct Verified {
    here: Arc<Here>,
    claims: PeerClaims,
    transcript: Digest,
    effort: u64,
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
        jar: &mut CookieJar,
        effort: u64,
        now: u64,
        rng: &mut dyn CryptoRng,
    ) -> Result<Opening, HandshakeError> {
        match Message::decode(frame, self.here.config.stranger_frame_bytes_max)? {
            Message::Hello(Hello { versions }) => {
                if versions.len() > VERSIONS_MAX {
                    return Err(Misbehaviour::Claims("too many versions").into());
                }
                if !versions.contains(&VERSION) {
                    return Err(Incompatibility::Version.into());
                }
                let challenge = jar.challenge(self.here.keys.onion(), effort, now, rng);
                Ok(Opening::Hello(
                    Message::Challenge(challenge).encode(),
                    AwaitSolution { here: self.here },
                ))
            }
            Message::Solution(solution) => {
                screen(self.here, solution, frame, jar, now).map(|screened| Opening::Solution(Box::new(screened)))
            }
            other => Err(out_of_order("hello or solution", &other)),
        }
    }
}

impl AwaitSolution {
    /// The frame after the challenge. Marks nothing as used.
    pub fn receive(self, frame: &[u8], jar: &CookieJar, now: u64) -> Result<Screened, HandshakeError> {
        match Message::decode(frame, self.here.config.stranger_frame_bytes_max)? {
            Message::Solution(solution) => screen(self.here, solution, frame, jar, now),
            other => Err(out_of_order("solution", &other)),
        }
    }
}

/// Everything that costs microseconds, cheapest first.
fn screen(
    here: Arc<Here>,
    solution: Solution,
    frame: &[u8],
    jar: &CookieJar,
    now: u64,
) -> Result<Screened, HandshakeError> {
    let (cookie, serial) = jar.recognise(&solution.cookie, &solution.sealed, now)?;
    let onion = here.keys.onion();
    // Sealed by us, so its fields are ours; but under another onion key than now, the work was for another address.
    if cookie.onion != onion {
        return Err(Misbehaviour::CookieNotOurs.into());
    }
    let algorithm = Algorithm::from_name(&cookie.algorithm).ok_or(Misbehaviour::CookieNotOurs)?;
    let Cookie { effort, inner_bits, .. } = cookie;
    let sealed: (&[u8], &[u8]) = (&solution.cookie, &solution.sealed);
    // The inner condition does not depend on the solver, so it can be judged before the claims are decoded.
    if !Puzzle::inner_condition(inner_bits, sealed, &solution.nonce) {
        return Err(Misbehaviour::InnerCondition.into());
    }
    let claims = Claims::decode(&solution.claims, &here.config)?;
    if claims.peer_id() == here.keys.peer_id() {
        return Err(Misbehaviour::OwnPeerId.into());
    }
    let puzzle = Puzzle::new((algorithm, effort, inner_bits), sealed, &onion, &claims.peer_id());
    // One canonical form: the challenge as it was sent, made again from the parts that came back.
    let challenge = Message::Challenge(Challenge {
        cookie: solution.cookie.clone(),
        sealed: solution.sealed.clone(),
    });
    let transcript = transcript(&challenge.encode(), frame);
    Ok(Screened {
        here,
        serial,
        puzzle,
        solution,
        claims,
        transcript,
    })
}

impl Screened {
    /// The effort that was asked: who worked more is verified first.
    pub fn effort(&self) -> u64 {
        self.puzzle.effort()
    }

    /// Uses the serial up, now that a worker is free. Fails when another stream was faster.
    pub fn take(self, jar: &mut CookieJar) -> Result<Taken, HandshakeError> {
        jar.take(self.serial)?;
        Ok(Taken(self))
    }
}

impl Taken {
    /// One evaluation of the work function, then the signatures. Half a millisecond: not on a thread that must answer.
    pub fn verify(self) -> Result<Verified, HandshakeError> {
        let Self(Screened {
            here,
            puzzle,
            solution,
            claims,
            transcript,
            ..
        }) = self;
        puzzle.verify(&solution.nonce)?;
        let onion = here.keys.onion();
        let signed: [&[u8]; 5] = [
            &solution.cookie,
            &solution.sealed,
            solution.nonce.as_slice(),
            &solution.claims,
            onion.public_key().as_bytes(),
        ];
        let claims = claims.verify(Context::Solution, &signed, &solution.signature, &here.config)?;
        Ok(Verified {
            here,
            claims,
            transcript,
            effort: puzzle.effort(),
        })
    }
}

impl Verified {
    /// Who asks to be admitted.
    pub fn claims(&self) -> &PeerClaims {
        &self.claims
    }

    /// Admits the peer: the frame to send, and the proof. To be called after policy has agreed.
    pub fn welcome(self, mut profile: Profile) -> (Vec<u8>, Admitted) {
        profile.sync_domains = sorted(profile.sync_domains);
        let domains = intersection(&profile.sync_domains, &self.claims.sync_domains);
        let claims = claims_of(profile, &self.here.keys);
        let signature = self.here.keys.sign_as_node(
            Context::Welcome,
            &[self.transcript.as_bytes(), &claims, &codec::encode(&domains)],
        );
        let welcome = Message::Welcome(Welcome {
            claims: claims.into(),
            domains: domains.clone(),
            signature,
        });
        let admitted = Admitted {
            claims: self.claims,
            domains,
            we_dialled: false,
            effort: self.effort,
            solving_time: Duration::ZERO,
        };
        (welcome.encode(), admitted)
    }
}

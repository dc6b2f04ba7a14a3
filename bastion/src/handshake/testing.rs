//! Alice, Bob and the others, with fixed keys, and a handshake between them without a stream.

use std::sync::Arc;
use std::time::Duration;

use keys::{BootId, Context, Epoch, KeyManager, OnionAddr, PeerId};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::{
    Admitted, AwaitChallenge, AwaitHello, AwaitWelcome, Desk, Here, Opening, Screened, Solving,
    Taken, Verified, Work, solution_parts,
};
use crate::claims::Profile;
use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour, RefusalCode};
use crate::messages::{Message, Solution};
use crate::puzzle::{Algorithm, Attempt, CookieJar, solve};
use crate::ticket::{Ticket, Tickets, Tier};

pub(super) const NOW: u64 = 1_700_000_000;

/// Work that always holds, so that what lies behind it is reached.
pub(super) fn easy() -> GateConfig {
    GateConfig {
        effort_idle: 1,
        effort_base: 1,
        inner_bits: 0,
        ..GateConfig::default()
    }
}

pub(super) struct Side {
    pub(super) here: Arc<Here>,
    pub(super) profile: Profile,
    pub(super) desk: Desk,
    pub(super) rng: ChaCha20Rng,
}

impl Side {
    pub(super) fn new(number: u64, domains: &[&str], config: GateConfig) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(number);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        Self {
            desk: Desk {
                jar: CookieJar::new(&config, NOW, &mut rng),
                tickets: Tickets::new(&config, keys.ticket_key(), &keys.onion()),
            },
            here: Arc::new(Here { config, keys }),
            profile: Profile {
                apps: vec!["messages".into(), "identities".into()],
                sync_domains: domains.iter().map(|name| name.to_string()).collect(),
                epoch: Epoch::from_bytes([number as u8; 16]),
                boot_id: BootId::from_bytes([number as u8; 16]),
                identities: Vec::new(),
            },
            rng,
        }
    }

    pub(super) fn alice(config: GateConfig) -> Self {
        Self::new(
            1000,
            &["rides.offers", "messages", "market.public_offers"],
            config,
        )
    }

    pub(super) fn bob(config: GateConfig) -> Self {
        Self::new(2000, &["messages", "identities", "rides.offers"], config)
    }

    pub(super) fn mallory() -> Self {
        Self::new(3000, &["messages"], easy())
    }

    pub(super) fn onion(&self) -> OnionAddr {
        self.here.keys.onion()
    }

    pub(super) fn peer_id(&self) -> PeerId {
        self.here.keys.peer_id()
    }

    /// Answers a first frame.
    pub(super) fn open(&mut self, frame: &[u8], now: u64) -> Result<Opening, HandshakeError> {
        let effort = self.here.config.effort_base;
        AwaitHello::new(self.here.clone()).receive(
            frame,
            &mut self.desk,
            effort,
            now,
            &mut self.rng,
        )
    }

    /// The challenge that a hello gets.
    pub(super) fn challenge(&mut self) -> Vec<u8> {
        self.challenge_for(None)
    }

    /// The challenge that a hello with a ticket gets.
    pub(super) fn challenge_for(&mut self, ticket: Option<&Ticket>) -> Vec<u8> {
        let (hello, _) = AwaitChallenge::begin(self.here.clone(), self.onion(), ticket.cloned());
        match self.open(&hello, NOW).unwrap() {
            Opening::Hello { challenge, .. } => challenge,
            Opening::Solution(_) => panic!("a hello is no solution"),
        }
    }

    /// A ticket for that peer.
    pub(super) fn ticket_for(&mut self, peer: &PeerId, now: u64) -> Ticket {
        let ticket = self
            .desk
            .tickets
            .issue(peer, Tier::Trusted, now, &mut self.rng);
        Ticket::from_bytes(&ticket.unwrap()).unwrap()
    }

    /// Everything that is done with a solution, up to policy.
    pub(super) fn judge(&mut self, solution: &[u8], now: u64) -> Result<Verified, HandshakeError> {
        match self.open(solution, now)? {
            Opening::Hello { .. } => panic!("a solution is no hello"),
            Opening::Solution(screened) => self
                .take(*screened)?
                .verify(&mut Algorithm::Argon2id1m.memory()),
        }
    }

    /// Uses a serial up.
    pub(super) fn take(&mut self, screened: Screened) -> Result<Taken, HandshakeError> {
        screened.take(&mut self.desk.jar)
    }

    /// Accepts a challenge of the onion service that was dialled.
    pub(super) fn accept(
        &self,
        challenge: &[u8],
        dialled: OnionAddr,
    ) -> Result<Solving, HandshakeError> {
        AwaitChallenge::begin(self.here.clone(), dialled, None)
            .1
            .receive(challenge)
    }

    /// Solves a challenge of the onion service that was dialled.
    pub(super) fn solve(&self, challenge: &[u8], dialled: OnionAddr) -> (Vec<u8>, AwaitWelcome) {
        self.solve_more(challenge, dialled, 0)
    }

    /// Solves a challenge with some doublings of the effort.
    pub(super) fn solve_more(
        &self,
        challenge: &[u8],
        dialled: OnionAddr,
        more: u8,
    ) -> (Vec<u8>, AwaitWelcome) {
        let solving = self.accept(challenge, dialled).unwrap();
        let puzzle = solving.puzzle(more).unwrap().unwrap();
        let nonce = solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap();
        solving.solved(
            Work { nonce, more },
            self.profile.clone(),
            Duration::from_secs(1),
        )
    }

    /// Answers a challenge with a ticket.
    pub(super) fn show(
        &self,
        ticket: &Ticket,
        challenge: &[u8],
        dialled: OnionAddr,
    ) -> (Vec<u8>, AwaitWelcome) {
        let (_, next) = AwaitChallenge::begin(self.here.clone(), dialled, Some(ticket.clone()));
        let solving = next.receive(challenge).unwrap();
        solving.solved(Work::NONE, self.profile.clone(), Duration::ZERO)
    }

    /// Admits without a policy.
    pub(super) fn welcome(&self, verified: Verified) -> (Vec<u8>, Admitted) {
        verified.welcome(self.profile.clone(), Tier::Untrusted, None)
    }
}

/// Takes a solution frame apart, changes it, and puts it together again.
pub(super) fn bend(frame: &[u8], bend: impl FnOnce(&mut Solution)) -> Vec<u8> {
    match Message::decode(frame, 8192).unwrap() {
        Message::Solution(mut solution) => {
            bend(&mut solution);
            Message::Solution(solution).encode()
        }
        other => panic!("{} is no solution", other.kind()),
    }
}

pub(super) fn error<T>(result: Result<T, HandshakeError>) -> HandshakeError {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[track_caller]
pub(super) fn check<T>(
    result: Result<T, HandshakeError>,
    expected: Misbehaviour,
    code: RefusalCode,
) {
    let error = error(result);
    assert_eq!(error.code(), Some(code), "{error}");
    match error {
        HandshakeError::PeerMisbehaved(what) => assert_eq!(what, expected),
        other => panic!("{other}"),
    }
}

/// Alice challenges, Bob solves.
pub(super) fn alice_and_bob() -> (Side, Side, Vec<u8>, AwaitWelcome) {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    (alice, bob, solution, awaiting)
}

/// Signs a solution's parts as they are now, for Alice, by the given node and context.
pub(super) fn sign(solution: &mut Solution, by: &Side, context: Context, addressed: &Side) {
    solution.signature = solution_parts(solution, &addressed.onion(), |parts| {
        by.here.keys.sign_as_node(context, parts)
    });
}

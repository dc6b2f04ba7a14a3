//! Nodes with fixed keys for the tests of the handshake. Alice is the server, Bob the client.

use std::sync::Arc;
use std::time::Duration;

use keys::{BootId, Context, Epoch, KeyManager, OnionAddr, PeerId, SchemaDigest, codec};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::signed_parts::with_solution_parts;
use super::{
    Admitted, AwaitChallenge, AwaitHello, AwaitWelcome, FirstMessage, HandshakeContext, Moment,
    PrecheckedSolution, ReservedSolution, ServerState, Solving, Verified, Work,
};
use crate::claims::{AppClaim, Claims, NodeProfile};
use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour};
use crate::messages::{HandshakeMessage, RefusalCode, Solution};
use crate::puzzle::{Algorithm, Attempt, ChallengeSealer, solve};
use crate::ticket::{Ticket, Tickets, Tier};

pub(super) const NOW: u64 = 1_700_000_000;

/// Every nonce solves this puzzle, so that the checks behind the work are reached.
pub(super) fn easy() -> GateConfig {
    GateConfig {
        effort_idle: 1,
        effort_base: 1,
        inner_bits: 0,
        ..GateConfig::default()
    }
}

/// One node.
pub(super) struct Side {
    pub(super) context: Arc<HandshakeContext>,
    pub(super) profile: NodeProfile,
    pub(super) server: ServerState,
    pub(super) rng: ChaCha20Rng,
}

impl Side {
    pub(super) fn new(number: u64, domains: &[&str], config: GateConfig) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(number);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        Self {
            server: ServerState {
                sealer: ChallengeSealer::new(&config, NOW, &mut rng),
                tickets: Tickets::new(&config, keys.ticket_key(), &keys.onion()),
            },
            context: Arc::new(HandshakeContext { config, keys }),
            profile: NodeProfile {
                apps: ["messages", "identities"]
                    .map(|slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16])))
                    .to_vec(),
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
        self.context.keys.onion()
    }

    pub(super) fn peer_id(&self) -> PeerId {
        self.context.keys.peer_id()
    }

    /// Handles the first frame of a stream.
    pub(super) fn open(&mut self, frame: &[u8], now: u64) -> Result<FirstMessage, HandshakeError> {
        let effort = self.context.config.effort_base;
        AwaitHello::new(self.context.clone()).receive(
            frame,
            &mut self.server,
            Moment { effort, now },
            &mut self.rng,
        )
    }

    /// Returns the challenge for a hello without a ticket.
    pub(super) fn challenge(&mut self) -> Vec<u8> {
        self.challenge_for(None)
    }

    /// Returns the challenge for a hello with a ticket.
    pub(super) fn challenge_for(&mut self, ticket: Option<&Ticket>) -> Vec<u8> {
        let (hello, _) = AwaitChallenge::begin(self.context.clone(), self.onion(), ticket.cloned());
        match self.open(&hello, NOW).unwrap() {
            FirstMessage::Hello { challenge, .. } => challenge,
            FirstMessage::Solution(_) => panic!("a hello is no solution"),
        }
    }

    /// Issues a ticket for a peer.
    pub(super) fn ticket_for(&mut self, peer: &PeerId, now: u64) -> Ticket {
        let ticket = self
            .server
            .tickets
            .issue(peer, Tier::Trusted, now, &mut self.rng);
        Ticket::from_bytes(&ticket.unwrap()).unwrap()
    }

    /// Runs every check of a solution before the policy.
    pub(super) fn verify_solution(
        &mut self,
        solution: &[u8],
        now: u64,
    ) -> Result<Verified, HandshakeError> {
        match self.open(solution, now)? {
            FirstMessage::Hello { .. } => panic!("a solution is no hello"),
            FirstMessage::Solution(prechecked) => self
                .reserve(*prechecked)?
                .verify(&mut Algorithm::Argon2id1m.memory()),
        }
    }

    /// Reserves the serial.
    pub(super) fn reserve(
        &mut self,
        prechecked: PrecheckedSolution,
    ) -> Result<ReservedSolution, HandshakeError> {
        prechecked.reserve(&mut self.server.sealer)
    }

    /// Handles a challenge as the client that dialled `dialled`.
    pub(super) fn accept(
        &self,
        challenge: &[u8],
        dialled: OnionAddr,
    ) -> Result<Solving, HandshakeError> {
        AwaitChallenge::begin(self.context.clone(), dialled, None)
            .1
            .receive(challenge)
    }

    /// Solves a challenge as the client that dialled `dialled`.
    pub(super) fn solve(&self, challenge: &[u8], dialled: OnionAddr) -> (Vec<u8>, AwaitWelcome) {
        self.solve_with_extra(challenge, dialled, 0)
    }

    /// Solves a challenge with extra doublings of the effort.
    pub(super) fn solve_with_extra(
        &self,
        challenge: &[u8],
        dialled: OnionAddr,
        extra_doublings: u8,
    ) -> (Vec<u8>, AwaitWelcome) {
        self.finish(self.accept(challenge, dialled).unwrap(), extra_doublings)
    }

    /// Solves an accepted challenge.
    pub(super) fn finish(&self, solving: Solving, extra_doublings: u8) -> (Vec<u8>, AwaitWelcome) {
        let puzzle = solving.puzzle(extra_doublings).unwrap().unwrap();
        let nonce = solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap();
        solving.solved(
            Work {
                nonce,
                extra_doublings,
            },
            self.profile.clone(),
            Duration::from_secs(1),
        )
    }

    /// Returns the solution that shows a ticket instead of work.
    pub(super) fn show_ticket(
        &self,
        ticket: &Ticket,
        challenge: &[u8],
        dialled: OnionAddr,
    ) -> (Vec<u8>, AwaitWelcome) {
        let (_, next) = AwaitChallenge::begin(self.context.clone(), dialled, Some(ticket.clone()));
        let solving = next.receive(challenge).unwrap();
        solving.solved(Work::NONE, self.profile.clone(), Duration::ZERO)
    }

    /// Admits a verified peer.
    pub(super) fn welcome(&self, verified: Verified) -> (Vec<u8>, Admitted) {
        verified.welcome(self.profile.clone(), Tier::Untrusted, None)
    }
}

/// Decodes a solution, edits it, and encodes it again.
pub(super) fn edit_solution(frame: &[u8], edit: impl FnOnce(&mut Solution)) -> Vec<u8> {
    match HandshakeMessage::decode(frame, 8192).unwrap() {
        HandshakeMessage::Solution(mut solution) => {
            edit(&mut solution);
            HandshakeMessage::Solution(solution).encode()
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

/// Returns Alice, Bob, Bob's solution of Alice's challenge, and Bob's next state.
pub(super) fn alice_and_bob() -> (Side, Side, Vec<u8>, AwaitWelcome) {
    let (mut alice, bob) = (Side::alice(easy()), Side::bob(easy()));
    let challenge = alice.challenge();
    let (solution, awaiting) = bob.solve(&challenge, alice.onion());
    (alice, bob, solution, awaiting)
}

/// Signs the current parts of a solution for `addressed`, with the key of `by` and the given
/// context.
pub(super) fn sign(solution: &mut Solution, by: &Side, context: Context, addressed: &Side) {
    solution.signature = with_solution_parts(solution, &addressed.onion(), |parts| {
        by.context.keys.sign_as_node(context, parts)
    });
}

/// Edits the claims in Bob's solution and signs it as Bob.
pub(super) fn edit_claims(
    frame: &[u8],
    bob: &Side,
    alice: &Side,
    change: impl FnOnce(&mut Claims),
) -> Vec<u8> {
    edit_solution(frame, |solution| {
        let mut claims = Claims::decode(&solution.claims).unwrap();
        change(&mut claims);
        solution.claims = codec::encode(&claims).into();
        sign(solution, bob, Context::Solution, alice);
    })
}

//! Fixed data of all targets: Alice is the server, Bob is the client. Keys and the time are
//! constants, so that the sealed and signed values are the same in every run.
//!
//! Invariant: every [`Fixture::server`] has issued the same two challenges, so that the solutions
//! in the corpus stay valid.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bastion::handshake::{AwaitChallenge, AwaitWelcome, HandshakeContext, ServerState, Work};
use bastion::messages::{Challenge, Cookie, HandshakeMessage, Solution};
use bastion::puzzle::{
    Algorithm, Attempt, ChallengeBytes, ChallengeSealer, Difficulty, Memory, Nonce, Puzzle, solve,
};
use bastion::ticket::Tickets;
use bastion::{AppClaim, GateConfig, NodeProfile, Ticket, Tier};
use keys::protocol::{EXTRA_DOUBLINGS_MAX, UNADMITTED_FRAME_BYTES_MAX};
use keys::signing::signing_input;
use keys::{
    BootId, Context, Digest, Epoch, KeyManager, OnionAddr, PeerId, SchemaDigest, Signature,
};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// The time of every target, in Unix seconds.
pub(crate) const NOW: u64 = 1_700_000_000;
/// Effort of the challenge: low enough for many executions per second, high enough that a nonce
/// found by chance mostly fails.
pub(crate) const EFFORT: u64 = 4;
const INNER_BITS: u8 = 2;

/// One side of the handshake.
pub(crate) struct Side {
    pub(crate) context: Arc<HandshakeContext>,
    pub(crate) profile: NodeProfile,
}

/// Both nodes, and the messages of one handshake between them.
pub(crate) struct Fixture {
    pub(crate) alice: Side,
    pub(crate) bob: Side,
    /// A ticket that Alice issued to Bob.
    pub(crate) ticket: Ticket,
    /// Bob's nonces for Alice's first challenge, one for each number of extra doublings.
    nonces: Vec<Nonce>,
    /// Bob's claims, as encoded in his solution.
    pub(crate) bob_claims: Vec<u8>,
    /// Alice's claims, as encoded in her welcome.
    pub(crate) alice_claims: Vec<u8>,
    /// Bob's solution of Alice's first challenge.
    pub(crate) solution: Vec<u8>,
    /// Bob's state after he sent `solution`.
    pub(crate) await_welcome: AwaitWelcome,
    /// Digest of the challenge and that solution, as docs/PROTOCOL.md defines it.
    pub(crate) transcript: Digest,
    memory: Mutex<Memory>,
}

/// Alice's server state with the two challenges that it has issued.
pub(crate) struct FreshServer {
    pub(crate) server: ServerState,
    /// The challenge that requires work.
    pub(crate) work: Challenge,
    /// The challenge with effort 0, which requires a ticket.
    pub(crate) show: Challenge,
    pub(crate) rng: ChaCha20Rng,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

/// Returns the shared fixture.
pub(crate) fn fixture() -> &'static Fixture {
    &FIXTURE
}

fn config() -> GateConfig {
    GateConfig {
        inner_bits: INNER_BITS,
        ..GateConfig::default()
    }
}

impl Side {
    fn new(number: u64, domains: &[&str]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(number);
        let keys = Arc::new(KeyManager::generate(&mut rng));
        let identity = keys.add_identity(&mut rng).unwrap();
        keys.rotate(keys.server_oid(), &mut rng).unwrap();
        let object = keys.sign_object(identity, vec![0x80]).unwrap();
        let mark = number.to_be_bytes()[7];
        Self {
            profile: NodeProfile {
                apps: ["identities", "messages"]
                    .map(|slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16])))
                    .to_vec(),
                sync_domains: domains.iter().map(|name| (*name).to_owned()).collect(),
                epoch: Epoch::from_bytes([mark; 16]),
                boot_id: BootId::from_bytes([mark; 16]),
                identities: vec![object],
            },
            context: Arc::new(HandshakeContext {
                config: config(),
                keys,
            }),
        }
    }

    pub(crate) fn onion(&self) -> OnionAddr {
        self.context.keys.onion()
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.context.keys.peer_id()
    }
}

/// Creates Alice's server state at [`NOW`].
fn fresh(alice: &Side) -> FreshServer {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let HandshakeContext { config, keys } = &*alice.context;
    let mut sealer = ChallengeSealer::new(config, NOW, &mut rng);
    let work = sealer.challenge(keys.onion(), EFFORT, NOW, &mut rng);
    let show = sealer.challenge(keys.onion(), 0, NOW, &mut rng);
    let tickets = Tickets::new(config, keys.ticket_key(), &keys.onion());
    FreshServer {
        server: ServerState { sealer, tickets },
        work,
        show,
        rng,
    }
}

fn solution_of(frame: &[u8]) -> Solution {
    match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX) {
        Ok(HandshakeMessage::Solution(solution)) => solution,
        _ => panic!("Bob's solution does not decode"),
    }
}

impl Fixture {
    fn new() -> Self {
        let alice = Side::new(1, &["market", "messages", "rides.offers"]);
        let bob = Side::new(2, &["identities", "messages", "rides.offers"]);
        let FreshServer {
            server,
            work,
            mut rng,
            ..
        } = fresh(&alice);
        let ticket = server
            .tickets
            .issue(&bob.peer_id(), Tier::Trusted, NOW, &mut rng);
        let ticket = ticket
            .and_then(|ticket| Ticket::from_bytes(&ticket))
            .unwrap();
        let dial = || AwaitChallenge::begin(bob.context.clone(), alice.onion(), None).1;
        let challenge = HandshakeMessage::Challenge(work).encode();
        let solving = dial().receive(&challenge).unwrap();
        let nonces = (0..=EXTRA_DOUBLINGS_MAX).map(|extra_doublings| {
            let puzzle = solving.puzzle(extra_doublings).unwrap().unwrap();
            solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap()
        });
        let nonces: Vec<_> = nonces.collect();
        let nonce = *nonces.first().unwrap();
        let (solution, await_welcome) = solving.clone().solved(
            Work {
                nonce,
                extra_doublings: 0,
            },
            bob.profile.clone(),
            Duration::ZERO,
        );
        // Claims do not depend on the other side, so a solution by Alice that is not sent contains
        // them.
        let solving = AwaitChallenge::begin(alice.context.clone(), alice.onion(), None).1;
        let (shown, _) = solving.receive(&challenge).unwrap().solved(
            Work::NONE,
            alice.profile.clone(),
            Duration::ZERO,
        );
        Self {
            ticket,
            nonces,
            bob_claims: solution_of(&solution).claims.into_vec(),
            alice_claims: solution_of(&shown).claims.into_vec(),
            transcript: Digest::of(&signing_input(
                Context::Transcript,
                &[&challenge, &solution],
            )),
            solution,
            await_welcome,
            memory: Mutex::new(Algorithm::Argon2id1m.memory()),
            alice,
            bob,
        }
    }

    /// Returns Alice's server state; each call returns the same state.
    pub(crate) fn server(&self) -> FreshServer {
        fresh(&self.alice)
    }

    /// Returns Bob's nonce for Alice's first challenge with that many extra doublings, or with the
    /// maximum when there are too many.
    pub(crate) fn nonce(&self, extra_doublings: u8) -> Nonce {
        let nonce = self
            .nonces
            .get(usize::from(extra_doublings))
            .or(self.nonces.last());
        *nonce.unwrap()
    }

    /// Calls `use_it` with the memory of the work function.
    pub(crate) fn with_memory<R>(&self, use_it: impl FnOnce(&mut Memory) -> R) -> R {
        use_it(&mut self.memory.lock())
    }

    /// Returns whether Bob's solution fulfils its cookie, by the definitions in docs/PROTOCOL.md.
    pub(crate) fn is_solved(&self, solution: &Solution, cookie: &Cookie) -> bool {
        let puzzle = Puzzle::new(
            Difficulty {
                algorithm: Algorithm::Argon2id1m,
                effort: cookie.effort << solution.extra_doublings,
                inner_bits: cookie.inner_bits + solution.extra_doublings,
            },
            ChallengeBytes {
                cookie: &solution.cookie,
                sealed: &solution.sealed,
            },
            &self.alice.onion(),
            &self.bob.peer_id(),
        );
        self.with_memory(|memory| puzzle.verify(&solution.nonce, memory))
            .is_ok()
    }

    /// Signs a solution with Bob's key and Alice's onion address.
    pub(crate) fn sign(&self, solution: &Solution) -> Signature {
        with_parts(solution, &self.alice.onion(), |parts| {
            self.bob.context.keys.sign_as_node(Context::Solution, parts)
        })
    }

    /// Returns whether Bob signed the solution for Alice.
    pub(crate) fn is_signed(&self, solution: &Solution) -> bool {
        let chain = self.bob.context.keys.node_chain().verify().unwrap();
        with_parts(solution, &self.alice.onion(), |parts| {
            chain
                .current()
                .verify(Context::Solution, parts, &solution.signature)
        })
        .is_ok()
    }
}

/// Calls `use_them` with the parts that the solution's signature covers (docs/PROTOCOL.md).
fn with_parts<R>(
    solution: &Solution,
    onion: &OnionAddr,
    use_them: impl FnOnce(&[&[u8]]) -> R,
) -> R {
    use_them(&[
        &solution.cookie,
        &solution.sealed,
        solution.nonce.as_slice(),
        &[solution.extra_doublings],
        solution
            .ticket
            .as_ref()
            .map_or(&[], |ticket| ticket.as_slice()),
        &solution.claims,
        onion.public_key().as_bytes(),
    ])
}

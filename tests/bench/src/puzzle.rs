//! `bench puzzle`: goal 8, the client's cost of a puzzle and the server's cost of bogus solutions.
//!
//! Creating and verifying a solution are measured separately. All values except those of whole
//! puzzles are processor time, which other programs affect little. Invariant: each solution is
//! refused for the reason that its row names; otherwise the run fails.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};
use bastion::handshake::{
    AwaitChallenge, AwaitHello, FirstMessage, HandshakeContext, Moment, ServerState, Solving,
    Verified, Work,
};
use bastion::messages::{HandshakeMessage, Solution};
use bastion::puzzle::{Algorithm, Attempt, ChallengeSealer, Memory, Puzzle, solve};
use bastion::ticket::{Tickets, Tier};
use bastion::{AppClaim, GateConfig, HandshakeError, Misbehaviour, NodeProfile};
use clap::Args;
use keys::{BootId, Epoch, KeyManager, SchemaDigest, Signature};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::frames::{flip_last, modify, solution};
use crate::report::{Goal, Report};
use crate::stopwatch::{Stopwatch, median, process_seconds, timed};

const NOW: u64 = 1_700_000_000;
/// Number of solutions per kind and round.
const SOLUTIONS: usize = 64;
/// Number of hashes and evaluations per round.
const HASHES: u64 = 100_000;
const EVALUATIONS: u64 = 100;
/// Effort and number of the small puzzles that are solved in a round.
const SMALL_EFFORT: u64 = 16;
const SMALL_PUZZLES: u64 = 8;
/// Upper bound of the inner bits, because the number of hashes doubles with each bit.
const INNER_BITS_MAX: u8 = 20;
const PUBLISHED: &str = "as published by its author (README of github.com/tevador/equix), \
    not measured by this benchmark: 1.8 MiB, a solution of 16 bytes, about 50 us to verify, \
    2400 solutions a second on the author's processor";

/// Duration of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of rounds; every side runs once per round.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Number of whole puzzles at base effort, on one thread and on all threads.
    #[arg(long, default_value_t = 12)]
    whole: u64,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long)]
    tiny: bool,
}

/// The check that a solution fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Malformed,
    Forged,
    Inner,
    Work,
    Signature,
    Valid,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Malformed, "malformed at its end"),
    (Kind::Forged, "forged cookie"),
    (Kind::Inner, "inner condition fails"),
    (Kind::Work, "inner passes, work fails"),
    (Kind::Signature, "work holds, signature fails"),
    (Kind::Valid, "valid, up to the welcome"),
];

/// Both sides of the handshake, without a stream.
struct Sides {
    context: Arc<HandshakeContext>,
    server: ServerState,
    client: Arc<HandshakeContext>,
    profile: NodeProfile,
    rng: ChaCha20Rng,
    memory: Memory,
}

/// The measurements of one round, in seconds per operation.
struct Round {
    hash: f64,
    evaluation: f64,
    /// Solving, per evaluation, including the inner condition.
    solving: f64,
    hello: f64,
    /// Creating a solution that passes the inner condition and fails the work.
    producing: f64,
    kinds: [f64; 6],
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    ensure!(options.rounds >= 1, "at least one round is needed");
    let (round_count, whole_count) = if options.tiny {
        (1, 1)
    } else {
        (options.rounds, options.whole)
    };
    let mut sides = Sides::new();
    let (effort, inner_bits) = (
        sides.context.config.effort_base,
        sides.context.config.inner_bits,
    );
    ensure!(inner_bits <= INNER_BITS_MAX, "too many inner bits to try");
    let mut rounds = Vec::new();
    for _ in 0..round_count {
        rounds.push(sides.round(inner_bits)?);
    }
    report.fact("work function", Algorithm::Argon2id1m.name());
    report.fact("base effort", &effort.to_string());
    report.fact("inner bits", &inner_bits.to_string());
    print_rounds(&rounds, (effort, inner_bits), report);
    whole(&mut sides, whole_count, report)?;
    report.heading("For comparison");
    report.fact("  Equi-X", PUBLISHED);
    Ok(())
}

fn print_rounds(rounds: &[Round], (effort, inner_bits): (u64, u8), report: &mut Report) {
    let middle = |part: &dyn Fn(&Round) -> f64| median(rounds.iter().map(part));
    let us = |report: &Report, name: &str, part: &dyn Fn(&Round) -> f64| {
        report.value(name, 1e6 * middle(part), "us")
    };
    let tries = f64::from(1u32 << inner_bits);
    report.heading("Cost of the client (goal 8)");
    us(report, "one hash of the inner condition", &|round| {
        round.hash
    });
    us(report, "inner condition by trial, expected", &|round| {
        tries * round.hash
    });
    us(report, "one evaluation of the work function", &|round| {
        round.evaluation
    });
    us(report, "solving, for each evaluation", &|round| {
        round.solving
    });
    let solving = |round: &Round| effort as f64 * round.solving;
    report.value("solving at base effort, one thread", middle(&solving), "s");

    report.heading("Cost of the server");
    us(report, "hello to challenge", &|round| round.hello);
    for (index, (kind, name)) in KINDS.into_iter().enumerate() {
        let cost = move |round: &Round| of(round, index);
        if kind == Kind::Forged {
            report.goal(name, 1e6 * middle(&cost), "us", Goal::AtMost(5.0));
        } else {
            us(report, name, &cost);
        }
    }

    report.heading("Goals");
    let costliest = |round: &Round| of(round, 3);
    let ratio = |over: &dyn Fn(&Round) -> f64| middle(&|round| over(round) / costliest(round));
    report.goal(
        "solving / costliest bogus without work",
        ratio(&solving),
        "",
        Goal::AtLeast(1000.0),
    );
    report.goal(
        "making the costliest bogus / refusing it",
        ratio(&|round| round.producing),
        "",
        // The attacker's cost must be about the server's cost.
        Goal::AtLeast(0.8),
    );
    report.value(
        "  the same with its hello",
        middle(&|round| round.producing / (costliest(round) + round.hello)),
        "",
    );
    report.value(
        "solving / work holds, signature fails",
        middle(&|round| solving(round) / of(round, 4)),
        "",
    );
}

fn of(round: &Round, index: usize) -> f64 {
    round.kinds.get(index).copied().unwrap_or(f64::NAN)
}

/// Solves whole puzzles at base effort.
fn whole(sides: &mut Sides, count: u64, report: &Report) -> Result<()> {
    let all = available_parallelism().map_or(1, NonZero::get);
    report.heading("Whole puzzles at base effort");
    for threads in [1, all] {
        let (mut seconds, mut evaluations) = (Vec::new(), 0);
        let before = process_seconds();
        for _ in 0..count {
            let effort = sides.context.config.effort_base;
            let puzzle = sides
                .solving(effort)?
                .puzzle(0)?
                .context("no work is required")?;
            let attempt = Attempt::default();
            let (found, took) = timed(|| solve(&puzzle, [0; 16], threads, &attempt));
            ensure!(found.is_some(), "no solution");
            seconds.push(took);
            evaluations += attempt.evaluations();
        }
        let sum: f64 = seconds.iter().sum();
        let name = format!("{count} puzzles, {threads} threads");
        report.value(&format!("{name}: mean"), sum / count as f64, "s");
        report.value("  median", median(seconds), "s");
        report.value("  evaluations, mean", evaluations as f64 / count as f64, "");
        let spent = process_seconds() - before;
        report.value(
            "  processor, an evaluation",
            1e6 * spent / evaluations as f64,
            "us",
        );
    }
    Ok(())
}

impl Sides {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let config = GateConfig::default();
        let context = |rng: &mut ChaCha20Rng| {
            Arc::new(HandshakeContext {
                config: config.clone(),
                keys: Arc::new(KeyManager::generate(rng)),
            })
        };
        let (server, client) = (context(&mut rng), context(&mut rng));
        Self {
            server: ServerState {
                sealer: ChallengeSealer::new(&config, NOW, &mut rng),
                tickets: Tickets::new(&config, server.keys.ticket_key(), &server.keys.onion()),
            },
            context: server,
            client,
            profile: NodeProfile {
                apps: vec![AppClaim::new(
                    "messages",
                    1,
                    SchemaDigest::from_bytes([1; 16]),
                )],
                sync_domains: vec!["messages".into()],
                epoch: Epoch::from_bytes([1; 16]),
                boot_id: BootId::from_bytes([1; 16]),
                identities: Vec::new(),
            },
            rng,
            memory: Algorithm::Argon2id1m.memory(),
        }
    }

    fn open(&mut self, frame: &[u8], effort: u64) -> Result<FirstMessage, HandshakeError> {
        AwaitHello::new(self.context.clone()).receive(
            frame,
            &mut self.server,
            Moment { effort, now: NOW },
            &mut self.rng,
        )
    }

    /// Issues a challenge with the effort and lets the client accept it.
    fn solving(&mut self, effort: u64) -> Result<Solving> {
        let (hello, next) =
            AwaitChallenge::begin(self.client.clone(), self.context.keys.onion(), None);
        match self.open(&hello, effort)? {
            FirstMessage::Hello { challenge, .. } => Ok(next.receive(&challenge)?),
            FirstMessage::Solution(_) => bail!("a hello is no solution"),
        }
    }

    fn round(&mut self, inner_bits: u8) -> Result<Round> {
        let puzzle = self.solving(1)?.puzzle(0)?.context("no work is required")?;
        let (hash, _) = hashing(&puzzle);
        let evaluation = self.evaluating(&puzzle);
        let (mut solving, mut evaluations) = (0.0, 0);
        for _ in 0..SMALL_PUZZLES {
            let puzzle = self
                .solving(SMALL_EFFORT)?
                .puzzle(0)?
                .context("no work is required")?;
            let attempt = Attempt::default();
            solving += worked(|| solve(&puzzle, [0; 16], 1, &attempt)).1;
            evaluations += attempt.evaluations();
        }
        let mut kinds = [0.0; 6];
        for (cost, (kind, _)) in kinds.iter_mut().zip(KINDS) {
            *cost = self.verifying(kind)?;
        }
        Ok(Round {
            hash,
            evaluation,
            solving: solving / evaluations as f64,
            hello: self.replying_to_hello()?,
            producing: self.producing(inner_bits, hash)?,
            kinds,
        })
    }

    fn evaluating(&mut self, puzzle: &Puzzle) -> f64 {
        let (_, seconds) = worked(|| {
            let holding = (0..EVALUATIONS).filter(|number| {
                let nonce = u128::from(*number).to_be_bytes();
                puzzle.work_holds(&nonce, &mut self.memory)
            });
            holding.count()
        });
        seconds / EVALUATIONS as f64
    }

    fn replying_to_hello(&mut self) -> Result<f64> {
        let (hello, _) =
            AwaitChallenge::begin(self.client.clone(), self.context.keys.onion(), None);
        // One measurement of all, because reading the processor clock takes about as long as a
        // hello.
        let (opened, seconds) =
            worked(|| (0..SOLUTIONS).try_for_each(|_| self.open(&hello, 1024).map(drop)));
        opened?;
        Ok(seconds / SOLUTIONS as f64)
    }

    /// Returns the expected cost of the trial for the inner condition plus the cost of encoding the
    /// message. The trial itself is not measured, because its length is random.
    fn producing(&mut self, inner_bits: u8, hash: f64) -> Result<f64> {
        let solution = self.template()?;
        let (_, seconds) = worked(|| {
            let frames =
                (0..SOLUTIONS).map(|_| HandshakeMessage::Solution(solution.clone()).encode().len());
            frames.sum::<usize>()
        });
        Ok(f64::from(1u32 << inner_bits) * hash + seconds / SOLUTIONS as f64)
    }

    fn template(&mut self) -> Result<Solution> {
        let solving = self.solving(1)?;
        let (frame, _) = solving.solved(Work::NONE, self.profile.clone(), Default::default());
        solution(&frame)
    }

    /// Measures the server's cost of one solution of the kind, from its frame to the decision.
    fn verifying(&mut self, kind: Kind) -> Result<f64> {
        let frames = (0..SOLUTIONS)
            .map(|_| self.make(kind))
            .collect::<Result<Vec<_>>>()?;
        let mut verify = |frame: &Vec<u8>| {
            let verified = self.verify(frame)?;
            drop(verified.welcome(self.profile.clone(), Tier::Untrusted, None));
            Ok(())
        };
        let (verdicts, seconds) = worked(|| frames.iter().map(&mut verify).collect::<Vec<_>>());
        for verdict in &verdicts {
            ensure!(is_so(kind, verdict), "{kind:?}: {verdict:?}");
        }
        Ok(seconds / SOLUTIONS as f64)
    }

    fn verify(&mut self, frame: &[u8]) -> Result<Verified, HandshakeError> {
        match self.open(frame, 1)? {
            FirstMessage::Hello { .. } => Err(Misbehaviour::Claims("a hello").into()),
            FirstMessage::Solution(prechecked) => prechecked
                .reserve(&mut self.server.sealer)?
                .verify(&mut self.memory),
        }
    }

    fn make(&mut self, kind: Kind) -> Result<Vec<u8>> {
        // A high effort makes the work fail; otherwise effort 1.
        let hopeless = self.context.config.effort_max;
        let solving = self.solving(if kind == Kind::Work { hopeless } else { 1 })?;
        let puzzle = solving.puzzle(0)?.context("no work is required")?;
        let passes = kind != Kind::Inner;
        let nonce = (0..u64::from(u32::MAX))
            .map(|number| u128::from(number).to_be_bytes())
            .find(|nonce| puzzle.inner_holds(nonce) == passes)
            .context("no such nonce")?;
        let (mut frame, _) = solving.solved(
            Work {
                nonce,
                extra_doublings: 0,
            },
            self.profile.clone(),
            Default::default(),
        );
        match kind {
            Kind::Malformed => frame.push(0),
            Kind::Forged => frame = modify(&frame, |solution| flip_last(&mut solution.sealed))?,
            // A valid signature of another solution.
            Kind::Signature => {
                let other: Signature = self.template()?.signature;
                frame = modify(&frame, |solution| solution.signature = other)?;
            }
            Kind::Inner | Kind::Work | Kind::Valid => {}
        }
        Ok(frame)
    }
}

/// Runs the closure and returns its result and the processor time in seconds.
fn worked<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let mut watch = Stopwatch::default();
    let result = watch.run(work);
    (result, watch.processor())
}

/// Returns the seconds of one hash, and the number of hashes that passed.
fn hashing(puzzle: &Puzzle) -> (f64, usize) {
    let (passed, seconds) = worked(|| {
        let passing =
            (0..HASHES).filter(|number| puzzle.inner_holds(&u128::from(*number).to_be_bytes()));
        passing.count()
    });
    (seconds / HASHES as f64, passed)
}

fn is_so(kind: Kind, judged: &Result<(), HandshakeError>) -> bool {
    use HandshakeError::{Malformed, PeerMisbehaved};
    matches!(
        (kind, judged),
        (Kind::Malformed, Err(Malformed(_)))
            | (
                Kind::Forged,
                Err(PeerMisbehaved(Misbehaviour::CookieUnknown))
            )
            | (
                Kind::Inner,
                Err(PeerMisbehaved(Misbehaviour::InnerCondition))
            )
            | (Kind::Work, Err(PeerMisbehaved(Misbehaviour::Work)))
            | (
                Kind::Signature,
                Err(PeerMisbehaved(Misbehaviour::Signature))
            )
            | (Kind::Valid, Ok(()))
    )
}

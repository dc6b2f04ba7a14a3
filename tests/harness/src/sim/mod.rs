//! The simulation: many nodes with the real stack over memory links in virtual time, from a seed.
//!
//! `peer`, `bastion`, frames and the core run on one thread with a paused clock. The seed decides
//! writes, faults, delays and sizes ([`Features`]). After the last event the links are healthy
//! until nothing changes. Then an oracle compares every node with what was written.
//!
//! Invariant: equal seeds and features give equal runs, to the byte.

mod check;
mod club;
mod consent;
mod deliveries;
mod faults;
mod groups;
mod hostile;
mod hostile_scopes;
mod hostile_stubs;
mod intermittent;
mod introductions;
mod lister;
mod members;
mod memory;
mod moves;
mod net;
mod outbox;
mod overdue;
mod purge;
mod relayed;
mod scenario;
mod settle;
mod sight;
mod tamper;
mod transfers;
mod versions;
mod world;
mod writes;

use std::cell::RefCell;
use std::fmt;
use std::panic;
use std::sync::Once;

use keys::Digest;

pub use intermittent::{Intermittent, IntermittentOptions, intermittent};
pub use scenario::{Feature, Features};
pub use tamper::Tamper;
pub use transfers::Transfers;
use world::World;

/// Steps after which the delivery states are compared.
const DELIVERIES_EVERY: usize = 10;

/// Facts of a run without a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Number of nodes.
    pub nodes: usize,
    /// Features that the seed drew.
    pub features: Features,
    /// Objects that were written.
    pub objects: usize,
    /// Virtual time, in seconds.
    pub virtual_s: u64,
    /// Bodies of objects that arrived at nodes.
    pub transfers: Transfers,
    /// Dials to nodes that nothing serves.
    pub dead_dials: usize,
    /// Digest over the rows of all nodes.
    pub digest: Digest,
}

/// A run in which a property does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The seed that repeats the run.
    pub seed: u64,
    /// The features that were permitted.
    pub permitted: Features,
    /// The property and what was found.
    pub text: String,
}

impl Violation {
    /// The command that repeats the run.
    pub fn replay(&self) -> String {
        format!(
            "cargo run --release -p bench -- simulate --first-seed {} --seeds 1 --features {}",
            self.seed, self.permitted
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {}\n  replay: {}",
            self.seed,
            self.text,
            self.replay()
        )
    }
}

thread_local! {
    /// Panics of this thread, also those that a task of the runtime catches.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes every panic of a thread, besides what the hook before does.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

/// Runs the simulation of a seed, with these features at most.
pub fn run(seed: u64, permitted: &Features) -> Result<Outcome, Violation> {
    run_tampered(seed, permitted, None)
}

/// [`run`], and damages a node before the oracle looks at it.
pub fn run_tampered(
    seed: u64,
    permitted: &Features,
    tamper: Option<Tamper>,
) -> Result<Outcome, Violation> {
    note_panics();
    let permitted = permitted.clone();
    let run = {
        let permitted = permitted.clone();
        // A thread of its own, so that a panic ends this seed only.
        move || {
            let outcome = panic::catch_unwind(|| run_here(seed, &permitted, tamper));
            let panics = PANICS.take();
            match outcome {
                Ok(outcome) if panics.is_empty() => outcome,
                _ => Err(panics.join("\n")),
            }
        }
    };
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let outcome = thread.spawn(run).unwrap().join().unwrap();
    outcome.map_err(|text| Violation {
        seed,
        permitted,
        text,
    })
}

fn run_here(seed: u64, permitted: &Features, tamper: Option<Tamper>) -> Result<Outcome, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let start = tokio::time::Instant::now();
        let mut world = World::new(seed, permitted);
        for step in 0..world.scenario.steps {
            world.step().await;
            if step % DELIVERIES_EVERY == 0 {
                world.check_delivered()?;
            }
            if world.has(Feature::Purges) {
                world.check_purged()?;
            }
        }
        world.check_delivered()?;
        world.settle().await?;
        if let Some(tamper) = tamper {
            world.tamper(tamper);
        }
        world.check()?;
        world.check_introductions()?;
        world.check_lister()?;
        world.check_hostile_scopes().await?;
        Ok(Outcome {
            nodes: world.nodes.len(),
            objects: world.memory.made.len(),
            dead_dials: world.net.dead_dials.count(),
            virtual_s: start.elapsed().as_secs(),
            transfers: world.net.tally.sum(),
            digest: world.digest(),
            features: world.scenario.features.clone(),
        })
    })
}

impl World {
    /// A digest over the rows of all nodes, without those that contain random bytes of handshakes.
    fn digest(&self) -> Digest {
        let nodes = 0..self.nodes.len();
        let dumps: Vec<_> = nodes
            .map(|number| {
                let mut dump = self.up(number).unwrap().dump();
                dump.remove("peers");
                dump
            })
            .collect();
        Digest::of(format!("{dumps:?}").as_bytes())
    }
}

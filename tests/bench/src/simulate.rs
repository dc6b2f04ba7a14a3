//! `bench simulate`: the simulation of `harness::sim`, over many seeds.
//!
//! Prints one line per violation, with the command that repeats it, and a summary. Invariant: the
//! run fails if a property does not hold for one seed.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{available_parallelism, scope};

use anyhow::{Result, bail};
use clap::Args;
use harness::sim::{self, Features, Outcome, Violation};
use parking_lot::Mutex;
use serde_json::json;

use crate::stopwatch::timed;

/// Seeds and features.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Features that runs may contain: `all`, `none`, or names separated by commas.
    #[arg(long, default_value = "all")]
    features: Features,
    /// Threads; 0 uses all processors.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// Runs every seed.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let threads = match options.threads {
        0 => available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    };
    let next = AtomicU64::new(0);
    let failed = Mutex::new(0_u64);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return;
            }
            let seed = options.first_seed + number;
            let (outcome, seconds) = timed(|| sim::run(seed, &options.features));
            let mut failed = failed.lock();
            *failed += u64::from(outcome.is_err());
            print(seed, seconds, outcome, json);
        }
    };
    scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    match *failed.lock() {
        0 => Ok(()),
        failed => bail!("{failed} of {} seeds violate a property", options.seeds),
    }
}

fn print(seed: u64, seconds: f64, outcome: Result<Outcome, Violation>, json: bool) {
    match outcome {
        Ok(outcome) if json => println!(
            "{}",
            json!({
                "name": "seed", "seed": seed, "holds": true, "seconds": seconds,
                "nodes": outcome.nodes, "objects": outcome.objects,
                "dead_dials": outcome.dead_dials,
                "virtual_s": outcome.virtual_s, "features": outcome.features.to_string(),
                "bodies_whole": outcome.transfers.whole,
                "bodies_fetched": outcome.transfers.fetched,
                "bodies_needless": outcome.transfers.needless,
                "digest": format!("{:?}", outcome.digest),
            })
        ),
        Ok(outcome) => println!(
            "seed {seed:<6} holds in {seconds:>5.1} s: {} nodes, {} objects, {} virtual s; {}",
            outcome.nodes, outcome.objects, outcome.virtual_s, outcome.features
        ),
        Err(violation) if json => println!(
            "{}",
            json!({
                "name": "seed", "seed": seed, "holds": false, "seconds": seconds,
                "violation": violation.text, "replay": violation.replay(),
            })
        ),
        Err(violation) => println!("{violation}"),
    }
}

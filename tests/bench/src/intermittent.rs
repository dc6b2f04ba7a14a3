//! `bench intermittent`: a conversation of many members of which few are online, over many seeds.
//!
//! Prints one line per seed. Invariant: the run fails if a property does not hold for one seed.

use anyhow::{Result, bail};
use clap::Args;
use harness::sim::{self, IntermittentOptions};
use serde_json::json;

use crate::stopwatch::timed;

/// Members and meetings.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Members of the conversation, each with a node of its own.
    #[arg(long, default_value_t = 20)]
    members: usize,
    /// Percent of the rounds in which a node is online.
    #[arg(long, default_value_t = 10)]
    online: u32,
    /// Rounds, in each of which the nodes that are online meet in pairs.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Members whose nodes withhold the records of identities.
    #[arg(long, default_value_t = 0)]
    withholding: usize,
    /// Percent of the rounds online in which a member rotates its key.
    #[arg(long, default_value_t = 0)]
    rotates: u32,
}

/// Runs every seed.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let run = IntermittentOptions {
        members: options.members,
        online: f64::from(options.online.min(100)) / 100.0,
        rounds: options.rounds,
        withholding: options.withholding,
        rotates: f64::from(options.rotates.min(100)) / 100.0,
    };
    if run.withholding >= run.members {
        bail!("--withholding must be lower than --members");
    }
    let mut failed = 0_u64;
    for seed in options.first_seed..options.first_seed + options.seeds {
        let (outcome, seconds) = timed(|| sim::intermittent(seed, run));
        match outcome {
            Ok(it) if json => println!(
                "{}",
                json!({
                    "name": "intermittent", "seed": seed, "holds": true, "seconds": seconds,
                    "meetings": it.meetings, "messages": it.messages, "reached": it.reached,
                    "bodies_whole": it.transfers.whole, "bodies_fetched": it.transfers.fetched,
                    "bodies_needless": it.transfers.needless, "ratio": it.ratio(),
                })
            ),
            Ok(it) => println!(
                "seed {seed:<6} holds in {seconds:>5.1} s: {} messages reached {} members in {} \
                 meetings, with {:.3} bodies for each that a node needed",
                it.messages,
                it.reached,
                it.meetings,
                it.ratio()
            ),
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {violation}");
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} seeds violate a property", options.seeds),
    }
}

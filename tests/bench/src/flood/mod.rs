//! `bench flood`: what an attack on the gate costs those who are inside, and those who come honestly.
//!
//! In processes of their own. On loopback victim and sink are on one core, attackers and guests on another; over a private
//! Tor network, where the relays want both, nothing is kept from a core. The same attack is aimed at the sink and at the
//! victim in turns, so that what the system itself spends on it counts for both.
//! Never judges a limit that was loosened for it: the victim's gate has its defaults. Invariant: every process ends with
//! the run, whatever happens.

mod bogus;
mod cast;
mod child;
mod generator;
mod guests;
mod phases;
mod puller;
mod ramp;
mod reach;
mod role;
mod sink;
mod stall;
mod tables;
mod tables_tor;
mod tor;
mod victim;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::report::Report;

/// How hard, and how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Bogus messages a second, hellos that only fetch a challenge not counted. Not with `--tor`.
    #[arg(long, default_value_t = 2300)]
    rate: u64,
    /// Connections that stall.
    #[arg(long, default_value_t = 300)]
    stallers: u64,
    /// Messages in the victim's database.
    #[arg(long, default_value_t = 30_000)]
    messages: u64,
    /// Rounds, in each of which sink and victim are aimed at in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Honest strangers during the flood.
    #[arg(long, default_value_t = 30)]
    strangers: usize,
    /// Over onion services in a private Tor network on this machine, at the highest rate that it carries.
    #[arg(long)]
    tor: bool,
    /// Shorter and fewer of everything: to see that all works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// What this process is; the benchmark itself sets it.
    #[arg(long, hide = true, requires = "setting")]
    role: Option<Role>,
    #[arg(long, hide = true)]
    setting: Option<String>,
}

/// The processes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Victim,
    Sink,
    Generator,
    Guests,
    Strangers,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    phases::run(options, report)
}

impl Options {
    /// Whether this process is one of the benchmark's others.
    pub(crate) fn is_role(&self) -> bool {
        self.role.is_some()
    }

    /// Plays that part to its end.
    pub(crate) fn play(&self) -> Result<()> {
        let (Some(role), Some(setting)) = (self.role, &self.setting) else {
            bail!("no role");
        };
        let setting: Value = serde_json::from_str(setting).context("the setting is no JSON")?;
        // Before the runtime begins: it takes as many threads as it sees cores.
        if setting.get("core").is_some() {
            role::pin(usize::try_from(role::number(&setting, "core")?)?)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match role {
                Role::Victim => victim::run(&setting).await,
                Role::Sink => sink::run(&setting).await,
                Role::Generator => generator::run(&setting).await,
                Role::Guests | Role::Strangers => guests::run(&setting).await,
            }
        })
    }
}

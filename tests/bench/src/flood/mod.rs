//! `bench flood`: the effect of an attack on the gate on admitted peers and on honest clients.
//!
//! Each role is a process. On loopback the victim and the sink run on one core, attackers and
//! clients on another. Over a private Tor network no process is pinned, because the relays need
//! both cores. The flood targets the sink and the victim in turns, so that the cost of the
//! operating system counts for both. The victim's gate has its default limits. Invariant: every
//! process ends with the run.

mod access;
mod bogus;
mod child;
mod clients;
mod generator;
mod phases;
mod processes;
mod pull_client;
mod ramp;
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

/// Size and duration of the flood.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Bogus messages per second, without hellos that only fetch a challenge. Not used with
    /// `--tor`.
    #[arg(long, default_value_t = 2300)]
    rate: u64,
    /// Number of stalled connections.
    #[arg(long, default_value_t = 300)]
    stallers: u64,
    /// Number of messages in the victim's database.
    #[arg(long, default_value_t = 30_000)]
    messages: u64,
    /// Number of rounds; in each round the flood targets the sink and the victim in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of honest unadmitted clients during the flood.
    #[arg(long, default_value_t = 30)]
    unadmitted: usize,
    /// Use onion services in a private Tor network on this machine, at the highest rate that it
    /// carries.
    #[arg(long)]
    tor: bool,
    /// Shorter phases and fewer rounds: shows that the benchmark runs, not for figures.
    #[arg(long)]
    quick: bool,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// Role of this process; set by the benchmark itself.
    #[arg(long, hide = true, requires = "setting")]
    role: Option<Role>,
    #[arg(long, hide = true)]
    setting: Option<String>,
}

/// The roles of the processes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Victim,
    Sink,
    Generator,
    AdmittedClients,
    UnadmittedClients,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    phases::run(options, report)
}

impl Options {
    /// Returns whether this process was started by the benchmark in a role.
    pub(crate) fn is_role(&self) -> bool {
        self.role.is_some()
    }

    /// Runs the role until its input ends.
    pub(crate) fn run_role(&self) -> Result<()> {
        let (Some(role), Some(setting)) = (self.role, &self.setting) else {
            bail!("no role");
        };
        let setting: Value = serde_json::from_str(setting).context("the setting is no JSON")?;
        // Before the runtime starts, because it starts one thread per available core.
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
                Role::AdmittedClients | Role::UnadmittedClients => clients::run(&setting).await,
            }
        })
    }
}

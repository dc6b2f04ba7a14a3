//! `bench sync`: goals 1 to 3, building and applying packages, and the cost of a delta.
//!
//! Uses no network. Invariant: all databases are in one temporary folder, which is removed at the
//! end.

mod bulk;
mod delta;
mod quiet;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::machine;
use crate::report::Report;

/// Size and duration of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of messages in the first pull.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Number of rounds; every side runs once per round.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A fifth of the messages and three rounds: shows that the benchmark runs, not for figures.
    #[arg(long)]
    quick: bool,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long, conflicts_with_all = ["quick", "large"])]
    tiny: bool,
    /// Measure also with 1,000,000 messages in the store, which takes minutes and gigabytes.
    #[arg(long)]
    large: bool,
    /// Folder for the databases, on the disk to measure.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// The resolved options, and the temporary folder.
struct Setting {
    messages: usize,
    rounds: usize,
    large: bool,
    folder: TempDir,
}

impl Options {
    fn setting(&self) -> Result<Setting> {
        let (messages, rounds) = match (self.tiny, self.quick) {
            (true, _) => (1000, 1),
            (_, true) => (self.messages / 5, 3),
            _ => (self.messages, self.rounds),
        };
        ensure!(
            messages >= 1000 && rounds >= 1,
            "at least 1,000 messages and one round are needed"
        );
        let folder = match &self.dir {
            Some(folder) => TempDir::new_in(folder),
            None => TempDir::new(),
        };
        Ok(Setting {
            messages,
            rounds,
            large: self.large,
            folder: folder.context("no folder for the databases")?,
        })
    }
}

/// Runs all parts of the benchmark.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let setting = options.setting()?;
    report.fact("messages", &setting.messages.to_string());
    report.fact("rounds", &setting.rounds.to_string());
    bulk::run(&setting, report)?;
    delta::run(&setting, report)?;
    report.heading("End to end over loopback (goals 1 and 3), beside PouchDB");
    report.not_measured(
        "pull, end to end / PouchDB over HTTP",
        crate::report::Goal::AtLeast(3.0),
        "needs node and the npm package pouchdb",
    );
    report.fact("load after", &machine::load());
    Ok(())
}

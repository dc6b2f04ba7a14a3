//! `bench sync`: goals 1 to 3, packages in and out and what a delta costs.
//!
//! Never touches a network. Invariant: all databases lie in one temporary folder, which goes with the run.

mod bulk;
mod delta;
mod quiet;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::machine;
use crate::report::Report;

/// What to measure, and how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Messages of a first pull.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Rounds, in each of which every side runs once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A fifth of the messages and three rounds: to see that all works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Smallest size of everything: shows that the benchmark runs, not for figures.
    #[arg(long, conflicts_with_all = ["quick", "large"])]
    tiny: bool,
    /// Also with 1,000,000 messages in the store, which takes some minutes and gigabytes.
    #[arg(long)]
    large: bool,
    /// Where the databases are made: on the disk that is to be measured.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Options after their shortcuts are worked out, and the folder.
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

/// Runs all parts.
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

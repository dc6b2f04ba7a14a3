//! Postern's benchmarks. Each goal of `docs/BENCHMARKS.md` is a ratio of two sides that are
//! measured in the same run.
//!
//! Missed goals and goals that were not measured are printed as such. Invariant: both sides of a
//! ratio run in turns in every round, and the ratio is the median of the rounds. Results:
//! `docs/BENCHMARKS.md`.
#![forbid(unsafe_code)]

mod flood;
mod frames;
mod graph;
mod holds;
mod holds_rights;
mod intermittent;
mod machine;
mod members;
mod nodes;
mod puzzle;
mod raw;
mod report;
mod simulate;
mod stopwatch;
mod sync;

use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use report::Report;

/// Postern's benchmarks.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    /// Print one JSON object per line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Building and applying packages against raw SQLite, and the cost of a delta (goals 1 to 3).
    Sync(sync::Options),
    /// Deltas in a large store, a send among many conversations, and the longest hold of the
    /// writer (goals 3 to 5 and 9).
    Graph(graph::Options),
    /// The client's cost of a puzzle, and the server's cost of bogus solutions (goal 8).
    Puzzle(puzzle::Options),
    /// Sync and admission under a flood of bogus handshakes, against the same flood at a sink.
    Flood(flood::Options),
    /// A conversation of many members of which few are online at a time, seed after seed. Fails if
    /// a message does not reach a member that a chain of meetings connects.
    Intermittent(intermittent::Options),
    /// The simulation of many nodes, seed after seed. Fails if a property does not hold.
    Simulate(simulate::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if error.kind() == ErrorKind::InvalidSubcommand {
                eprintln!("\nThe benchmarks are:\n{}", list());
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Benchmark::Flood(options) = &cli.benchmark
        && options.is_role()
    {
        return ended(options.run_role());
    }
    match &cli.benchmark {
        Benchmark::Intermittent(options) => return ended(intermittent::run(options, cli.json)),
        Benchmark::Simulate(options) => return ended(simulate::run(options, cli.json)),
        _ => {}
    }
    let mut report = Report::new(cli.json);
    let result = run(&cli.benchmark, &mut report);
    if result.is_ok() {
        report.end();
    }
    ended(result)
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: &Benchmark, report: &mut Report) -> Result<()> {
    match benchmark {
        Benchmark::Sync(options) => sync::run(options, report),
        Benchmark::Graph(options) => graph::run(options, report),
        Benchmark::Puzzle(options) => puzzle::run(options, report),
        Benchmark::Flood(options) => flood::run(options, report),
        Benchmark::Intermittent(options) => intermittent::run(options, false),
        Benchmark::Simulate(options) => simulate::run(options, false),
    }
}

/// Lists the benchmarks, one per line.
fn list() -> String {
    let command = Cli::command();
    let lines = command.get_subcommands().map(|it| {
        let about = it.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<8} {about}", it.get_name())
    });
    lines.collect::<Vec<_>>().join("\n")
}

//! Postern's benchmarks: each goal of `docs/BENCHMARKS.md` as a ratio of two sides that were measured in the same run.
//!
//! Never prints a goal as held that was not measured, and never hides one that was missed. Invariant: every ratio comes
//! from rounds in which both sides ran in turns, and is the median of these rounds. Results: `docs/BENCHMARKS.md`.
#![forbid(unsafe_code)]

mod flood;
mod machine;
mod nodes;
mod puzzle;
mod raw;
mod report;
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
    /// One JSON object a line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Packages in and out beside raw SQLite, and what a delta costs (goals 1 to 3).
    Sync(sync::Options),
    /// What work costs who does it, and what bogus work costs us (goal 8).
    Puzzle(puzzle::Options),
    /// Sync and admission under a flood of bogus strangers, beside the same flood aimed elsewhere.
    Flood(flood::Options),
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
        return ended(options.play());
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
        Benchmark::Puzzle(options) => puzzle::run(options, report),
        Benchmark::Flood(options) => flood::run(options, report),
    }
}

/// What there is, a line each.
fn list() -> String {
    let command = Cli::command();
    let lines = command.get_subcommands().map(|it| {
        let about = it.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<8} {about}", it.get_name())
    });
    lines.collect::<Vec<_>>().join("\n")
}

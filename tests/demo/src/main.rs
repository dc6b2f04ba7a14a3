//! Plays the founding story (docs/STORY.md) with two node processes, each behind its own onion
//! service.
//!
//! Uses the nodes' files and their local API only, and checks every number. The first step that
//! differs from the story panics and gives a non-zero exit status. All processes are ended in any
//! case.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a step that differs from the story panics, and the program measures real time"
)]

mod api;
mod conversation;
mod hostile;
mod print;
mod scenario;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use print::{detail, section};
use scenario::Scenario;
use testnet::{Options, Testnet};
use tokio::signal::unix::{SignalKind, signal};

/// Plays the founding story with two nodes over onion services.
#[derive(Parser)]
struct Arguments {
    /// Use the public Tor network instead of a private one on this machine.
    #[arg(long)]
    live: bool,
    /// Path of the `postern` program. Default: the directory of this program.
    #[arg(long)]
    postern: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    let default_path = || std::env::current_exe().unwrap().with_file_name("postern");
    let binary = arguments.postern.unwrap_or_else(default_path);
    assert!(
        binary.is_file(),
        "{} does not exist: build it with `cargo build`",
        binary.display()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let (network, tor) = runtime.block_on(network(arguments.live));
    let play = || {
        let mut scenario = Scenario::start(&binary, folder.path(), &tor);
        scenario.handshake();
        let sent = scenario.first_pull();
        scenario.local_write_and_next_pull();
        scenario.pull_of_a_domain_outside_the_intersection();
        scenario.forged_edit(&runtime, folder.path(), &tor, &sent);
        scenario.timer_push(&tor);
        scenario.conversation_of_three();
        scenario.end();
    };
    // Ctrl-C and SIGTERM end the nodes and the network before this program exits.
    let mut terminate = runtime
        .block_on(async { signal(SignalKind::terminate()) })
        .unwrap();
    let interrupted = runtime.spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    });
    std::thread::scope(|scope| {
        let playing = scope.spawn(play);
        while !playing.is_finished() {
            if interrupted.is_finished() {
                eprintln!("interrupted");
                harness::process::end_all();
                drop(network);
                std::process::exit(130);
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        if playing.join().is_err() {
            eprintln!("\nThis step differs from the story.");
            std::process::exit(1);
        }
        drop(network);
    });
    println!(
        "\nEvery step matched the story. ({:.0} s)",
        started.elapsed().as_secs_f64()
    );
}

/// Starts a private network and returns it with its client's `[tor]` table. Returns an empty table
/// for the public network.
async fn network(live: bool) -> (Option<Testnet>, toml::Table) {
    if live {
        return (None, toml::Table::new());
    }
    section("A private Tor network on this machine");
    let network = Testnet::start_reporting(Options::default(), detail)
        .await
        .unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(1);
        });
    let tor = network.client_toml().parse().unwrap();
    (Some(network), tor)
}

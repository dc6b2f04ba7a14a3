//! The founding story, step by step: two nodes as separate processes, each behind its own onion service.
//!
//! Drives the nodes as people do, through their files and their local API, and checks every number on the way. Ends
//! with a panic, and so a non-zero exit, at the first step that is not as the story says; every process is ended.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a step that is not as the story says ends the demonstration, which measures real time"
)]

mod hostile;
mod say;
mod stage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use say::{detail, section};
use stage::Stage;
use testnet::{Options, Testnet};
use tokio::signal::unix::{SignalKind, signal};

/// Plays the founding story with two nodes over onion services.
#[derive(Parser)]
struct Arguments {
    /// On the public Tor network instead of a private one on this machine.
    #[arg(long)]
    live: bool,
    /// The `postern` program. Default: the one beside this program.
    #[arg(long)]
    postern: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    let beside = || std::env::current_exe().unwrap().with_file_name("postern");
    let binary = arguments.postern.unwrap_or_else(beside);
    assert!(
        binary.is_file(),
        "{} is not there: build it with `cargo build`",
        binary.display()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let (network, tor) = runtime.block_on(network(arguments.live));
    let play = || {
        let mut stage = Stage::set(&binary, folder.path(), &tor);
        stage.handshake();
        let sent = stage.first_pull();
        stage.local_write_and_next_pull();
        stage.a_domain_that_is_not_shared();
        stage.a_forged_edit(&runtime, folder.path(), &tor, &sent);
        stage.timer_push(&tor);
        stage.end();
    };
    // Ctrl-C and SIGTERM end the nodes and the network before this program goes.
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
            eprintln!("\nThis is not what the story says.");
            std::process::exit(1);
        }
        drop(network);
    });
    println!(
        "\nEvery step was as the story says. ({:.0} s)",
        begun.elapsed().as_secs_f64()
    );
}

/// A private network with its client's table, or the public one with an empty table.
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

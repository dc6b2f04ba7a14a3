//! Runs a private Tor network until SIGINT (Ctrl-C) or SIGTERM.

#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use testnet::{Options, Testnet};
use tokio::signal::unix::{SignalKind, signal};

/// A private Tor network on 127.0.0.1: three directory authorities and six relays.
///
/// Prints the client configuration (the content of a node's [tor] table) once the network is
/// usable, and runs until Ctrl-C or SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder for the nodes' folders, logs and `client.toml`; it must be absent or empty.
    /// Default: a temporary folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// File to create atomically once the network is usable; it contains the client configuration.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// Traffic limit of each relay per second, in the syntax of torrc ("1 MB").
    #[arg(long)]
    bandwidth: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testnet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the network until a signal arrives or an error occurs.
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::select! {
        // Dropping `hold` kills the nodes, also during their start.
        () = stop => {
            eprintln!("stopping");
            Ok(())
        }
        result = hold(arguments) => result,
    }
}

/// Starts the network; returns only on an error.
async fn hold(arguments: Arguments) -> anyhow::Result<()> {
    let options = Options {
        dir: arguments.dir,
        bandwidth: arguments.bandwidth,
        ..Options::default()
    };
    let network = Testnet::start_reporting(options, |line| eprintln!("{line}")).await?;
    let toml = network.client_toml();
    let file = network.dir().join("client.toml");
    write_whole(&file, toml).with_context(|| format!("write {}", file.display()))?;
    println!("{toml}");
    eprintln!("ready: {}", file.display());
    if let Some(ready) = &arguments.ready_file {
        write_whole(ready, toml).with_context(|| format!("write {}", ready.display()))?;
    }
    std::future::pending().await
}

/// Writes a temporary file and renames it, so that a reader finds the complete file or none.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

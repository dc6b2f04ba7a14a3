//! `init`, `run` and `check`: commands on a node's folder.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use keys::error_chain;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::passphrase;
use crate::config::{Config, ConfigError, LogConfig, LogFormat, Problem};
use crate::data_dir::{self, DataDir, DirLock, DirLockError};
use crate::node::{self, Event, NetworkState, Reloads};
use crate::schema::Schemas;

/// Creates a node.
pub(super) async fn init(
    dir: &Path,
    name: Option<String>,
    passphrase_file: Option<PathBuf>,
    json: bool,
) -> Result<(), Failure> {
    data_dir::check_free(dir).map_err(|error| Failure::of(&error))?;
    let passphrase = passphrase::choose(passphrase_file.as_deref())?;
    if !json {
        eprintln!("Sealing the keys (a few seconds) …");
    }
    let folder = dir.to_owned();
    let making = move || {
        let cost = node::calibrated()?;
        node::init(&folder, name.as_deref(), &passphrase, cost)
    };
    let made = tokio::task::spawn_blocking(making)
        .await
        .map_err(|error| Failure::of(&error))?;
    let made = made.map_err(|error| Failure::of(&error))?;
    let (onion, peer_id, identity) = (
        made.onion.to_onion_string(),
        made.peer_id.to_hex(),
        made.identity.to_hex(),
    );
    if json {
        println!(
            "{}",
            json!({
                "config": made.config, "onion": onion, "peer_id": peer_id, "identity": identity,
            })
        );
        return Ok(());
    }
    println!("New node created in {}", made.folder.display());
    println!("  onion address  {onion}");
    println!("  peer id        {peer_id}");
    println!("  identity       {identity}");
    println!();
    println!(
        "The keys are sealed with your passphrase. A lost passphrase cannot be recovered, and the \
         keys are lost with it."
    );
    println!("The database is not encrypted; use disk encryption if you need it.");
    println!();
    println!("Next: postern run --config {}", made.config.display());
    Ok(())
}

pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| match error {
        ConfigError::Invalid(problems) => {
            print_warnings(&problems.warnings);
            Failure::usage(format!("the configuration is invalid\n{problems}"))
        }
        error => Failure::of_usage(&error),
    })
}

fn print_warnings(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("{warning}");
    }
}

/// Locks the node's folder, so that the node does not start meanwhile.
///
/// `instead` tells the operator what to do while the node runs.
pub(super) fn hold(config: &Config, instead: &str) -> Result<DirLock, Failure> {
    DataDir::of(config).lock().map_err(|error| match error {
        DirLockError::Running(_) => Failure::failed(format!("the node is running: {instead}")),
        error => Failure::of(&error),
    })
}

/// Checks a configuration file and the schema files that it names. Warnings do not fail.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    check_apps(&config)?;
    print_warnings(config.warnings());
    println!("{}: valid", path.display());
    Ok(())
}

/// Checks the apps' schema files, also against those with which the node's database was used last.
fn check_apps(config: &Config) -> Result<(), Failure> {
    let schemas = Schemas::load(&config.node.apps, config.schema_dir().as_deref());
    let schemas = schemas.map_err(|error| Failure::of_usage(&error))?;
    let refused = node::refused_schema(&DataDir::of(config), &schemas);
    match refused.map_err(|error| Failure::of(&error))? {
        Some(refused) => Err(Failure::of_usage(&refused)),
        None => Ok(()),
    }
}

/// Runs a node.
pub(super) async fn run(path: &Path, passphrase_file: Option<PathBuf>) -> Result<(), Failure> {
    let config = load(path)?;
    check_apps(&config)?;
    start_logging(&config.log)?;
    for warning in config.warnings() {
        tracing::warn!(%warning, "obsolete key in the configuration");
    }
    let passphrase = passphrase::of_node(&config, passphrase_file.as_deref())?;
    let listen = |kind| signal(kind).map_err(|error| Failure::of(&error));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let reloads = on_hangup(listen(SignalKind::hangup())?, path.to_owned());
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let (events, mut received) = mpsc::unbounded_channel();
    let printing = tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            show(event);
        }
    });
    let result = node::run(config, passphrase, events, reloads, stop).await;
    // Ends with the node, which has dropped its end of the channel.
    let _ = printing.await;
    result.map_err(|error| Failure::of(&error))
}

/// Reloads the configuration at each SIGHUP, as long as the node listens.
fn on_hangup(mut hangup: Signal, path: PathBuf) -> Reloads {
    let (read, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Reads the file on a blocking thread, because tasks must not wait for the disk.
            let path = path.clone();
            let Ok(config) = tokio::task::spawn_blocking(move || Config::load(&path)).await else {
                continue;
            };
            if read.send(config).await.is_err() {
                return;
            }
        }
    });
    reloads
}

/// Prints an event for the operator. The log, on the same stream, has more detail.
fn show(event: Event) {
    match event {
        Event::Opened { onion, .. } => eprintln!("Onion address: {}", onion.to_onion_string()),
        Event::Migrated(migration) => {
            let (from, copy) = (migration.from, migration.copy.display());
            eprintln!("The database had version {from}; a copy is in {copy}");
            for it in &migration.apps {
                let (app, kept, dropped) = (&it.app, it.kept, it.dropped);
                eprintln!("  {app}: {kept} objects kept, {dropped} not carried over");
            }
        }
        Event::ApiReady(address) => eprintln!("Local API: http://{address}"),
        Event::Network(state) => show_network(state),
        Event::Stopping => eprintln!("Stopping …"),
    }
}

fn show_network(state: NetworkState) {
    match state {
        NetworkState::Starting => {}
        NetworkState::Bootstrapping {
            percent,
            blocked: None,
        } => eprintln!("Joining Tor: {percent} %"),
        NetworkState::Bootstrapping {
            percent,
            blocked: Some(why),
        } => eprintln!("Joining Tor: {percent} % ({why})"),
        NetworkState::Publishing => eprintln!("Publishing the onion service …"),
        NetworkState::Reachable => eprintln!("Reachable: other nodes can dial this one"),
        NetworkState::NotReachable(why) => eprintln!("Not reachable yet, still trying: {why}"),
    }
}

fn start_logging(config: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| Failure::usage(format!("log.filter: {}", error_chain(&error))))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Human => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| Failure::of(&*error))
}

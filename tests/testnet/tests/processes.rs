//! The nodes of a network end with their owner: on drop, panic, error, SIGINT, SIGTERM and SIGKILL.
//! Other processes continue.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use testnet::{Error, Options, Testnet};
use tokio::time::{sleep, timeout};

/// 3 authorities and 6 relays.
const NODES: usize = 9;

/// Returns the ids of the `tor` processes with this folder on their command line.
fn processes_of(dir: &Path) -> BTreeSet<u32> {
    let dir = dir.to_str().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = command
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy);
        if words.next().is_some_and(|program| program == "tor")
            && words.any(|word| word.starts_with(dir))
        {
            found.insert(id);
        }
    }
    found
}

/// Waits until a condition holds, 120 s at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(Duration::from_secs(120), waiting).await.is_err() {
        panic!("not within 120 s: {what}");
    }
}

/// A running `testnet` command, killed by its handle when the value is dropped.
struct Program(Child);

impl Program {
    fn start(dir: &Path, ready: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testnet"));
        command
            .arg("--dir")
            .arg(dir)
            .arg("--ready-file")
            .arg(ready)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("a network");
    (folder, path)
}

#[tokio::test]
async fn command_ends_only_its_own_network_on_sigterm() {
    let (_folder, dir) = folder();
    let (other_folder, other_dir) = folder();
    let ready = other_folder.path().join("ready");
    let network = Testnet::start(Options {
        dir: Some(dir.clone()),
        ..Options::default()
    });
    let mut program = Program::start(&other_dir, &ready);
    let network = network.await.unwrap();
    until("the command is ready", || ready.exists()).await;

    let client = fs::read_to_string(&ready).unwrap();
    assert!(client.contains("fallback_caches"));
    assert_eq!(
        client,
        fs::read_to_string(other_dir.join("client.toml")).unwrap()
    );
    assert_ne!(client, network.client_toml());
    assert_eq!(processes_of(&other_dir).len(), NODES);
    program.signal(Signal::TERM);
    assert!(program.0.wait().unwrap().success());
    assert_eq!(processes_of(&other_dir), BTreeSet::new());

    assert_eq!(
        processes_of(&dir),
        network.process_ids().into_iter().collect()
    );
    assert_eq!(network.process_ids().len(), NODES);
    drop(network);
    assert_eq!(processes_of(&dir), BTreeSet::new());
}

#[tokio::test]
async fn nodes_end_on_sigint_during_the_start() {
    let (folder, dir) = folder();
    let mut program = Program::start(&dir, &folder.path().join("ready"));
    until("nodes run", || processes_of(&dir).len() == NODES).await;
    program.signal(Signal::INT);
    assert!(program.0.wait().unwrap().success());
    assert_eq!(processes_of(&dir), BTreeSet::new());
}

#[tokio::test]
async fn nodes_end_after_a_sigkill_of_their_owner() {
    let (folder, dir) = folder();
    let mut program = Program::start(&dir, &folder.path().join("ready"));
    until("nodes run", || processes_of(&dir).len() == NODES).await;
    program.signal(Signal::KILL);
    program.0.wait().unwrap();
    // Each node checks its owner every 15 s.
    until("the nodes end", || processes_of(&dir).is_empty()).await;
}

#[tokio::test]
async fn nodes_end_on_a_panic_during_the_start() {
    let (_folder, dir) = folder();
    let options = Options {
        dir: Some(dir.clone()),
        ..Options::default()
    };
    let panicking = tokio::spawn(async {
        Testnet::start_reporting(options, |line| {
            assert!(!line.contains("waiting"), "panics as the test requires")
        })
        .await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    assert_eq!(processes_of(&dir), BTreeSet::new());
}

#[tokio::test]
async fn deadline_error_names_the_missing_condition_and_nodes_end() {
    let (_folder, dir) = folder();
    let options = Options {
        dir: Some(dir.clone()),
        deadline: Duration::ZERO,
        ..Options::default()
    };
    match Testnet::start(options).await.unwrap_err() {
        Error::NotReady { missing, .. } => assert_eq!(missing, "auth1 has no consensus yet"),
        other => panic!("{other}"),
    }
    assert_eq!(processes_of(&dir), BTreeSet::new());
}

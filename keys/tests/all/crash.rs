//! A process killed at any step of a write leaves a vault that opens, with every reported key.
//!
//! The test starts its own binary as a child process, which ends at a crash point (`keys::crash`).
#![cfg(debug_assertions)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keys::crash::CRASH_AT;
use keys::{KdfCost, KeyManager, Oid, Passphrase, RecoveryKey};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// Environment variable: the directory that the child process works in.
const DIRECTORY: &str = "POSTERN_CRASH_TEST_DIRECTORY";

fn passphrase() -> Passphrase {
    Passphrase::from_string("right".to_owned())
}

/// Records a fact that was reported to the caller, as a user would remember it.
fn remember(directory: &Path, fact: &str, value: &str) {
    fs::write(directory.join(fact), value).unwrap();
}

fn remembered(directory: &Path, fact: &str) -> Option<String> {
    fs::read_to_string(directory.join(fact)).ok()
}

/// Creates a vault and an identity, rotates it, exports its next key and rotates to that key.
fn run_scenario(directory: &Path) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let keys = KeyManager::create(
        &directory.join("vault"),
        &passphrase(),
        KdfCost::TEST,
        &mut rng,
    )
    .unwrap();
    remember(directory, "made", "");
    let alice = keys.add_identity(&mut rng).unwrap();
    remember(directory, "alice", &alice.to_hex());
    keys.rotate(alice, &mut rng).unwrap();
    remember(directory, "rotated", "1");
    let file = directory.join("recovery");
    keys.recovery_key(alice).unwrap().write_new(&file).unwrap();
    let recovery = RecoveryKey::from_file(&file).unwrap();
    keys.forget_next(alice, &recovery, &mut rng).unwrap();
    remember(directory, "forgotten", "");
    keys.rotate_with(alice, &recovery, &mut rng).unwrap();
    remember(directory, "rotated", "2");
    keys.change_passphrase(&passphrase(), KdfCost::TEST, &mut rng)
        .unwrap();
}

/// The child process. Does nothing in a run of all tests.
#[test]
fn child_process_runs_the_scenario() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        run_scenario(&PathBuf::from(directory));
    }
}

/// Runs the child process. Returns whether the process completed the scenario.
fn completes(directory: &Path, crash_at: u32) -> bool {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_process_runs_the_scenario"])
        .env(DIRECTORY, directory)
        .env(CRASH_AT, crash_at.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

fn check(directory: &Path, crash_at: u32) {
    let vault = directory.join("vault");
    if !vault.exists() {
        assert_eq!(
            remembered(directory, "made"),
            None,
            "crash {crash_at}: the vault is gone"
        );
        return;
    }
    let keys = KeyManager::open(&vault, &passphrase())
        .unwrap_or_else(|error| panic!("crash {crash_at}: {error}"));
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    if let Some(alice) = remembered(directory, "alice") {
        let alice: Oid = alice.parse().unwrap();
        let reported: u32 =
            remembered(directory, "rotated").map_or(0, |number| number.parse().unwrap());
        let key_id = keys.key_id(alice).unwrap();
        assert!(
            key_id == reported || key_id == reported + 1,
            "crash {crash_at}: {key_id} {reported}"
        );
        // The next key is in the vault or in the recovery file at every instant.
        let rotated = match RecoveryKey::from_file(&directory.join("recovery")) {
            Ok(recovery) if keys.rotate_with(alice, &recovery, &mut rng).is_ok() => true,
            _ => keys.rotate(alice, &mut rng).is_ok(),
        };
        assert!(rotated, "crash {crash_at}: no next key");
    }
    keys.add_identity(&mut rng).unwrap();
    assert_eq!(
        KeyManager::open(&vault, &passphrase()).unwrap().holders(),
        keys.holders()
    );
}

#[test]
fn vault_opens_after_a_crash_at_every_step() {
    let mut crashes = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let completed = completes(dir.path(), crashes + 1);
        check(dir.path(), crashes + 1);
        if completed {
            break;
        }
        crashes += 1;
    }
    // Seven writes with four steps each.
    assert_eq!(crashes, 28);
}

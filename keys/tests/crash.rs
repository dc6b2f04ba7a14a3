//! A process that ends at any step of a write leaves a vault that opens, with all keys that were told to be there.
//!
//! The test starts itself as another process, which ends at the crash point that it is told (`keys::crash`).
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

/// The folder that the other process works in.
const FOLDER: &str = "POSTERN_CRASH_TEST_FOLDER";

fn passphrase() -> Passphrase {
    Passphrase::from_string("right".to_owned())
}

/// Notes a fact that was told to the caller, as a user would remember it.
fn remember(folder: &Path, fact: &str, value: &str) {
    fs::write(folder.join(fact), value).unwrap();
}

fn remembered(folder: &Path, fact: &str) -> Option<String> {
    fs::read_to_string(folder.join(fact)).ok()
}

/// Makes a vault and an identity, rotates it, puts its next key away and rotates with it.
fn a_life(folder: &Path) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let keys = KeyManager::create(
        &folder.join("vault"),
        &passphrase(),
        KdfCost::TEST,
        &mut rng,
    )
    .unwrap();
    remember(folder, "made", "");
    let alice = keys.add_identity(&mut rng).unwrap();
    remember(folder, "alice", &alice.to_hex());
    keys.rotate(alice, 9, &mut rng).unwrap();
    remember(folder, "rotated", "1");
    let file = folder.join("recovery");
    keys.recovery_key(alice).unwrap().write_new(&file).unwrap();
    let recovery = RecoveryKey::from_file(&file).unwrap();
    keys.forget_next(alice, &recovery, &mut rng).unwrap();
    remember(folder, "forgotten", "");
    keys.rotate_with(alice, &recovery, 9, &mut rng).unwrap();
    remember(folder, "rotated", "2");
    keys.change_passphrase(&passphrase(), KdfCost::TEST, &mut rng)
        .unwrap();
}

/// What the other process does; nothing in a run of all tests.
#[test]
fn in_the_other_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        a_life(&PathBuf::from(folder));
    }
}

/// Whether the other process came to its end.
fn lived_on(folder: &Path, crash_at: u32) -> bool {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_the_other_process"])
        .env(FOLDER, folder)
        .env(CRASH_AT, crash_at.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

fn check(folder: &Path, crash_at: u32) {
    let vault = folder.join("vault");
    if !vault.exists() {
        assert_eq!(
            remembered(folder, "made"),
            None,
            "crash {crash_at}: the vault is gone"
        );
        return;
    }
    let keys = KeyManager::open(&vault, &passphrase())
        .unwrap_or_else(|error| panic!("crash {crash_at}: {error}"));
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    if let Some(alice) = remembered(folder, "alice") {
        let alice: Oid = alice.parse().unwrap();
        let told: u32 = remembered(folder, "rotated").map_or(0, |told| told.parse().unwrap());
        let key_id = keys.key_id(alice).unwrap();
        assert!(
            key_id == told || key_id == told + 1,
            "crash {crash_at}: {key_id} {told}"
        );
        // At no instant is there no next key: it is in the vault, or in the file.
        let rotated = match RecoveryKey::from_file(&folder.join("recovery")) {
            Ok(recovery) if keys.rotate_with(alice, &recovery, 9, &mut rng).is_ok() => true,
            _ => keys.rotate(alice, 9, &mut rng).is_ok(),
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
fn a_vault_opens_whenever_the_process_ended() {
    let mut crashes = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let lived_on = lived_on(dir.path(), crashes + 1);
        check(dir.path(), crashes + 1);
        if lived_on {
            break;
        }
        crashes += 1;
    }
    // Seven writes of four steps each.
    assert_eq!(crashes, 28);
}

//! Tests of rotation, recovery keys and catching up, with real files.

use super::error::{UnknownIdentity, VaultError};
use super::manager::KeyManager;
use super::rotation::{CaughtUp, HolderInfo};
use super::tests::{rng, vault, word};
use crate::chain::{ChainError, KeyChain};
use crate::ids::{Oid, Signature};
use crate::private_file;
use crate::protocol::KEY_EVENTS_MAX;
use crate::recovery::RecoveryKey;
use crate::signing::{BadSignature, Context, SecretKey};
use std::fs;
use std::path::Path;

fn reopened(path: &Path) -> KeyManager {
    KeyManager::open(path, &word("right")).unwrap()
}

/// Exports the next key and removes it from the vault, as an operator does.
fn export_next(keys: &KeyManager, holder: Oid, path: &Path) -> RecoveryKey {
    keys.recovery_key(holder).unwrap().write_new(path).unwrap();
    let read = RecoveryKey::from_file(path).unwrap();
    keys.forget_next(holder, &read, &mut rng(77)).unwrap();
    read
}

#[test]
fn rotation_refuses_a_chain_longer_than_the_protocol_allows() {
    let keys = KeyManager::generate(&mut rng(1));
    let node = keys.server_oid();
    for number in 1..=KEY_EVENTS_MAX as u32 {
        keys.rotate(node, &mut rng(2)).unwrap();
        assert_eq!(keys.key_id(node), Ok(number));
    }
    let recovery = keys.recovery_key(node).unwrap();
    for result in [
        keys.rotate(node, &mut rng(3)),
        keys.rotate_with(node, &recovery, &mut rng(3)),
    ] {
        assert!(matches!(result, Err(VaultError::ChainFull)));
    }
    assert_eq!(keys.key_id(node), Ok(KEY_EVENTS_MAX as u32));
    let unknown = Oid::from_bytes([9; 16]);
    assert_eq!(keys.key_id(unknown), Err(UnknownIdentity(unknown)));
    assert!(matches!(
        keys.rotate(unknown, &mut rng(3)),
        Err(VaultError::UnknownIdentity(_))
    ));
}

#[test]
fn exported_next_key_rotates_only_from_its_file() {
    let (dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let recovery = export_next(&keys, alice, &dir.path().join("recovery"));
    assert_eq!((recovery.holder(), recovery.key_id()), (alice, 1));
    let keys = reopened(&path);
    assert!(matches!(
        keys.rotate(alice, &mut rng(3)),
        Err(VaultError::NextKeyOffline)
    ));
    assert!(matches!(
        keys.recovery_key(alice),
        Err(VaultError::NextKeyOffline)
    ));
    // A repeated call does nothing.
    keys.forget_next(alice, &recovery, &mut rng(3)).unwrap();
    keys.rotate_with(alice, &recovery, &mut rng(3)).unwrap();
    let keys = reopened(&path);
    let chain = keys.identity_chain(alice).unwrap().verify().unwrap();
    assert_eq!(chain.current(), recovery.secret().public());
    let object = keys.sign_object(alice, vec![0x80]).unwrap();
    assert_eq!(object.verify(&chain.current()), Ok(()));
    // The next key is in the vault again, and the used recovery key is refused.
    assert!(matches!(
        keys.rotate_with(alice, &recovery, &mut rng(4)),
        Err(VaultError::WrongRecoveryKey)
    ));
    keys.rotate(alice, &mut rng(4)).unwrap();
    assert_eq!(keys.key_id(alice), Ok(2));
}

#[test]
fn wrong_recovery_key_neither_rotates_nor_removes_the_next_key() {
    let (_dir, path, keys) = vault();
    let (alice, bob) = (
        keys.add_identity(&mut rng(2)).unwrap(),
        keys.add_identity(&mut rng(3)).unwrap(),
    );
    let before = fs::read(&path).unwrap();
    let bobs = keys.recovery_key(bob).unwrap();
    let made_up = RecoveryKey::new(alice, 1, SecretKey::from_seed(&[9; 32]));
    for result in [
        keys.rotate_with(alice, &bobs, &mut rng(4)),
        keys.forget_next(alice, &bobs, &mut rng(4)),
    ] {
        assert!(matches!(result, Err(VaultError::OtherHolder(it)) if it == bob));
    }
    for result in [
        keys.rotate_with(alice, &made_up, &mut rng(4)),
        keys.forget_next(alice, &made_up, &mut rng(4)),
    ] {
        assert!(matches!(result, Err(VaultError::WrongRecoveryKey)));
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn stolen_vault_cannot_rotate_and_the_recovery_key_revokes_it() {
    let (dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let recovery = export_next(&keys, alice, &dir.path().join("recovery"));
    let stolen = dir.path().join("stolen");
    private_file::create(&stolen, &fs::read(&path).unwrap()).unwrap();
    let thief = reopened(&stolen);
    assert!(thief.rotate(alice, &mut rng(4)).is_err());
    // Nor without the manager: an event signed by the current key is invalid.
    let mut forged = thief.identity_chain(alice).unwrap();
    let secret = thief.read().holder(alice).unwrap().current.clone();
    forged.rotate(&secret, &SecretKey::from_seed(&[9; 32]).public());
    assert_eq!(forged.verify(), Err(ChainError::NotCommitted(1)));

    keys.rotate_with(alice, &recovery, &mut rng(5)).unwrap();
    let chain = keys.identity_chain(alice).unwrap();
    let verified = chain.verify().unwrap();
    let object = thief.sign_object(alice, vec![0x80]).unwrap();
    assert_eq!(object.verify(&verified.current()), Err(BadSignature));
    let home = thief.home_record(alice, 9).unwrap();
    assert_eq!(home.verify(&verified), Err(crate::HomeError::OldKey));
    assert_eq!(
        thief.catch_up(alice, &chain, &mut rng(6)).unwrap(),
        CaughtUp::Lost
    );
}

/// Returns a vault, and a copy of it from before `rotations` rotations of the node's key.
fn older_copy(rotations: usize) -> (tempfile::TempDir, KeyManager, KeyManager) {
    let (dir, path, keys) = vault();
    let copy = dir.path().join("copy");
    private_file::create(&copy, &fs::read(&path).unwrap()).unwrap();
    for seed in 0..rotations {
        keys.rotate(keys.server_oid(), &mut rng(10 + seed as u64))
            .unwrap();
    }
    (dir, keys, reopened(&copy))
}

#[test]
fn catch_up_adopts_one_rotation_after_an_older_backup() {
    let (dir, newer, older) = older_copy(1);
    let (node, chain) = (newer.server_oid(), newer.node_chain());
    assert_eq!(
        older.catch_up(node, &chain, &mut rng(3)).unwrap(),
        CaughtUp::Adopted
    );
    let older = reopened(&dir.path().join("copy"));
    assert_eq!(older.node_chain(), chain);
    let current = chain.verify().unwrap().current();
    let signature = older.sign_as_node(Context::Welcome, &[b"x"]);
    assert_eq!(
        current.verify(Context::Welcome, &[b"x"], &signature),
        Ok(())
    );
    // Only the newer vault has the key after it.
    assert!(matches!(
        older.rotate(node, &mut rng(4)),
        Err(VaultError::NextKeyOffline)
    ));
    assert_eq!(
        older.catch_up(node, &chain, &mut rng(3)).unwrap(),
        CaughtUp::Same
    );
    let recovery = newer.recovery_key(node).unwrap();
    older.rotate_with(node, &recovery, &mut rng(5)).unwrap();
    assert!(older.node_chain().continues(&chain));
}

#[test]
fn catch_up_beyond_the_next_key_reports_lost_and_changes_nothing() {
    let (_dir, newer, older) = older_copy(2);
    let (node, before) = (newer.server_oid(), older.node_chain());
    let caught_up = older
        .catch_up(node, &newer.node_chain(), &mut rng(3))
        .unwrap();
    assert_eq!((caught_up, older.node_chain()), (CaughtUp::Lost, before));
    // Only one rotation, but its key was exported before.
    let (dir, newer, older) = older_copy(1);
    export_next(&older, node, &dir.path().join("recovery"));
    let caught_up = older
        .catch_up(node, &newer.node_chain(), &mut rng(3))
        .unwrap();
    assert_eq!((caught_up, older.key_id(node)), (CaughtUp::Lost, Ok(0)));
}

#[test]
fn catch_up_refuses_forks_invalid_chains_and_other_holders() {
    let (dir, newer, older) = older_copy(1);
    let node = newer.server_oid();
    let catch_up = |keys: &KeyManager, chain: &KeyChain| keys.catch_up(node, chain, &mut rng(3));
    // The peers' chain is shorter than the vault's.
    assert_eq!(
        catch_up(&newer, &older.node_chain()).unwrap(),
        CaughtUp::Same
    );
    // The same rotation twice, each time with another next key, is a fork.
    older.rotate(node, &mut rng(99)).unwrap();
    let copy = reopened(&dir.path().join("copy"));
    let other = KeyManager::generate(&mut rng(5)).node_chain();
    let mut broken = newer.node_chain();
    broken.events[0].signature = Signature::from_bytes([1; 64]);
    for chain in [&newer.node_chain(), &other, &broken] {
        let result = catch_up(&copy, chain);
        assert!(
            matches!(result, Err(VaultError::ForeignChain)),
            "{result:?}"
        );
    }
    assert_eq!(copy.node_chain(), older.node_chain());
}

#[test]
fn holders_lists_the_node_first() {
    let (dir, _path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    keys.rotate(alice, &mut rng(3)).unwrap();
    export_next(&keys, alice, &dir.path().join("recovery"));
    let node = keys.server_oid();
    let current = |oid| {
        keys.identity_chain(oid)
            .unwrap_or(keys.node_chain())
            .verify()
            .unwrap()
            .current()
    };
    let expected = [(node, true, 0, true), (alice, false, 1, false)];
    let expected = expected.map(|(oid, is_node, key_id, has_next_key)| HolderInfo {
        oid,
        is_node,
        key_id,
        has_next_key,
        public: current(oid),
        moves_to: None,
    });
    assert_eq!(keys.holders(), expected);
}

#[test]
fn failed_save_leaves_every_key_unchanged() {
    let (dir, _path, keys) = vault();
    let node = keys.server_oid();
    let recovery = keys.recovery_key(node).unwrap();
    let onion = keys.onion();
    fs::create_dir(dir.path().join("vault.new")).unwrap();
    assert!(keys.forget_next(node, &recovery, &mut rng(2)).is_err());
    assert!(keys.rotate_with(node, &recovery, &mut rng(2)).is_err());
    let other = crate::OnionKey::generate(&mut rng(3));
    assert!(keys.import_onion(other, &mut rng(2)).is_err());
    let [info] = keys.holders()[..] else {
        panic!("{:?}", keys.holders())
    };
    assert!(info.has_next_key && info.key_id == 0 && keys.onion() == onion);
}

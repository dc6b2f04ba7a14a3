//! Rotations, next keys on paper, and catching up, over real files.

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

/// Puts the next key away as an operator does.
fn put_away(keys: &KeyManager, holder: Oid, path: &Path) -> RecoveryKey {
    keys.recovery_key(holder).unwrap().write_new(path).unwrap();
    let read = RecoveryKey::from_file(path).unwrap();
    keys.forget_next(holder, &read, &mut rng(77)).unwrap();
    read
}

#[test]
fn a_chain_ends_where_peers_take_no_longer_one() {
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
    let stranger = Oid::from_bytes([9; 16]);
    assert_eq!(keys.key_id(stranger), Err(UnknownIdentity(stranger)));
    assert!(matches!(
        keys.rotate(stranger, &mut rng(3)),
        Err(VaultError::UnknownIdentity(_))
    ));
}

#[test]
fn a_next_key_that_was_put_away_rotates_from_its_file_alone() {
    let (dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let recovery = put_away(&keys, alice, &dir.path().join("recovery"));
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
    // Once more does no harm.
    keys.forget_next(alice, &recovery, &mut rng(3)).unwrap();
    keys.rotate_with(alice, &recovery, &mut rng(3)).unwrap();
    let keys = reopened(&path);
    let chain = keys.identity_chain(alice).unwrap().verify().unwrap();
    assert_eq!(chain.current(), recovery.secret().public());
    let object = keys.sign_object(alice, vec![0x80]).unwrap();
    assert_eq!(object.verify(&chain.current()), Ok(()));
    // The key after it is here, and the used one is of no use any more.
    assert!(matches!(
        keys.rotate_with(alice, &recovery, &mut rng(4)),
        Err(VaultError::WrongRecoveryKey)
    ));
    keys.rotate(alice, &mut rng(4)).unwrap();
    assert_eq!(keys.key_id(alice), Ok(2));
}

#[test]
fn the_wrong_recovery_key_neither_rotates_nor_makes_a_key_forgotten() {
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
fn the_thief_of_vault_and_passphrase_cannot_rotate_and_the_owner_shuts_him_out() {
    let (dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let recovery = put_away(&keys, alice, &dir.path().join("recovery"));
    let stolen = dir.path().join("stolen");
    private_file::create(&stolen, &fs::read(&path).unwrap()).unwrap();
    let thief = reopened(&stolen);
    assert!(thief.rotate(alice, &mut rng(4)).is_err());
    // Not past the manager either: the current key signs an event that nobody takes.
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

/// A vault, and a copy of it as it was `rotations` rotations of its node's key ago.
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
fn a_node_from_an_older_backup_takes_up_the_rotation_that_peers_know() {
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
    // The key after it is in the newer vault alone.
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
fn rotations_beyond_the_keys_at_hand_are_lost_and_change_nothing() {
    let (_dir, newer, older) = older_copy(2);
    let (node, before) = (newer.server_oid(), older.node_chain());
    let caught_up = older
        .catch_up(node, &newer.node_chain(), &mut rng(3))
        .unwrap();
    assert_eq!((caught_up, older.node_chain()), (CaughtUp::Lost, before));
    // One rotation only, but its key was put away before.
    let (dir, newer, older) = older_copy(1);
    put_away(&older, node, &dir.path().join("recovery"));
    let caught_up = older
        .catch_up(node, &newer.node_chain(), &mut rng(3))
        .unwrap();
    assert_eq!((caught_up, older.key_id(node)), (CaughtUp::Lost, Ok(0)));
}

#[test]
fn a_chain_that_is_not_ours_is_not_followed() {
    let (dir, newer, older) = older_copy(1);
    let node = newer.server_oid();
    let catch_up = |keys: &KeyManager, chain: &KeyChain| keys.catch_up(node, chain, &mut rng(3));
    // What peers know is older than what is here.
    assert_eq!(
        catch_up(&newer, &older.node_chain()).unwrap(),
        CaughtUp::Same
    );
    // The same rotation done twice, each with a next key of its own, branches off.
    older.rotate(node, &mut rng(99)).unwrap();
    let copy = reopened(&dir.path().join("copy"));
    let stranger = KeyManager::generate(&mut rng(5)).node_chain();
    let mut broken = newer.node_chain();
    broken.events[0].signature = Signature::from_bytes([1; 64]);
    for chain in [&newer.node_chain(), &stranger, &broken] {
        let result = catch_up(&copy, chain);
        assert!(
            matches!(result, Err(VaultError::ForeignChain)),
            "{result:?}"
        );
    }
    assert_eq!(copy.node_chain(), older.node_chain());
}

#[test]
fn who_is_held_here_is_listed_with_the_node_first() {
    let (dir, _path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    keys.rotate(alice, &mut rng(3)).unwrap();
    put_away(&keys, alice, &dir.path().join("recovery"));
    let node = keys.server_oid();
    let current = |oid| {
        keys.identity_chain(oid)
            .unwrap_or(keys.node_chain())
            .verify()
            .unwrap()
            .current()
    };
    let expected = [(node, true, 0, true), (alice, false, 1, false)];
    let expected = expected.map(|(oid, is_node, key_id, next_is_here)| HolderInfo {
        oid,
        is_node,
        key_id,
        next_is_here,
        public: current(oid),
    });
    assert_eq!(keys.holders(), expected);
}

#[test]
fn a_change_that_could_not_be_saved_has_not_happened() {
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
    assert!(info.next_is_here && info.key_id == 0 && keys.onion() == onion);
}

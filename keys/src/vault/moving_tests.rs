//! Tests of identities that move between vaults, with real files.

use std::io::{Read as _, Write as _};
use std::path::Path;

use super::error::VaultError;
use super::manager::KeyManager;
use super::moving::{Handover, MoveFileKey};
use super::tests::{rng, vault, word};
use crate::backup::{BackupOpener, SealError};
use crate::ids::{Oid, PeerId};

fn reopened(path: &Path) -> KeyManager {
    KeyManager::open(path, &word("right")).unwrap()
}

/// The file of a moving identity, with some bytes after its keys.
fn file(keys: &KeyManager, identity: Oid, rest: &[u8]) -> Vec<u8> {
    let mut out = keys
        .move_sealer(&mut rng(9))
        .unwrap()
        .start(Vec::new())
        .unwrap();
    keys.hand_over(identity)
        .unwrap()
        .write_to(&mut out)
        .unwrap();
    out.write_all(rest).unwrap();
    out.finish().unwrap()
}

fn opened(file: &[u8]) -> (Handover, Vec<u8>) {
    let key = MoveFileKey::derive(file, &word("right")).unwrap();
    let key = MoveFileKey::from_hex(&key.to_hex()).unwrap();
    let mut stream = key.open(file).unwrap();
    let handover = Handover::read_from(&mut stream).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    (handover, rest)
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; PeerId::LEN])
}

#[test]
fn moving_identity_signs_nothing_and_its_key_changes_nothing() {
    let (_dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    keys.begin_move(alice, (peer(3), 2), &mut rng(3)).unwrap();
    for keys in [&keys, &reopened(&path)] {
        assert!(keys.sign_object(alice, vec![1]).is_err());
        assert!(keys.home_record(alice, 9).is_err());
        assert_eq!(
            (keys.identity_chain(alice), keys.identities()),
            (None, Vec::new())
        );
        assert!(keys.key_id(alice).is_err());
        for result in [
            keys.rotate(alice, &mut rng(4)),
            keys.recovery_key(alice).map(drop),
        ] {
            assert!(matches!(result, Err(VaultError::Moves(it)) if it == alice));
        }
        let [moving] = keys.moving().try_into().unwrap();
        assert_eq!(
            (moving.target, moving.counter, moving.key_id),
            (peer(3), 2, 1)
        );
        assert_eq!(keys.holders()[1].moves_to, Some(peer(3)));
    }
}

#[test]
fn event_is_made_once_and_another_target_raises_the_counter() {
    let (_dir, _path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let chain = |keys: &KeyManager| keys.hand_over(alice).unwrap().chain().clone();
    keys.begin_move(alice, (peer(3), 2), &mut rng(3)).unwrap();
    let first = chain(&keys);
    keys.begin_move(alice, (peer(3), 7), &mut rng(4)).unwrap();
    assert_eq!(keys.moving_identity(&alice).unwrap().counter, 2);
    keys.begin_move(alice, (peer(4), 2), &mut rng(5)).unwrap();
    let moving = keys.moving_identity(&alice).unwrap();
    assert_eq!((moving.target, moving.counter), (peer(4), 3));
    assert_eq!(chain(&keys), first);
    let node = keys.server_oid();
    assert!(keys.begin_move(node, (peer(3), 2), &mut rng(3)).is_err());
}

#[test]
fn keys_move_in_a_file_and_sign_at_the_new_node_only() {
    let (_dir, _path, old) = vault();
    let (_new_dir, new_path, new) = vault_at(77);
    let alice = old.add_identity(&mut rng(2)).unwrap();
    old.begin_move(alice, (new.peer_id(), 2), &mut rng(3))
        .unwrap();
    let (handover, rest) = opened(&file(&old, alice, b"objects"));
    assert_eq!(rest, b"objects");
    assert_eq!(handover.source(), old.peer_id());
    assert_eq!((handover.identity(), handover.counter()), (alice, 2));
    let refused = old.take_over(&handover, &mut rng(4)).unwrap_err();
    assert!(matches!(refused, VaultError::OtherTarget(it) if it == new.peer_id()));
    for _ in 0..2 {
        new.take_over(&handover, &mut rng(4)).unwrap();
    }
    let new = reopened(&new_path);
    assert_eq!(
        (new.identities(), new.arrival_counter(&alice)),
        (vec![alice], 2)
    );
    let signed = new.sign_object(alice, vec![1]).unwrap();
    let chain = new.identity_chain(alice).unwrap().verify().unwrap();
    assert_eq!(signed.key_id(), 1);
    signed.verify(&chain.current()).unwrap();
    // The key after it is here too.
    new.rotate(alice, &mut rng(5)).unwrap();
    new.take_over(&handover, &mut rng(6)).unwrap();
    assert_eq!(
        new.key_id(alice),
        Ok(2),
        "an earlier file takes nothing back"
    );
    assert!(old.forget_identity(alice, &mut rng(6)).unwrap());
    assert!(!old.forget_identity(alice, &mut rng(6)).unwrap());
    assert_eq!(old.moving(), Vec::new());
}

fn vault_at(seed: u64) -> (tempfile::TempDir, std::path::PathBuf, KeyManager) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault");
    let cost = crate::kdf::KdfCost::TEST;
    let keys = KeyManager::create(&path, &word("right"), cost, &mut rng(seed)).unwrap();
    (dir, path, keys)
}

#[test]
fn identity_can_move_to_the_node_that_it_leaves() {
    let (_dir, _path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    keys.begin_move(alice, (peer(3), 2), &mut rng(3)).unwrap();
    keys.begin_move(alice, (keys.peer_id(), 2), &mut rng(3))
        .unwrap();
    let (handover, _) = opened(&file(&keys, alice, b""));
    keys.take_over(&handover, &mut rng(4)).unwrap();
    assert_eq!(
        (keys.key_id(alice), keys.arrival_counter(&alice)),
        (Ok(1), 3)
    );
    assert_eq!(keys.moving(), Vec::new());
}

#[test]
fn file_of_a_move_is_no_backup_and_opens_with_its_own_key_only() {
    let (_dir, _path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    keys.begin_move(alice, (peer(3), 2), &mut rng(3)).unwrap();
    let moved = file(&keys, alice, b"");
    let backup = BackupOpener::open(&moved[..], &word("right"));
    assert!(matches!(backup, Err(SealError::NotABackup)));
    let sealed = keys.backup_sealer(&mut rng(1)).unwrap().start(Vec::new());
    let sealed = sealed.unwrap().finish().unwrap();
    let other = MoveFileKey::derive(&sealed[..], &word("right"));
    assert!(matches!(other, Err(SealError::NotAMove)));
    let wrong = MoveFileKey::derive(&moved[..], &word("wrong"));
    assert!(matches!(wrong, Err(SealError::WrongPassphrase)));
    assert!(matches!(MoveFileKey::from_hex("00"), Err(SealError::NoKey)));
    let wrong = MoveFileKey::from_hex(&"00".repeat(32)).unwrap();
    assert!(Handover::read_from(&mut wrong.open(&moved[..]).unwrap()).is_err());
    let mut own = keys.open_move(&moved[..]).unwrap();
    assert_eq!(Handover::read_from(&mut own).unwrap().identity(), alice);
    for length in 0..moved.len() {
        let cut = MoveFileKey::derive(&moved[..length], &word("right"));
        let read = cut.and_then(|key| key.open(&moved[..length]));
        let read = read.map(|mut stream| Handover::read_from(&mut stream).is_ok());
        assert!(!read.unwrap_or(false), "{length}");
        if length == 93 {
            break;
        }
    }
}

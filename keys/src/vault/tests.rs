//! Tests of the key manager with real files, at the lowest cost of Argon2id.

use super::error::{UnknownIdentity, VaultError};
use super::format::FILE_BYTES_MAX;
use super::manager::KeyManager;
use crate::ids::Oid;
use crate::kdf::{KdfCost, KdfError};
use crate::locked::MemoryLock;
use crate::onion_key::OnionKey;
use crate::passphrase::Passphrase;
use crate::private_file::FileError;
use crate::signing::{BadSignature, Context};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub(super) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(super) fn word(text: &str) -> Passphrase {
    Passphrase::from_string(text.into())
}

pub(super) fn vault() -> (tempfile::TempDir, PathBuf, KeyManager) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault");
    let keys = KeyManager::create(&path, &word("right"), KdfCost::TEST, &mut rng(1)).unwrap();
    (dir, path, keys)
}

#[test]
fn open_restores_everything_that_was_saved() {
    let (_dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let bob = keys.add_identity(&mut rng(3)).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let again = KeyManager::open(&path, &word("right")).unwrap();
    assert_eq!(again.peer_id(), keys.peer_id());
    assert_eq!(again.onion(), keys.onion());
    assert_eq!(again.server_oid(), again.node_chain().oid());
    assert_eq!(again.identities(), [alice, bob]);
    assert_eq!(again.identity_chain(alice), keys.identity_chain(alice));
    assert_eq!(again.identity_chain(keys.server_oid()), None);
    let secret = |keys: &KeyManager| keys.with_onion_secret(|secret| *secret);
    assert_eq!(secret(&again), secret(&keys));
    assert_eq!(
        (again.cost(), keys.cost()),
        (Some(KdfCost::TEST), Some(KdfCost::TEST))
    );
}

#[test]
fn open_and_create_report_each_fault_by_its_own_error() {
    let (_dir, path, _keys) = vault();
    let open = || KeyManager::open(&path, &word("right")).unwrap_err();
    assert!(matches!(
        KeyManager::open(&path, &word("wrong")),
        Err(VaultError::WrongPassphrase)
    ));
    assert!(matches!(
        KeyManager::open(&path, &word("")),
        Err(VaultError::Kdf(KdfError::EmptyPassphrase))
    ));
    assert!(matches!(
        KeyManager::create(&path, &word("right"), KdfCost::TEST, &mut rng(1)),
        Err(VaultError::File(FileError::AlreadyExists(_)))
    ));
    let good = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        open(),
        VaultError::File(FileError::LoosePermissions { .. })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &good[..100]).unwrap();
    assert!(matches!(open(), VaultError::Truncated));
    let mut newer = good.clone();
    newer[15] = 3;
    fs::write(&path, newer).unwrap();
    assert!(matches!(open(), VaultError::UnknownVersion(3)));
    let mut tampered = good.clone();
    let body = tampered.len() - 32;
    tampered[body - 1] ^= 1;
    let checksum = crate::ids::Digest::of(&tampered[..body]);
    tampered[body..].copy_from_slice(checksum.as_bytes());
    fs::write(&path, tampered).unwrap();
    assert!(matches!(open(), VaultError::Tampered));
    assert!(matches!(
        KeyManager::open(&path, &word("wrong")),
        Err(VaultError::WrongPassphrase)
    ));
    fs::write(&path, vec![b'x'; FILE_BYTES_MAX + 1]).unwrap();
    assert!(matches!(
        open(),
        VaultError::File(FileError::TooLong { .. })
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(), VaultError::File(FileError::NotFound(_))));
}

#[test]
fn key_manager_signs_as_node_onion_and_identity() {
    let keys = KeyManager::generate(&mut rng(1));
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let node = keys.node_chain().verify().unwrap();
    let signature = keys.sign_as_node(Context::Welcome, &[b"x"]);
    assert_eq!(
        node.current().verify(Context::Welcome, &[b"x"], &signature),
        Ok(())
    );
    let signature = keys.sign_as_onion(Context::OnionBinding, &[b"x"]);
    let onion = keys.onion();
    assert_eq!(
        onion
            .public_key()
            .verify(Context::OnionBinding, &[b"x"], &signature),
        Ok(())
    );
    let sign1 = keys.sign1_as_node(Context::Package, &[b"part"], b"payload");
    let sign1 = crate::cose::Sign1::parse(&sign1, 1024).unwrap();
    assert_eq!(
        sign1.verify(&node.current(), Context::Package, &[b"part"]),
        Ok(b"payload".to_vec())
    );

    let chain = keys.identity_chain(alice).unwrap().verify().unwrap();
    let object = keys.sign_object(alice, vec![0x80]).unwrap();
    assert_eq!(object.verify(&chain.current()), Ok(()));
    let object = keys.sign_object(keys.server_oid(), vec![0x80]).unwrap();
    assert_eq!(object.verify(&node.current()), Ok(()));
    let home = keys.home_record(alice, 7).unwrap().verify(&chain).unwrap();
    assert_eq!((home.node(), home.counter()), (keys.peer_id(), 7));

    let unknown = Oid::from_bytes([9; 16]);
    assert_eq!(
        keys.sign_object(unknown, vec![]),
        Err(UnknownIdentity(unknown))
    );
    // The node is not an identity, so it has no home record.
    assert_eq!(
        keys.home_record(keys.server_oid(), 1),
        Err(UnknownIdentity(keys.server_oid()))
    );
}

#[test]
fn rotation_keeps_the_oid_and_changes_the_key() {
    let (_dir, path, keys) = vault();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    let (peer, server) = (keys.peer_id(), keys.server_oid());
    let before = keys.identity_chain(alice).unwrap().verify().unwrap();
    keys.rotate(alice, &mut rng(3)).unwrap();
    keys.rotate(alice, &mut rng(4)).unwrap();
    keys.rotate(server, &mut rng(5)).unwrap();
    let keys = KeyManager::open(&path, &word("right")).unwrap();
    assert_eq!((keys.peer_id(), keys.server_oid()), (peer, server));
    let after = keys.identity_chain(alice).unwrap().verify().unwrap();
    assert_eq!((after.oid(), after.key_id()), (alice, 2));
    let object = keys.sign_object(alice, vec![0x80]).unwrap();
    assert_eq!(
        (object.key_id(), object.verify(&after.current())),
        (2, Ok(()))
    );
    assert_eq!(object.verify(&before.current()), Err(BadSignature));
    let home = keys.home_record(alice, 1).unwrap().verify(&after).unwrap();
    assert_eq!(home.node(), peer);
}

#[test]
fn failed_save_adds_no_identity_and_no_event() {
    let (dir, path, keys) = vault();
    let blocked = dir.path().join("vault.new");
    fs::create_dir(&blocked).unwrap();
    assert!(keys.add_identity(&mut rng(2)).is_err());
    assert!(keys.rotate(keys.server_oid(), &mut rng(2)).is_err());
    assert_eq!(keys.identities(), []);
    assert_eq!(keys.node_chain().events, []);
    fs::remove_dir(blocked).unwrap();
    let alice = keys.add_identity(&mut rng(2)).unwrap();
    assert_eq!(
        KeyManager::open(&path, &word("right"))
            .unwrap()
            .identities(),
        [alice]
    );
}

#[test]
fn save_refuses_to_overwrite_the_keys_of_another_process() {
    let (_dir, path, keys) = vault();
    let other = KeyManager::open(&path, &word("right")).unwrap();
    let alice = other.add_identity(&mut rng(2)).unwrap();
    assert!(matches!(
        keys.add_identity(&mut rng(3)),
        Err(VaultError::ChangedMeanwhile)
    ));
    assert_eq!(
        KeyManager::open(&path, &word("right"))
            .unwrap()
            .identities(),
        [alice]
    );
}

#[test]
fn changed_passphrase_opens_and_the_old_one_does_not() {
    let (_dir, path, keys) = vault();
    let cost = KdfCost {
        passes: 2,
        ..KdfCost::TEST
    };
    keys.change_passphrase(&word("other"), cost, &mut rng(2))
        .unwrap();
    let alice = keys.add_identity(&mut rng(3)).unwrap();
    assert!(matches!(
        KeyManager::open(&path, &word("right")),
        Err(VaultError::WrongPassphrase)
    ));
    assert_eq!(
        KeyManager::open(&path, &word("other"))
            .unwrap()
            .identities(),
        [alice]
    );
}

#[test]
fn save_uses_a_new_nonce_and_exposes_no_secret_in_file_or_debug_output() {
    let (_dir, path, keys) = vault();
    let first = fs::read(&path).unwrap();
    keys.add_identity(&mut rng(2)).unwrap();
    let second = fs::read(&path).unwrap();
    assert_eq!(first[28..60], second[28..60]);
    assert_ne!(first[60..84], second[60..84]);
    let seed = keys.with_onion_secret(|secret| *secret);
    assert!(
        !second
            .windows(8)
            .any(|window| seed.windows(8).any(|part| part == window))
    );
    let debug = format!("{keys:?}");
    assert!(
        debug.len() < 40 && debug.starts_with("KeyManager("),
        "{debug}"
    );
}

#[test]
fn memory_reports_locked_or_the_reason() {
    let (_dir, _path, keys) = vault();
    match keys.memory() {
        MemoryLock::Locked => {}
        MemoryLock::NotLocked(reason) => assert!(!reason.is_empty()),
    }
    assert_eq!(KeyManager::generate(&mut rng(1)).cost(), None);
}

#[test]
fn exported_onion_key_can_be_imported_again() {
    let (dir, path, keys) = vault();
    let folder = dir.path().join("service");
    let (old, ticket) = (keys.onion(), keys.ticket_key());
    keys.export_onion(&folder).unwrap();
    keys.import_onion(OnionKey::generate(&mut rng(9)), &mut rng(2))
        .unwrap();
    let keys = KeyManager::open(&path, &word("right")).unwrap();
    assert_ne!(keys.onion(), old);
    let sealed = ticket.seal(b"", b"ticket", &mut rng(3));
    assert!(keys.ticket_key().open(b"", &sealed).is_err());
    keys.import_onion(OnionKey::from_tor_folder(&folder).unwrap(), &mut rng(4))
        .unwrap();
    let keys = KeyManager::open(&path, &word("right")).unwrap();
    assert_eq!(keys.onion(), old);
    assert_eq!(keys.ticket_key().open(b"", &sealed).unwrap(), b"ticket");
    let signature = keys.sign_as_onion(Context::OnionBinding, &[b"x"]);
    let public = old.public_key();
    assert_eq!(
        public.verify(Context::OnionBinding, &[b"x"], &signature),
        Ok(())
    );
}

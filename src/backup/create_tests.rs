//! Backups that the disk or another process changes before they have their name.

use std::io::{Seek as _, SeekFrom};
use std::ops::ControlFlow;

use keys::{KdfCost, Passphrase};

use super::*;
use crate::node::init;

/// A node, and the content of its backup.
struct Made {
    parent: tempfile::TempDir,
    keys: KeyManager,
    manifest: Manifest,
    parts: Vec<SmallFile>,
    snapshot: PathBuf,
}

impl Made {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::from_string("correct horse".into());
        let made = init(
            &parent.path().join("node"),
            None,
            &passphrase,
            KdfCost::TEST,
        )
        .unwrap();
        let config = Config::load(&made.config).unwrap();
        let data = DataDir::of(&config);
        let keys = KeyManager::open(&data.keys(), &passphrase).unwrap();
        let snapshot = parent.path().join("snapshot");
        store::snapshot(&data.database(), &snapshot).unwrap();
        let parts = gather(&config, &data).unwrap();
        let manifest = manifest(Timestamp(7), &keys, &parts, length(&snapshot).unwrap());
        Self {
            parent,
            keys,
            manifest,
            parts,
            snapshot,
        }
    }

    fn sealed(&self) -> PathBuf {
        let backup = self.parent.path().join("unnamed");
        let _ = fs::remove_file(&backup);
        let mut on_progress = |_| ControlFlow::Continue(());
        seal(
            &backup,
            &self.keys,
            &self.manifest,
            &self.parts,
            &self.snapshot,
            &mut on_progress,
        )
        .unwrap();
        backup
    }

    fn verify(&self, backup: &Path) -> Result<(), CreateBackupError> {
        let mut on_progress = |_| ControlFlow::Continue(());
        verify(
            backup,
            &self.keys,
            &self.manifest,
            &self.parts,
            &self.snapshot,
            &mut on_progress,
        )
    }
}

fn overwrite(path: &Path, position: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(position)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn verify_refuses_a_file_that_the_disk_changed() {
    let made = Made::new();
    let backup = made.sealed();
    made.verify(&backup).unwrap();
    let bytes = length(&backup).unwrap();
    for position in [0, 20, 50, 200, bytes / 2, bytes - 1] {
        let backup = made.sealed();
        overwrite(&backup, position, b"\0\xff\0");
        assert!(
            made.verify(&backup).is_err(),
            "changed at {position} of {bytes}"
        );
    }
    let backup = made.sealed();
    File::options()
        .write(true)
        .open(&backup)
        .unwrap()
        .set_len(bytes - 1)
        .unwrap();
    assert!(made.verify(&backup).is_err());
}

#[test]
fn verify_refuses_a_valid_backup_of_other_content() {
    let mut made = Made::new();
    let backup = made.sealed();
    overwrite(&made.snapshot, 5000, b"another byte");
    assert!(
        matches!(made.verify(&backup), Err(CreateBackupError::Differs(name)) if name == DATABASE)
    );
    let backup = made.sealed();
    made.verify(&backup).unwrap();
    made.parts[1].bytes[40] ^= 1;
    assert!(matches!(made.verify(&backup), Err(CreateBackupError::Differs(name)) if name == KEYS));
    made.parts[1].bytes[40] ^= 1;
    made.manifest.created_ms += 1;
    assert!(matches!(
        made.verify(&backup),
        Err(CreateBackupError::Differs(_))
    ));
}

#[test]
fn publish_does_not_overwrite_a_file_made_meanwhile() {
    let made = Made::new();
    let (backup, out) = (made.sealed(), made.parent.path().join("out"));
    fs::write(&out, "mine").unwrap();
    assert!(matches!(
        publish(&backup, &out),
        Err(CreateBackupError::Exists(_))
    ));
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

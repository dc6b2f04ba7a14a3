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
        let draft = self.parent.path().join("draft");
        let _ = fs::remove_file(&draft);
        let mut on_progress = |_| ControlFlow::Continue(());
        seal(
            &draft,
            &self.keys,
            &self.manifest,
            &self.parts,
            &self.snapshot,
            &mut on_progress,
        )
        .unwrap();
        draft
    }

    fn verify(&self, draft: &Path) -> Result<(), CreateBackupError> {
        let mut on_progress = |_| ControlFlow::Continue(());
        verify(
            draft,
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
    let draft = made.sealed();
    made.verify(&draft).unwrap();
    let bytes = length(&draft).unwrap();
    for position in [0, 20, 50, 200, bytes / 2, bytes - 1] {
        let draft = made.sealed();
        overwrite(&draft, position, b"\0\xff\0");
        assert!(
            made.verify(&draft).is_err(),
            "changed at {position} of {bytes}"
        );
    }
    let draft = made.sealed();
    File::options()
        .write(true)
        .open(&draft)
        .unwrap()
        .set_len(bytes - 1)
        .unwrap();
    assert!(made.verify(&draft).is_err());
}

#[test]
fn verify_refuses_a_valid_backup_of_other_content() {
    let mut made = Made::new();
    let draft = made.sealed();
    overwrite(&made.snapshot, 5000, b"another byte");
    assert!(
        matches!(made.verify(&draft), Err(CreateBackupError::Differs(name)) if name == DATABASE)
    );
    let draft = made.sealed();
    made.verify(&draft).unwrap();
    made.parts[1].bytes[40] ^= 1;
    assert!(matches!(made.verify(&draft), Err(CreateBackupError::Differs(name)) if name == KEYS));
    made.parts[1].bytes[40] ^= 1;
    made.manifest.created_ms += 1;
    assert!(matches!(
        made.verify(&draft),
        Err(CreateBackupError::Differs(_))
    ));
}

#[test]
fn publish_does_not_overwrite_a_file_made_meanwhile() {
    let made = Made::new();
    let (draft, out) = (made.sealed(), made.parent.path().join("out"));
    fs::write(&out, "mine").unwrap();
    assert!(matches!(
        publish(&draft, &out),
        Err(CreateBackupError::Exists(_))
    ));
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

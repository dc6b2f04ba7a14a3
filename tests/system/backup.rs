//! Backup and restore without the program: one sealed file, made while the node writes.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keys::{ApiToken, KdfCost, KeyManager, Oid, Passphrase};
use postern::backup::{
    self, BackedUp, BackupProgress, BackupStep, Cancelled, CreateBackupError, RestoreError,
};
use postern::config::Config;
use postern::data_dir::{DataDir, StagingError};
use postern::node;
use postern::op_context::Timestamp;
use postern::schema::Schemas;
use postern::services::identities::{self, IdentityError};
use postern::state_engine::{CoreLimits, StateEngine};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn passphrase() -> Passphrase {
    Passphrase::from_string("correct horse".into())
}

/// A folder with a node in it.
struct Folder {
    parent: TempDir,
}

impl Folder {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        node::init(
            &parent.path().join("node"),
            Some("Alice"),
            &passphrase(),
            KdfCost::TEST,
        )
        .unwrap();
        Self { parent }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    fn backup(&self, out: &Path) -> Result<BackedUp, CreateBackupError> {
        self.backup_heard(out, &mut |_| ControlFlow::Continue(()))
    }

    fn backup_heard(
        &self,
        out: &Path,
        hear: &mut dyn FnMut(BackupProgress) -> ControlFlow<()>,
    ) -> Result<BackedUp, CreateBackupError> {
        let path = self.at("node").join("postern.toml");
        let config = Config::load(&path).unwrap();
        let keys = KeyManager::open(&DataDir::of(&config).keys(), &passphrase()).unwrap();
        backup::create(&config, &keys, out, hear)
    }

    /// File names beside the node and in its folder, to find files left behind.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = [self.parent.path().to_owned(), self.at("node")]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn restore(file: &Path, folder: &Path) -> Result<backup::Restored, RestoreError> {
    backup::restore(file, folder, &passphrase(), &mut |_| {
        ControlFlow::Continue(())
    })
}

fn core(folder: &Path) -> StateEngine {
    let config = Config::load(&folder.join("postern.toml")).unwrap();
    let data = DataDir::of(&config);
    let keys = Arc::new(KeyManager::open(&data.keys(), &passphrase()).unwrap());
    let schemas =
        Arc::new(Schemas::load(&config.node.apps, config.schema_dir().as_deref()).unwrap());
    let rng = Box::new(ChaCha20Rng::from_seed([1; 32]));
    StateEngine::open(
        &data.database(),
        schemas,
        keys,
        CoreLimits::default(),
        rng,
        NOW,
    )
    .unwrap()
}

fn add_identity(core: &mut StateEngine, name: &str) -> Oid {
    let keys = core.context().keys.clone();
    let oid = keys
        .add_identity(&mut ChaCha20Rng::from_rng(&mut rand::rng()))
        .unwrap();
    core.write(NOW, |graph| {
        identities::publish(graph, oid, Some(name)).map(drop)
    })
    .map_err(|error: IdentityError| error)
    .unwrap();
    oid
}

fn names_here(core: &StateEngine) -> Vec<String> {
    let known = identities::known(&core.view()).unwrap();
    let mut names: Vec<_> = known
        .iter()
        .filter_map(|card| card.person.shown_claim())
        .collect();
    names.sort();
    names
}

#[test]
fn backup_beside_a_writer_restores_every_earlier_commit() {
    let folder = Folder::new();
    let (file, elsewhere) = (folder.at("backup"), folder.at("elsewhere"));
    let epoch = core(&folder.at("node")).context().epoch;
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut core = core(&folder.at("node"));
            // Fewer identities than a vault holds.
            for number in 0..400 {
                add_identity(&mut core, &format!("name {number:06}"));
                written.store(number + 1, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        while written.load(Ordering::SeqCst) < 20 {
            std::thread::yield_now();
        }
        let before = written.load(Ordering::SeqCst);
        folder.backup(&file).unwrap();
        // The writer wrote during the backup.
        let after = written.load(Ordering::SeqCst);
        stop.store(true, Ordering::SeqCst);
        assert!(after >= before);
        before
    });
    let restored = restore(&file, &elsewhere).unwrap();
    let (here, there) = (core(&folder.at("node")), core(&elsewhere));
    assert_eq!(restored.peer_id, here.context().keys.peer_id());
    assert_eq!(restored.onion, here.context().keys.onion());
    assert_ne!(
        there.context().epoch,
        epoch,
        "cursors of the old database mean nothing in the new one"
    );
    let names = names_here(&there);
    for number in 0..before {
        assert!(
            names.contains(&format!("name {number:06}")),
            "{number} of {before}"
        );
    }
    // Every identity in the database has its keys in the vault.
    let held = there.context().keys.identities();
    let known = identities::known(&there.view()).unwrap();
    assert!(
        known
            .iter()
            .filter(|card| card.is_local)
            .all(|card| held.contains(&card.person.oid))
    );
    assert_eq!(
        known.iter().filter(|card| card.is_local).count(),
        names.len()
    );
}

/// Otherwise the keys of an identity that is created in between would be lost.
#[test]
fn backup_reads_the_vault_after_the_database() {
    let folder = Folder::new();
    let (file, elsewhere) = (folder.at("backup"), folder.at("elsewhere"));
    let mut late = None;
    let done = folder.backup_heard(&file, &mut |progress| {
        if progress.step == BackupStep::Copying && progress.done_bytes > 0 {
            late = Some(add_identity(&mut core(&folder.at("node")), "Late"));
        }
        ControlFlow::Continue(())
    });
    done.unwrap();
    restore(&file, &elsewhere).unwrap();
    let there = core(&elsewhere);
    assert!(there.context().keys.identities().contains(&late.unwrap()));
    assert_eq!(names_here(&there), ["Alice"]);
}

#[test]
fn restored_node_has_a_new_token() {
    let folder = Folder::new();
    let (file, elsewhere) = (folder.at("backup"), folder.at("elsewhere"));
    folder.backup(&file).unwrap();
    restore(&file, &elsewhere).unwrap();
    let token = |folder: &Path| ApiToken::read(&DataDir::at(folder).token()).unwrap().hash();
    let (old, new) = (token(&folder.at("node")), token(&elsewhere));
    let there = core(&elsewhere);
    assert_ne!(old, new);
    assert!(there.view().rows.has_token(&new).unwrap());
    assert!(
        !there.view().rows.has_token(&old).unwrap(),
        "the token of the old node is invalid"
    );
}

#[test]
fn backup_leaves_no_temporary_file_and_overwrites_nothing() {
    let folder = Folder::new();
    let before = folder.names();
    let file = folder.at("backup");
    // Temporary files of a killed backup.
    fs::write(folder.at("node").join("postern.db.backup"), "half").unwrap();
    fs::write(folder.at("backup.new"), "another file").unwrap();
    assert!(
        matches!(folder.backup(&file), Err(CreateBackupError::Exists(_))),
        "a file of another program is kept"
    );
    fs::write(folder.at("backup.new"), "postern-backup\nhalf").unwrap();
    let done = folder.backup(&file).unwrap();
    assert_eq!(
        (&done.path, done.bytes),
        (&file, fs::metadata(&file).unwrap().len())
    );
    let mut expected = before.clone();
    expected.push("backup".into());
    expected.sort();
    assert_eq!(folder.names(), expected);
    let bytes = fs::read(&file).unwrap();
    assert!(matches!(
        folder.backup(&file),
        Err(CreateBackupError::Exists(_))
    ));
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(matches!(
        folder.backup(&folder.at("none/backup")),
        Err(CreateBackupError::NoName(_))
    ));
    assert_eq!(folder.names(), expected);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn stopped_backup_leaves_no_file() {
    let folder = Folder::new();
    let before = folder.names();
    for stop_at in [
        BackupStep::Copying,
        BackupStep::Sealing,
        BackupStep::Verifying,
    ] {
        let done = folder.backup_heard(&folder.at("backup"), &mut |progress| {
            if progress.step == stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(
            matches!(done, Err(CreateBackupError::Cancelled(Cancelled))),
            "{stop_at:?}: {done:?}"
        );
        assert_eq!(folder.names(), before, "{stop_at:?}");
    }
}

#[test]
fn restore_refuses_cut_or_changed_files_and_wrong_passphrases() {
    let folder = Folder::new();
    let (file, elsewhere) = (folder.at("backup"), folder.at("elsewhere"));
    folder.backup(&file).unwrap();
    let whole = fs::read(&file).unwrap();
    let names = folder.names();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        assert!(restore(&file, &elsewhere).is_err(), "{what}");
        assert_eq!(folder.names(), names, "{what}: something was left behind");
    };
    for parts in 1..16 {
        let place = whole.len() * parts / 16;
        refused(&whole[..place], &format!("cut at {place}"));
        let mut changed = whole.clone();
        changed[place] ^= 1;
        refused(&changed, &format!("changed at {place}"));
    }
    refused(&whole[..whole.len() - 1], "one byte short");
    refused(&[&*whole, b"x"].concat(), "one byte long");
    refused(b"", "empty");
    fs::write(&file, &whole).unwrap();
    let other = Passphrase::from_string("correct hors".into());
    let wrong = backup::restore(
        &file,
        &elsewhere,
        &other,
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(
        wrong,
        Err(RestoreError::Backup(keys::SealError::WrongPassphrase))
    ));
    assert_eq!(folder.names(), names);
    restore(&file, &elsewhere).unwrap();
}

#[test]
fn restore_refuses_a_folder_that_is_not_empty() {
    let folder = Folder::new();
    let file = folder.at("backup");
    folder.backup(&file).unwrap();
    let full = folder.at("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "x").unwrap();
    assert!(matches!(
        restore(&file, &full),
        Err(RestoreError::Folder(StagingError::NotEmpty(_)))
    ));
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    let empty = folder.at("empty");
    fs::create_dir(&empty).unwrap();
    restore(&file, &empty).unwrap();
    core(&empty);
}

#[test]
fn restore_brings_own_schemas_and_moves_outside_folders_in() {
    let folder = Folder::new();
    let (file, outside) = (folder.at("backup"), folder.at("outside"));
    let own = "slug = \"notes\"\nversion = 1\n";
    fs::create_dir(&outside).unwrap();
    let config = folder.at("node").join("postern.toml");
    let text = format!("[node]\nschema_dir = {:?}\n", outside.display().to_string());
    fs::write(&config, text).unwrap();
    // The text of a built-in schema, because the file must be a valid schema.
    let built_in = include_str!("../../src/schema/apps/market.toml");
    let own = if built_in.contains("market") {
        built_in.replace("market", "bazaar")
    } else {
        own.into()
    };
    fs::write(outside.join("bazaar.toml"), &own).unwrap();
    fs::write(outside.join("notes.txt"), "not a schema").unwrap();
    folder.backup(&file).unwrap();
    let elsewhere = folder.at("elsewhere");
    let restored = restore(&file, &elsewhere).unwrap();
    assert_eq!(restored.changed, ["schema_dir"]);
    assert_eq!(
        fs::read_to_string(elsewhere.join("schemas/bazaar.toml")).unwrap(),
        own
    );
    assert!(!elsewhere.join("schemas/notes.txt").exists());
    core(&elsewhere);
    // A file name that no backup accepts.
    fs::write(outside.join("a:b.toml"), &own).unwrap();
    assert!(matches!(
        folder.backup(&folder.at("other")),
        Err(CreateBackupError::Unfit(_))
    ));
}

#[test]
fn backup_refuses_a_node_that_restore_would_refuse() {
    let folder = Folder::new();
    let path = folder.at("node").join("postern.toml");
    let config = Config::load(&path).unwrap();
    let keys = KeyManager::open(&DataDir::of(&config).keys(), &passphrase()).unwrap();
    fs::create_dir(folder.at("node").join("own")).unwrap();
    let before = folder.names();
    // Configuration files that were edited since the node started.
    let after = |text: &str, name: &str| {
        fs::write(&path, text).unwrap();
        backup::create(&config, &keys, &folder.at(name), &mut |_| {
            ControlFlow::Continue(())
        })
    };
    let apps = "[node]\napps = [\"identities\", \"mine\"]\nschema_dir = \"own\"\n";
    assert!(matches!(
        after(apps, "backup"),
        Err(CreateBackupError::Schemas(_))
    ));
    let outside = "node = { data_dir = \"/elsewhere\" }\n";
    assert!(matches!(
        after(outside, "backup"),
        Err(CreateBackupError::Layout(_))
    ));
    let nonsense = "[node]\nnonsense = 1\n";
    assert!(matches!(
        after(nonsense, "backup"),
        Err(CreateBackupError::Config(_))
    ));
    assert!(matches!(
        after("", "backup.new"),
        Err(CreateBackupError::Reserved(_))
    ));
    assert_eq!(folder.names(), before);
    after("", "backup").unwrap();
}

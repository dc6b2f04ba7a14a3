//! `postern restore`: makes a node's folder from a backup.
//!
//! The files are written and checked in a staged folder (`src/data_dir/staging.rs`), which becomes
//! the final one when it is complete. The restored node gets a new API token. A recovery begins,
//! because the original node may have continued after the backup. Objects that may be older than
//! the peers' copies wait until the peers were asked (docs/DECISIONS.md 5). Invariant: a folder
//! that has its final name holds a node that starts. Tested in `tests/system/backup.rs`,
//! `tests/net/restore.rs` and `tests/system/crash.rs`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::vault::VaultError;
use keys::{ApiToken, BackupOpener, KeyManager, OnionAddr, Passphrase, PeerId, crash_point};
use rand::SeedableRng as _;

use super::archive::{self, ArchiveError, CHUNK_BYTES, CONFIG, DATABASE, KEYS, Part, SCHEMAS};
use super::layout::{Layout, LayoutError};
use super::progress::{
    BackupProgressFn, BackupStep, Cancelled, ProgressReader, is_cancelled, report,
};
use crate::clock::SystemClock;
use crate::config::{Config, FILE_NAME};
use crate::core_limits::core_limits;
use crate::data_dir::{
    DataDir, OPERATOR_LABEL, StagedDir, StagingError, StagingKind, check_free, create_new, files,
    sync_folder, write_new,
};
use crate::engine::Clock as _;
use crate::op_context::Timestamp;
use crate::schema::{SchemaError, Schemas};
use crate::state_engine::StateEngine;
use crate::store::{self, EpochReason, StoreError};

/// A node that was restored and has not run yet.
#[derive(Debug)]
pub struct Restored {
    /// The folder.
    pub folder: PathBuf,
    /// The configuration file in it.
    pub config: PathBuf,
    /// The node's identity in the protocol.
    pub peer_id: PeerId,
    /// The address of its onion service.
    pub onion: OnionAddr,
    /// The number of identities in its vault.
    pub identities: usize,
    /// Time of the backup. Later writes are not in the database.
    pub created: Timestamp,
    /// Length of the database, in bytes.
    pub database_bytes: u64,
    /// Keys of the configuration's table `[node]` that led out of the folder and were changed.
    pub changed: Vec<&'static str>,
    /// The passphrase file that the configuration names, where it does not exist. A backup does not
    /// contain it.
    pub passphrase_file_missing: Option<PathBuf>,
}

/// The cause for which nothing was restored. No file remains.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder is not free, or a file in it cannot be written.
    #[error(transparent)]
    Folder(#[from] StagingError),
    /// The backup file cannot be opened.
    #[error("{path}: cannot open the backup file")]
    File {
        /// The backup file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The file is not a backup, or the passphrase is not the one that the vault had then.
    #[error("cannot open the backup")]
    Backup(#[from] keys::SealError),
    /// The backup was changed or truncated, or breaks a rule of the format.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The configuration in the backup is invalid or leads out of the folder.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The vault in the backup does not open.
    #[error("the vault in the backup does not open")]
    Vault(#[from] VaultError),
    /// The vault belongs to another node than the manifest names.
    #[error("the vault in the backup is another node's")]
    OtherNode,
    /// The database in the backup is corrupt or does not open.
    #[error("cannot use the database in the backup")]
    Store(#[from] StoreError),
    /// A schema file in the backup is invalid.
    #[error("the apps in the backup do not load")]
    Schemas(#[from] SchemaError),
    /// The file of the new token cannot be written.
    #[error("cannot write the API token")]
    Token(#[source] keys::FileError),
    /// The caller cancelled the restore.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Makes a node in `folder` from the backup `file`. `passphrase` is the one that the vault had when
/// the backup was made. Blocks until the node is complete.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    file: &Path,
    folder: &Path,
    passphrase: &Passphrase,
    on_progress: &mut BackupProgressFn<'_>,
) -> Result<Restored, RestoreError> {
    check_free(folder)?;
    let cannot = |source| RestoreError::File {
        path: file.to_owned(),
        source,
    };
    let sealed = File::open(file).map_err(cannot)?;
    // Opened before the folder is staged, so that a wrong passphrase leaves no file.
    let opened = BackupOpener::open(BufReader::with_capacity(CHUNK_BYTES, sealed), passphrase)?;
    let staged = StagedDir::create(folder, StagingKind::Restore)?;
    let mut unpacking = Unpacking {
        staged: staged.path(),
        layout: None,
    };
    let manifest = archive::read(opened, |_, part, reader| {
        unpacking.take(part, reader, on_progress)
    })?;
    let layout = unpacking.layout.ok_or_else(no_config)?;
    crash_point("restore: unpacked");
    let data = DataDir::at(&layout.data());
    let database_bytes = fs::metadata(data.database())
        .map_err(files("read the length of", &data.database()))?
        .len();
    report(on_progress, BackupStep::Checking, 0, database_bytes)?;
    store::check_whole(&data.database())?;
    let keys = Arc::new(KeyManager::open(&data.keys(), passphrase)?);
    if keys.peer_id().to_hex() != manifest.peer_id {
        return Err(RestoreError::OtherNode);
    }
    make_distinct(&layout, &data, keys.clone())?;
    for within in [layout.schemas(), Some(layout.data())]
        .into_iter()
        .flatten()
    {
        sync_below(staged.path(), &within)?;
    }
    staged.publish()?;
    Ok(Restored {
        folder: folder.to_owned(),
        config: folder.join(FILE_NAME),
        peer_id: keys.peer_id(),
        onion: keys.onion(),
        identities: keys.identities().len(),
        created: Timestamp(manifest.created_ms),
        database_bytes,
        changed: layout.changed,
        passphrase_file_missing: missing_passphrase_file(&layout.config, folder),
    })
}

/// Writes the files of the stream into the staged folder.
struct Unpacking<'d> {
    staged: &'d Path,
    /// Set by the configuration, which is the first file.
    layout: Option<Layout>,
}

impl Unpacking<'_> {
    fn take(
        &mut self,
        part: &Part,
        reader: &mut dyn Read,
        on_progress: &mut BackupProgressFn<'_>,
    ) -> Result<(), RestoreError> {
        if part.name == CONFIG {
            let bytes = archive::read_small(reader)?;
            let layout = Layout::of(&String::from_utf8_lossy(&bytes), self.staged)?;
            make_folder(&layout.data())?;
            write_new(&self.staged.join(FILE_NAME), layout.text.as_bytes())?;
            self.layout = Some(layout);
            crash_point("restore: config written");
            return Ok(());
        }
        let layout = self.layout.as_ref().ok_or_else(no_config)?;
        let data = DataDir::at(&layout.data());
        match part.name.as_str() {
            KEYS => write_new(&data.keys(), &archive::read_small(reader)?)?,
            DATABASE => {
                let mut reading =
                    ProgressReader::new(reader, on_progress, BackupStep::Unpacking, part.bytes);
                copy(&mut reading, &data.database())?;
            }
            name => {
                let folder = layout.schemas().ok_or_else(|| {
                    ArchiveError::Content(
                        "schema files, and a configuration without schema_dir".into(),
                    )
                })?;
                make_folder(&folder)?;
                let name = name.strip_prefix(SCHEMAS).unwrap_or(name);
                write_new(&folder.join(name), &archive::read_small(reader)?)?;
            }
        }
        crash_point("restore: file written");
        Ok(())
    }
}

fn no_config() -> RestoreError {
    ArchiveError::Content("its configuration is not the first file".into()).into()
}

fn make_folder(folder: &Path) -> Result<(), StagingError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(files("make the folder", folder))
}

fn copy(reader: &mut dyn Read, path: &Path) -> Result<(), RestoreError> {
    let mut file = create_new(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if is_cancelled(&error) => return Err(Cancelled.into()),
            Err(error) => return Err(ArchiveError::Stream("read the backup", error).into()),
        };
        let chunk = buffer.get(..count).unwrap_or_default();
        file.write_all(chunk).map_err(files("write", path))?;
    }
    file.sync_all().map_err(files("write", path))?;
    Ok(())
}

/// Makes the restored node distinct from the original: gives it another API token, and begins a
/// recovery.
fn make_distinct(
    layout: &Layout,
    data: &DataDir,
    keys: Arc<KeyManager>,
) -> Result<(), RestoreError> {
    let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    let token = ApiToken::generate(&mut rng);
    token
        .write_new(&data.token())
        .map_err(RestoreError::Token)?;
    crash_point("restore: token written");
    let schemas = Arc::new(Schemas::load(
        &layout.config.node.apps,
        layout.schemas().as_deref(),
    )?);
    let now = SystemClock.now();
    let limits = core_limits(&layout.config);
    let mut core = StateEngine::open(&data.database(), schemas, keys, limits, Box::new(rng), now)?;
    core.write(now, |graph| {
        graph.tx().remove_tokens(OPERATOR_LABEL)?;
        graph.tx().put_token(&token.hash(), OPERATOR_LABEL, now)
    })?;
    crash_point("restore: token noted");
    core.start_recovery(EpochReason::Restored, now)?;
    crash_point("restore: recovery begun");
    Ok(())
}

/// Syncs `folder` and the folders above it, up to `staged`.
fn sync_below(staged: &Path, folder: &Path) -> Result<(), StagingError> {
    for folder in folder.ancestors().take_while(|folder| *folder != staged) {
        if folder.is_dir() {
            sync_folder(folder)?;
        }
    }
    Ok(())
}

fn missing_passphrase_file(config: &Config, folder: &Path) -> Option<PathBuf> {
    let named = config.node.passphrase_file.as_ref()?;
    let path = folder.join(named);
    (!path.is_file()).then_some(path)
}

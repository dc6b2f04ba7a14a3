//! `postern restore`: a node's folder out of a backup.
//!
//! Everything is laid out and checked in a draft (`src/data_dir/staging.rs`) that becomes the folder when it is whole. Never writes
//! outside of it, never takes over a token, never lets the restored node go on where the old one may have gone on too: it
//! begins a recovery, so that what may be older than what peers have waits until they were asked. Invariant: a folder
//! that has its name holds a node that starts.

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
use super::progress::{BackupStep, Cancelled, ProgressFn, ProgressReader, is_cancelled, report};
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

/// A node that was restored. It has not run yet.
#[derive(Debug)]
pub struct Restored {
    /// The folder.
    pub folder: PathBuf,
    /// The config file in it.
    pub config: PathBuf,
    /// The node's name in the protocol.
    pub peer_id: PeerId,
    /// Where it will be reached.
    pub onion: OnionAddr,
    /// How many identities live there.
    pub identities: usize,
    /// When the backup was made: what was written later is not here.
    pub created: Timestamp,
    /// Length of the database.
    pub database_bytes: u64,
    /// Keys of the config's table `[node]` that led out of the folder and were changed.
    pub changed: Vec<&'static str>,
    /// The passphrase's file that the config names and that is not there: it was not in the backup.
    pub passphrase_file_missing: Option<PathBuf>,
}

/// Why nothing was restored. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder, or a file in it.
    #[error(transparent)]
    Folder(#[from] StagingError),
    /// The backup cannot be opened.
    #[error("{path}: cannot open it")]
    File {
        /// The backup.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no backup, or the passphrase is not the one of its time.
    #[error("cannot open the backup")]
    Backup(#[from] keys::BackupError),
    /// It was changed, is cut short, or does not hold what a backup holds.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its config.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its vault.
    #[error("the vault in the backup does not open")]
    Vault(#[from] VaultError),
    /// The vault is not that of the node that the backup names.
    #[error("the vault in the backup is another node's")]
    OtherNode,
    /// Its database.
    #[error("the database in the backup")]
    Store(#[from] StoreError),
    /// Its apps.
    #[error("the apps in the backup do not load")]
    Schemas(#[from] SchemaError),
    /// The new token's file.
    #[error("cannot write the API token")]
    Token(#[source] keys::FileError),
    /// Whoever hears said stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Makes a node in `folder` out of the backup `file`. The passphrase is the one that the vault had when it was made.
/// Blocks for as long as it takes.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    file: &Path,
    folder: &Path,
    passphrase: &Passphrase,
    on_progress: &mut ProgressFn<'_>,
) -> Result<Restored, RestoreError> {
    check_free(folder)?;
    let cannot = |source| RestoreError::File {
        path: file.to_owned(),
        source,
    };
    let sealed = File::open(file).map_err(cannot)?;
    // Before the folder: a wrong passphrase leaves no trace.
    let opened = BackupOpener::open(BufReader::with_capacity(CHUNK_BYTES, sealed), passphrase)?;
    let draft = StagedDir::create(folder, StagingKind::Restore)?;
    let mut unpacking = Unpacking {
        draft: draft.path(),
        layout: None,
    };
    let manifest = archive::read(opened, |_, part, reader| {
        unpacking.take(part, reader, on_progress)
    })?;
    let layout = unpacking.layout.ok_or_else(no_config)?;
    crash_point("restore: unpacked");
    let data = DataDir::at(&layout.data());
    let database_bytes = fs::metadata(data.database())
        .map_err(files("look at", &data.database()))?
        .len();
    report(on_progress, BackupStep::Checking, 0, database_bytes)?;
    store::check_whole(&data.database())?;
    let keys = Arc::new(KeyManager::open(&data.keys(), passphrase)?);
    if keys.peer_id().to_hex() != manifest.peer_id {
        return Err(RestoreError::OtherNode);
    }
    make_its_own(&layout, &data, keys.clone())?;
    for within in [layout.schemas(), Some(layout.data())]
        .into_iter()
        .flatten()
    {
        sync_below(draft.path(), &within)?;
    }
    draft.publish()?;
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

/// Files on their way from the stream into the draft.
struct Unpacking<'d> {
    draft: &'d Path,
    /// Known from the config on, which is the first file.
    layout: Option<Layout>,
}

impl Unpacking<'_> {
    fn take(
        &mut self,
        part: &Part,
        reader: &mut dyn Read,
        on_progress: &mut ProgressFn<'_>,
    ) -> Result<(), RestoreError> {
        if part.name == CONFIG {
            let bytes = archive::read_small(reader)?;
            let layout = Layout::of(&String::from_utf8_lossy(&bytes), self.draft)?;
            make_folder(&layout.data())?;
            write_new(&self.draft.join(FILE_NAME), layout.text.as_bytes())?;
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
                    ArchiveError::Content("schema files, and a config without schema_dir".into())
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
    ArchiveError::Content("its config is not the first file".into()).into()
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

/// What sets the restored node apart from the one that was backed up: another token, and a recovery to begin with.
fn make_its_own(
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
    core.begin_recovery(EpochReason::Restored, now)?;
    crash_point("restore: recovery begun");
    Ok(())
}

/// Waits until the names in `folder`, and its own in the folders above it up to `draft`, are on the disk.
fn sync_below(draft: &Path, folder: &Path) -> Result<(), StagingError> {
    for folder in folder.ancestors().take_while(|folder| *folder != draft) {
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

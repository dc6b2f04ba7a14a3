//! `postern backup`: writes a node's configuration, vault, own schema files and database into one
//! sealed file.
//!
//! The node may be running or stopped. Not in the backup: the API token (a restore generates
//! another), Tor's state, and the passphrase. No plain copy of a key is written, and no existing
//! file is overwritten. Invariant: the file gets its final name only after it was read back and
//! compared whole. A file with that name can be restored with the passphrase that the vault had.
//! Tested in `create_tests.rs`, `tests/system/backup.rs` and `tests/system/crash.rs`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use keys::backup::{MAGIC, MOVE_MAGIC};
use keys::vault::VaultError;
use keys::{KeyManager, crash_point};

use super::archive::{
    self, ArchiveError, ArchiveWriter, CHUNK_BYTES, CONFIG, DATABASE, KEYS, Manifest, Part, SCHEMAS,
};
use super::layout::{Layout, LayoutError};
use super::progress::{
    BackupProgressFn, BackupStep, Cancelled, ProgressReader, is_cancelled, report,
};
use crate::clock::SystemClock;
use crate::config::{Config, Problems};
use crate::data_dir::{DataDir, StagingError, create_new, files, sync_folder};
use crate::engine::Clock as _;
use crate::op_context::Timestamp;
use crate::schema::{SchemaError, Schemas};
use crate::store::{self, StoreError};

/// A backup that was made and read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Length of the database in it, in bytes.
    pub database_bytes: u64,
    /// Every transaction that was committed before this moment is in the backup.
    pub created: Timestamp,
}

/// The cause for which no backup was made. No file remains, except where the very last sync failed:
/// then the backup has its name, which a power failure may undo.
#[derive(Debug, thiserror::Error)]
pub enum CreateBackupError {
    /// A file of that name exists.
    #[error("{0} exists already: it is not overwritten")]
    Exists(PathBuf),
    /// The path has no file name, or its folder does not exist.
    #[error("{0} is not a file name in an existing folder")]
    NoName(PathBuf),
    /// The configuration file has become invalid since the node started: a restored node would not
    /// start.
    #[error("the configuration is invalid; correct it first\n{0}")]
    Config(#[from] Problems),
    /// A restore could not place the files as the configuration says.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The schema files that the configuration names now do not load: a restore would refuse them.
    #[error("the apps' schemas do not load; correct them first")]
    Schemas(#[from] SchemaError),
    /// The name ends like that of an unfinished backup.
    #[error("{0}: names that end in `.new` are reserved for unfinished backups")]
    Reserved(PathBuf),
    /// A file is too long for a backup, or has a name that a backup does not take.
    #[error(
        "{0}: longer than 1 MiB, or its name has other characters than letters, digits, `.`, `_`, \
         `-` and spaces, or more than 80 bytes"
    )]
    Unfit(PathBuf),
    /// An operation on a file failed.
    #[error(transparent)]
    Files(#[from] StagingError),
    /// The database cannot be copied, or the copy is corrupt.
    #[error("cannot copy the database")]
    Store(#[from] StoreError),
    /// The vault cannot derive the key of the backup.
    #[error("cannot seal the backup")]
    Vault(#[from] VaultError),
    /// The file that was written does not open again.
    #[error("the backup that was written does not open: the disk may be failing")]
    Reopen(#[from] keys::SealError),
    /// The stream cannot be written, or breaks a rule of the format.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The content that was read back differs from the source. Carries the name of the file.
    #[error("{0} in the backup differs from what was written: the disk may be failing")]
    Differs(String),
    /// The caller cancelled the backup.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The path of a temporary file, which is removed on drop.
pub(super) struct TempPath(pub(super) PathBuf);

impl TempPath {
    /// Reserves `path`: removes a file that an earlier run left there.
    pub(super) fn at(path: PathBuf) -> Result<Self, StagingError> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(files("remove", &path)(error))
            }
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        // The file may not exist. A failure only leaves a file that the next backup removes.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes the copy of the database that an interrupted backup left in the data folder. Only the
/// process that holds the folder's lock may call this.
pub(crate) fn remove_stale_files(data: &DataDir) -> Result<(), StagingError> {
    temp_paths(data).map(drop)
}

/// The paths of the database's copy and of its SQLite journal. A journal that an interrupted backup
/// left would be applied to the next copy, so both are removed first.
fn temp_paths(data: &DataDir) -> Result<[TempPath; 2], StagingError> {
    let copy = data.snapshot();
    Ok([
        TempPath::at(copy.with_extension("backup-journal"))?,
        TempPath::at(copy)?,
    ])
}

/// A file other than the database, in memory.
struct SmallFile {
    name: String,
    bytes: Vec<u8>,
}

/// Backs up the node of `config` into the new file `out`. The configuration file is included as it
/// is now.
///
/// Writers of the database continue; their commits after the start of the copy are not in the
/// backup. Needs space for a copy of the database in the data folder. Blocks until the backup is
/// complete.
///
/// # Errors
/// See [`CreateBackupError`].
pub fn create(
    config: &Config,
    keys: &KeyManager,
    out: &Path,
    on_progress: &mut BackupProgressFn<'_>,
) -> Result<BackedUp, CreateBackupError> {
    let folder = check_target(out)?;
    let data = DataDir::of(config);
    // The database is copied before the vault, because a new key is in the vault before the
    // database refers to it.
    let [_journal, snapshot] = temp_paths(&data)?;
    report(
        on_progress,
        BackupStep::Copying,
        0,
        length(&data.database())?,
    )?;
    let created = SystemClock.now();
    store::snapshot(&data.database(), &snapshot.0)?;
    crash_point("backup: database copied");
    store::check_whole(&snapshot.0)?;
    let database_bytes = length(&snapshot.0)?;
    report(
        on_progress,
        BackupStep::Copying,
        database_bytes,
        database_bytes,
    )?;
    let parts = gather(config, &data)?;
    let manifest = manifest(created, keys, &parts, database_bytes);

    let draft = TempPath::at(draft_of(out))?;
    seal(&draft.0, keys, &manifest, &parts, &snapshot.0, on_progress)?;
    crash_point("backup: sealed");
    verify(&draft.0, keys, &manifest, &parts, &snapshot.0, on_progress)?;
    let bytes = length(&draft.0)?;
    publish(&draft.0, out)?;
    crash_point("backup: named");
    drop(draft);
    sync_folder(folder)?;
    drop(snapshot);
    crash_point("backup: tidied");
    Ok(BackedUp {
        path: out.to_owned(),
        bytes,
        database_bytes,
        created,
    })
}

/// Checks that a backup may have the path `out`, and returns its folder.
pub(crate) fn check_target(out: &Path) -> Result<&Path, CreateBackupError> {
    if fs::symlink_metadata(out).is_ok() {
        return Err(CreateBackupError::Exists(out.to_owned()));
    }
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if out.extension().is_some_and(|it| it == "new") {
        return Err(CreateBackupError::Reserved(out.to_owned()));
    }
    if is_foreign_file(&draft_of(out)) {
        return Err(CreateBackupError::Exists(draft_of(out)));
    }
    if out.file_name().is_none() || !folder.is_dir() {
        return Err(CreateBackupError::NoName(out.to_owned()));
    }
    Ok(folder)
}

/// The path of the unfinished backup.
pub(super) fn draft_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Whether `draft` is a file that no interrupted backup or move left. Such a file is empty, or
/// begins with [`MAGIC`] or [`MOVE_MAGIC`].
fn is_foreign_file(draft: &Path) -> bool {
    let mut begins = Vec::new();
    let Ok(file) = File::open(draft) else {
        return fs::symlink_metadata(draft).is_ok();
    };
    let is_read = file
        .take(MAGIC.len() as u64)
        .read_to_end(&mut begins)
        .is_ok();
    let is_ours = |magic: &[u8]| magic.starts_with(&begins);
    !is_read || !(is_ours(MAGIC) || is_ours(MOVE_MAGIC))
}

fn length(path: &Path) -> Result<u64, StagingError> {
    Ok(fs::metadata(path)
        .map_err(files("read the length of", path))?
        .len())
}

/// Reads the files other than the database, as they are now: the running node may have started
/// under another config. Checks what a restore checks.
fn gather(config: &Config, data: &DataDir) -> Result<Vec<SmallFile>, CreateBackupError> {
    let mut parts = vec![
        read(CONFIG.into(), config.file())?,
        // Sealed under the passphrase.
        read(KEYS.into(), &data.keys())?,
    ];
    let text = parts
        .first()
        .map(|part| String::from_utf8_lossy(&part.bytes));
    let text = text.unwrap_or_default();
    let now = Config::parse(config.file(), &text)?;
    Layout::of(&text, config.file().parent().unwrap_or(Path::new("")))?;
    let schemas = now.schema_dir();
    if let Some(folder) = &schemas {
        parts.append(&mut gather_schemas(folder)?);
    }
    Schemas::load(&now.node.apps, schemas.as_deref())?;
    Ok(parts)
}

/// Reads the schema files of the operator's own apps.
fn gather_schemas(folder: &Path) -> Result<Vec<SmallFile>, CreateBackupError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(files("list", folder))? {
        paths.push(entry.map_err(files("list", folder))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|it| it == "toml"));
    paths.sort();
    let part = |path: PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.filter(|name| archive::is_schema_name(name)) {
            Some(name) => read(format!("{SCHEMAS}{name}"), &path),
            None => Err(CreateBackupError::Unfit(path)),
        }
    };
    paths.into_iter().map(part).collect()
}

fn read(name: String, path: &Path) -> Result<SmallFile, CreateBackupError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(archive::SMALL_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(files("read", path))?;
    if bytes.len() as u64 > archive::SMALL_BYTES_MAX {
        return Err(CreateBackupError::Unfit(path.to_owned()));
    }
    Ok(SmallFile { name, bytes })
}

/// Describes the files. The database is the last and the configuration the first, because a restore
/// needs the configuration's paths.
fn manifest(
    created: Timestamp,
    keys: &KeyManager,
    parts: &[SmallFile],
    database_bytes: u64,
) -> Manifest {
    let small = parts.iter().map(|part| Part {
        name: part.name.clone(),
        bytes: part.bytes.len() as u64,
    });
    let database = Part {
        name: DATABASE.into(),
        bytes: database_bytes,
    };
    let files = small.chain([database]).collect();
    Manifest::new(created.0, keys.peer_id().to_hex(), files)
}

fn open(path: &Path) -> Result<BufReader<File>, StagingError> {
    let file = File::open(path).map_err(files("open", path))?;
    Ok(BufReader::with_capacity(CHUNK_BYTES, file))
}

/// Writes the sealed file and syncs it.
fn seal(
    draft: &Path,
    keys: &KeyManager,
    manifest: &Manifest,
    parts: &[SmallFile],
    snapshot: &Path,
    on_progress: &mut BackupProgressFn<'_>,
) -> Result<(), CreateBackupError> {
    let failed = |action| move |error| CreateBackupError::Files(files(action, draft)(error));
    let file = create_new(draft)?;
    let sealer = keys.backup_sealer(&mut rand::rng())?;
    let writer = sealer
        .start(BufWriter::with_capacity(CHUNK_BYTES, file))
        .map_err(failed("write"))?;
    crash_point("backup: file made");
    let mut archive = ArchiveWriter::begin(writer, manifest)?;
    for part in parts {
        let bytes = part.bytes.len() as u64;
        archive.add(
            &part.name,
            bytes,
            manifest.created_ms,
            &mut part.bytes.as_slice(),
        )?;
    }
    let bytes = length(snapshot)?;
    let mut reading = ProgressReader::new(open(snapshot)?, on_progress, BackupStep::Sealing, bytes);
    archive
        .add(DATABASE, bytes, manifest.created_ms, &mut reading)
        .map_err(or_cancelled)?;
    let mut writer = archive.finish()?.finish().map_err(failed("write"))?;
    writer.flush().map_err(failed("write"))?;
    crash_point("backup: written");
    let file = writer
        .into_inner()
        .map_err(|error| failed("write")(error.into_error()))?;
    file.sync_all().map_err(failed("sync"))
}

/// Recognises a cancellation, which arrives as a read error of the stream.
fn or_cancelled(error: ArchiveError) -> CreateBackupError {
    match error {
        ArchiveError::Stream(_, cause) if is_cancelled(&cause) => Cancelled.into(),
        error => error.into(),
    }
}

/// Reads the backup back and compares every byte with its source.
fn verify(
    draft: &Path,
    keys: &KeyManager,
    manifest: &Manifest,
    parts: &[SmallFile],
    snapshot: &Path,
    on_progress: &mut BackupProgressFn<'_>,
) -> Result<(), CreateBackupError> {
    let opened = keys.open_backup(open(draft)?)?;
    let read = archive::read(opened, |_, part, reader| {
        let mut reading =
            ProgressReader::new(reader, &mut *on_progress, BackupStep::Verifying, part.bytes);
        let is_same = match parts.iter().find(|small| small.name == part.name) {
            Some(small) => is_same(&mut reading, &mut small.bytes.as_slice()),
            None => is_same(&mut reading, &mut open(snapshot)?),
        };
        match is_same {
            Ok(true) => Ok(()),
            Ok(false) => Err(CreateBackupError::Differs(part.name.clone())),
            Err(error) => Err(or_cancelled(ArchiveError::Stream("read the backup", error))),
        }
    })?;
    if read != *manifest {
        return Err(CreateBackupError::Differs("the manifest".into()));
    }
    Ok(())
}

fn is_same(one: &mut dyn Read, other: &mut dyn Read) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    loop {
        let (read_a, read_b) = (fill(one, &mut a)?, fill(other, &mut b)?);
        if a.get(..read_a) != b.get(..read_b) {
            return Ok(false);
        }
        if read_a == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the stream ends; returns the number of bytes.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Gives the backup its final name. A hard link fails where the name exists, unlike a rename. On a
/// file system without links (FAT), the name is checked and then renamed to.
pub(super) fn publish(draft: &Path, out: &Path) -> Result<(), CreateBackupError> {
    match fs::hard_link(draft, out) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(CreateBackupError::Exists(out.to_owned()))
        }
        Err(_) => {
            check_target(out)?;
            fs::rename(draft, out).map_err(|error| files("name it", out)(error).into())
        }
    }
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;

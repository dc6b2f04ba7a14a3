//! `postern backup`: a node's config, keys, apps and database in one sealed file, while the node runs or not.
//!
//! Never holds a plain copy of a key, never writes over a file, never names a file a backup before it was read back in
//! full. Not in it: the API's token (a restore makes another), Tor's state, the passphrase. Invariant: what has the name
//! that was asked for can be restored with the passphrase that the vault had when it was made.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use keys::backup::MAGIC;
use keys::vault::VaultError;
use keys::{KeyManager, crash_point};

use super::archive::{
    self, ArchiveError, CHUNK_BYTES, CONFIG, DATABASE, KEYS, Manifest, Part, SCHEMAS, Writing,
};
use super::layout::{Layout, LayoutError};
use super::progress::{BackupStep, Cancelled, ProgressFn, ProgressReader, is_cancelled, report};
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
    /// Its length.
    pub bytes: u64,
    /// Length of the database in it.
    pub database_bytes: u64,
    /// What was committed before is in it.
    pub created: Timestamp,
}

/// Why there is no backup. Nothing was left behind, but where the very last step failed: then the backup has its name, and
/// the disk may lose that.
#[derive(Debug, thiserror::Error)]
pub enum CreateBackupError {
    /// A file has the name already.
    #[error("{0} exists already: a backup is never written over another file")]
    Exists(PathBuf),
    /// The path has no last part, or no folder to be in.
    #[error("{0} is not a file's name in a folder that is there")]
    NoName(PathBuf),
    /// The config file has become wrong since the node started: nobody could start what would be restored.
    #[error("the config is wrong; put it right first\n{0}")]
    Config(#[from] Problems),
    /// A restore could not lay out the files as the config says.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The own apps that the config names now do not load: a restore would refuse them.
    #[error("the apps' schemas do not load; put them right first")]
    Schemas(#[from] SchemaError),
    /// A name that unfinished backups have.
    #[error("{0}: names that end in `.new` are those of unfinished backups")]
    Reserved(PathBuf),
    /// A file cannot be in a backup: its name or its length.
    #[error(
        "{0}: too long, or of a name that a backup does not take (letters, digits, `.`, `_`, `-`, at most 80 bytes)"
    )]
    Unfit(PathBuf),
    /// The file system.
    #[error(transparent)]
    Files(#[from] StagingError),
    /// The database.
    #[error("cannot copy the database")]
    Store(#[from] StoreError),
    /// The vault has no key to seal with.
    #[error("cannot seal the backup")]
    Vault(#[from] VaultError),
    /// The file that was written does not open.
    #[error("the backup that was written does not open: the disk may be failing")]
    Reopen(#[from] keys::BackupError),
    /// The stream.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What was read back is not what was written.
    #[error("what was read back of {0} is not what was written: the disk may be failing")]
    Differs(String),
    /// The node stops.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Removes a file that has done its duty, whatever happens.
struct TempPath(PathBuf);

impl TempPath {
    /// Of this name; what an earlier run left there is removed.
    fn at(path: PathBuf) -> Result<Self, StagingError> {
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
        // It may have become something else's name, or never been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what a backup that was killed has left in the folder: a copy of the database. Only for who holds the folder.
pub(crate) fn remove_stale_files(data: &DataDir) -> Result<(), StagingError> {
    temp_paths(data).map(drop)
}

/// The copy, and what SQLite may have had open beside one that was killed: it must not be taken for a part of the next.
fn temp_paths(data: &DataDir) -> Result<[TempPath; 2], StagingError> {
    let copy = data.snapshot();
    Ok([
        TempPath::at(copy.with_extension("backup-journal"))?,
        TempPath::at(copy)?,
    ])
}

/// A file of the backup but the database, in memory.
struct SmallFile {
    name: String,
    bytes: Vec<u8>,
}

/// Makes a backup of the node that `config` leads to, its file as it is now included, into the new file `out`. Writers go on
/// meanwhile; what they commit after the copy was begun is not in it. Needs room for a copy of the database in the data
/// folder, and blocks for as long as it takes.
///
/// # Errors
/// See [`CreateBackupError`].
pub fn create(
    config: &Config,
    keys: &KeyManager,
    out: &Path,
    on_progress: &mut ProgressFn<'_>,
) -> Result<BackedUp, CreateBackupError> {
    let folder = check_target(out)?;
    let data = DataDir::of(config);
    // The database first: keys that are made meanwhile are in the vault before anything refers to them.
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

/// Whether a backup can have that name; gives the folder that it will be in.
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

/// Where a backup grows until it has its name.
fn draft_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Whether a file has that name which no killed backup left: an empty one, or one that begins as a backup does.
fn is_foreign_file(draft: &Path) -> bool {
    let mut begins = Vec::new();
    let Ok(file) = File::open(draft) else {
        return fs::symlink_metadata(draft).is_ok();
    };
    let is_read = file
        .take(MAGIC.len() as u64)
        .read_to_end(&mut begins)
        .is_ok();
    !is_read || !MAGIC.starts_with(&begins)
}

fn length(path: &Path) -> Result<u64, StagingError> {
    Ok(fs::metadata(path).map_err(files("look at", path))?.len())
}

/// The files but the database, as they are now: the node may have started under another config. What a restore would refuse
/// is no backup.
fn gather(config: &Config, data: &DataDir) -> Result<Vec<SmallFile>, CreateBackupError> {
    let mut parts = vec![
        read(CONFIG.into(), config.file())?,
        // Sealed, as it lies on the disk.
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

/// The schema files of own apps.
fn gather_schemas(folder: &Path) -> Result<Vec<SmallFile>, CreateBackupError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(files("look into", folder))? {
        paths.push(entry.map_err(files("look into", folder))?.path());
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

/// The database is the last: a restore has the config by then, which says where it goes.
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

fn seal(
    draft: &Path,
    keys: &KeyManager,
    manifest: &Manifest,
    parts: &[SmallFile],
    snapshot: &Path,
    on_progress: &mut ProgressFn<'_>,
) -> Result<(), CreateBackupError> {
    let failed = |doing| move |error| CreateBackupError::Files(files(doing, draft)(error));
    let file = create_new(draft)?;
    let sealer = keys.backup_sealer(&mut rand::rng())?;
    let writer = sealer
        .start(BufWriter::with_capacity(CHUNK_BYTES, file))
        .map_err(failed("write"))?;
    crash_point("backup: file made");
    let mut writing = Writing::begin(writer, manifest)?;
    for part in parts {
        let bytes = part.bytes.len() as u64;
        writing.add(
            &part.name,
            bytes,
            manifest.created_ms,
            &mut part.bytes.as_slice(),
        )?;
    }
    let bytes = length(snapshot)?;
    let mut reading = ProgressReader::new(open(snapshot)?, on_progress, BackupStep::Sealing, bytes);
    writing
        .add(DATABASE, bytes, manifest.created_ms, &mut reading)
        .map_err(or_cancelled)?;
    let mut writer = writing.finish()?.finish().map_err(failed("write"))?;
    writer.flush().map_err(failed("write"))?;
    crash_point("backup: written");
    let file = writer
        .into_inner()
        .map_err(|error| failed("write")(error.into_error()))?;
    file.sync_all().map_err(failed("sync"))
}

/// A stop comes through the stream as an error of reading.
fn or_cancelled(error: ArchiveError) -> CreateBackupError {
    match error {
        ArchiveError::Stream(_, cause) if is_cancelled(&cause) => Cancelled.into(),
        error => error.into(),
    }
}

/// Reads all of it back: every seal, every size, every byte.
fn verify(
    draft: &Path,
    keys: &KeyManager,
    manifest: &Manifest,
    parts: &[SmallFile],
    snapshot: &Path,
    on_progress: &mut ProgressFn<'_>,
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

/// As much as there is, up to the buffer's length.
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

/// A link, unlike a rename, fails where somebody was quicker. Where the file system has none (FAT), it is renamed after a
/// look.
fn publish(draft: &Path, out: &Path) -> Result<(), CreateBackupError> {
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

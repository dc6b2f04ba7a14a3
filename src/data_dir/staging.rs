//! A node's folder while it is being made, beside the one asked for.
//!
//! Never gives the folder its name before all in it is on the disk; never touches a folder that is not empty. Invariant:
//! whatever ends the process, the folder asked for is as it was or whole. What a process that is no more has left beside
//! it goes when the next one begins: a draft is locked by whoever makes it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keys::crash_point;

/// Behind the folder's name and before the number of the process: what makes the draft.
const MARKS: [&str; 2] = [INIT, RESTORE];
/// Of a new node.
pub(crate) const INIT: &str = ".new-";
/// Of a node that comes out of a backup.
pub(crate) const RESTORE: &str = ".restoring-";

/// Why there is no folder.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Something is there already.
    #[error("{0} exists and is not empty: choose another folder, or remove it if you are sure")]
    NotEmpty(PathBuf),
    /// The path has no last part to name a folder.
    #[error("{0} is not a folder's name")]
    NoName(PathBuf),
    /// The file system.
    #[error("{path}: cannot {doing}")]
    Files {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Says what was being done where.
pub(crate) fn files(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StagingError {
    let path = path.to_owned();
    move |source| StagingError::Files {
        doing,
        path,
        source,
    }
}

/// Whether a node may be made there: nothing is, or an empty folder.
///
/// # Errors
/// [`StagingError::NotEmpty`] otherwise.
pub fn check_free(folder: &Path) -> Result<(), StagingError> {
    let is_taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        // A file, or a folder that cannot be looked into.
        Err(_) => fs::symlink_metadata(folder).is_ok(),
    };
    if is_taken {
        return Err(StagingError::NotEmpty(folder.to_owned()));
    }
    Ok(())
}

/// A folder that is being filled; removed when dropped before it has its name.
#[derive(Debug)]
pub(crate) struct StagedDir {
    path: PathBuf,
    folder: PathBuf,
    parent: PathBuf,
    /// Locked for as long as this process makes it.
    _lock: File,
    is_published: bool,
}

impl StagedDir {
    /// An empty draft of `folder` of mode 0700, beside it. `mark` is [`INIT`] or [`RESTORE`].
    pub(crate) fn create(folder: &Path, mark: &str) -> Result<Self, StagingError> {
        check_free(folder)?;
        let name = folder
            .file_name()
            .ok_or_else(|| StagingError::NoName(folder.to_owned()))?;
        let parent = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(files("make the folder", parent))?;
        remove_abandoned(parent, name)?;
        let mut draft_name = name.to_os_string();
        draft_name.push(format!("{mark}{}", std::process::id()));
        let path = parent.join(draft_name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(files("make the folder", &path))?;
        let lock = File::open(&path).map_err(files("open", &path))?;
        lock.try_lock()
            .map_err(io::Error::from)
            .map_err(files("lock", &path))?;
        crash_point("draft: made");
        Ok(Self {
            path,
            folder: folder.to_owned(),
            parent: parent.to_owned(),
            _lock: lock,
            is_published: false,
        })
    }

    /// Where to put what the folder shall hold.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name, once its content is on the disk.
    pub(crate) fn publish(mut self) -> Result<(), StagingError> {
        sync_folder(&self.path)?;
        crash_point("draft: filled");
        // Over an empty folder of that name too: a rename replaces it.
        fs::rename(&self.path, &self.folder).map_err(files("name the folder", &self.folder))?;
        self.is_published = true;
        crash_point("draft: named");
        sync_folder(&self.parent)
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.is_published {
            // What is left is useless and may hold keys; that it cannot be removed changes nothing about the first error.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes drafts of the folder called `name` that nobody fills any more.
fn remove_abandoned(parent: &Path, name: &OsStr) -> Result<(), StagingError> {
    let entries = fs::read_dir(parent).map_err(files("look into", parent))?;
    for entry in entries {
        let path = entry.map_err(files("look into", parent))?.path();
        // By its name first: to open what is no folder of ours may wait for ever.
        let is_draft = path.file_name().is_some_and(|it| is_draft_of(it, name)) && path.is_dir();
        if !is_draft {
            continue;
        }
        let Ok(folder) = File::open(&path) else {
            continue;
        };
        if folder.try_lock().is_ok() {
            fs::remove_dir_all(&path)
                .map_err(files("remove what an earlier attempt left in", &path))?;
        }
    }
    Ok(())
}

fn is_draft_of(found: &OsStr, name: &OsStr) -> bool {
    let Some(behind) = found
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())
    else {
        return false;
    };
    let mut numbers = MARKS
        .iter()
        .filter_map(|mark| behind.strip_prefix(mark.as_bytes()));
    numbers.any(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Writes a new file of mode 0600, and waits until it is on the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StagingError> {
    let mut file = create_new(path)?;
    file.write_all(bytes).map_err(files("write", path))?;
    file.sync_all().map_err(files("write", path))
}

/// A new file of mode 0600.
pub(crate) fn create_new(path: &Path) -> Result<File, StagingError> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(files("write", path))
}

/// Waits until a folder's names are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StagingError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(files("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_gone_or_has_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("node");
        let draft = StagedDir::create(&folder, INIT).unwrap();
        write_new(&draft.path().join("file"), b"x").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let draft = StagedDir::create(&folder, RESTORE).unwrap();
        write_new(&draft.path().join("file"), b"x").unwrap();
        draft.publish().unwrap();
        assert!(folder.join("file").is_file());
        assert!(matches!(
            StagedDir::create(&folder, INIT),
            Err(StagingError::NotEmpty(_))
        ));
        let file = parent.path().join("file");
        write_new(&file, b"x").unwrap();
        assert!(matches!(check_free(&file), Err(StagingError::NotEmpty(_))));
    }

    #[test]
    fn only_drafts_of_this_folder_that_nobody_fills_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let kept = [
            "node.new-",
            "node.new-12a",
            "node.backup",
            "other.new-12",
            "node",
        ];
        let abandoned = ["node.new-12", "node.restoring-4000000"];
        for name in kept.iter().chain(&abandoned) {
            fs::create_dir(at(name)).unwrap();
            if *name != "node" {
                fs::write(at(name).join("keys"), "x").unwrap();
            }
        }
        let filled = at("node.new-77");
        fs::create_dir(&filled).unwrap();
        let lock = File::open(&filled).unwrap();
        lock.try_lock().unwrap();
        let draft = StagedDir::create(&at("node"), RESTORE).unwrap();
        assert!(kept.iter().all(|name| at(name).is_dir()));
        assert!(filled.is_dir(), "another process fills it");
        assert!(!abandoned.iter().any(|name| at(name).exists()));
        drop((draft, lock));
    }
}

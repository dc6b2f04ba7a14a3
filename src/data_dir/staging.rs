//! A node's folder while it is being made: a staged folder beside the final one.
//!
//! Input: the path of a folder that does not exist or is empty. Output: that folder, after
//! [`StagedDir::publish`] renamed the staged one to it. Invariant: at every moment, a crash
//! included, the final folder is unchanged or complete. Each staged folder is locked by the process
//! that fills it, so that the next process removes only abandoned ones. Tested in this file and in
//! `tests/system/crash.rs`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keys::crash_point;

/// The operation that stages a folder. Its mark is the infix of the staged folder's name, between
/// the final name and the process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagingKind {
    /// `postern init`.
    Init,
    /// `postern restore`.
    Restore,
}

impl StagingKind {
    const ALL: [Self; 2] = [Self::Init, Self::Restore];

    fn mark(self) -> &'static str {
        match self {
            Self::Init => ".new-",
            Self::Restore => ".restoring-",
        }
    }
}

/// The cause for which no folder was made.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The path exists, and is not an empty folder.
    #[error("{0} exists and is not empty: choose another folder, or remove it if you are sure")]
    NotEmpty(PathBuf),
    /// The path has no last component, which would name the folder.
    #[error("{0} is not a folder's name")]
    NoName(PathBuf),
    /// An operation on a file or a folder failed.
    #[error("{path}: cannot {action}")]
    Files {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
}

/// Makes a [`StagingError::Files`] of the error of an operation on `path`.
pub(crate) fn files(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StagingError {
    let path = path.to_owned();
    move |source| StagingError::Files {
        action,
        path,
        source,
    }
}

/// Checks that `folder` does not exist or is empty.
///
/// # Errors
/// [`StagingError::NotEmpty`] for any other file or folder, also one that cannot be listed.
pub fn check_free(folder: &Path) -> Result<(), StagingError> {
    let is_taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        // A file, or a folder that cannot be listed.
        Err(_) => fs::symlink_metadata(folder).is_ok(),
    };
    if is_taken {
        return Err(StagingError::NotEmpty(folder.to_owned()));
    }
    Ok(())
}

/// A staged folder. Dropped before it is published, it removes itself.
#[derive(Debug)]
pub(crate) struct StagedDir {
    path: PathBuf,
    folder: PathBuf,
    parent: PathBuf,
    /// Locks the staged folder for as long as this process fills it.
    _lock: File,
    is_published: bool,
}

impl StagedDir {
    /// Creates an empty staged folder of mode 0700 beside `folder`, after removing abandoned ones.
    pub(crate) fn create(folder: &Path, kind: StagingKind) -> Result<Self, StagingError> {
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
        let mut staged_name = name.to_os_string();
        staged_name.push(format!("{}{}", kind.mark(), std::process::id()));
        let path = parent.join(staged_name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(files("make the folder", &path))?;
        let lock = File::open(&path).map_err(files("open", &path))?;
        lock.try_lock()
            .map_err(io::Error::from)
            .map_err(files("lock", &path))?;
        crash_point("staged folder: created");
        Ok(Self {
            path,
            folder: folder.to_owned(),
            parent: parent.to_owned(),
            _lock: lock,
            is_published: false,
        })
    }

    /// The staged folder, to be filled.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the staged folder and renames it to the final one.
    pub(crate) fn publish(mut self) -> Result<(), StagingError> {
        sync_folder(&self.path)?;
        crash_point("staged folder: filled");
        // The rename replaces an empty folder of that name.
        fs::rename(&self.path, &self.folder).map_err(files("name the folder", &self.folder))?;
        self.is_published = true;
        crash_point("staged folder: renamed");
        sync_folder(&self.parent)
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.is_published {
            // The remains may hold keys. A failure is not reported, because the caller reports the
            // first error.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the staged folders of `name` that no process has locked.
fn remove_abandoned(parent: &Path, name: &OsStr) -> Result<(), StagingError> {
    let entries = fs::read_dir(parent).map_err(files("list", parent))?;
    for entry in entries {
        let path = entry.map_err(files("list", parent))?.path();
        // The name is checked first, because opening another kind of file, such as a pipe, may
        // block.
        let is_staged = path
            .file_name()
            .is_some_and(|found| is_staged_name(found, name));
        if !is_staged || !path.is_dir() {
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

fn is_staged_name(found: &OsStr, name: &OsStr) -> bool {
    let Some(suffix) = found
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())
    else {
        return false;
    };
    let mut numbers = StagingKind::ALL
        .iter()
        .filter_map(|kind| suffix.strip_prefix(kind.mark().as_bytes()));
    numbers.any(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Writes a new file of mode 0600 and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StagingError> {
    let mut file = create_new(path)?;
    file.write_all(bytes).map_err(files("write", path))?;
    file.sync_all().map_err(files("write", path))
}

/// Creates a file of mode 0600; fails where it exists.
pub(crate) fn create_new(path: &Path) -> Result<File, StagingError> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(files("write", path))
}

/// Syncs a folder, so that the names in it survive a power failure.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StagingError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(files("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_folder_is_removed_or_published() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("node");
        let staged = StagedDir::create(&folder, StagingKind::Init).unwrap();
        write_new(&staged.path().join("file"), b"x").unwrap();
        drop(staged);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let staged = StagedDir::create(&folder, StagingKind::Restore).unwrap();
        write_new(&staged.path().join("file"), b"x").unwrap();
        staged.publish().unwrap();
        assert!(folder.join("file").is_file());
        assert!(matches!(
            StagedDir::create(&folder, StagingKind::Init),
            Err(StagingError::NotEmpty(_))
        ));
        let file = parent.path().join("file");
        write_new(&file, b"x").unwrap();
        assert!(matches!(check_free(&file), Err(StagingError::NotEmpty(_))));
    }

    #[test]
    fn removes_only_unlocked_staged_folders_of_this_name() {
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
        let staged = StagedDir::create(&at("node"), StagingKind::Restore).unwrap();
        assert!(kept.iter().all(|name| at(name).is_dir()));
        assert!(filled.is_dir(), "another process has locked it");
        assert!(!abandoned.iter().any(|name| at(name).exists()));
        drop((staged, lock));
    }
}

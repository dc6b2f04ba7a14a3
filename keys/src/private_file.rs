//! Files that contain a secret: mode 0600, written whole or not at all.
//!
//! Reading refuses a file that others may access, and a file longer than the caller's limit. Errors
//! do not contain file content. Invariant: at every instant of a write, the file has all of the old
//! bytes or all of the new bytes. The new bytes are synced to the disk as `<name>.new` before the
//! rename. Tested below and in `tests/all/crash.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crash::crash_point;

/// Permission bits that must be 0: all of group and others.
const LOOSE_BITS: u32 = 0o077;
/// The same without the group's read bit: see [`read_credential`].
const LOOSE_BITS_OF_CREDENTIAL: u32 = 0o037;
const PRIVATE_MODE: u32 = 0o600;

/// Why a private file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file does not exist.
    #[error("{0}: no such file")]
    NotFound(PathBuf),
    /// The file to create exists.
    #[error("{0}: already exists and is not overwritten")]
    AlreadyExists(PathBuf),
    /// Group or others have some access.
    ///
    /// The operator should consider the secret as exposed to them, then run `chmod 600`.
    #[error("{path}: others may access it (mode {mode:04o}); set it to 0600")]
    LoosePermissions {
        /// Path of the refused file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file is longer than any file of its kind.
    #[error("{path}: longer than {bytes_max} bytes")]
    TooLong {
        /// Path of the refused file.
        path: PathBuf,
        /// Most bytes of a file of its kind.
        bytes_max: usize,
    },
    /// The operating system reported an error.
    #[error("{path}: cannot {action}")]
    Io {
        /// Path of the file or its folder.
        path: PathBuf,
        /// The failed action, as a verb phrase such as "open it".
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// A step of a write that was just done. Tests interrupt the write after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteStep {
    Written,
    Synced,
    Named,
    FolderSynced,
}

impl WriteStep {
    /// Returns the name for [`crash_point`].
    fn name(self) -> &'static str {
        match self {
            Self::Written => "file-written",
            Self::Synced => "file-synced",
            Self::Named => "file-named",
            Self::FolderSynced => "folder-synced",
        }
    }
}

/// How a write treats an existing file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ExistingFile {
    Refuse,
    Replace,
}

/// Reads a file of at most `bytes_max` bytes that only its owner may access.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_unless(LOOSE_BITS, path, bytes_max)
}

/// Reads a systemd credential as [`read`] does, but accepts read permission of the group.
///
/// systemd grants the service's user access by an access control list. The mode then shows that
/// list's mask (0440) as the group's permission.
pub(crate) fn read_credential(
    path: &Path,
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_unless(LOOSE_BITS_OF_CREDENTIAL, path, bytes_max)
}

fn read_unless(
    loose_bits: u32,
    path: &Path,
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileError::NotFound(path.into()),
        _ => failed(path, "open it")(error),
    })?;
    // Of the open file, so that the file cannot be replaced between check and read.
    let mode = file
        .metadata()
        .map_err(failed(path, "read its permissions"))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & loose_bits != 0 {
        return Err(FileError::LoosePermissions {
            path: path.into(),
            mode,
        });
    }
    // Full capacity from the start, because a vector that grows leaves copies of the secret in
    // memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max.saturating_add(1)));
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path, "read it"))?;
    if bytes.len() > bytes_max {
        return Err(FileError::TooLong {
            path: path.into(),
            bytes_max,
        });
    }
    Ok(bytes)
}

/// Creates a file. Refuses an existing one.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, ExistingFile::Refuse, &mut |_| Ok(()))
}

/// Replaces a file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, ExistingFile::Replace, &mut |_| Ok(()))
}

fn write(
    path: &Path,
    bytes: &[u8],
    existing: ExistingFile,
    after: &mut dyn FnMut(WriteStep) -> io::Result<()>,
) -> Result<(), FileError> {
    if existing == ExistingFile::Refuse && fs::symlink_metadata(path).is_ok() {
        return Err(FileError::AlreadyExists(path.into()));
    }
    let temporary = temporary_name(path);
    match fs::remove_file(&temporary) {
        // An earlier write was killed and left this file.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&temporary, "remove it")(error)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_MODE)
        .open(&temporary)
        .map_err(failed(&temporary, "create it"))?;
    let mut done = |step: WriteStep| {
        crash_point(step.name());
        after(step).map_err(failed(path, "continue"))
    };
    file.write_all(bytes)
        .map_err(failed(&temporary, "write it"))?;
    done(WriteStep::Written)?;
    file.sync_all()
        .map_err(failed(&temporary, "sync it to the disk"))?;
    done(WriteStep::Synced)?;
    match existing {
        ExistingFile::Replace => {
            fs::rename(&temporary, path).map_err(failed(path, "replace it"))?
        }
        // A link, unlike a rename, fails if another process created the file meanwhile.
        ExistingFile::Refuse => {
            fs::hard_link(&temporary, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => FileError::AlreadyExists(path.into()),
                _ => failed(path, "create it")(error),
            })?;
            fs::remove_file(&temporary).map_err(failed(&temporary, "remove it"))?;
        }
    }
    done(WriteStep::Named)?;
    // Without this sync, a power loss could still restore the old entry of the folder.
    sync_parent(path)?;
    done(WriteStep::FolderSynced)
}

/// Syncs the parent folder, so that a file's name is on the disk.
pub(crate) fn sync_parent(path: &Path) -> Result<(), FileError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder, "sync it to the disk"))
}

/// Removes the temporary name of a file, if it is a second name of the same file.
///
/// Such a name stays if a creation is killed between link and removal. Any other file is kept.
pub(crate) fn remove_second_name(path: &Path) -> Result<(), FileError> {
    let second = temporary_name(path);
    let (Ok(one), Ok(other)) = (fs::symlink_metadata(path), fs::symlink_metadata(&second)) else {
        return Ok(());
    };
    if (one.dev(), one.ino()) != (other.dev(), other.ino()) {
        return Ok(());
    }
    fs::remove_file(&second).map_err(failed(&second, "remove it"))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn failed<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        path: path.into(),
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn create_makes_a_private_file_and_refuses_an_existing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"one").unwrap();
        assert_eq!(
            (mode(&path), read(&path, 3).unwrap().as_slice()),
            (0o600, &b"one"[..])
        );
        assert!(matches!(
            create(&path, b"two"),
            Err(FileError::AlreadyExists(_))
        ));
        replace(&path, b"two").unwrap();
        assert_eq!(
            (mode(&path), read(&path, 3).unwrap().as_slice()),
            (0o600, &b"two"[..])
        );
        assert!(!temporary_name(&path).exists());
        assert!(matches!(
            read(&path, 2),
            Err(FileError::TooLong { bytes_max: 2, .. })
        ));
    }

    #[test]
    fn remove_second_name_removes_only_a_name_of_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"one").unwrap();
        let second = temporary_name(&path);
        fs::hard_link(&path, &second).unwrap();
        remove_second_name(&path).unwrap();
        assert!(path.exists() && !second.exists());
        fs::write(&second, b"another file").unwrap();
        remove_second_name(&path).unwrap();
        assert!(second.exists());
    }

    #[test]
    fn read_refuses_any_permission_of_group_or_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"one").unwrap();
        for bit in 0..9 {
            let mode = 0o600 | (1 << bit);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = matches!(read(&path, 3), Err(FileError::LoosePermissions { .. }));
            assert_eq!(refused, bit < 6, "mode {mode:o}");
        }
    }

    #[test]
    fn interrupted_write_leaves_the_old_or_new_bytes_and_the_next_write_succeeds() {
        let steps = [
            WriteStep::Written,
            WriteStep::Synced,
            WriteStep::Named,
            WriteStep::FolderSynced,
        ];
        for (place, last) in steps.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("secret");
            create(&path, b"old").unwrap();
            let mut seen = Vec::new();
            let killed = write(&path, b"new", ExistingFile::Replace, &mut |step| {
                seen.push(step);
                if step == last {
                    Err(io::Error::other("killed"))
                } else {
                    Ok(())
                }
            });
            assert!(killed.is_err());
            // The bytes are synced before the rename, and the rename before success is returned.
            assert_eq!(seen, steps[..=place]);
            let expected: &[u8] = if place < 2 { b"old" } else { b"new" };
            assert_eq!(read(&path, 3).unwrap().as_slice(), expected);
            replace(&path, b"end").unwrap();
            assert_eq!(read(&path, 3).unwrap().as_slice(), b"end");
        }
    }

    #[test]
    fn missing_file_and_folder_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(&dir.path().join("none"), 3),
            Err(FileError::NotFound(_))
        ));
        assert!(matches!(
            create(&dir.path().join("none/secret"), b""),
            Err(FileError::Io {
                action: "create it",
                ..
            })
        ));
    }
}

//! Files that hold a secret: mode 0600, written whole or not at all.
//!
//! Never reads a file that others may open, never follows a size that the caller did not allow, never puts content
//! into an error. Invariant: at every instant of a write the named file holds the old bytes or the new bytes in full,
//! because new bytes reach the disk under another name (`<name>.new`) before they take this one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crash::crash_point;

/// Permission bits that must be off: everything for group and others.
const LOOSE_BITS: u32 = 0o077;
/// The same but for the group's reading: see [`read_credential`].
const LOOSE_BITS_OF_CREDENTIAL: u32 = 0o037;
const PRIVATE_MODE: u32 = 0o600;

/// Why a secret's file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{0}: no such file")]
    NotFound(PathBuf),
    /// A new file was to be made where one is.
    #[error("{0}: exists already; it is never overwritten")]
    AlreadyExists(PathBuf),
    /// Group or others have some access. The operator should think about who read it, then `chmod 600`.
    #[error("{path}: others may access it (mode {mode:04o}); set it to 0600")]
    LoosePermissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than a file of this kind can be.
    #[error("{path}: longer than {bytes_max} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: usize,
    },
    /// The operating system refused.
    #[error("{path}: cannot {doing}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// A step of a write that has just been done. Tests stop after each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Written,
    Synced,
    Named,
    FolderSynced,
}

impl Step {
    /// As [`crash_point`] calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Written => "file-written",
            Self::Synced => "file-synced",
            Self::Named => "file-named",
            Self::FolderSynced => "folder-synced",
        }
    }
}

/// Where new bytes replace a file, or must find none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    New,
    Replace,
}

/// Reads at most `bytes_max` bytes of a file that nobody else may access.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_unless(LOOSE_BITS, path, bytes_max)
}

/// The same for a credential of systemd's, which the group may seem to read: systemd lets a service's user in by an
/// access control list, and the mode then shows that list's mask (0440) in the group's place.
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
    // Asked of the open file, so that it cannot be exchanged between question and reading.
    let mode = file
        .metadata()
        .map_err(failed(path, "ask for its permissions"))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & loose_bits != 0 {
        return Err(FileError::LoosePermissions {
            path: path.into(),
            mode,
        });
    }
    // Room for all at once: a vector that grows leaves copies of a secret behind.
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

/// Makes a new file; an existing one is refused.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, Target::New, &mut |_| Ok(()))
}

/// Puts new bytes in the place of an existing file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, Target::Replace, &mut |_| Ok(()))
}

fn write(
    path: &Path,
    bytes: &[u8],
    target: Target,
    after: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), FileError> {
    if target == Target::New && fs::symlink_metadata(path).is_ok() {
        return Err(FileError::AlreadyExists(path.into()));
    }
    let temporary = temporary_name(path);
    match fs::remove_file(&temporary) {
        // What an earlier write left when it was killed.
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
    let mut done = |step: Step| {
        crash_point(step.name());
        after(step).map_err(failed(path, "go on"))
    };
    file.write_all(bytes)
        .map_err(failed(&temporary, "write it"))?;
    done(Step::Written)?;
    file.sync_all()
        .map_err(failed(&temporary, "sync it to the disk"))?;
    done(Step::Synced)?;
    match target {
        Target::Replace => fs::rename(&temporary, path).map_err(failed(path, "replace it"))?,
        // A link, unlike a rename, fails where somebody was quicker.
        Target::New => {
            fs::hard_link(&temporary, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => FileError::AlreadyExists(path.into()),
                _ => failed(path, "create it")(error),
            })?;
            fs::remove_file(&temporary).map_err(failed(&temporary, "remove it"))?;
        }
    }
    done(Step::Named)?;
    // Without this a power loss could still bring the old name back.
    sync_parent(path)?;
    done(Step::FolderSynced)
}

/// Waits until the name of a file is on the disk.
pub(crate) fn sync_parent(path: &Path) -> Result<(), FileError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder, "sync it to the disk"))
}

/// Removes the second name that a new file keeps where its writing was killed between naming it and removing the other.
/// Never removes anything but that same file.
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

fn failed<'a>(path: &'a Path, doing: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        path: path.into(),
        doing,
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
    fn a_new_file_is_private_and_is_never_overwritten() {
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
    fn a_second_name_goes_only_where_it_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"one").unwrap();
        let second = temporary_name(&path);
        fs::hard_link(&path, &second).unwrap();
        remove_second_name(&path).unwrap();
        assert!(path.exists() && !second.exists());
        fs::write(&second, b"somebody's").unwrap();
        remove_second_name(&path).unwrap();
        assert!(second.exists());
    }

    #[test]
    fn any_bit_for_others_is_refused() {
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
    fn a_write_that_is_killed_leaves_the_old_or_the_new_and_the_next_one_succeeds() {
        let steps = [Step::Written, Step::Synced, Step::Named, Step::FolderSynced];
        for (place, last) in steps.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("secret");
            create(&path, b"old").unwrap();
            let mut seen = Vec::new();
            let killed = write(&path, b"new", Target::Replace, &mut |step| {
                seen.push(step);
                if step == last {
                    Err(io::Error::other("killed"))
                } else {
                    Ok(())
                }
            });
            assert!(killed.is_err());
            // The bytes are on the disk before the name moves, and the name is safe before success is told.
            assert_eq!(seen, steps[..=place]);
            let expected: &[u8] = if place < 2 { b"old" } else { b"new" };
            assert_eq!(read(&path, 3).unwrap().as_slice(), expected);
            replace(&path, b"end").unwrap();
            assert_eq!(read(&path, 3).unwrap().as_slice(), b"end");
        }
    }

    #[test]
    fn what_is_not_there_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(&dir.path().join("none"), 3),
            Err(FileError::NotFound(_))
        ));
        assert!(matches!(
            create(&dir.path().join("none/secret"), b""),
            Err(FileError::Io {
                doing: "create it",
                ..
            })
        ));
    }
}

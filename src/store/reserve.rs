//! Sequence numbers reserved in blocks, in a small file beside the database (docs/DECISIONS.md 2).
//!
//! The file detects a rollback of the database: an old copy was put in its place, or a disk lost
//! writes. This works because the file is usually not rolled back together with the database. One
//! write of the file serves a whole block, not one commit. Invariants: no `change_seq` above
//! `reserved` was ever committed; the database once held `floor`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keys::Epoch;
use keys::crash::crash_point;

/// Sequence numbers reserved at once. A crash skips at most this many.
const BLOCK: u64 = 4096;
/// The next block is reserved when fewer sequence numbers than this are left.
const HEADROOM: u64 = 1024;
/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256;
/// First line of the file.
const HEADING: &str = "postern sequence numbers, 1";

/// Why the file of reserved sequence numbers was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// A file operation failed.
    #[error("{path}: cannot {action}")]
    Files {
        /// The file.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The reason that the operating system gives.
        source: io::Error,
    },
    /// The content is not what this program writes. The program replaces the file atomically, so
    /// another program or a damaged disk changed it.
    #[error(
        "{0}: contains no valid reserved sequence numbers; \
         if the database is the newest that exists, remove this file"
    )]
    Damaged(PathBuf),
}

/// Content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    epoch: Epoch,
    floor: u64,
    reserved: u64,
}

/// The reservation of a running node, and the path of its file.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    block: Block,
}

impl Reserve {
    /// Path of the file that belongs to a database.
    pub fn path_beside(database: &Path) -> PathBuf {
        database.with_extension("seq")
    }

    /// Reads the file. `None` if it does not exist.
    pub fn read(path: &Path) -> Result<Option<Self>, ReserveError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(files(path, "open the file")(error)),
        };
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        match read {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(files(path, "read the file")(error));
            }
            _ => {}
        }
        let block = parse(&text).ok_or_else(|| ReserveError::Damaged(path.to_owned()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            block,
        }))
    }

    /// Reserves the first block after `last`, for a database whose highest `change_seq` is `head`.
    pub fn create(path: &Path, epoch: Epoch, head: u64, last: u64) -> Result<Self, ReserveError> {
        let block = Block {
            epoch,
            floor: head,
            reserved: last.saturating_add(BLOCK),
        };
        write(path, &block)?;
        Ok(Self {
            path: path.to_owned(),
            block,
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Epoch in which the sequence numbers count.
    pub fn epoch(&self) -> Epoch {
        self.block.epoch
    }

    /// Highest `change_seq` of the database when the file was written.
    pub fn floor(&self) -> u64 {
        self.block.floor
    }

    /// Highest reserved sequence number. No higher one was given out.
    pub fn reserved(&self) -> u64 {
        self.block.reserved
    }

    /// Whether to reserve the next block before a transaction whose first number follows `last`.
    pub fn is_short(&self, last: u64) -> bool {
        last.saturating_add(HEADROOM) > self.block.reserved
    }

    /// Reserves another block after `last`. `head` is the highest `change_seq` of the database, if
    /// it is known now; otherwise the floor stays.
    pub fn extend(&mut self, last: u64, head: Option<u64>) -> Result<(), ReserveError> {
        let block = Block {
            floor: head.unwrap_or(self.block.floor),
            reserved: last.saturating_add(BLOCK),
            ..self.block
        };
        write(&self.path, &block)?;
        self.block = block;
        Ok(())
    }

    /// Writes the final state at a clean shutdown. `last` was the last number that was given out,
    /// and `head` is the highest one in the database.
    pub fn close(&self, head: u64, last: u64) -> Result<(), ReserveError> {
        let block = Block {
            floor: head,
            reserved: last,
            ..self.block
        };
        write(&self.path, &block)
    }
}

fn files<'p>(path: &'p Path, action: &'static str) -> impl FnOnce(io::Error) -> ReserveError + 'p {
    move |source| ReserveError::Files {
        path: path.to_owned(),
        action,
        source,
    }
}

fn parse(text: &str) -> Option<Block> {
    let mut lines = text.lines();
    let mut field = |name| {
        lines
            .next()?
            .strip_prefix(name)?
            .strip_prefix(' ')
            .map(str::to_owned)
    };
    if field("postern")? != HEADING.strip_prefix("postern ")? {
        return None;
    }
    let epoch = data_encoding::HEXLOWER
        .decode(field("epoch")?.as_bytes())
        .ok()?;
    Some(Block {
        epoch: Epoch::from_slice(&epoch)?,
        floor: field("floor")?.parse().ok()?,
        reserved: field("reserved")?.parse().ok()?,
    })
}

/// Replaces the file atomically. The new content is on the disk when this function returns.
fn write(path: &Path, block: &Block) -> Result<(), ReserveError> {
    let text = format!(
        "{HEADING}\nepoch {}\nfloor {}\nreserved {}\n",
        block.epoch.to_hex(),
        block.floor,
        block.reserved
    );
    let new = path.with_extension("seq.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(files(&new, "create the file"))?;
    file.write_all(text.as_bytes())
        .map_err(files(&new, "write the file"))?;
    crash_point("reserve: written");
    file.sync_all()
        .map_err(files(&new, "write it through to the disk"))?;
    crash_point("reserve: synced");
    fs::rename(&new, path).map_err(files(path, "replace the file"))?;
    crash_point("reserve: named");
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(files(folder, "write it through to the disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch::from_bytes([0xab; 16]);

    #[test]
    fn reservation_is_read_back_and_continues_after_the_last_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = Reserve::path_beside(&folder.path().join("postern.db"));
        assert!(path.ends_with("postern.seq") && Reserve::read(&path).unwrap().is_none());
        let mut reserve = Reserve::create(&path, EPOCH, 7, 9).unwrap();
        let again = Reserve::read(&path).unwrap().unwrap();
        assert_eq!(
            (again.epoch(), again.floor(), again.reserved()),
            (EPOCH, 7, 9 + BLOCK)
        );
        assert!(!reserve.is_short(9) && reserve.is_short(9 + BLOCK - HEADROOM + 1));
        reserve.extend(5000, None).unwrap();
        reserve.extend(9000, Some(8000)).unwrap();
        let again = Reserve::read(&path).unwrap().unwrap();
        assert_eq!((again.floor(), again.reserved()), (8000, 9000 + BLOCK));
        reserve.close(9001, 9003).unwrap();
        let again = Reserve::read(&path).unwrap().unwrap();
        assert_eq!((again.floor(), again.reserved()), (9001, 9003));
    }

    #[test]
    fn truncated_or_altered_file_is_reported_as_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.seq");
        Reserve::create(&path, EPOCH, 7, 9).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // A file without its last newline has the same content. A prefix of the last number would
        // be a valid number, so truncation inside it is not tested.
        let numbers = text.len() - "4105\n".len();
        for length in 0..=numbers {
            fs::write(&path, &text[..length]).unwrap();
            assert!(
                matches!(Reserve::read(&path), Err(ReserveError::Damaged(_))),
                "{length}"
            );
        }
        for wrong in [
            text.replace("floor 7", "floor -7"),
            text.replace("epoch a", "epoch x"),
        ] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(
                Reserve::read(&path),
                Err(ReserveError::Damaged(_))
            ));
        }
        fs::write(&path, [0xff; 80]).unwrap();
        assert!(matches!(
            Reserve::read(&path),
            Err(ReserveError::Damaged(_))
        ));
    }
}

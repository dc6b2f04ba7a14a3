//! Sequence numbers reserved in blocks, in a small file beside the database (docs/DECISIONS.md 2).
//!
//! A database can fall back: a copy put in its place, a disk that lied. Its file of reservations usually does not fall back
//! with it, and so tells. Written once per block, never per commit. Never holds a secret. Invariant: no `change_seq` above
//! `reserved` was ever committed, and the database once held `floor`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keys::Epoch;
use keys::crash::crash_point;

/// Sequence numbers that are reserved at once. After a crash as many are skipped at most.
const BLOCK: u64 = 4096;
/// A new block is reserved when fewer than these are left.
const HEADROOM: u64 = 1024;
/// Longest file.
const FILE_BYTES_MAX: u64 = 256;
const HEADING: &str = "postern sequence numbers, 1";

/// Why a reservation was not read or made.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The file system.
    #[error("{path}: cannot {doing}")]
    Files {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Not what this program writes. It is written whole or not at all, so somebody or a disk changed it.
    #[error(
        "{0}: cannot be read as reserved sequence numbers; if the database is the newest there is, remove this file"
    )]
    Damaged(PathBuf),
}

/// What is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    epoch: Epoch,
    floor: u64,
    reserved: u64,
}

/// The reservation of a running node.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    block: Block,
}

impl Reserve {
    /// The file beside a database.
    pub fn path_beside(database: &Path) -> PathBuf {
        database.with_extension("seq")
    }

    /// What the file says; none where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, ReserveError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(files(path, "open it")(error)),
        };
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        match read {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(files(path, "read it")(error));
            }
            _ => {}
        }
        let block = parse(&text).ok_or_else(|| ReserveError::Damaged(path.to_owned()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            block,
        }))
    }

    /// Reserves what follows `last`, for a database that holds `head`.
    pub fn make(path: &Path, epoch: Epoch, head: u64, last: u64) -> Result<Self, ReserveError> {
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

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epoch in which the numbers count.
    pub fn epoch(&self) -> Epoch {
        self.block.epoch
    }

    /// What the database held when this was written.
    pub fn floor(&self) -> u64 {
        self.block.floor
    }

    /// No number above this was given out.
    pub fn reserved(&self) -> u64 {
        self.block.reserved
    }

    /// Whether the next block should be reserved, before a transaction that begins after `last`.
    pub fn is_short(&self, last: u64) -> bool {
        last.saturating_add(HEADROOM) > self.block.reserved
    }

    /// Reserves a further block behind `last`, for a database that holds `head`; none: that is not known now.
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

    /// At a clean end: nothing above `last` was given out, and the database holds `head`.
    pub fn close(&self, head: u64, last: u64) -> Result<(), ReserveError> {
        let block = Block {
            floor: head,
            reserved: last,
            ..self.block
        };
        write(&self.path, &block)
    }
}

fn files<'p>(path: &'p Path, doing: &'static str) -> impl FnOnce(io::Error) -> ReserveError + 'p {
    move |source| ReserveError::Files {
        path: path.to_owned(),
        doing,
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

/// Writes the file whole or not at all, and on the disk when it returns.
fn write(path: &Path, block: &Block) -> Result<(), ReserveError> {
    let text = format!(
        "{HEADING}\nepoch {}\nfloor {}\nreserved {}\n",
        block.epoch.to_hex(),
        block.floor,
        block.reserved
    );
    let draft = path.with_extension("seq.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(files(&draft, "make it"))?;
    file.write_all(text.as_bytes())
        .map_err(files(&draft, "write it"))?;
    crash_point("reserve: written");
    file.sync_all()
        .map_err(files(&draft, "sync it to the disk"))?;
    crash_point("reserve: synced");
    fs::rename(&draft, path).map_err(files(path, "replace it"))?;
    crash_point("reserve: named");
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(files(folder, "sync it to the disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch::from_bytes([0xab; 16]);

    #[test]
    fn a_reservation_comes_back_and_goes_on_behind_what_was_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = Reserve::path_beside(&folder.path().join("postern.db"));
        assert!(path.ends_with("postern.seq") && Reserve::read(&path).unwrap().is_none());
        let mut reserve = Reserve::make(&path, EPOCH, 7, 9).unwrap();
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
    fn what_is_cut_or_altered_is_not_read_as_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.seq");
        Reserve::make(&path, EPOCH, 7, 9).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // The last byte is a newline, which nothing hangs on; each shorter one of the last number is another number.
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

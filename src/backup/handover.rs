//! The file that moves an identity to another node: its keys, then its objects (docs/DECISIONS.md
//! 10).
//!
//! A sealed stream with the keys ([`Handover`]), then entries: the length of the entry in 4 bytes,
//! big-endian, and the entry. An entry is the encoding of an object. With the highest bit of the
//! length set, the entry is the oid of a scope and a list of address records.
//!
//! Invariants: the file has its final name only after it was read back. A reader returns
//! authenticated entries only, and reports the end only if the file is whole. Tested below and in
//! `tests/system/moves.rs`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use keys::vault::VaultError;
use keys::{
    AddressRecord, Handover, KeyManager, Limits, MoveFileKey, Oid, OpeningReader, SealError,
    SealingWriter, SignedObject, codec, crash_point,
};

use super::archive::CHUNK_BYTES;
use super::create::{CreateBackupError, TempPath, check_target, draft_of, publish};
use crate::data_dir::{StagingError, create_new, files, sync_folder};

/// Longest encoding of an object, in bytes: 65,536 bytes, key number and signature.
const OBJECT_BYTES_MAX: usize = 66 * 1024;
/// Bytes of entries after which [`MoveReader::next_part`] returns.
const PART_BYTES: usize = 256 * 1024;
/// The bit of a length that marks an entry with address records.
const ADDRESSES: u32 = 1 << 31;
/// Most records of an entry, so that it is not longer than an object. A record has up to 6 KiB.
const ENTRY_RECORDS_MAX: usize = 8;

/// Why a file that moves an identity was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveFileError {
    /// The file cannot have this name.
    #[error(transparent)]
    Target(#[from] CreateBackupError),
    /// An operation on a file failed.
    #[error(transparent)]
    Files(#[from] StagingError),
    /// The vault does not seal the file, or has no keys that move.
    #[error("cannot seal the file")]
    Vault(#[from] VaultError),
    /// The file is of another kind, or its key is wrong.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The file cannot be read, was changed, or is not whole.
    #[error("cannot read the file: it is damaged or not whole, or its key is wrong")]
    Stream(#[source] io::Error),
    /// The stream has something else than objects and address records.
    #[error("the file has something else than objects and addresses")]
    Malformed,
    /// The file that was read back has another number of entries.
    #[error("the file differs from what was written: the disk may be failing")]
    Differs,
}

/// Writes a file. Removes it if it is dropped before the end.
pub(crate) struct MoveWriter {
    out: PathBuf,
    draft: TempPath,
    stream: SealingWriter<BufWriter<File>>,
    entries: u64,
}

impl MoveWriter {
    /// Begins the file `out` with the keys of an identity that moves.
    pub(crate) fn begin(
        keys: &KeyManager,
        identity: Oid,
        out: &Path,
    ) -> Result<Self, MoveFileError> {
        check_target(out)?;
        let draft = TempPath::at(draft_of(out))?;
        let file = BufWriter::with_capacity(CHUNK_BYTES, create_new(&draft.0)?);
        let failed = |error| files("write", &draft.0)(error);
        let sealer = keys.move_sealer(&mut rand::rng())?;
        let mut stream = sealer.start(file).map_err(failed)?;
        let handover = keys.hand_over(identity)?;
        handover
            .write_to(&mut stream)
            .map_err(files("write", &draft.0))?;
        Ok(Self {
            out: out.to_owned(),
            draft,
            stream,
            entries: 0,
        })
    }

    /// Appends objects.
    pub(crate) fn add(&mut self, objects: &[SignedObject]) -> Result<(), MoveFileError> {
        for object in objects {
            self.entry(0, &codec::encode(object))?;
        }
        Ok(())
    }

    /// Appends the address records of members' nodes in a scope.
    pub(crate) fn add_addresses(
        &mut self,
        scope: &Oid,
        records: &[AddressRecord],
    ) -> Result<(), MoveFileError> {
        for records in records.chunks(ENTRY_RECORDS_MAX) {
            let entry = [scope.as_bytes().as_slice(), &codec::encode(&records)].concat();
            self.entry(ADDRESSES, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, kind: u32, bytes: &[u8]) -> Result<(), MoveFileError> {
        let length = u32::try_from(bytes.len()).map_err(|_| MoveFileError::Malformed)?;
        self.stream
            .write_all(&(length | kind).to_be_bytes())
            .and_then(|()| self.stream.write_all(bytes))
            .map_err(files("write", &self.draft.0))?;
        self.entries += 1;
        Ok(())
    }

    /// Ends the file, reads it back, and gives it its name. Returns its length in bytes.
    pub(crate) fn finish(self, keys: &KeyManager) -> Result<u64, MoveFileError> {
        let draft = &self.draft.0;
        let mut file = self.stream.finish().map_err(files("write", draft))?;
        file.flush().map_err(files("write", draft))?;
        let file = file
            .into_inner()
            .map_err(|error| files("write", draft)(error.into_error()))?;
        file.sync_all().map_err(files("sync", draft))?;
        crash_point("move: file written");
        let length = file
            .metadata()
            .map_err(files("read the length of", draft))?
            .len();
        drop(file);
        let mut written = MoveReader::read_back(draft, keys)?;
        let mut entries = 0;
        loop {
            match written.next_part()?.len() {
                0 => break,
                some => entries += some as u64,
            }
        }
        if entries != self.entries {
            return Err(MoveFileError::Differs);
        }
        let folder = check_target(&self.out)?;
        publish(draft, &self.out)?;
        sync_folder(folder)?;
        crash_point("move: file named");
        Ok(length)
    }
}

/// Some entries of a file.
#[derive(Debug, Default)]
pub(crate) struct MovePart {
    /// The objects, in order.
    pub(crate) objects: Vec<SignedObject>,
    /// The oids of scopes, with the address records of members' nodes.
    pub(crate) addresses: Vec<(Oid, Vec<AddressRecord>)>,
}

impl MovePart {
    fn len(&self) -> usize {
        self.objects.len() + self.addresses.len()
    }

    /// Whether the file has ended, and is whole.
    pub(crate) fn is_end(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a file.
pub(crate) struct MoveReader {
    stream: OpeningReader<BufReader<File>>,
    handover: Handover,
}

impl MoveReader {
    /// Opens a file with its key.
    pub(crate) fn open(path: &Path, key: &MoveFileKey) -> Result<Self, MoveFileError> {
        Self::begin(key.open(open(path)?)?)
    }

    fn read_back(path: &Path, keys: &KeyManager) -> Result<Self, MoveFileError> {
        Self::begin(keys.open_move(open(path)?)?)
    }

    fn begin(mut stream: OpeningReader<BufReader<File>>) -> Result<Self, MoveFileError> {
        let handover = Handover::read_from(&mut stream).map_err(MoveFileError::Stream)?;
        Ok(Self { stream, handover })
    }

    /// The keys.
    pub(crate) fn into_handover(self) -> Handover {
        self.handover
    }

    /// The next entries.
    pub(crate) fn next_part(&mut self) -> Result<MovePart, MoveFileError> {
        let limits = Limits {
            bytes_max: OBJECT_BYTES_MAX,
            depth_max: 2,
            items_max: 8,
        };
        let (mut part, mut bytes) = (MovePart::default(), 0);
        while bytes < PART_BYTES {
            let Some((kind, length)) = self.next_length()? else {
                break;
            };
            if length > OBJECT_BYTES_MAX {
                return Err(MoveFileError::Malformed);
            }
            let mut encoded = vec![0; length];
            self.stream
                .read_exact(&mut encoded)
                .map_err(MoveFileError::Stream)?;
            match kind {
                ADDRESSES => part.addresses.push(addresses(&encoded)?),
                _ => part
                    .objects
                    .push(codec::decode(&encoded, &limits).map_err(|_| MoveFileError::Malformed)?),
            }
            bytes += length;
        }
        Ok(part)
    }

    /// Kind and length of the next entry. `None`: the file has ended.
    fn next_length(&mut self) -> Result<Option<(u32, usize)>, MoveFileError> {
        let mut bytes = Vec::with_capacity(4);
        (&mut self.stream)
            .take(4)
            .read_to_end(&mut bytes)
            .map_err(MoveFileError::Stream)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes: [u8; 4] = bytes.try_into().map_err(|_| MoveFileError::Malformed)?;
        let length = u32::from_be_bytes(bytes);
        let (kind, length) = (length & ADDRESSES, length & !ADDRESSES);
        Ok(usize::try_from(length).ok().map(|length| (kind, length)))
    }
}

fn addresses(entry: &[u8]) -> Result<(Oid, Vec<AddressRecord>), MoveFileError> {
    let (scope, records) = entry
        .split_at_checked(Oid::LEN)
        .ok_or(MoveFileError::Malformed)?;
    let scope = Oid::from_slice(scope).ok_or(MoveFileError::Malformed)?;
    let records = AddressRecord::decode_list(records).map_err(|_| MoveFileError::Malformed)?;
    Ok((scope, records))
}

fn open(path: &Path) -> Result<BufReader<File>, StagingError> {
    let file = File::open(path).map_err(files("open", path))?;
    Ok(BufReader::with_capacity(CHUNK_BYTES, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{KdfCost, Passphrase, PeerId, Signature};
    use std::fs;

    fn vault(folder: &Path) -> (KeyManager, Oid) {
        let passphrase = Passphrase::from_string("correct horse".into());
        let mut rng = rand::rng();
        let keys = KeyManager::create(&folder.join("vault"), &passphrase, KdfCost::TEST, &mut rng);
        let keys = keys.unwrap();
        let identity = keys.add_identity(&mut rng).unwrap();
        let target = (PeerId::from_bytes([3; PeerId::LEN]), 2);
        keys.begin_move(identity, target, &mut rng).unwrap();
        (keys, identity)
    }

    fn object(bytes: usize) -> SignedObject {
        let signature = Signature::from_bytes([7; Signature::LEN]);
        SignedObject::from_parts(1, vec![9; bytes], signature)
    }

    fn key(path: &Path) -> MoveFileKey {
        let passphrase = Passphrase::from_string("correct horse".into());
        MoveFileKey::derive(File::open(path).unwrap(), &passphrase).unwrap()
    }

    #[test]
    fn objects_come_back_in_order_and_a_cut_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, identity) = vault(folder.path());
        let out = folder.path().join("moved");
        let objects: Vec<_> = (0..20).map(|number| object(number * 3000 + 1)).collect();
        let mut writer = MoveWriter::begin(&keys, identity, &out).unwrap();
        writer.add(&objects).unwrap();
        let records: Vec<_> = (0..20).map(|now| keys.address_record(now)).collect();
        let scope = Oid::from_bytes([5; Oid::LEN]);
        writer.add_addresses(&scope, &records).unwrap();
        assert!(!out.exists());
        let bytes = writer.finish(&keys).unwrap();
        assert_eq!(bytes, fs::metadata(&out).unwrap().len());
        let mut reader = MoveReader::open(&out, &key(&out)).unwrap();
        let (mut read, mut addresses) = (Vec::new(), Vec::new());
        loop {
            let mut part = reader.next_part().unwrap();
            if part.is_end() {
                break;
            }
            read.append(&mut part.objects);
            for (of, mut some) in part.addresses {
                assert_eq!(of, scope);
                addresses.append(&mut some);
            }
        }
        assert_eq!((read, addresses), (objects, records));
        assert_eq!(reader.into_handover().identity(), identity);
        // Cut between two chunks.
        let cut = folder.path().join("cut");
        fs::copy(&out, &cut).unwrap();
        let file = File::options().write(true).open(&cut).unwrap();
        file.set_len(93 + 65_552 * 2).unwrap();
        let mut reader = MoveReader::open(&cut, &key(&cut)).unwrap();
        let end = loop {
            match reader.next_part() {
                Ok(part) => assert!(!part.is_end(), "an end without an error"),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, MoveFileError::Stream(_)));
    }

    #[test]
    fn existing_file_is_kept_and_an_unfinished_one_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, identity) = vault(folder.path());
        let out = folder.path().join("moved");
        drop(MoveWriter::begin(&keys, identity, &out).unwrap());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "the vault only");
        fs::write(&out, "other").unwrap();
        assert!(matches!(
            MoveWriter::begin(&keys, identity, &out).err(),
            Some(MoveFileError::Target(CreateBackupError::Exists(_)))
        ));
        assert_eq!(fs::read(&out).unwrap(), b"other");
    }
}

//! The content of a backup: a tar stream of a manifest, then of each file that the manifest names,
//! in its order.
//!
//! [`ArchiveWriter`] writes the stream, [`read`] reads it. Both run inside the sealed stream of
//! `keys`, which encrypts and authenticates. [`read`] refuses every entry whose name, size, kind or
//! order differs from the manifest. A crafted entry could otherwise write outside the folder or
//! over another file. Invariant: [`read`] returns `Ok` only after it read the stream to its
//! authenticated end. Tested in `archive_tests.rs` and `tests/system/backup.rs`.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

/// The manifest's entry, the first of the stream.
const MANIFEST: &str = "manifest.json";
/// The configuration file, unchanged.
pub(super) const CONFIG: &str = "postern.toml";
/// The vault, sealed under the passphrase as on the disk.
pub(super) const KEYS: &str = "keys.vault";
/// A snapshot of the database.
pub(super) const DATABASE: &str = "postern.db";
/// Prefix of the schema files of the operator's own apps.
pub(super) const SCHEMAS: &str = "schemas/";
/// The files of every backup.
const NEEDED: [&str; 3] = [CONFIG, KEYS, DATABASE];

/// Version of this format.
const FORMAT: u32 = 1;
/// Longest manifest. One of a hundred files has a tenth of that.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest file other than the database: such files are read into memory. The same as the longest
/// config file.
pub(super) const SMALL_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a schema file: with its prefix it fits a plain tar header, which has 100 bytes
/// for it.
const NAME_BYTES_MAX: usize = 80;
/// Largest number of files: a node has at most 63 schema files.
const FILES_MAX: usize = 80;
/// Length of a tar block.
const BLOCK_BYTES: usize = 512;
/// Length of a buffer for reading and writing.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// The description of a backup, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// Version of the program that made the backup.
    pub(super) program: String,
    /// Time of the backup, in milliseconds since 1970.
    pub(super) created_ms: u64,
    /// The peer id of the node, as 64 hexadecimal digits.
    pub(super) peer_id: String,
    /// The files, in the order of the stream; the configuration is the first.
    pub(super) files: Vec<Part>,
}

/// The manifest's description of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// One of [`NEEDED`], or [`SCHEMAS`] followed by a plain file name.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) bytes: u64,
}

/// The cause for which a stream is not a valid backup, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream cannot be read or written, ends too early, or fails authentication.
    #[error("cannot {0}")]
    Stream(&'static str, #[source] io::Error),
    /// The backup was made by a later version of the program.
    #[error("the backup has format {0}; this program knows format {FORMAT}: use a later version")]
    UnknownFormat(u64),
    /// The content breaks a rule of the format. Carries the rule.
    #[error("the backup's content is not valid: {0}")]
    Content(String),
}

fn content(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Content(what.into())
}

impl Manifest {
    /// Describes `files`, whose first has to be the configuration.
    pub(super) fn new(created_ms: u64, peer_id: String, files: Vec<Part>) -> Self {
        Self {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            created_ms,
            peer_id,
            files,
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, ArchiveError> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let wrong = |error: serde_json::Error| {
            content(format!("its manifest: {}", keys::error_chain(&error)))
        };
        let Version { format } = serde_json::from_slice(bytes).map_err(wrong)?;
        if format != u64::from(FORMAT) {
            return Err(ArchiveError::UnknownFormat(format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks that every name is known and unique, that no needed file is missing, and that no
    /// length exceeds its limit.
    pub(super) fn check(&self) -> Result<(), ArchiveError> {
        let names = || self.files.iter().map(|part| part.name.as_str());
        if self.files.len() > FILES_MAX {
            return Err(content("too many files"));
        }
        for (index, part) in self.files.iter().enumerate() {
            let is_known = NEEDED.contains(&part.name.as_str())
                || part.name.strip_prefix(SCHEMAS).is_some_and(is_schema_name);
            if !is_known {
                return Err(content(format!("a file of unknown name, {:?}", part.name)));
            }
            if names().take(index).any(|earlier| earlier == part.name) {
                return Err(content(format!("{} is named twice", part.name)));
            }
            if part.name != DATABASE && part.bytes > SMALL_BYTES_MAX {
                return Err(content(format!("{} is too long", part.name)));
            }
        }
        if names().next() != Some(CONFIG)
            || !NEEDED
                .iter()
                .all(|needed| names().any(|name| name == *needed))
        {
            return Err(content("a needed file is missing, or the order is wrong"));
        }
        Ok(())
    }
}

/// Whether a backup takes a schema file of that name: a plain file name, without a path.
pub(super) fn is_schema_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
    name.len() <= NAME_BYTES_MAX
        && name.ends_with(".toml")
        && !name.starts_with('.')
        && name.chars().all(is_plain)
        && Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Writes the stream of a backup.
pub(super) struct ArchiveWriter<W: Write>(Builder<W>);

impl<W: Write> ArchiveWriter<W> {
    /// Writes the manifest.
    pub(super) fn begin(writer: W, manifest: &Manifest) -> Result<Self, ArchiveError> {
        manifest.check()?;
        let bytes =
            serde_json::to_vec(manifest).map_err(|error| content(keys::error_chain(&error)))?;
        let mut archive = Self(Builder::new(writer));
        archive.add(
            MANIFEST,
            bytes.len() as u64,
            manifest.created_ms,
            &mut bytes.as_slice(),
        )?;
        Ok(archive)
    }

    /// Writes the next file.
    ///
    /// # Errors
    /// [`ArchiveError::Content`] where `reader` yields fewer than `bytes` bytes.
    pub(super) fn add(
        &mut self,
        name: &str,
        bytes: u64,
        created_ms: u64,
        reader: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        let failed = |error| ArchiveError::Stream("write the backup", error);
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(failed)?;
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(created_ms / 1000);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        let mut counted = Counted {
            reader: reader.take(bytes),
            read: 0,
        };
        self.0.append(&header, &mut counted).map_err(failed)?;
        if counted.read != bytes {
            return Err(content(format!("{name} changed while it was read")));
        }
        Ok(())
    }

    /// Ends the stream and returns the inner writer.
    pub(super) fn finish(self) -> Result<W, ArchiveError> {
        self.0
            .into_inner()
            .map_err(|error| ArchiveError::Stream("write the backup", error))
    }
}

/// Counts the bytes that pass.
struct Counted<R> {
    reader: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// Reads a stream to its end and passes every file to `take`, which has to read it whole. The
/// caller must not use the files before this returned `Ok`, because the end of the stream may be
/// missing.
///
/// # Errors
/// An [`ArchiveError`], or the error of `take`.
pub(super) fn read<R: Read, E: From<ArchiveError>>(
    reader: R,
    mut take: impl FnMut(&Manifest, &Part, &mut dyn Read) -> Result<(), E>,
) -> Result<Manifest, E> {
    let failed = |error| ArchiveError::Stream("read the backup", error);
    let mut archive = Archive::new(reader);
    // Raw: an extension entry (long name, PAX header) is not applied to the next entry, but refused
    // as another kind.
    let mut entries = archive.entries().map_err(failed)?.raw(true);
    let mut next = |name: &str, bytes_max: u64| {
        let entry = entries
            .next()
            .ok_or_else(|| content(format!("{name} is missing")))?
            .map_err(failed)?;
        let header = entry.header();
        if header.entry_type() != EntryType::Regular || *header.path_bytes() != *name.as_bytes() {
            return Err(content(format!("another entry where {name} belongs")));
        }
        match header.size().map_err(failed)? {
            bytes if bytes > bytes_max => {
                Err(content(format!("{name} is longer than the manifest says")))
            }
            bytes => Ok((entry, bytes)),
        }
    };
    let (mut entry, _) = next(MANIFEST, MANIFEST_BYTES_MAX)?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(failed)?;
    let manifest = Manifest::decode(&bytes)?;
    for part in &manifest.files {
        let (entry, bytes) = next(&part.name, part.bytes)?;
        let mut counted = Counted {
            reader: entry,
            read: 0,
        };
        if bytes == part.bytes {
            take(&manifest, part, &mut counted)?;
        }
        if counted.read != part.bytes {
            return Err(content(format!("{} is shorter than the manifest says", part.name)).into());
        }
    }
    if entries.next().is_some() {
        return Err(content("more entries than the manifest names").into());
    }
    // A tar ends in two blocks of zeros, of which the reader has taken one. Reading past the second
    // also reads the final chunk of the sealed stream, which authenticates the end.
    let mut rest = Vec::new();
    archive
        .into_inner()
        .take(2 * BLOCK_BYTES as u64)
        .read_to_end(&mut rest)
        .map_err(failed)?;
    if rest == [0; BLOCK_BYTES] {
        Ok(manifest)
    } else {
        Err(content("its end is missing, or data follows it").into())
    }
}

/// Reads a file other than the database whole.
pub(super) fn read_small(reader: &mut dyn Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    reader
        .take(SMALL_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| ArchiveError::Stream("read the backup", error))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;

//! What a backup holds, as a tar stream: a manifest, then each file that it names, in its order.
//!
//! Never takes a name, a size, a kind or an order that the manifest does not say, so that nothing is written beside the
//! folder or over another file. Sealing is not done here: the streams are `keys`'. Invariant: [`read`] returns `Ok` only
//! after the whole stream was read to its authenticated end.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

/// The manifest's name in the stream.
const MANIFEST: &str = "manifest.json";
/// The config file as it was.
pub(super) const CONFIG: &str = "postern.toml";
/// The vault, sealed as it was.
pub(super) const KEYS: &str = "keys.vault";
/// A snapshot of the database.
pub(super) const DATABASE: &str = "postern.db";
/// Before the name of an own app's schema file.
pub(super) const SCHEMAS: &str = "schemas/";
/// What every backup holds.
const NEEDED: [&str; 3] = [CONFIG, KEYS, DATABASE];

/// Version of what is described here.
const FORMAT: u32 = 1;
/// Longest manifest: a hundred files need a tenth of it.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest file but the database: all are read into memory. As long as a config may be.
pub(super) const SMALL_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a schema file: with its folder it fits a plain tar header.
const NAME_BYTES_MAX: usize = 80;
/// Most files; a node has at most 63 schema files.
const FILES_MAX: usize = 80;
/// A tar consists of blocks of this length.
const BLOCK_BYTES: usize = 512;
/// How much is read at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// Version of the program that made it.
    pub(super) program: String,
    /// When, in milliseconds since 1970.
    pub(super) created_ms: u64,
    /// Whose it is, whole, in hexadecimal digits.
    pub(super) peer_id: String,
    /// The files, in the order of the stream; the config is the first.
    pub(super) files: Vec<Part>,
}

/// A file in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// One of the names above, or [`SCHEMAS`] and a plain file name.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
}

/// Why a stream is no backup that this program takes.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream cannot be read or written, or it ends too early, or its seal does not hold.
    #[error("cannot {0}")]
    Stream(&'static str, #[source] io::Error),
    /// Made by a later version.
    #[error("the backup has format {0}; this program knows format {FORMAT}: use a later version")]
    UnknownFormat(u64),
    /// Its content is not what a backup's is.
    #[error("the backup's content is not valid: {0}")]
    Content(String),
}

fn content(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Content(what.into())
}

impl Manifest {
    /// Of these files.
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
        let wrong = |error: serde_json::Error| content(format!("its manifest: {error}"));
        let Version { format } = serde_json::from_slice(bytes).map_err(wrong)?;
        if format != u64::from(FORMAT) {
            return Err(ArchiveError::UnknownFormat(format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Every name known and named once, all that is needed there, nothing too long.
    pub(super) fn check(&self) -> Result<(), ArchiveError> {
        let names = || self.files.iter().map(|part| part.name.as_str());
        if self.files.len() > FILES_MAX {
            return Err(content("too many files"));
        }
        for (place, part) in self.files.iter().enumerate() {
            let is_known = NEEDED.contains(&part.name.as_str())
                || part.name.strip_prefix(SCHEMAS).is_some_and(is_schema_name);
            if !is_known {
                return Err(content(format!("a file of unknown name, {:?}", part.name)));
            }
            if names().take(place).any(|earlier| earlier == part.name) {
                return Err(content(format!("{} twice", part.name)));
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
            return Err(content("not all files are there, or not in order"));
        }
        Ok(())
    }
}

/// Whether a schema file of that name can be in a backup: a plain name with nothing that leads elsewhere.
pub(super) fn is_schema_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ');
    name.len() <= NAME_BYTES_MAX
        && name.ends_with(".toml")
        && !name.starts_with('.')
        && name.chars().all(is_plain)
        && Path::new(name).file_name().is_some_and(|file| file == name)
}

/// A tar stream that is being written.
pub(super) struct Writing<W: Write>(Builder<W>);

impl<W: Write> Writing<W> {
    /// Begins with the manifest.
    pub(super) fn begin(writer: W, manifest: &Manifest) -> Result<Self, ArchiveError> {
        manifest.check()?;
        let bytes = serde_json::to_vec(manifest).map_err(|error| content(error.to_string()))?;
        let mut writing = Self(Builder::new(writer));
        writing.add(
            MANIFEST,
            bytes.len() as u64,
            manifest.created_ms,
            &mut bytes.as_slice(),
        )?;
        Ok(writing)
    }

    /// The next file: as many bytes as said, or it fails.
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

    /// Ends the stream, and gives back what it was written to.
    pub(super) fn finish(self) -> Result<W, ArchiveError> {
        self.0
            .into_inner()
            .map_err(|error| ArchiveError::Stream("write the backup", error))
    }
}

/// Counts what passes.
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

/// Reads a stream to its end and hands every file to `take`, which reads it whole. What `take` was given is to be used only
/// once this has returned `Ok`: before, the rest of the stream may still turn out to be missing.
///
/// # Errors
/// Of the stream, and what `take` fails with.
pub(super) fn read<R: Read, E: From<ArchiveError>>(
    reader: R,
    mut take: impl FnMut(&Manifest, &Part, &mut dyn Read) -> Result<(), E>,
) -> Result<Manifest, E> {
    let failed = |error| ArchiveError::Stream("read the backup", error);
    let mut archive = Archive::new(reader);
    // Raw: no entry changes the meaning of the next one (long names, links, extensions): each is a file or refused.
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
            bytes if bytes > bytes_max => Err(content(format!("{name} is longer than it says"))),
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
            return Err(content(format!("{} is shorter than it says", part.name)).into());
        }
    }
    if entries.next().is_some() {
        return Err(content("more than the manifest names").into());
    }
    // A tar ends in two blocks of zeros, of which the reader takes one. Nothing may follow, and the stream's own end must
    // hold, which is learned only by reading up to it.
    let mut rest = Vec::new();
    archive
        .into_inner()
        .take(2 * BLOCK_BYTES as u64)
        .read_to_end(&mut rest)
        .map_err(failed)?;
    if rest == [0; BLOCK_BYTES] {
        Ok(manifest)
    } else {
        Err(content("its end is missing, or something is behind it").into())
    }
}

/// The whole of a small file in the stream.
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

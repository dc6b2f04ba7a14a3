//! Sealed backups, and files that move an identity: a stream of any size that is sealed and opened
//! with one chunk in memory.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 15 | magic, `postern-backup` or `postern-moving`, and a newline |
//! | 15 | 2 | version, 1 |
//! | 17 | 12 | Argon2id: memory in KiB, passes, lanes, as in the vault |
//! | 29 | 16 | salt, as in the vault |
//! | 45 | 16 | key check, as in the vault |
//! | 61 | 32 | file nonce, random |
//! | 93 | n | chunks of 65,536 bytes, each with a tag of 16 bytes |
//!
//! All numbers are big-endian. The last chunk has 1 to 65,536 bytes, or 0 in an empty backup.
//!
//! The chunks are STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015, "Online
//! Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance") over XChaCha20-Poly1305. The
//! nonce of a chunk has 19 fixed bytes, a counter of 4 bytes and a byte that marks the last chunk.
//! Chunks can therefore not be exchanged, left out or cut off. The associated data of each chunk is
//! the header. The key is SHA-256 over context, the vault's key and the file nonce. Each file has
//! its own key, so the 19 fixed bytes may be the first bytes of the file nonce.
//!
//! Input and output: [`BackupSealer`] and [`SealingWriter`] seal; [`BackupOpener`] and
//! [`OpeningReader`] open. Invariant: a reader returns only authenticated bytes, and reports the
//! end only after the chunk that was sealed as the last. Tested in `backup/tests.rs`.

mod chunks;
mod error;
mod open;
mod seal;

pub(crate) use chunks::StreamKind;
pub use chunks::{MAGIC, MOVE_MAGIC};
pub use error::SealError;
pub(crate) use open::file_key_of;
pub use open::{BackupOpener, OpeningReader};
pub use seal::{BackupSealer, SealingWriter};

#[cfg(test)]
mod tests;

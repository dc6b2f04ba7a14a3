//! The vault: every secret of a node in one sealed file, and the key manager that signs with them.
//!
//! The file is sealed with Argon2id and XChaCha20-Poly1305 (`vault/format.rs` has the byte layout).
//! Its mode is 0600, a looser mode is refused, and each change replaces the whole file. Input: a
//! path, a passphrase and randomness. Output: signatures, public chains and sealed files.
//! Invariant: a key is on the disk before it signs anything and before its oid is returned, unless
//! the manager is in memory only. Tested in `vault/tests.rs`, `vault/rotation_tests.rs` and
//! `tests/all/crash.rs`.

mod error;
mod format;
mod manager;
mod moving;
mod onion;
mod rotation;
mod secrets;

pub use error::{UnknownIdentity, VaultError};
pub use manager::KeyManager;
pub use moving::{Handover, MoveFileKey, MovingIdentity};
pub use rotation::{CaughtUp, HolderInfo};

#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;

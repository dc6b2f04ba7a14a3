//! The configuration keys: the one source for their names, types, units, ranges and texts.
//!
//! `docs/CONFIG.md` and the file that `postern init` writes are made from [`TABLES`] (`docs.rs`),
//! and `check.rs` enforces its ranges. Invariant: the table names exactly the fields of the
//! configuration structs, with the same defaults (tested in `tests.rs`).

mod key;
mod local;
mod network;

pub use self::key::{Key, KeyType, Table};

/// All tables and keys, in the order of the documentation.
pub static TABLES: &[Table] = &[
    local::NODE,
    local::API,
    local::ADMISSION,
    network::BASTION,
    network::SYNC,
    local::QUOTA_UNTRUSTED,
    local::QUOTA_TRUSTED,
    network::TRANSPORT,
    local::LOG,
    local::PEER,
    network::TOR,
];

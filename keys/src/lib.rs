//! Keys: the only code that handles secret bytes, and every signed record.
//!
//! - [`ids`]: public newtypes ([`Oid`], [`PeerId`], [`OnionAddr`], …) whose `Display` is shortened.
//! - [`codec`]: canonical CBOR, and the scan that runs before every decoder.
//! - [`signing`]: signing contexts, strict verification, secret keys that cannot be printed.
//! - [`cose`]: COSE_Sign1 (RFC 9052), the envelope of a package.
//! - [`chain`]: genesis records and key events; [`home`]: home records; [`address`]: address
//!   records.
//! - [`signed_object`]: an object's exact bytes with its owner's signature.
//! - [`sealing`]: authenticated encryption of cookies and tickets, which only this node opens.
//! - [`passphrase`]: the passphrase of the vault; [`kdf`]: the key derived from it; [`token`]: the
//!   bearer tokens of the local API.
//! - [`onion_key`]: the onion service's key, with import and export; [`recovery`]: a next key in
//!   words.
//! - [`vault`]: the sealed file, and [`KeyManager`], which signs and does not reveal keys.
//! - [`backup`]: sealed streams of any size.
//! - [`locked`]: memory that is not swapped out; [`crash`]: crash points for tests.
//! - [`protocol`]: numbers that two nodes must share.
//!
//! This crate has no async runtime, SQL, sockets or clocks. Randomness is an argument. Its files
//! form an acyclic import graph.
#![forbid(unsafe_code)]

pub mod address;
pub mod backup;
pub mod chain;
pub mod codec;
pub mod cose;
pub mod crash;
mod error_chain;
mod file_header;
pub mod home;
pub mod ids;
pub mod kdf;
pub mod locked;
pub mod onion_key;
pub mod passphrase;
mod private_file;
pub mod protocol;
pub mod recovery;
pub mod sealing;
pub mod signed_object;
pub mod signing;
pub mod token;
pub mod vault;

pub use address::{AddressError, AddressRecord, VerifiedAddress};
pub use backup::{BackupOpener, BackupSealer, OpeningReader, SealError, SealingWriter};
pub use chain::{ChainError, Genesis, KeyChain, KeyEvent, VerifiedChain};
pub use codec::{Limits, Malformed};
pub use crash::crash_point;
pub use error_chain::error_chain;
pub use home::{HomeError, HomeRecord, VerifiedHome};
pub use ids::{
    BootId, Digest, Epoch, Oid, OnionAddr, PeerId, PublicKey, SchemaDigest, Signature, TraceId,
};
pub use kdf::{KdfCost, KdfError};
pub use locked::MemoryLock;
pub use onion_key::{OnionKey, OnionKeyError};
pub use passphrase::Passphrase;
pub use private_file::FileError;
pub use recovery::{RecoveryError, RecoveryKey};
pub use sealing::SealingKey;
pub use signed_object::SignedObject;
pub use signing::{BadSignature, Context, SecretKey};
pub use token::{ApiToken, NotAToken, TokenFileError};
pub use vault::{
    CaughtUp, Handover, HolderInfo, KeyManager, MoveFileKey, MovingIdentity, UnknownIdentity,
    VaultError,
};

//! Keys: the only code that touches a secret byte, and everything that is signed.
//!
//! - [`ids`]: public newtypes ([`Oid`], [`PeerId`], [`OnionAddr`], …) that print themselves shortened.
//! - [`codec`]: canonical CBOR; the scan that stands before every decoder.
//! - [`signing`]: signing contexts, `verify_strict`, secret keys that cannot be printed.
//! - [`cose`]: COSE_Sign1 (RFC 9052), the envelope of a package.
//! - [`chain`]: genesis records, key events and what they prove; [`home`]: where an identity lives.
//! - [`signed_object`]: an object's exact bytes beside its owner's signature.
//! - [`sealing`]: authenticated encryption of what a node gives away to get back (cookies, tickets).
//! - [`passphrase`], [`token`]: what opens the vault, what opens the local API.
//! - [`onion_key`]: the onion service's key, to and from C tor's folder; [`recovery`]: a next key on paper.
//! - [`backup`]: sealed streams of any size. [`locked`]: memory that is not swapped out. [`crash`]: for tests.
//! - [`protocol`]: numbers that two nodes must share.
//! - [`vault`]: the sealed file, and [`KeyManager`], which signs without giving a secret out.
//!
//! Never here: tokio, SQL, sockets, clocks. Randomness is an argument.
#![forbid(unsafe_code)]

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

pub use backup::{BackupOpener, BackupSealer, OpeningReader, SealError, SealingWriter};
pub use chain::{ChainError, Genesis, KeyChain, KeyEvent, VerifiedChain};
pub use codec::{Limits, Malformed};
pub use crash::crash_point;
pub use error_chain::error_chain;
pub use home::{HomeError, HomeRecord, VerifiedHome};
pub use ids::{BootId, Digest, Epoch, Oid, OnionAddr, PeerId, PublicKey, Signature, TraceId};
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
pub use vault::{CaughtUp, HolderInfo, KeyManager, UnknownIdentity, VaultError};

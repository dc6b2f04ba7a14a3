//! Errors of the Tor client and of onion services.
//!
//! Texts of arti pass through [`chain`], which removes onion addresses.

use std::{error::Error as StdError, path::PathBuf, time::Duration};

use crate::transport::{DialError, redact_onions};

/// The error of a Tor client or onion service.
#[derive(Debug, thiserror::Error)]
pub enum TorError {
    /// The `[tor]` table has a key that arti does not know and would ignore.
    #[error("[tor] has an unknown key: {0}")]
    UnknownKey(String),
    /// The `[tor]` table sets a key that belongs to the node.
    #[error("[tor] may not set {0}: the node sets it")]
    OwnKey(String),
    /// The `[tor]` table has a value that arti refuses.
    #[error("[tor]: {0}")]
    BadConfig(String),
    /// The `[tor]` table contradicts another key of the configuration.
    #[error("[tor] {key} contradicts the configured value {configured:?}")]
    Contradiction {
        /// The key in the table.
        key: &'static str,
        /// The value of the other key.
        configured: &'static str,
    },
    /// This build lacks the named feature.
    #[error("this build lacks the feature `{0}`")]
    NotBuiltIn(&'static str),
    /// A folder for Tor could not be created.
    #[error("create {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// State of an earlier process could not be removed.
    #[error("remove {}: {source}", path.display())]
    StaleState {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bootstrap failed: the chain of causes.
    #[error("could not join the Tor network: {0}")]
    Bootstrap(String),
    /// The bootstrap missed its deadline.
    #[error("could not join the Tor network within {} s", .0.as_secs())]
    BootstrapDeadline(Duration),
    /// An onion service could not be started: the chain of causes, without onion addresses.
    #[error("could not start the onion service {nickname:?}: {why}")]
    Launch {
        /// The service's nickname.
        nickname: String,
        /// The chain of causes.
        why: String,
    },
    /// The service did not become reachable in time.
    #[error("the onion service could not be reached within {} s: {last}", waited.as_secs())]
    NotReachable {
        /// The time waited.
        waited: Duration,
        /// The error of the last dial.
        last: DialError,
    },
}

/// The error and its causes on one line, without onion addresses.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    redact_onions(&keys::error_chain(error))
}

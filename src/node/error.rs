//! The error of a node that cannot run.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bastion::transport::loopback::NotLoopback;
use keys::vault::VaultError;

use crate::data_dir::DirLockError;
use crate::engine::EngineError;
use crate::schema::SchemaError;
use crate::store::StoreError;

/// The cause for which a node did not start, or stopped before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process runs on the same folder, or the folder cannot be locked.
    #[error(transparent)]
    Lock(#[from] DirLockError),
    /// A file of the node's folder cannot be written.
    #[error("{path}: cannot {action}")]
    Files {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The vault does not open: its file or the passphrase is wrong.
    #[error("cannot open the vault")]
    Vault(#[from] VaultError),
    /// The database does not open.
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    /// A schema file of an app is wrong or missing.
    #[error("cannot load the apps")]
    Schemas(#[from] SchemaError),
    /// The API's address is taken, or the process may not listen on it.
    #[error("the local API cannot listen on {0}")]
    Api(SocketAddr, #[source] io::Error),
    /// A loopback address in the configuration is none.
    #[error("loopback transport: {0}")]
    LoopbackAddress(#[from] NotLoopback),
    /// The loopback transport's address is taken, or the process may not listen on it.
    #[error("the loopback transport cannot listen on {0}")]
    LoopbackListen(SocketAddr, #[source] io::Error),
    /// The program was built without the feature `tor`.
    #[cfg(not(feature = "tor"))]
    #[error(
        "this build is without Tor: set transport.kind = \"loopback\" or build with the feature \
         `tor`"
    )]
    WithoutTor,
    /// The Tor client does not start, or the onion service cannot be launched.
    #[cfg(feature = "tor")]
    #[error(transparent)]
    Tor(#[from] bastion::transport::tor::TorError),
    /// The transport's listener ended although the node was not asked to stop.
    #[error("the onion service has ended")]
    ListenerEnded,
    /// The core ended before the network was up.
    #[error("the core ended")]
    Core(#[from] EngineError<StoreError>),
    /// The writer thread could not be joined.
    #[error("the writer did not end cleanly")]
    WriterLost,
}

/// Makes a [`RunError::Files`] of the error of an operation on `path`.
pub(super) fn files(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Files {
        action,
        path,
        source,
    }
}

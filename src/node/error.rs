//! The error of a node that cannot run.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use keys::vault::VaultError;

use crate::data_dir::DirLockError;
use crate::engine::EngineError;
use crate::schema::SchemaError;
use crate::store::StoreError;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process runs on the same folder, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] DirLockError),
    /// The file system.
    #[error("{path}: cannot {doing}")]
    Files {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The vault does not open.
    #[error("cannot open the vault")]
    Vault(#[from] VaultError),
    /// The database does not open.
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    /// The apps do not load.
    #[error("cannot load the apps")]
    Schemas(#[from] SchemaError),
    /// The API's address is taken or not allowed.
    #[error("the local API cannot listen on {0}")]
    Api(SocketAddr, #[source] io::Error),
    /// The network.
    #[error("{0}")]
    Network(String),
    /// The engine ended too early.
    #[error("the engine ended")]
    Engine(#[from] EngineError<StoreError>),
}

pub(super) fn files(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Files {
        doing,
        path,
        source,
    }
}

//! [`SyncError`]: why a pull or push did not succeed, by whose fault.

use super::handle::SessionError;
use crate::engine::EngineError;
use crate::state_engine::{ApplyPackageError, BuildError, PackageFault, QuotaFault};
use crate::store::StoreError;

/// Why a pull or push did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// There is no session with the peer.
    #[error("there is no session with this peer")]
    NoSession,
    /// The domain is not in the intersection of both nodes' domains.
    #[error("the domain {0} is not shared with this peer")]
    NotShared(String),
    /// The session failed or ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer refused with this code.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// The peer's package is faulty; no cursor moved.
    #[error("the peer sent a faulty package")]
    Package(#[from] PackageFault),
    /// The package was not applied; no cursor moved.
    #[error("the package was not applied")]
    Apply(#[source] EngineError<ApplyPackageError>),
    /// This node's database failed.
    #[error(transparent)]
    Engine(#[from] EngineError<StoreError>),
    /// A package to be sent could not be built.
    #[error(transparent)]
    Build(EngineError<BuildError>),
}

impl SyncError {
    /// The quota that a package would have exceeded, if that is why it was not applied.
    pub fn quota(&self) -> Option<&QuotaFault> {
        match self {
            Self::Apply(EngineError::Work(ApplyPackageError::Quota(fault))) => Some(fault),
            _ => None,
        }
    }
}

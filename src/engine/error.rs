//! Errors of reads and writes through a `CoreHandle`.

use crate::state_engine::ApplyPackageError;
use crate::store::StoreError;

/// The writer thread has ended, because the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the core has stopped")]
pub struct CoreStopped;

/// Why a read or write failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError<E: std::error::Error + 'static> {
    /// The node is shutting down.
    #[error(transparent)]
    Stopped(#[from] CoreStopped),
    /// The work itself returned an error.
    #[error(transparent)]
    Work(E),
}

impl<E: std::error::Error + 'static> EngineError<E> {
    /// Returns the work's own error, or `stopped` if the core has stopped.
    pub fn unwrap_or_stopped(self, stopped: E) -> E {
        match self {
            Self::Work(error) => error,
            Self::Stopped(_) => stopped,
        }
    }
}

impl From<EngineError<StoreError>> for EngineError<ApplyPackageError> {
    fn from(error: EngineError<StoreError>) -> Self {
        match error {
            EngineError::Stopped(stopped) => Self::Stopped(stopped),
            EngineError::Work(error) => Self::Work(error.into()),
        }
    }
}

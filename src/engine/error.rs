//! Errors of the core as its callers see them.

use crate::state_engine::ApplyPackageError;
use crate::store::StoreError;

/// The engine was stopped: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct CoreStopped;

/// A failed read or write, or an engine that has stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError<E: std::error::Error + 'static> {
    /// The node is shutting down.
    #[error(transparent)]
    Stopped(#[from] CoreStopped),
    /// The work itself failed.
    #[error(transparent)]
    Work(E),
}

impl<E: std::error::Error + 'static> EngineError<E> {
    /// The work's own error, or what stands for "stopped".
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

//! Work with the file of a move, on blocking threads.

use keys::error_chain;

use crate::api::{ControlError, MoveError};
use crate::backup::MoveFileError;

/// Runs work with a file on a blocking thread.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, MoveFileError> + Send + 'static,
) -> Result<R, ControlError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| file_error(&error)),
        Err(_) => Err(ControlError::panicked()),
    }
}

fn file_error(error: &MoveFileError) -> ControlError {
    let text = error_chain(error);
    match error {
        MoveFileError::Target(_) => MoveError::Target(text).into(),
        MoveFileError::Files(_) | MoveFileError::Vault(_) | MoveFileError::Differs => {
            ControlError::Internal(text)
        }
        MoveFileError::Seal(_) | MoveFileError::Stream(_) | MoveFileError::Malformed => {
            MoveError::File(text).into()
        }
    }
}

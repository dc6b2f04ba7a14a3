//! The error of a command.

/// The error of a command, with its exit code.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
    /// Whether the node had no place for the request, so that a later one may succeed.
    pub(super) is_busy: bool,
}

impl Failure {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
            is_busy: false,
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
            is_busy: false,
        }
    }

    /// A failure with the error and its causes on one line.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::failed(keys::error_chain(error))
    }

    /// [`Failure::usage`] with the error and its causes on one line.
    pub(super) fn of_usage(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::usage(keys::error_chain(error))
    }
}

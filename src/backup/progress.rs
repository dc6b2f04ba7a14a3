//! The progress of a backup or a restore, and its cancellation.
//!
//! The caller passes a [`BackupProgressFn`], which receives the progress after each chunk and
//! returns whether to continue. Invariant: a cancellation takes effect within one chunk (256 KiB),
//! except while the database is copied or checked.

use std::io::{self, Read};
use std::ops::ControlFlow;

/// The progress of a backup or a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupProgress {
    /// The step that runs.
    pub step: BackupStep,
    /// Bytes that this step has processed.
    pub done_bytes: u64,
    /// Bytes that this step has to process; 0 where that is not known.
    pub total_bytes: u64,
}

/// A step of a backup (the first three) or of a restore (the others).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStep {
    /// Copies the database and checks the copy.
    Copying,
    /// Seals the files into the backup.
    Sealing,
    /// Reads the backup back and compares it.
    Verifying,
    /// Opens a backup and writes its files.
    Unpacking,
    /// Checks the files, and gives the node a new token and a recovery epoch.
    Checking,
}

impl BackupStep {
    /// The stable code of the step, which the API and the CLI show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Sealing => "sealing",
            Self::Verifying => "verifying",
            Self::Unpacking => "unpacking",
            Self::Checking => "checking",
        }
    }
}

/// Receives the progress, and returns [`ControlFlow::Break`] to cancel.
pub type BackupProgressFn<'h> = dyn FnMut(BackupProgress) -> ControlFlow<()> + 'h;

/// The caller's [`BackupProgressFn`] cancelled the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Reports the start or the end of a step.
pub(super) fn report(
    on_progress: &mut BackupProgressFn<'_>,
    step: BackupStep,
    done_bytes: u64,
    total_bytes: u64,
) -> Result<(), Cancelled> {
    let progress = BackupProgress {
        step,
        done_bytes,
        total_bytes,
    };
    match on_progress(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Cancelled),
    }
}

/// A reader that reports the number of bytes read. A cancellation becomes a read error that carries
/// [`Cancelled`].
pub(super) struct ProgressReader<'r, 'h, R> {
    reader: R,
    on_progress: &'r mut BackupProgressFn<'h>,
    at: BackupProgress,
}

impl<'r, 'h, R: Read> ProgressReader<'r, 'h, R> {
    pub(super) fn new(
        reader: R,
        on_progress: &'r mut BackupProgressFn<'h>,
        step: BackupStep,
        total_bytes: u64,
    ) -> Self {
        let at = BackupProgress {
            step,
            done_bytes: 0,
            total_bytes,
        };
        Self {
            reader,
            on_progress,
            at,
        }
    }
}

impl<R: Read> Read for ProgressReader<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.at.done_bytes += count as u64;
        match (self.on_progress)(self.at) {
            ControlFlow::Continue(()) => Ok(count),
            ControlFlow::Break(()) => Err(io::Error::other(Cancelled)),
        }
    }
}

/// Whether a read error is a cancellation.
pub(super) fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Cancelled>())
}

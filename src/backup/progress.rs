//! How far a backup or a restore is, and whether it is to go on.
//!
//! Never decides anything. Invariant: whoever says "stop" is heard within a chunk.

use std::io::{self, Read};
use std::ops::ControlFlow;

/// How far a backup or a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupProgress {
    /// What is being done.
    pub step: BackupStep,
    /// Bytes that are done in this step.
    pub done_bytes: u64,
    /// Bytes that there are to do in it; 0 where that is not known.
    pub total_bytes: u64,
}

/// Steps of a backup (the first three) and of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStep {
    /// The database is copied and the copy checked.
    Copying,
    /// All is sealed into the file.
    Sealing,
    /// The file is read back and compared.
    Verifying,
    /// A backup is opened and laid out.
    Unpacking,
    /// What was laid out is checked, and made a node of its own.
    Checking,
}

impl BackupStep {
    /// A short stable word.
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

/// Hears how far it is, and says whether to go on.
pub type ProgressFn<'h> = dyn FnMut(BackupProgress) -> ControlFlow<()> + 'h;

/// Whoever hears has said stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was stopped")]
pub struct Cancelled;

/// Tells the beginning or the end of a step.
pub(super) fn report(
    on_progress: &mut ProgressFn<'_>,
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

/// A reader that tells how many bytes were read, and ends in an error of [`Cancelled`] where it is to stop.
pub(super) struct ProgressReader<'r, 'h, R> {
    reader: R,
    on_progress: &'r mut ProgressFn<'h>,
    at: BackupProgress,
}

impl<'r, 'h, R: Read> ProgressReader<'r, 'h, R> {
    pub(super) fn new(
        reader: R,
        on_progress: &'r mut ProgressFn<'h>,
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

/// Whether an error of reading comes of a stop.
pub(super) fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Cancelled>())
}

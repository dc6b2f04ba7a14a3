//! The progress of a move, as the API shows it.

use std::sync::atomic::{AtomicBool, Ordering};

use keys::error_chain;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::api::{ControlError, MoveRow};

/// The state that is shared with the task of the move.
#[derive(Default)]
pub(super) struct MoveState {
    pub(super) row: Mutex<Option<MoveRow>>,
    pub(super) task: Mutex<Option<JoinHandle<()>>>,
    pub(super) stop: AtomicBool,
}
impl MoveState {
    /// Marks the move of a task that panicked as failed, so that the next one can start.
    pub(super) fn mark_panicked(&self, row: &mut MutexGuard<'_, Option<MoveRow>>) {
        let task = self.task.lock();
        let is_over = task.as_ref().is_some_and(JoinHandle::is_finished);
        if let Some(row) = row.as_mut().filter(|row| is_over && row.state == "running") {
            row.state = "failed";
            row.code = Some("internal");
            row.error = Some(ControlError::panicked().to_string());
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut MoveRow)) -> Result<(), ControlError> {
        if let Some(row) = &mut *self.row.lock() {
            change(row);
        }
        match self.stop.load(Ordering::SeqCst) {
            true => Err(ControlError::Stopping),
            false => Ok(()),
        }
    }

    pub(super) fn finish(&self, done: Result<(), ControlError>) {
        let mut row = self.row.lock();
        let Some(row) = &mut *row else { return };
        match done {
            Ok(()) => {
                tracing::info!(
                    direction = row.direction,
                    objects = row.done_objects,
                    left = row.left_objects,
                    "an identity moved"
                );
                row.state = "done";
            }
            Err(error) => {
                let text = error_chain(&error);
                tracing::warn!(
                    direction = row.direction,
                    error = text,
                    "the move of an identity did not end; it can be repeated"
                );
                row.state = "failed";
                row.code = Some(error.code());
                row.error = Some(text);
            }
        }
    }
}

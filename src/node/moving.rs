//! Moves of identities of a running node, to a file and from one (docs/DECISIONS.md 10).
//!
//! One move runs at a time, in a task of its own. Each step can be repeated. Invariants: the vault
//! stops to sign before a file is written. The keys of a file come into the vault after its
//! objects; a start completes the rest. Tested in `tests/system/moves.rs`.
mod arriving;
mod file_work;
mod leaving;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use keys::{MoveFileKey, Oid, OnionAddr};
use tracing::Instrument as _;

use self::arriving::Arriving;
use self::leaving::Leaving;
use self::progress::MoveState;
use super::rotation::VaultOperations;
use crate::api::{ControlError, MoveError, MoveRow};

/// The running move, or the last one.
#[derive(Default)]
pub(super) struct MoveJob {
    state: Arc<MoveState>,
}
impl MoveJob {
    /// The running move, or the last one since the node's start.
    pub(super) fn last(&self) -> Option<MoveRow> {
        let mut row = self.state.row.lock();
        self.state.mark_panicked(&mut row);
        row.clone()
    }

    /// Starts to move an identity to the node at an onion address.
    pub(super) fn leave(
        &self,
        vault: VaultOperations,
        identity: Oid,
        to: OnionAddr,
        path: PathBuf,
    ) -> Result<MoveRow, ControlError> {
        let (state, out) = (self.state.clone(), path.clone());
        let span = vault.span.clone();
        let moving = async move {
            let done = Leaving {
                vault,
                state: &state,
                identity,
                to,
                out: &out,
            }
            .run()
            .await;
            state.finish(done);
        };
        self.start(
            ("leaves", "writing"),
            Some(identity),
            &path,
            moving.instrument(span),
        )
    }

    /// Starts to take an identity from a file.
    pub(super) fn arrive(
        &self,
        vault: VaultOperations,
        path: PathBuf,
        key: MoveFileKey,
    ) -> Result<MoveRow, ControlError> {
        let (state, file) = (self.state.clone(), path.clone());
        let span = vault.span.clone();
        let moving = async move {
            let arriving = Arriving {
                vault,
                state: state.clone(),
                file,
                key: Arc::new(key),
            };
            let done = arriving.run().await;
            state.finish(done);
        };
        self.start(
            ("arrives", "checking"),
            None,
            &path,
            moving.instrument(span),
        )
    }

    fn start(
        &self,
        (direction, step): (&'static str, &'static str),
        identity: Option<Oid>,
        path: &Path,
        moving: impl Future<Output = ()> + Send + 'static,
    ) -> Result<MoveRow, ControlError> {
        let mut row = self.state.row.lock();
        if self.state.stop.load(Ordering::SeqCst) {
            return Err(ControlError::Stopping);
        }
        self.state.mark_panicked(&mut row);
        if row.as_ref().is_some_and(|row| row.state == "running") {
            return Err(MoveError::Underway.into());
        }
        let started = MoveRow {
            id: row.as_ref().map_or(1, |last| last.id + 1),
            direction,
            identity: identity.map(|oid| oid.to_hex()),
            path: path.display().to_string(),
            state: "running",
            step,
            done_objects: 0,
            total_objects: 0,
            left_objects: 0,
            left_code: None,
            code: None,
            error: None,
        };
        *row = Some(started.clone());
        *self.state.task.lock() = Some(tokio::spawn(moving));
        drop(row);
        Ok(started)
    }

    /// Stops the running move between two portions, and waits until it has ended. The move can be
    /// started again.
    pub(super) async fn close(&self) {
        // Holds the lock under which a move starts: either that one sees `stop`, or its task is
        // awaited here.
        let running = {
            let _row = self.state.row.lock();
            self.state.stop.store(true, Ordering::SeqCst);
            self.state.task.lock().take()
        };
        if let Some(task) = running {
            // A panic of the task was reported by the panic hook.
            let _ = task.await;
        }
    }
}

//! Backups of a running node: one at a time, on a blocking thread.
//!
//! The API starts a backup and reads its progress. A stop of the node cancels the backup within one
//! chunk, except while the database is copied and checked; no file remains. Invariant: when
//! [`BackupJob::close`] returns, no backup runs. Tested in this file and in
//! `tests/system/backup.rs`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keys::{KeyManager, TraceId};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::api::{BackupRow, ControlError};
use crate::backup::{self, BackedUp, BackupProgress, BackupStep, CreateBackupError};
use crate::config::Config;

/// The running backup, or the last one.
pub(super) struct BackupJob {
    config: Config,
    keys: Arc<KeyManager>,
    state: Arc<BackupState>,
}

/// The state that is shared with the thread of the backup.
struct BackupState {
    row: Mutex<Option<BackupRow>>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: AtomicBool,
}

impl BackupJob {
    /// Starts without a backup. `config` names the files to back up.
    pub(super) fn new(config: Config, keys: Arc<KeyManager>) -> Self {
        let state = Arc::new(BackupState {
            row: Mutex::new(None),
            task: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        Self {
            config,
            keys,
            state,
        }
    }

    /// The running backup, or the last one since the node's start.
    pub(super) fn last(&self) -> Option<BackupRow> {
        let mut row = self.state.row();
        self.state.mark_panicked(&mut row);
        row.clone()
    }

    /// Starts a backup into the new file `path`.
    pub(super) fn start(&self, path: PathBuf) -> Result<BackupRow, ControlError> {
        let mut row = self.state.row();
        if self.state.stop.load(Ordering::SeqCst) {
            return Err(ControlError::Stopping);
        }
        self.state.mark_panicked(&mut row);
        if row.as_ref().is_some_and(|row| row.state == "running") {
            return Err(ControlError::BackupUnderway);
        }
        backup::check_target(&path).map_err(|error| {
            let text = keys::error_chain(&error);
            match error {
                CreateBackupError::Exists(_) => ControlError::BackupExists(text),
                CreateBackupError::Reserved(_) => ControlError::BackupReservedName(text),
                _ => ControlError::BackupNoFolder(text),
            }
        })?;
        let started = BackupRow {
            id: row.as_ref().map_or(1, |last| last.id + 1),
            path: path.display().to_string(),
            state: "running",
            step: BackupStep::Copying.as_str(),
            done_bytes: 0,
            total_bytes: 0,
            bytes: None,
            database_bytes: None,
            created: None,
            error: None,
        };
        *row = Some(started.clone());
        let (state, config, keys) = (self.state.clone(), self.config.clone(), self.keys.clone());
        let trace = TraceId(rand::random());
        let span = tracing::info_span!("backup", %trace, id = started.id);
        let making = tokio::task::spawn_blocking(move || {
            let _span = span.entered();
            let done = backup::create(&config, &keys, &path, &mut |progress| {
                state.report(progress)
            });
            state.finish(done);
        });
        *self.state.task.lock() = Some(making);
        drop(row);
        Ok(started)
    }

    /// Cancels the running backup and waits until it has ended.
    pub(super) async fn close(&self) {
        // Holds the lock under which a backup starts: either that one sees `stop`, or its task is
        // awaited here.
        let running = {
            let _row = self.state.row();
            self.state.stop.store(true, Ordering::SeqCst);
            self.state.task.lock().take()
        };
        if let Some(task) = running {
            // A panic of the thread was reported by the panic hook.
            let _ = task.await;
        }
    }
}

impl BackupState {
    fn row(&self) -> MutexGuard<'_, Option<BackupRow>> {
        self.row.lock()
    }

    /// Marks the backup of a thread that panicked as failed, so that the next one can start.
    fn mark_panicked(&self, row: &mut Option<BackupRow>) {
        let task = self.task.lock();
        let is_over = task.as_ref().is_some_and(JoinHandle::is_finished);
        if let Some(row) = row.as_mut().filter(|row| is_over && row.state == "running") {
            row.state = "failed";
            row.error = Some(ControlError::panicked().to_string());
        }
    }

    fn report(&self, progress: BackupProgress) -> ControlFlow<()> {
        if let Some(row) = &mut *self.row() {
            row.step = progress.step.as_str();
            row.done_bytes = progress.done_bytes;
            row.total_bytes = progress.total_bytes;
        }
        match self.stop.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn finish(&self, done: Result<BackedUp, CreateBackupError>) {
        let mut row = self.row();
        let Some(row) = &mut *row else { return };
        match done {
            Ok(done) => {
                tracing::info!(
                    bytes = done.bytes,
                    database_bytes = done.database_bytes,
                    "a backup was made"
                );
                row.state = "done";
                row.bytes = Some(done.bytes);
                row.database_bytes = Some(done.database_bytes);
                row.created = Some(done.created.0);
            }
            Err(error) => {
                let causes = keys::error_chain(&error);
                tracing::warn!(error = %causes, "a backup failed");
                row.state = "failed";
                row.error = Some(causes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::*;
    use crate::data_dir::DataDir;
    use keys::{KdfCost, Passphrase};

    fn made(parent: &std::path::Path) -> BackupJob {
        let passphrase = Passphrase::from_string("correct horse".into());
        let made = init(&parent.join("node"), None, &passphrase, KdfCost::TEST).unwrap();
        let config = Config::load(&made.config).unwrap();
        let keys = KeyManager::open(&DataDir::of(&config).keys(), &passphrase).unwrap();
        BackupJob::new(config, Arc::new(keys))
    }

    #[tokio::test]
    async fn runs_one_backup_at_a_time_and_reports_its_end() {
        let parent = tempfile::tempdir().unwrap();
        let backups = made(parent.path());
        assert_eq!(backups.last(), None);
        let path = parent.path().join("one");
        let started = backups.start(path.clone()).unwrap();
        assert_eq!((started.id, started.state), (1, "running"));
        let second = backups.start(parent.path().join("two"));
        // The first may have ended already, on a fast disk.
        if let Err(error) = second {
            assert_eq!(error, ControlError::BackupUnderway);
        }
        let task = backups.state.task.lock().take();
        task.unwrap().await.unwrap();
        let last = backups.last().unwrap();
        assert_eq!((last.state, last.error), ("done", None));
        assert!(last.created.is_some() && last.bytes > last.database_bytes);
        let again = backups.start(path).unwrap_err();
        assert_eq!(again.code(), "exists");
        assert_eq!(
            backups.start("/none/at/all".into()).unwrap_err().code(),
            "no_folder"
        );
    }

    #[tokio::test]
    async fn no_backup_runs_after_close() {
        let parent = tempfile::tempdir().unwrap();
        let backups = made(parent.path());
        backups.start(parent.path().join("one")).unwrap();
        backups.close().await;
        let last = backups.last().unwrap();
        assert_ne!(last.state, "running");
        assert_eq!(last.state == "done", parent.path().join("one").exists());
        assert_eq!(
            backups.start(parent.path().join("two")).unwrap_err(),
            ControlError::Stopping
        );
    }
}

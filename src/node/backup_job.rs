//! Backups of the running node: one at a time, on a thread that may wait for the disk.
//!
//! Never holds the node's stop up for long: a backup that goes on ends within a chunk, or as soon as the database is copied
//! and looked through, which cannot be interrupted; it leaves nothing. Invariant: when
//! [`BackupJob::close`] returns, none goes on.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keys::KeyManager;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::api::{BackupRow, ControlError};
use crate::backup::{self, BackedUp, BackupProgress, BackupStep, CreateBackupError};
use crate::config::Config;

/// The backup that goes on, or the last one.
pub(super) struct BackupJob {
    config: Config,
    keys: Arc<KeyManager>,
    now: Arc<Now>,
}

/// Shared with the thread that makes the backup.
struct Now {
    row: Mutex<Option<BackupRow>>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: AtomicBool,
}

impl BackupJob {
    /// None yet. `config` leads to what is backed up.
    pub(super) fn new(config: Config, keys: Arc<KeyManager>) -> Self {
        let now = Arc::new(Now {
            row: Mutex::new(None),
            task: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        Self { config, keys, now }
    }

    /// The backup that goes on, or the last one.
    pub(super) fn last(&self) -> Option<BackupRow> {
        let mut row = self.now.row();
        self.now.find_dead(&mut row);
        row.clone()
    }

    /// Begins one.
    pub(super) fn start(&self, path: PathBuf) -> Result<BackupRow, ControlError> {
        let mut row = self.now.row();
        if self.now.stop.load(Ordering::SeqCst) {
            return Err(ControlError::Stopping);
        }
        self.now.find_dead(&mut row);
        if row.as_ref().is_some_and(|row| row.state == "running") {
            return Err(ControlError::BackupUnderway);
        }
        backup::check_target(&path).map_err(|error| {
            let text = error.to_string();
            match error {
                CreateBackupError::Exists(_) => ControlError::BackupExists(text),
                CreateBackupError::Reserved(_) => ControlError::BackupReservedName(text),
                _ => ControlError::BackupNoFolder(text),
            }
        })?;
        let begun = BackupRow {
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
        *row = Some(begun.clone());
        let (now, config, keys) = (self.now.clone(), self.config.clone(), self.keys.clone());
        let making = tokio::task::spawn_blocking(move || {
            let done = backup::create(&config, &keys, &path, &mut |progress| now.hear(progress));
            now.end(done);
        });
        *self.now.task.lock() = Some(making);
        drop(row);
        Ok(begun)
    }

    /// Ends the one that goes on, and waits for that.
    pub(super) async fn close(&self) {
        // Under the lock under which one begins: either it sees the stop, or its task is waited for.
        let going_on = {
            let _row = self.now.row();
            self.now.stop.store(true, Ordering::SeqCst);
            self.now.task.lock().take()
        };
        if let Some(task) = going_on {
            // That its thread panicked was said by the panic hook; nobody asks for its row any more.
            let _ = task.await;
        }
    }
}

impl Now {
    fn row(&self) -> MutexGuard<'_, Option<BackupRow>> {
        self.row.lock()
    }

    /// A thread that panicked said nothing: its backup failed, and the next one may begin.
    fn find_dead(&self, row: &mut Option<BackupRow>) {
        let task = self.task.lock();
        let is_over = task.as_ref().is_some_and(JoinHandle::is_finished);
        if let Some(row) = row.as_mut().filter(|row| is_over && row.state == "running") {
            row.state = "failed";
            row.error = Some(ControlError::panicked().to_string());
        }
    }

    fn hear(&self, progress: BackupProgress) -> ControlFlow<()> {
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

    fn end(&self, done: Result<BackedUp, CreateBackupError>) {
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
                let why = keys::error_chain(&error);
                tracing::warn!(error = %why, "a backup failed");
                row.state = "failed";
                row.error = Some(why);
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
    async fn one_at_a_time_and_its_end_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let backups = made(parent.path());
        assert_eq!(backups.last(), None);
        // As if one went on.
        let path = parent.path().join("one");
        let begun = backups.start(path.clone()).unwrap();
        assert_eq!((begun.id, begun.state), (1, "running"));
        let second = backups.start(parent.path().join("two"));
        // The first may be over already, on a quick disk.
        if let Err(error) = second {
            assert_eq!(error, ControlError::BackupUnderway);
        }
        let task = backups.now.task.lock().take();
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
    async fn none_goes_on_after_the_end() {
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

//! `backup` and `restore`.
//!
//! A running node makes its backup itself. For a stopped node this process makes it and holds the
//! folder's lock. No file is overwritten. Success is printed only after the backup was read back,
//! or the restored folder has its final name.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::progress::StatusLine;
use super::show::{number, print, print_json, text, utc};
use super::{folder, passphrase};
use crate::backup::{self, BackupProgress};
use crate::data_dir::{self, DataDir};

/// Interval between progress updates.
const REFRESH_INTERVAL: Duration = Duration::from_millis(300);

/// Makes a backup.
pub(super) async fn backup(
    out: &Path,
    passphrase_file: Option<PathBuf>,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let config = folder::load(&api.node.config)?;
    // The node's working folder may differ.
    let out = std::path::absolute(out).map_err(|error| Failure::of(&error))?;
    let done = if DataDir::of(&config).is_running() {
        of_running(&out, api).await?
    } else {
        let hold = folder::hold(&config, "the node has started meanwhile; try again")?;
        let passphrase = passphrase::of_node(&config, passphrase_file.as_deref())?;
        let mut line = ProgressLine::new(api.json);
        let making = move || {
            let _hold = hold;
            let keys = keys::KeyManager::open(&DataDir::of(&config).keys(), &passphrase);
            let keys = keys.map_err(|error| Failure::of(&error))?;
            let done = backup::create(&config, &keys, &out, &mut |progress| line.report(progress));
            done.map_err(|error| Failure::of(&error))
        };
        let done = on_thread(making).await?;
        json!({
            "path": done.path, "state": "done", "bytes": done.bytes,
            "database_bytes": done.database_bytes,
            "created": done.created.0,
        })
    };
    if api.json {
        print_json(&done);
        return Ok(());
    }
    print(format_args!("Backup written to {}", text(&done, "path")));
    print(format_args!(
        "  {} bytes, sealed and verified; database of {} bytes as of {}",
        number(&done, "bytes"),
        number(&done, "database_bytes"),
        utc(number(&done, "created"))
    ));
    print("The backup opens only with the node's current passphrase.");
    Ok(())
}

async fn of_running(out: &Path, api: &ApiArgs) -> Result<Value, Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let path = out
        .to_str()
        .ok_or_else(|| Failure::usage("the file name is not UTF-8"))?;
    let started = client.post("/api/backup", &json!({ "path": path })).await?;
    let mut line = ProgressLine::new(api.json);
    loop {
        let answer = client.get_patiently("/api/backup").await?;
        let row = answer.get("backup").unwrap_or(&Value::Null);
        if number(row, "id") != number(&started, "id") {
            return Err(Failure::failed(
                "the node has started another backup meanwhile; see its log",
            ));
        }
        match text(row, "state") {
            "running" => line.show(
                text(row, "step"),
                number(row, "done_bytes"),
                number(row, "total_bytes"),
            ),
            "done" => return Ok(row.clone()),
            _ => return Err(Failure::failed(text(row, "error"))),
        }
        sleep(REFRESH_INTERVAL).await;
    }
}

/// Restores a node from a backup.
pub(super) async fn restore(
    file: &Path,
    dir: &Path,
    passphrase_file: Option<PathBuf>,
    as_json: bool,
) -> Result<(), Failure> {
    data_dir::check_free(dir).map_err(|error| Failure::of(&error))?;
    let passphrase = passphrase::read(passphrase_file.as_deref())?;
    let (file, dir) = (file.to_owned(), dir.to_owned());
    let mut line = ProgressLine::new(as_json);
    let making = move || {
        let done = backup::restore(&file, &dir, &passphrase, &mut |progress| {
            line.report(progress)
        });
        done.map_err(|error| Failure::of(&error))
    };
    let done = on_thread(making).await?;
    let (peer_id, onion) = (done.peer_id.to_hex(), done.onion.to_onion_string());
    if as_json {
        print_json(&json!({
            "config": done.config, "peer_id": peer_id, "onion": onion,
            "identities": done.identities,
            "created": done.created.0, "database_bytes": done.database_bytes,
            "changed": done.changed,
        }));
        return Ok(());
    }
    print(format_args!(
        "Node as of {} restored in {}",
        utc(done.created.0),
        done.folder.display()
    ));
    print(format_args!("  onion address  {onion}"));
    print(format_args!("  peer id        {peer_id}"));
    print(format_args!("  identities     {}", done.identities));
    print(format_args!(
        "  database       {} bytes",
        done.database_bytes
    ));
    for key in done.changed {
        print(format_args!(
            "node.{key} pointed outside the folder; it now points into it"
        ));
    }
    if let Some(path) = done.passphrase_file_missing {
        print(format_args!(
            "A backup does not contain the passphrase file: create it at {}",
            path.display()
        ));
    }
    print("");
    print(
        "The original node must never run again, because two nodes with the same keys contradict \
         each other.",
    );
    print(
        "Peers still have what this node sent after the backup. Updates, deletions and key changes \
         wait until all peers replied: see `postern recovery` once the node runs. The API token \
         has changed.",
    );
    print("");
    print(format_args!(
        "Next: postern run --config {}",
        done.config.display()
    ));
    Ok(())
}

/// Runs work that waits for the disk on a blocking thread.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::of(&error))?
}

/// The progress of a backup or a restore.
struct ProgressLine {
    line: StatusLine,
    last: Option<Instant>,
}

impl ProgressLine {
    fn new(as_json: bool) -> Self {
        Self {
            line: StatusLine::new(as_json),
            last: None,
        }
    }

    fn report(&mut self, progress: BackupProgress) -> ControlFlow<()> {
        if self
            .last
            .is_none_or(|last| last.elapsed() >= REFRESH_INTERVAL)
        {
            self.show(
                progress.step.as_str(),
                progress.done_bytes,
                progress.total_bytes,
            );
            self.last = Some(Instant::now());
        }
        ControlFlow::Continue(())
    }

    fn show(&mut self, step: &str, done_bytes: u64, total_bytes: u64) {
        self.line.show(&words(step, done_bytes, total_bytes));
    }
}

fn words(step: &str, done_bytes: u64, total_bytes: u64) -> String {
    let what = match step {
        "copying" => "Copying the database",
        "sealing" => "Sealing",
        "verifying" => "Verifying",
        "unpacking" => "Unpacking",
        "checking" => "Checking the database",
        _ => "Working",
    };
    match done_bytes.saturating_mul(100).checked_div(total_bytes) {
        Some(percent) if done_bytes > 0 => {
            format!("{what}: {percent} % of {} MiB", total_bytes >> 20)
        }
        _ => format!("{what} …"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_line_names_step_and_percentage() {
        for (step, done, total, expected) in [
            ("copying", 0, 9 << 20, "Copying the database …"),
            ("sealing", 3 << 20, 9 << 20, "Sealing: 33 % of 9 MiB"),
            ("unpacking", 1, 0, "Unpacking …"),
            ("later", 0, 0, "Working …"),
        ] {
            assert_eq!(words(step, done, total), expected);
        }
    }
}

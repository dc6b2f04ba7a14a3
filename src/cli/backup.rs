//! `backup` and `restore`.
//!
//! Of a running node the node itself makes the backup, of a stopped one this process does, which holds the folder
//! meanwhile. Never writes over a file. Invariant: done is said only after the file was read back, or the folder has its
//! name.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::progress::ERASE;
use super::show::{number, say, say_json, text, utc};
use super::{Asking, Failure, folder, passphrase};
use crate::backup::{self, BackupProgress};
use crate::data_dir::{self, DataDir};

/// How often to look how far the node is, and to show it.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Makes a backup.
pub(super) async fn backup(
    out: &Path,
    passphrase_file: Option<PathBuf>,
    asking: &Asking,
) -> Result<(), Failure> {
    let config = folder::load(&asking.node.config)?;
    // The node has another working folder.
    let out = std::path::absolute(out).map_err(|error| Failure::of(&error))?;
    let done = if DataDir::of(&config).is_running() {
        of_running(&out, asking).await?
    } else {
        let hold = folder::hold(&config, "it runs again: try once more")?;
        let passphrase = passphrase::of_node(&config, passphrase_file.as_deref())?;
        let mut line = Line::new(asking.json);
        let making = move || {
            let _hold = hold;
            let keys = keys::KeyManager::open(&DataDir::of(&config).keys(), &passphrase);
            let keys = keys.map_err(|error| Failure::of(&error))?;
            let done = backup::create(&config, &keys, &out, &mut |progress| line.hear(progress));
            done.map_err(|error| Failure::of(&error))
        };
        let done = on_thread(making).await?;
        json!({
            "path": done.path, "state": "done", "bytes": done.bytes, "database_bytes": done.database_bytes,
            "created": done.created.0,
        })
    };
    if asking.json {
        say_json(&done);
        return Ok(());
    }
    say(format_args!("A backup in {}", text(&done, "path")));
    say(format_args!(
        "  {} bytes, sealed and read back; a database of {} bytes as of {}",
        number(&done, "bytes"),
        number(&done, "database_bytes"),
        utc(number(&done, "created"))
    ));
    say("It opens with the passphrase that the node has now, and with no other.");
    Ok(())
}

async fn of_running(out: &Path, asking: &Asking) -> Result<Value, Failure> {
    let client = Client::find(&asking.node.config)?;
    let path = out
        .to_str()
        .ok_or_else(|| Failure::usage("the file's name is not UTF-8"))?;
    let begun = client.post("/api/backup", &json!({ "path": path })).await?;
    let mut line = Line::new(asking.json);
    loop {
        let answer = client.get("/api/backup").await?;
        let row = answer.get("backup").unwrap_or(&Value::Null);
        if number(row, "id") != number(&begun, "id") {
            return Err(Failure::failed(
                "the node has begun another backup meanwhile; see its log",
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
        sleep(LOOK_EVERY).await;
    }
}

/// Makes a node out of a backup.
pub(super) async fn restore(
    file: &Path,
    dir: &Path,
    passphrase_file: Option<PathBuf>,
    as_json: bool,
) -> Result<(), Failure> {
    data_dir::check_free(dir).map_err(|error| Failure::of(&error))?;
    let passphrase = passphrase::read(passphrase_file.as_deref())?;
    let (file, dir) = (file.to_owned(), dir.to_owned());
    let mut line = Line::new(as_json);
    let making = move || {
        let done = backup::restore(&file, &dir, &passphrase, &mut |progress| {
            line.hear(progress)
        });
        done.map_err(|error| Failure::of(&error))
    };
    let done = on_thread(making).await?;
    let (peer_id, onion) = (done.peer_id.to_hex(), done.onion.to_onion_string());
    if as_json {
        say_json(&json!({
            "config": done.config, "peer_id": peer_id, "onion": onion, "identities": done.identities,
            "created": done.created.0, "database_bytes": done.database_bytes, "changed": done.changed,
        }));
        return Ok(());
    }
    say(format_args!(
        "The node of {} in {}",
        utc(done.created.0),
        done.folder.display()
    ));
    say(format_args!("  onion address  {onion}"));
    say(format_args!("  peer id        {peer_id}"));
    say(format_args!("  identities     {}", done.identities));
    say(format_args!(
        "  database       {} bytes",
        done.database_bytes
    ));
    for key in done.changed {
        say(format_args!(
            "node.{key} in the config led out of the folder: it leads into it now"
        ));
    }
    if let Some(path) = done.passphrase_file_missing {
        say(format_args!(
            "The passphrase's file is not in a backup: put it at {}",
            path.display()
        ));
    }
    say("");
    say(
        "The node from which this backup was made must never run again: two nodes with the same keys contradict each other.",
    );
    say(
        "What this node wrote after the backup, its peers still have. Updates, deletions and new keys wait until all of them",
    );
    say("were asked: see `postern recovery` once it runs. The API's token is another one.");
    say("");
    say(format_args!(
        "Next: postern run --config {}",
        done.config.display()
    ));
    Ok(())
}

/// Work that waits for the disk, away from the tasks.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::failed(error.to_string()))?
}

/// One line on how far it is, written over; none where standard error is no terminal. It is gone when this is dropped.
struct Line {
    is_shown: bool,
    last: Option<Instant>,
}

impl Line {
    fn new(as_json: bool) -> Self {
        Self {
            is_shown: !as_json && std::io::stderr().is_terminal(),
            last: None,
        }
    }

    fn hear(&mut self, progress: BackupProgress) -> ControlFlow<()> {
        if self.last.is_none_or(|last| last.elapsed() >= LOOK_EVERY) {
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
        if self.is_shown {
            // A terminal that went away is no reason to stop.
            let _ = write!(
                std::io::stderr(),
                "{ERASE}{}",
                words(step, done_bytes, total_bytes)
            );
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "{ERASE}");
        }
    }
}

fn words(step: &str, done_bytes: u64, total_bytes: u64) -> String {
    let what = match step {
        "copying" => "Copying the database",
        "sealing" => "Sealing",
        "verifying" => "Reading it back",
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
    fn progress_is_told_in_words() {
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

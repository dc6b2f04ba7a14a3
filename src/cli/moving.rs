//! `postern identity move | receive`: an identity moves to another node, in a sealed file.
//!
//! The node writes and reads the file. To open one, this process derives its key from the
//! passphrase of the node that wrote it. So the passphrase stays in this process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keys::{MoveFileKey, error_chain};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::keyring::KEY_BACKUP;
use super::lookup::find_identity;
use super::passphrase;
use super::progress::StatusLine;
use super::show::{number, print, print_json, text};

/// Interval between progress updates.
const REFRESH_INTERVAL: Duration = Duration::from_millis(300);

/// Writes the file that moves an identity.
pub(super) async fn leave(
    identity: &str,
    to: &str,
    file: &Path,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, identity, true).await?;
    let path = absolute(file)?;
    let request = json!({ "onion": to, "path": path });
    let started = client
        .post(&format!("/api/v1/identities/{oid}/move"), &request)
        .await?;
    let done = wait(&client, &started, api).await?;
    if api.json {
        print_json(&done);
        return Ok(());
    }
    print(format_args!(
        "{} objects and the keys are in {path}, sealed under this node's passphrase.",
        number(&done, "done_objects")
    ));
    print("The identity writes nothing here any more. Next:");
    print(format_args!(
        "  on the other node  postern identity receive {}",
        file.file_name().unwrap_or_default().to_string_lossy()
    ));
    print(format_args!(
        "  here, afterwards   postern identity move {oid} --done"
    ));
    print(
        "The holder of the file and the passphrase has the identity: destroy the file at the end.",
    );
    Ok(())
}

/// Takes an identity from a file.
pub(super) async fn arrive(
    file: &Path,
    passphrase_file: Option<PathBuf>,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let path = absolute(file)?;
    let passphrase = passphrase::of_other(passphrase_file.as_deref())?;
    let opened = path.clone();
    let deriving = tokio::task::spawn_blocking(move || {
        let file = File::open(&opened).map_err(|error| {
            Failure::failed(format!("{opened}: cannot open it: {}", error_chain(&error)))
        })?;
        MoveFileKey::derive(file, &passphrase).map_err(|error| Failure::of(&error))
    });
    let key = deriving.await.map_err(|error| Failure::of(&error))??;
    let request = json!({ "path": path, "key": &*key.to_hex() });
    let started = client.post("/api/v1/identities/receive", &request).await?;
    let done = wait(&client, &started, api).await?;
    if api.json {
        print_json(&done);
        return Ok(());
    }
    print(format_args!(
        "Identity {} lives on this node now, with {} objects.",
        text(&done, "identity"),
        number(&done, "done_objects") - number(&done, "left_objects")
    ));
    let left = number(&done, "left_objects");
    if left > 0 {
        print(format_args!(
            "{left} objects need something that this node lacks ({}), such as an app. Keep the \
             file, and repeat this command when it is here.",
            text(&done, "left_code")
        ));
    }
    print(KEY_BACKUP);
    Ok(())
}

/// Removes the keys of an identity that lives at its new home.
pub(super) async fn finish(identity: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, identity, false).await?;
    let path = format!("/api/v1/identities/{oid}/move/done");
    let done = client.post(&path, &json!({})).await?;
    if api.json {
        print_json(&done);
        return Ok(());
    }
    print(match done.get("had_keys") == Some(&Value::Bool(true)) {
        true => "The keys of the identity are removed from the vault. Older backups contain them.",
        false => "The vault has no keys of this identity.",
    });
    Ok(())
}

/// Waits for the end of a move.
async fn wait(client: &ApiClient, started: &Value, api: &ApiArgs) -> Result<Value, Failure> {
    let line = StatusLine::new(api.json);
    loop {
        let answer = client.get_patiently("/api/v1/identities/moves").await?;
        let row = answer.get("move").unwrap_or(&Value::Null);
        if number(row, "id") != number(started, "id") {
            return Err(Failure::failed(
                "the node has started another move meanwhile; see its log",
            ));
        }
        match text(row, "state") {
            "running" => line.show(&words(row)),
            "done" => return Ok(row.clone()),
            _ => return Err(Failure::failed(text(row, "error"))),
        }
        sleep(REFRESH_INTERVAL).await;
    }
}

fn words(row: &Value) -> String {
    let step = match text(row, "step") {
        "writing" => "Writing",
        "checking" => "Checking the file",
        "storing" => "Storing",
        "signing" => "Signing under the new key",
        _ => "Working",
    };
    match (number(row, "done_objects"), number(row, "total_objects")) {
        (0, _) => format!("{step} …"),
        (done, 0) => format!("{step}: {done} objects"),
        (done, total) => format!("{step}: {done} of {total} objects"),
    }
}

/// The path of a file as the node finds it. The node's working folder may differ.
fn absolute(file: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(file).map_err(|error| Failure::of(&error))?;
    let path = path.to_str();
    path.map(str::to_owned)
        .ok_or_else(|| Failure::usage("the file name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_step_and_objects() {
        let row = |step, done, total| {
            words(&json!({ "step": step, "done_objects": done, "total_objects": total }))
        };
        assert_eq!(row("writing", 0, 0), "Writing …");
        assert_eq!(row("writing", 7, 0), "Writing: 7 objects");
        assert_eq!(row("storing", 7, 9), "Storing: 7 of 9 objects");
    }
}

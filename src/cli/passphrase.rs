//! Reads the passphrase from a file, a systemd credential, or the terminal without echo.
//!
//! Arguments and environment variables are not used; the one variable read names a folder.

use std::path::{Path, PathBuf};

use keys::Passphrase;

use super::failure::Failure;
use crate::config::Config;

/// Name of the systemd credential (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "postern-passphrase";
/// Variable in which systemd names the folder of the service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The passphrase of an existing vault, from `file`, else the configured file, else the credential,
/// else the terminal.
pub(super) fn of_node(config: &Config, file: Option<&Path>) -> Result<Passphrase, Failure> {
    let of_config = config.passphrase_file();
    match file.or(of_config.as_deref()) {
        Some(path) => from_file(path),
        None => without_file(),
    }
}

/// The passphrase of a vault whose configuration is not known yet.
pub(super) fn read(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(path) => from_file(path),
        None => without_file(),
    }
}

/// The passphrase of another node's vault, from `file`, else the terminal.
pub(super) fn of_other(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(path) => from_file(path),
        None => ask("Passphrase of the node that wrote the file: "),
    }
}

fn without_file() -> Result<Passphrase, Failure> {
    match credential(std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from)) {
        Some(path) => {
            let read = Passphrase::from_credential(&path).map_err(|error| Failure::of(&error))?;
            not_empty(read)
        }
        None => ask("Passphrase: "),
    }
}

/// The credential's file, if it exists.
fn credential(folder: Option<PathBuf>) -> Option<PathBuf> {
    let path = folder?.join(CREDENTIAL);
    (path.is_absolute() && path.is_file()).then_some(path)
}

/// A new passphrase. The terminal asks for it twice.
pub(super) fn choose(file: Option<&Path>) -> Result<Passphrase, Failure> {
    if let Some(path) = file {
        return from_file(path);
    }
    let text = prompt("Choose a passphrase: ")?;
    if text != prompt("Once more: ")? {
        return Err(Failure::failed("the two passphrases differ"));
    }
    not_empty(Passphrase::from_string(text))
}

fn from_file(path: &Path) -> Result<Passphrase, Failure> {
    let read = Passphrase::from_file(path).map_err(|error| Failure::of(&error))?;
    not_empty(read)
}

fn ask(question: &str) -> Result<Passphrase, Failure> {
    prompt(question).map(Passphrase::from_string)
}

fn prompt(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question).map_err(|_| {
        Failure::usage("no terminal to ask for the passphrase: use --passphrase-file FILE")
    })
}

fn not_empty(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_empty() {
        Err(Failure::failed("the passphrase is empty"))
    } else {
        Ok(passphrase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_is_read_from_an_absolute_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(credential(None), None);
        assert_eq!(credential(Some(folder.path().into())), None);
        let path = folder.path().join(CREDENTIAL);
        std::fs::write(&path, "word").unwrap();
        assert_eq!(credential(Some(folder.path().into())), Some(path));
        assert_eq!(credential(Some(".".into())), None);
    }
}

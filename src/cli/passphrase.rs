//! Where the passphrase comes from: a file, or the terminal without echo. Never an argument, never the environment.

use std::path::Path;

use keys::Passphrase;

use super::Failure;

/// The passphrase of an existing vault.
pub(super) fn read(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(path) => from_file(path),
        None => ask("Passphrase: "),
    }
}

/// The passphrase of a new vault: at the terminal it is asked for twice.
pub(super) fn choose(file: Option<&Path>) -> Result<Passphrase, Failure> {
    if let Some(path) = file {
        return from_file(path);
    }
    let text = prompt("Choose a passphrase: ")?;
    if text != prompt("Once more: ")? {
        return Err(Failure::failed("the two are not the same"));
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
    rpassword::prompt_password(question)
        .map_err(|_| Failure::usage("there is no terminal to ask for the passphrase at: use --passphrase-file FILE"))
}

fn not_empty(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_empty() {
        Err(Failure::failed("the passphrase is empty"))
    } else {
        Ok(passphrase)
    }
}

//! Creates the keys, the certificate and the fingerprints of a directory authority before it
//! starts.
//!
//! Runs `tor-gencert` and `tor --list-fingerprint`. The keys are for this test network only,
//! because their passphrase is a constant in this file.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    process::{Output, Stdio},
};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    Error,
    node::{AuthorityPart, Fingerprints, Plan},
    ports::Reserved,
};

/// Turns a planned node into a directory authority.
pub(crate) async fn equip(plan: &mut Plan) -> Result<(), Error> {
    let dir_port = Reserved::any()?;
    let v3ident = certificate(&plan.dir, dir_port.port()).await?;
    let fingerprints = fingerprints(plan).await?;
    plan.authority = Some(AuthorityPart {
        dir_port,
        v3ident,
        fingerprints,
    });
    Ok(())
}

/// Creates the authority's keys and certificate in its data folder.
///
/// Returns the fingerprint of its identity key.
async fn certificate(data_dir: &Path, dir_port: u16) -> Result<String, Error> {
    let keys = data_dir.join("keys");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&keys)
        .map_err(Error::io(format!("create {}", keys.display())))?;
    let certificate = keys.join("authority_certificate");
    let mut command = Command::new("tor-gencert");
    command
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
        .args(["-a", &format!("127.0.0.1:{dir_port}")])
        .arg("-i")
        .arg(keys.join("authority_identity_key"))
        .arg("-s")
        .arg(keys.join("authority_signing_key"))
        .arg("-c")
        .arg(&certificate);
    run("tor-gencert", command, b"testnet\n").await?;
    let text = read(&certificate)?;
    let v3ident = text
        .lines()
        .find_map(|line| line.strip_prefix("fingerprint "));
    v3ident.map(str::to_owned).ok_or_else(|| Error::Failed {
        program: "tor-gencert",
        output: format!("no fingerprint in {}", certificate.display()),
    })
}

/// Creates the node's relay keys in its data folder and returns their fingerprints.
async fn fingerprints(plan: &Plan) -> Result<Fingerprints, Error> {
    let mut command = Command::new("tor");
    command
        .args([
            "--defaults-torrc",
            "/dev/null",
            "--ignore-missing-torrc",
            "-f",
            "/dev/null",
        ])
        .args([
            "--list-fingerprint",
            "--quiet",
            "--AssumeReachable",
            "1",
            "--Nickname",
            &plan.nickname,
        ])
        // Declares a relay; `--list-fingerprint` does not listen on this port.
        .args(["--ORPort", &format!("127.0.0.1:{}", plan.or_port.port())])
        .arg("--DataDirectory")
        .arg(&plan.dir);
    run("tor", command, b"").await?;
    let second_word = |file: &str| -> Result<String, Error> {
        let path = plan.dir.join(file);
        let text = read(&path)?;
        let word = text.split_whitespace().nth(1).map(str::to_owned);
        word.ok_or_else(|| Error::Failed {
            program: "tor",
            output: format!("no fingerprint in {}", path.display()),
        })
    };
    Ok(Fingerprints {
        rsa: second_word("fingerprint")?,
        ed25519: second_word("fingerprint-ed25519")?,
    })
}

/// Runs a program until it exits and returns its output. Dropping the future kills the program.
async fn run(program: &'static str, mut command: Command, input: &[u8]) -> Result<Output, Error> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    let mut child = command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::NotInstalled { program },
        _ => Error::Io {
            doing: format!("start {program}"),
            source,
        },
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // The program may exit before it reads its input; its output then states the reason.
        let _ = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(Error::io(format!("run {program}")))?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::Failed {
            program,
            output: text.trim().to_owned(),
        });
    }
    Ok(output)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_program_error_names_the_package_to_install() {
        let error = run("tor-gencert", Command::new("/nonexistent/tor-gencert"), b"")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`tor-gencert` was not found: install C tor first (apt-get install tor)"
        );
    }

    #[tokio::test]
    async fn failed_program_error_quotes_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such key >&2; exit 3"]);
        let error = run("tor", command, b"").await.unwrap_err();
        assert_eq!(error.to_string(), "`tor` failed: no such key");
    }
}

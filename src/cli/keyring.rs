//! `postern keys`: the vault of a node that does not run; `list` and `export-onion` only read, and work beside one that does.
//!
//! Never prints a secret, never writes over a file. Invariant: a next key leaves the vault only after the file that holds it
//! was read back.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keys::{HolderInfo, KeyManager, OnionKey, RecoveryKey};
use serde_json::json;

use super::show::{say, say_json};
use super::{Failure, NodeArgs, folder, passphrase};
use crate::config::Config;
use crate::data_dir::{DataDir, DirLock};
use crate::node;

/// Fewest digits of an oid that may stand for it.
const PREFIX_DIGITS_MIN: usize = 4;
pub(super) const KEY_BACKUP: &str = "Make a backup now: older ones do not have the new key.";

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Lists the keys that the vault holds: the node's, its identities', the onion service's.
    List {
        #[command(flatten)]
        opening: Opening,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Seals the vault with another passphrase, and measures anew what a guess shall cost.
    ChangePassphrase {
        #[command(flatten)]
        opening: Opening,
        /// File with the new passphrase (mode 0600). Default: asked for at the terminal, twice.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Makes the next key of the node or of an identity the current one.
    Rotate {
        /// `node`, or an identity's oid, or its first 4 digits or more.
        whose: String,
        #[command(flatten)]
        opening: Opening,
        /// The next key, where it was put away with `keys export-recovery`.
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
    /// Writes the next key of the node or of an identity into a file to print, and forgets it here.
    ExportRecovery {
        /// `node`, or an identity's oid, or its first 4 digits or more.
        whose: String,
        #[command(flatten)]
        opening: Opening,
        /// The file; it must not exist, unless an export to it was interrupted.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Writes the onion service's key into a new folder, as C tor keeps it (HiddenServiceDir).
    ExportOnion {
        #[command(flatten)]
        opening: Opening,
        /// The folder; it must not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Takes an onion service's key from C tor's folder or its secret key file: the node moves to that address.
    ImportOnion {
        /// The folder or the file.
        from: PathBuf,
        #[command(flatten)]
        opening: Opening,
    },
}

/// How the vault is found and opened.
#[derive(Debug, Args)]
pub(super) struct Opening {
    #[command(flatten)]
    node: NodeArgs,
    /// File with the passphrase (mode 0600). Default: node.passphrase_file, a systemd credential, else asked for.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// A vault that is open, and the folder held if it is to be written.
struct Opened {
    config: Config,
    keys: KeyManager,
    _hold: Option<DirLock>,
}

impl Opening {
    fn open(&self, hold: Option<(Config, DirLock)>) -> Result<Opened, Failure> {
        let (config, hold) = match hold {
            Some((config, hold)) => (config, Some(hold)),
            None => (folder::load(&self.node.config)?, None),
        };
        let passphrase = passphrase::of_node(&config, self.passphrase_file.as_deref())?;
        let keys = KeyManager::open(&DataDir::of(&config).keys(), &passphrase)
            .map_err(|error| Failure::of(&error))?;
        Ok(Opened {
            config,
            keys,
            _hold: hold,
        })
    }

    /// Only reads: beside a running node too.
    fn to_read(&self) -> Result<Opened, Failure> {
        self.open(None)
    }

    /// Refused while the node runs: it would not see what changed.
    fn to_write(&self, instead: &str) -> Result<Opened, Failure> {
        let config = folder::load(&self.node.config)?;
        let hold = folder::hold(&config, instead)?;
        self.open(Some((config, hold)))
    }
}

/// Runs one of the commands. All wait for the disk, and for the passphrase; nothing else goes on meanwhile.
pub(super) fn run(keys: Keys) -> Result<(), Failure> {
    match keys {
        Keys::List { opening, json } => list(&opening.to_read()?.keys, json),
        Keys::ChangePassphrase {
            opening,
            new_passphrase_file,
        } => change_passphrase(&opening, new_passphrase_file.as_deref()),
        Keys::Rotate {
            whose,
            opening,
            recovery_file,
        } => rotate(&whose, &opening, recovery_file.as_deref()),
        Keys::ExportRecovery {
            whose,
            opening,
            out,
        } => export_recovery(&whose, &opening, &out),
        Keys::ExportOnion { opening, out } => {
            let opened = opening.to_read()?;
            opened
                .keys
                .export_onion(&out)
                .map_err(|error| Failure::of(&error))?;
            say(format_args!(
                "The key of {} in {}",
                opened.keys.onion().to_onion_string(),
                out.display()
            ));
            say(
                "It is not sealed: whoever has it can pose at that address. Two services at one address disturb each other.",
            );
            Ok(())
        }
        Keys::ImportOnion { from, opening } => import_onion(&from, &opening),
    }
}

fn list(keys: &KeyManager, as_json: bool) -> Result<(), Failure> {
    let (onion, holders) = (keys.onion().to_onion_string(), keys.holders());
    if as_json {
        let holders: Vec<_> = holders
            .iter()
            .map(|holder| {
                json!({
                    "oid": holder.oid.to_hex(), "is_node": holder.is_node, "key_id": holder.key_id,
                    "has_next_key": holder.has_next_key, "public": holder.public.to_hex(),
                })
            })
            .collect();
        let cost = keys
            .cost()
            .map(|cost| json!({ "memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes }));
        let peer_id = keys.peer_id().to_hex();
        say_json(&json!({ "onion": onion, "peer_id": peer_id, "holders": holders, "cost": cost }));
        return Ok(());
    }
    say(format_args!("onion       {onion}"));
    for holder in &holders {
        let what = if holder.is_node {
            "node      "
        } else {
            "identity  "
        };
        let next = if holder.has_next_key {
            "the next one is here"
        } else {
            "the next one is offline"
        };
        say(format_args!(
            "{what}  {}  key {}, {next}",
            holder.oid.to_hex(),
            holder.key_id
        ));
    }
    if let Some(cost) = keys.cost() {
        say(format_args!(
            "passphrase  a guess costs {} MiB of memory and {} passes over it",
            cost.memory_kib / 1024,
            cost.passes
        ));
    }
    Ok(())
}

fn change_passphrase(opening: &Opening, new: Option<&Path>) -> Result<(), Failure> {
    let opened =
        opening.to_write("the passphrase changes while the node is stopped: stop it first")?;
    let passphrase = passphrase::choose(new)?;
    eprintln!("Sealing the keys (a few seconds) …");
    let cost = node::calibrated().map_err(|error| Failure::of(&error))?;
    opened
        .keys
        .change_passphrase(&passphrase, cost, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    say("The vault opens with the new passphrase, and with no other.");
    say(
        "Backups that were made before open with the old one: make a new one, and destroy those if the old one is known to others.",
    );
    if opened.config.passphrase_file().is_some() {
        say(
            "The config names a passphrase file (node.passphrase_file): it must hold the new one before the next start.",
        );
    }
    say("A systemd credential with the old one must be sealed anew before the next start.");
    Ok(())
}

fn rotate(whose: &str, opening: &Opening, recovery_file: Option<&Path>) -> Result<(), Failure> {
    let instead = match whose {
        "node" => "use `postern identity rotate node` while it runs, or stop it first",
        _ => "use `postern identity rotate` while it runs, or stop it first",
    };
    let opened = opening.to_write(instead)?;
    node::check_may_rotate(&DataDir::of(&opened.config)).map_err(|error| Failure::of(&error))?;
    let holder = find(&opened.keys, whose)?;
    match recovery_file {
        None => opened.keys.rotate(holder.oid, &mut rand::rng()),
        Some(path) => {
            let recovery = RecoveryKey::from_file(path).map_err(|error| Failure::of(&error))?;
            opened
                .keys
                .rotate_with(holder.oid, &recovery, &mut rand::rng())
        }
    }
    .map_err(|error| Failure::of(&error))?;
    let now = find(&opened.keys, whose)?;
    say(format_args!(
        "{} signs with key {} from now on",
        called(&now),
        now.key_id
    ));
    say("The node's next start tells its peers, and signs what it has again.");
    say(KEY_BACKUP);
    Ok(())
}

/// The order matters: written, read back, and only then forgotten. One that was interrupted is taken up again.
fn export_recovery(whose: &str, opening: &Opening, out: &Path) -> Result<(), Failure> {
    let opened = opening
        .to_write("the next key leaves the vault while the node is stopped: stop it first")?;
    let holder = find(&opened.keys, whose)?;
    if !out.exists() {
        let recovery = opened
            .keys
            .recovery_key(holder.oid)
            .map_err(|error| Failure::of(&error))?;
        recovery
            .write_new(out)
            .map_err(|error| Failure::of(&error))?;
    }
    let written = RecoveryKey::read_back(out).map_err(|error| Failure::of(&error))?;
    // Refuses a file that does not hold exactly the next key.
    opened
        .keys
        .forget_next(holder.oid, &written, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    say(format_args!(
        "The next key of {} is in {}, and no longer here",
        called(&holder),
        out.display()
    ));
    say(
        "Print it or write its words down, put it away, and delete the file. Whoever takes this machine cannot rotate without it,",
    );
    say(
        "and neither can you: `postern keys rotate --recovery-file FILE` takes it. It is in no backup that is made from now on.",
    );
    Ok(())
}

fn import_onion(from: &Path, opening: &Opening) -> Result<(), Failure> {
    let opened = opening
        .to_write("the onion service's key changes while the node is stopped: stop it first")?;
    let onion = OnionKey::from_tor_folder(from).map_err(|error| Failure::of(&error))?;
    let before = opened.keys.onion().to_onion_string();
    opened
        .keys
        .import_onion(onion, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    say(format_args!("The node moves from {before}"));
    say(format_args!(
        "                 to {}",
        opened.keys.onion().to_onion_string()
    ));
    say(
        "Peers that this node dials learn the new address by themselves; all others must be told. Tickets that it gave are void.",
    );
    say("The service that had this key until now must not run any more.");
    say(KEY_BACKUP);
    Ok(())
}

fn called(holder: &HolderInfo) -> String {
    match holder.is_node {
        true => "the node".to_owned(),
        false => format!("identity {}", holder.oid.to_hex()),
    }
}

/// The node, or an identity by the first digits of its oid.
fn find(keys: &KeyManager, whose: &str) -> Result<HolderInfo, Failure> {
    let digits = whose.to_ascii_lowercase();
    let is_it = |holder: &HolderInfo| match &*digits {
        "node" => holder.is_node,
        digits => digits.len() >= PREFIX_DIGITS_MIN && holder.oid.to_hex().starts_with(digits),
    };
    let mut found = keys.holders().into_iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(holder), None) => Ok(holder),
        (None, _) => Err(Failure::failed(format!(
            "no key of {whose} is here: say `node`, or an oid's first {PREFIX_DIGITS_MIN} digits or more (`postern keys list`)"
        ))),
        (Some(_), Some(_)) => Err(Failure::failed(format!(
            "several oids begin with {whose}: give more digits"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn holders_are_found_by_enough_digits() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
        let keys = KeyManager::generate(&mut rng);
        let oid = keys.add_identity(&mut rng).unwrap();
        keys.add_identity(&mut rng).unwrap();
        let hex = oid.to_hex();
        assert!(find(&keys, "node").unwrap().is_node);
        for digits in [&hex[..4], &hex, &hex.to_ascii_uppercase()[..8]] {
            assert_eq!(find(&keys, digits).unwrap().oid, oid);
        }
        for none in ["", &hex[..3], "nobody", "ffff0000ffff"] {
            assert!(find(&keys, none).is_err(), "{none}");
        }
    }
}

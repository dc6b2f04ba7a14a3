//! `postern keys`: the vault of a stopped node. `list` and `export-onion` only read the vault, and
//! work while the node runs.
//!
//! No secret is printed and no file overwritten. A next key is removed from the vault only after
//! its recovery file was read back.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keys::{HolderInfo, KeyManager, OnionKey, RecoveryKey};
use serde_json::json;

use super::args::NodeArgs;
use super::failure::Failure;
use super::show::{print, print_json, quoted};
use super::{folder, passphrase};
use crate::config::Config;
use crate::data_dir::{DataDir, DirLock};
use crate::node;

/// Shortest accepted prefix of an oid, in digits.
const PREFIX_DIGITS_MIN: usize = 4;
pub(super) const KEY_BACKUP: &str = "Make a backup now: older backups lack the new key.";

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the keys in the vault: the node's, its identities', the onion service's.
    List {
        #[command(flatten)]
        vault: VaultArgs,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Seal the vault with a new passphrase, and measure the cost of a guess again.
    ChangePassphrase {
        #[command(flatten)]
        vault: VaultArgs,
        /// File with the new passphrase (mode 0600). Default: ask twice at the terminal.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Rotate the key of the node or of an identity.
    Rotate {
        /// `node`, or an identity's oid, or the first 4 or more digits of it.
        whose: String,
        #[command(flatten)]
        vault: VaultArgs,
        /// The recovery file with the next key, if it was exported with `keys export-recovery`.
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
    /// Move the next key of the node or of an identity from the vault to a printable file.
    ExportRecovery {
        /// `node`, or an identity's oid, or the first 4 or more digits of it.
        whose: String,
        #[command(flatten)]
        vault: VaultArgs,
        /// The file. Must not exist, unless an export to it was interrupted.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Export the onion service's key as C tor's HiddenServiceDir.
    ExportOnion {
        #[command(flatten)]
        vault: VaultArgs,
        /// The folder. Must not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Import an onion service's key from C tor's folder or secret key file. The node moves to that
    /// address.
    ImportOnion {
        /// The folder or the file.
        from: PathBuf,
        #[command(flatten)]
        vault: VaultArgs,
    },
}

/// Arguments that locate and open the vault.
#[derive(Debug, Args)]
pub(super) struct VaultArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// File with the passphrase (mode 0600). Default: node.passphrase_file, else a systemd
    /// credential, else ask at the terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// An open vault, with the folder's lock if the vault may be written.
struct OpenVault {
    config: Config,
    keys: KeyManager,
    _hold: Option<DirLock>,
}

impl VaultArgs {
    fn open(&self, hold: Option<(Config, DirLock)>) -> Result<OpenVault, Failure> {
        let (config, hold) = match hold {
            Some((config, hold)) => (config, Some(hold)),
            None => (folder::load(&self.node.config)?, None),
        };
        let passphrase = passphrase::of_node(&config, self.passphrase_file.as_deref())?;
        let keys = KeyManager::open(&DataDir::of(&config).keys(), &passphrase)
            .map_err(|error| Failure::of(&error))?;
        Ok(OpenVault {
            config,
            keys,
            _hold: hold,
        })
    }

    /// Opens the vault for reading. Works while the node runs.
    fn to_read(&self) -> Result<OpenVault, Failure> {
        self.open(None)
    }

    /// Opens the vault for writing. Refused while the node runs, because it would not see the
    /// change.
    fn to_write(&self, instead: &str) -> Result<OpenVault, Failure> {
        let config = folder::load(&self.node.config)?;
        let hold = folder::hold(&config, instead)?;
        self.open(Some((config, hold)))
    }
}

/// Runs one of the commands. All block on the disk and the passphrase prompt.
pub(super) fn run(keys: KeysCommand) -> Result<(), Failure> {
    match keys {
        KeysCommand::List { vault, json } => list(&vault.to_read()?.keys, json),
        KeysCommand::ChangePassphrase {
            vault,
            new_passphrase_file,
        } => change_passphrase(&vault, new_passphrase_file.as_deref()),
        KeysCommand::Rotate {
            whose,
            vault,
            recovery_file,
        } => rotate(&whose, &vault, recovery_file.as_deref()),
        KeysCommand::ExportRecovery { whose, vault, out } => export_recovery(&whose, &vault, &out),
        KeysCommand::ExportOnion { vault, out } => {
            let opened = vault.to_read()?;
            opened
                .keys
                .export_onion(&out)
                .map_err(|error| Failure::of(&error))?;
            print(format_args!(
                "The key of {} is in {}",
                opened.keys.onion().to_onion_string(),
                out.display()
            ));
            print(
                "The key is not encrypted: its holder can answer at that address. Run only one \
                 service at an address.",
            );
            Ok(())
        }
        KeysCommand::ImportOnion { from, vault } => import_onion(&from, &vault),
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
                    "moves_to": holder.moves_to.map(|node| node.to_hex()),
                })
            })
            .collect();
        let cost = keys.cost().map(|cost| {
            json!({
                "memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes,
            })
        });
        let peer_id = keys.peer_id().to_hex();
        print_json(
            &json!({ "onion": onion, "peer_id": peer_id, "holders": holders, "cost": cost }),
        );
        return Ok(());
    }
    print(format_args!("onion       {onion}"));
    for holder in &holders {
        let what = if holder.is_node {
            "node      "
        } else {
            "identity  "
        };
        let next = if holder.moves_to.is_some() {
            "moves to another node and signs nothing here"
        } else if holder.has_next_key {
            "the next key is in the vault"
        } else {
            "the next key is offline"
        };
        print(format_args!(
            "{what}  {}  key {}, {next}",
            holder.oid.to_hex(),
            holder.key_id
        ));
    }
    if let Some(cost) = keys.cost() {
        print(format_args!(
            "passphrase  one guess costs {} MiB of memory and {} passes",
            cost.memory_kib / 1024,
            cost.passes
        ));
    }
    Ok(())
}

fn change_passphrase(vault: &VaultArgs, new: Option<&Path>) -> Result<(), Failure> {
    let opened = vault.to_write("stop it before you change the passphrase")?;
    let passphrase = passphrase::choose(new)?;
    eprintln!("Sealing the keys (a few seconds) …");
    let cost = node::calibrated().map_err(|error| Failure::of(&error))?;
    opened
        .keys
        .change_passphrase(&passphrase, cost, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    print("The vault opens only with the new passphrase now.");
    print(
        "Older backups open with the old passphrase. Make a new backup, and destroy the older ones \
         if another person knows the old passphrase.",
    );
    if opened.config.passphrase_file().is_some() {
        print(
            "The configuration names a passphrase file (node.passphrase_file): write the new \
             passphrase to it before the next start.",
        );
    }
    print("If you use a systemd credential, replace it before the next start.");
    Ok(())
}

fn rotate(whose: &str, vault: &VaultArgs, recovery_file: Option<&Path>) -> Result<(), Failure> {
    let instead = match whose {
        "node" => "use `postern identity rotate --node`, or stop it first",
        _ => "use `postern identity rotate`, or stop it first",
    };
    let opened = vault.to_write(instead)?;
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
    print(format_args!(
        "{} signs with key {} from now on",
        called(&now),
        now.key_id
    ));
    print("At its next start the node sends its peers the new key and re-signs its objects.");
    print(KEY_BACKUP);
    Ok(())
}

/// Writes the next key to a file, reads it back, and only then removes it from the vault. Completes
/// an interrupted export.
fn export_recovery(whose: &str, vault: &VaultArgs, out: &Path) -> Result<(), Failure> {
    let opened = vault.to_write("stop it before you export the next key")?;
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
    // Refuses a file with any other key.
    opened
        .keys
        .forget_next(holder.oid, &written, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    print(format_args!(
        "The next key of {} is in {} and no longer in the vault",
        called(&holder),
        out.display()
    ));
    print(
        "Print the file or copy its words by hand, store them safely, and delete the file. Without \
         it neither a thief of this machine nor you can rotate the key: `postern keys rotate \
         --recovery-file FILE`. Backups made from now on do not contain it.",
    );
    Ok(())
}

fn import_onion(from: &Path, vault: &VaultArgs) -> Result<(), Failure> {
    let opened = vault.to_write("stop it before you import an onion key")?;
    let onion = OnionKey::from_tor_folder(from).map_err(|error| Failure::of(&error))?;
    let before = opened.keys.onion().to_onion_string();
    opened
        .keys
        .import_onion(onion, &mut rand::rng())
        .map_err(|error| Failure::of(&error))?;
    print(format_args!("The node moves from {before}"));
    print(format_args!(
        "                 to {}",
        opened.keys.onion().to_onion_string()
    ));
    print(
        "Peers that this node dials learn the new address automatically; inform all other peers. \
         Tickets that it issued are void.",
    );
    print("The service that used this key before must not run any more.");
    print(KEY_BACKUP);
    Ok(())
}

fn called(holder: &HolderInfo) -> String {
    match holder.is_node {
        true => "the node".to_owned(),
        false => format!("identity {}", holder.oid.to_hex()),
    }
}

/// Finds the node, or an identity by the first digits of its oid.
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
            "the vault has no key of {}: give `node`, or at least {PREFIX_DIGITS_MIN} digits of an \
             oid (`postern keys list`)",
            quoted(whose)
        ))),
        (Some(_), Some(_)) => Err(Failure::failed(format!(
            "several oids start with {whose}: give more digits"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn find_accepts_an_oid_prefix_of_at_least_four_digits() {
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([3; 32]);
        let keys = KeyManager::generate(&mut rng);
        let oid = keys.add_identity(&mut rng).unwrap();
        keys.add_identity(&mut rng).unwrap();
        let hex = oid.to_hex();
        assert!(find(&keys, "node").unwrap().is_node);
        for digits in [&hex[..4], &hex, &hex.to_ascii_uppercase()[..8]] {
            assert_eq!(find(&keys, digits).unwrap().oid, oid);
        }
        for none in ["", &hex[..3], "unknown", "ffff0000ffff"] {
            assert!(find(&keys, none).is_err(), "{none}");
        }
    }
}

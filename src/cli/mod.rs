//! The command line: what an operator types.
//!
//! `init`, `run`, `check`, `restore` and `keys` work on a node's folder, `backup` on that or the running node; all others talk
//! to the running node's API. Never takes a
//! passphrase as an argument or from the environment. Invariant: exit code 0 is done, 1 is failed, 2 is wrong usage or
//! a wrong config.

mod admission;
mod backup;
mod client;
mod commands;
mod folder;
mod identity;
mod keyring;
mod passphrase;
mod progress;
mod recovery;
mod show;
mod tor;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Longest time of a ban or a refusal that ends, in days: ten years, as the API has it.
const DAYS_MAX: u64 = 3650;

/// A peer node behind a Tor onion service.
#[derive(Debug, Parser)]
#[command(name = "postern", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new node: config, sealed keys and database in a new folder.
    Init {
        /// The folder; it must not exist, or be empty.
        dir: PathBuf,
        /// Name of the first identity, as others will see it.
        #[arg(long)]
        name: Option<String>,
        /// File with the passphrase (mode 0600). Default: asked for at the terminal.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Runs a node until SIGINT or SIGTERM.
    Run {
        #[command(flatten)]
        node: NodeArgs,
        /// File with the passphrase (mode 0600). Default: node.passphrase_file, a systemd credential, else asked for.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Checks a config: names what is wrong with file, line and the nearest right key. Writes nothing.
    Check {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Makes a backup of everything but the passphrase into one sealed file; the node may run.
    Backup {
        /// The file; it must not exist. A running node writes it with its own rights.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Of a stopped node: file with the passphrase. Default: node.passphrase_file, a systemd credential, else asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Makes a node out of a backup, in a new folder. The node of which it was made must never run again.
    Restore {
        /// The backup.
        file: PathBuf,
        /// The folder; it must not exist, or be empty.
        dir: PathBuf,
        /// File with the passphrase of the time when the backup was made. Default: a systemd credential, else asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// The vault: lists and rotates keys, changes the passphrase, puts next keys on paper.
    #[command(subcommand)]
    Keys(keyring::Keys),
    /// Shows the node, its peers, and how far each domain is.
    Status(Asking),
    /// Shows who is let in, or changes it until the next start or SIGHUP.
    Policy {
        /// Let in who worked, whom you approve, or only whom you know.
        #[arg(value_parser = ["open", "approve", "allowlist"])]
        policy: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Peers: knock at another node, list those that are known, say who may come in.
    #[command(subcommand)]
    Peer(Peer),
    /// Identities of this node and those that are known.
    #[command(subcommand)]
    Identity(identity::Identity),
    /// After a restore: shows what is waited for before what exists is changed, or waits no longer.
    Recovery(recovery::Recovery),
    /// Sends a message.
    Send {
        /// Who sends: an identity of this node, by name or oid.
        #[arg(long)]
        from: String,
        /// Who receives: a known identity, by name or oid.
        #[arg(long)]
        to: String,
        /// The message; `-` reads it from standard input.
        text: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Shows the messages that an identity of this node may read.
    Inbox {
        /// The identity, by name or oid. Default: the only one of this node.
        #[arg(long)]
        identity: Option<String>,
        /// Only messages behind this change_seq.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Stay and show what comes.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Pulls (or pushes) now instead of at the next interval.
    Sync {
        /// Only this peer, by peer id.
        #[arg(long)]
        peer: Option<String>,
        /// Only this domain.
        #[arg(long)]
        domain: Option<String>,
        /// Send what changed here instead of asking what changed there.
        #[arg(long)]
        push: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum Peer {
    /// Knocks at a node: solves its puzzle, and keeps in touch from then on.
    Add {
        /// Its onion address.
        onion: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Lists the known peers.
    List(Asking),
    /// Lists the strangers that wait for approval, with what they claim.
    Pending(Asking),
    /// Lets a node in from now on, and trusts it.
    Approve(Named),
    /// Sends a stranger or an untrusted peer away, for a time, and ends its session.
    Refuse(KeptOut),
    /// Keeps a node out, ends its session and voids its tickets.
    Ban(KeptOut),
    /// Lifts a ban or a refusal: the node is a stranger again.
    Unban(Named),
    /// Lists who is banned or refused, why, and until when.
    Bans(Asking),
}

#[derive(Debug, Args)]
struct Named {
    /// Its peer id, or the first 8 digits or more of one that is known.
    id: String,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct KeptOut {
    #[command(flatten)]
    who: Named,
    /// Why, for your own eyes: at most 256 bytes.
    #[arg(long)]
    reason: Option<String>,
    /// For how many days, ten years at most. Default: a refusal for admission.refused_days, a ban for ever.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    days: Option<u64>,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// The node's config file.
    #[arg(long, value_name = "FILE", default_value = "postern.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Asking {
    #[command(flatten)]
    node: NodeArgs,
    /// JSON, as the API gives it, instead of text.
    #[arg(long)]
    json: bool,
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// An error with its causes, on one line.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::failed(keys::error_chain(error))
    }
}

impl Named {
    async fn say(&self, verb: &str) -> Result<(), Failure> {
        admission::say_of(verb, &self.id, None, None, &self.asking).await
    }
}

impl KeptOut {
    async fn say(self, verb: &str) -> Result<(), Failure> {
        let Self { who, reason, days } = self;
        admission::say_of(verb, &who.id, reason, days, &who.asking).await
    }
}

/// Runs a command line to its end.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Init {
            dir,
            name,
            passphrase_file,
            json,
        } => folder::init(&dir, name, passphrase_file, json).await,
        Command::Run {
            node,
            passphrase_file,
        } => folder::run(&node.config, passphrase_file).await,
        Command::Check { node } => folder::check(&node.config),
        Command::Backup {
            out,
            passphrase_file,
            asking,
        } => backup::backup(&out, passphrase_file, &asking).await,
        Command::Restore {
            file,
            dir,
            passphrase_file,
            json,
        } => backup::restore(&file, &dir, passphrase_file, json).await,
        Command::Keys(keys) => keyring::run(keys),
        Command::Status(asking) => commands::status(&asking).await,
        Command::Policy { policy, asking } => admission::policy(policy, &asking).await,
        Command::Peer(Peer::Add { onion, asking }) => commands::peer_add(&onion, &asking).await,
        Command::Peer(Peer::List(asking)) => commands::peer_list(&asking).await,
        Command::Peer(Peer::Pending(asking)) => admission::pending(&asking).await,
        Command::Peer(Peer::Bans(asking)) => admission::bans(&asking).await,
        Command::Peer(Peer::Approve(who)) => who.say("approve").await,
        Command::Peer(Peer::Unban(who)) => who.say("unban").await,
        Command::Peer(Peer::Refuse(what)) => what.say("refuse").await,
        Command::Peer(Peer::Ban(what)) => what.say("ban").await,
        Command::Identity(command) => identity::run(command).await,
        Command::Recovery(word) => recovery::run(word).await,
        Command::Send {
            from,
            to,
            text,
            asking,
        } => commands::send(&from, &to, text, &asking).await,
        Command::Inbox {
            identity,
            after,
            follow,
            asking,
        } => commands::inbox(identity, after, follow, &asking).await,
        Command::Sync {
            peer,
            domain,
            push,
            asking,
        } => commands::sync(peer, domain, push, &asking).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("postern: {message}");
            ExitCode::from(code)
        }
    }
}

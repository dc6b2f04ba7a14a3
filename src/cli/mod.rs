//! The command line.
//!
//! - `init`, `run`, `check`, `restore` and `keys` work on a node's folder.
//! - `backup` works on the folder or the running node.
//! - All other commands call the running node's API.
//!
//! No command takes a passphrase as an argument or from the environment. Exit codes: 0 success,
//! 1 failure, 2 wrong usage or a wrong configuration.

mod args;
mod backup;
mod client;
mod commands;
mod contact;
mod conversation;
mod delivery;
mod failure;
mod folder;
mod identity;
mod invitation;
mod keyring;
mod lookup;
mod messages;
mod moving;
mod passphrase;
mod progress;
mod recovery;
mod rejects;
mod removal;
mod show;
mod tor;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{ArgGroup, Args, Parser, Subcommand};

use args::{ApiArgs, NodeArgs};
use failure::Failure;

/// Longest duration of a ban or refusal, in days (ten years). The API has the same bound.
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
    /// Create a node: configuration, sealed keys and database in a new folder.
    Init {
        /// The folder. Must not exist, or must be empty.
        dir: PathBuf,
        /// Name of the first identity, as other nodes see it, which is also its petname here.
        #[arg(long)]
        name: Option<String>,
        /// File with the passphrase (mode 0600). Default: ask at the terminal.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Run a node until SIGINT or SIGTERM.
    Run {
        #[command(flatten)]
        node: NodeArgs,
        /// File with the passphrase (mode 0600). Default: node.passphrase_file, else the systemd
        /// credential `postern-passphrase`, else ask at the terminal.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Check a configuration: report each fault with file, line and the nearest known key.
    /// Obsolete keys are warnings.
    Check {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Back up everything except the passphrase into one sealed file. The node may run.
    Backup {
        /// The file. Must not exist. A running node writes it with its own permissions.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// If the node is stopped: file with the passphrase (mode 0600). Default:
        /// node.passphrase_file, else the systemd credential `postern-passphrase`, else ask at
        /// the terminal.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Restore a node from a backup into a new folder. The original node must never run again.
    Restore {
        /// The backup file.
        file: PathBuf,
        /// The folder. Must not exist, or must be empty.
        dir: PathBuf,
        /// File (mode 0600) with the passphrase that was valid when the backup was made. Default:
        /// the systemd credential `postern-passphrase`, else ask at the terminal.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List and rotate keys, change the passphrase, export recovery files and onion keys.
    #[command(subcommand)]
    Keys(keyring::KeysCommand),
    /// Show the node, its peers, and the sync state of each domain.
    Status(ApiArgs),
    /// Show the admission policy, or change it until the next start or SIGHUP.
    Policy {
        /// The policy to put in force. Default: show the present one.
        #[arg(value_parser = policies())]
        policy: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Connect to nodes, list peers, approve, refuse and ban nodes.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Manage this node's identities and list known ones.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Name identities in the address book, which never leaves this node.
    #[command(subcommand)]
    Contact(contact::ContactCommand),
    /// Show or end the recovery after a restore.
    Recovery(recovery::RecoveryArgs),
    /// List refused objects: how many, when, from which peer, of which type, for which reason.
    #[command(after_help = "Example: postern rejects --peer 3f9a02c7")]
    Rejects {
        /// Only of this peer: its id, or the first 8 or more digits of it.
        #[arg(long, value_name = "ID")]
        peer: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Found, list and leave conversations, and change their members.
    #[command(subcommand)]
    Conversation(conversation::ConversationCommand),
    /// Send a message to an identity or into a conversation.
    ///
    /// A sender that may write in the conversation and not read it does not see the message in its
    /// inbox.
    #[command(
        after_help = "Example: postern send --from Alice --to Bob \"Hi\"",
        group = ArgGroup::new("recipient").required(true)
    )]
    Send {
        /// The sender: an identity of this node, by petname or oid.
        #[arg(long)]
        from: String,
        /// The recipient, by petname or oid, or by the first 8 or more digits of the oid. Uses the
        /// conversation of the two.
        #[arg(long, group = "recipient")]
        to: Option<String>,
        /// The conversation: its oid, or the last 8 or more digits of it. Instead of --to.
        #[arg(long, value_name = "OID", group = "recipient")]
        conversation: Option<String>,
        /// The message, not empty; `-` reads it from standard input.
        text: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show the messages that an identity of this node may read.
    Inbox {
        /// The identity, by petname or oid. Default: this node's only identity.
        #[arg(long)]
        identity: Option<String>,
        /// Show only messages after this number, which is shown in brackets before a message.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Keep running and show new messages.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Pull (or push) now, without waiting for the next interval.
    Sync {
        /// Only with this peer, by its full peer id.
        #[arg(long)]
        peer: Option<String>,
        /// Only this domain, such as `messages` or `rides.offers`. `postern status` lists them.
        #[arg(long)]
        domain: Option<String>,
        /// Push local changes instead of pulling the peer's.
        #[arg(long)]
        push: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

#[derive(Debug, Subcommand)]
enum PeerCommand {
    /// Connect to a node: solve its puzzle, trust it, and stay connected from then on.
    Add {
        /// The node's onion address, which its `postern init` printed.
        onion: String,
        /// Petname for the node's only listed identity. With several, none is named.
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List the known peers.
    List(ApiArgs),
    /// List pending requests, with what the nodes claim.
    Pending(ApiArgs),
    /// Admit a node from now on, and trust it.
    Approve(PeerArgs),
    /// Refuse an unadmitted node or untrusted peer for a time, and end its session.
    Refuse {
        #[command(flatten)]
        verdict: VerdictArgs,
        /// Duration in days, at most 3650. Default: 30.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: Option<u64>,
    },
    /// Remove a peer: end its session, stop dialling it, and forget its identities of which nothing
    /// is kept. Under an open policy it can come again; `ban` keeps it out.
    Remove {
        #[command(flatten)]
        who: PeerArgs,
        /// Remove what it sent too. Nothing of it comes back until you add or approve the peer.
        #[arg(long)]
        purge: bool,
    },
    /// Ban a node, end its session and void its tickets.
    Ban {
        #[command(flatten)]
        verdict: VerdictArgs,
        /// Remove what it sent too. Nothing of it comes back while the ban lasts.
        #[arg(long)]
        purge: bool,
        /// Duration in days, at most 3650. Default: no end.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: Option<u64>,
    },
    /// Lift a ban or refusal. The node must be admitted again.
    Unban(PeerArgs),
    /// List bans and refusals with reason and end.
    Bans(ApiArgs),
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// The peer id, or the first 8 or more digits of a known one.
    id: String,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct VerdictArgs {
    #[command(flatten)]
    who: PeerArgs,
    /// The reason, stored locally and never sent, at most 256 bytes.
    #[arg(long)]
    reason: Option<String>,
}

/// The admission policies, with their meaning.
fn policies() -> [PossibleValue; 3] {
    [
        PossibleValue::new("open").help("admits every node that solves the puzzle"),
        PossibleValue::new("approve").help("admits nodes that the operator approved"),
        PossibleValue::new("allowlist").help("admits known nodes only"),
    ]
}

impl PeerArgs {
    async fn send(&self, verb: &str) -> Result<(), Failure> {
        verdicts::send_verdict(verb, &self.id, (None, None, false), &self.api).await
    }
}

impl VerdictArgs {
    async fn send(self, verb: &str, days: Option<u64>, purge: bool) -> Result<(), Failure> {
        let Self { who, reason } = self;
        verdicts::send_verdict(verb, &who.id, (reason, days, purge), &who.api).await
    }
}

/// Runs one command and returns its exit code.
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
            api,
        } => backup::backup(&out, passphrase_file, &api).await,
        Command::Restore {
            file,
            dir,
            passphrase_file,
            json,
        } => backup::restore(&file, &dir, passphrase_file, json).await,
        Command::Keys(keys) => keyring::run(keys),
        Command::Status(api) => commands::status(&api).await,
        Command::Policy { policy, api } => verdicts::policy(policy, &api).await,
        Command::Peer(PeerCommand::Add { onion, name, api }) => {
            commands::peer_add(&onion, name, &api).await
        }
        Command::Peer(PeerCommand::List(api)) => commands::peer_list(&api).await,
        Command::Peer(PeerCommand::Pending(api)) => verdicts::pending(&api).await,
        Command::Peer(PeerCommand::Bans(api)) => verdicts::bans(&api).await,
        Command::Peer(PeerCommand::Approve(who)) => who.send("approve").await,
        Command::Peer(PeerCommand::Unban(who)) => who.send("unban").await,
        Command::Peer(PeerCommand::Remove { who, purge }) => {
            removal::remove(&who.id, purge, &who.api).await
        }
        Command::Peer(PeerCommand::Refuse { verdict, days }) => {
            verdict.send("refuse", days, false).await
        }
        Command::Peer(PeerCommand::Ban {
            verdict,
            purge,
            days,
        }) => verdict.send("ban", days, purge).await,
        Command::Identity(command) => identity::run(command).await,
        Command::Contact(command) => contact::run(command).await,
        Command::Recovery(arguments) => recovery::run(arguments).await,
        Command::Rejects { peer, api } => rejects::rejects(peer, &api).await,
        Command::Conversation(command) => conversation::run(command).await,
        Command::Send {
            from,
            to,
            conversation,
            text,
            api,
        } => messages::send(&from, to, conversation, text, &api).await,
        Command::Inbox {
            identity,
            after,
            follow,
            api,
        } => messages::inbox(identity, after, follow, &api).await,
        Command::Sync {
            peer,
            domain,
            push,
            api,
        } => commands::sync(peer, domain, push, &api).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message, .. }) => {
            eprintln!("postern: {message}");
            ExitCode::from(code)
        }
    }
}

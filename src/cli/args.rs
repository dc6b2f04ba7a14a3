//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

/// The argument of commands on a node's folder.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE", default_value = "postern.toml")]
    pub(super) config: PathBuf,
}

/// The arguments of commands that call the API.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,
    /// Print the API's JSON instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// The conversation that a command is about.
#[derive(Debug, Args)]
pub(super) struct ConversationArg {
    /// The conversation's oid, or its last 8 or more digits.
    #[arg(value_name = "OID")]
    pub(super) conversation: String,
}

//! `postern recovery`: shows why writes wait after a restore, and ends it by the operator's
//! decision.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::show::{list, number, print, print_json, short, text};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct RecoveryArgs {
    #[command(subcommand)]
    action: Option<RecoveryAction>,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Subcommand)]
enum RecoveryAction {
    /// Show which peers have not replied yet, and what to do.
    Status(ApiArgs),
    /// End the recovery: existing objects may be changed from now on.
    Finish(ApiArgs),
    /// Confirm that no other copy of this node runs or ever will. The node continues as a restored
    /// one after its next start.
    Resolve(ApiArgs),
}

pub(super) async fn run(recovery: RecoveryArgs) -> Result<(), Failure> {
    match recovery
        .action
        .unwrap_or(RecoveryAction::Status(recovery.api))
    {
        RecoveryAction::Status(api) => status(&api).await,
        RecoveryAction::Finish(api) => {
            let done = ApiClient::find(&api.node.config)?
                .post("/api/recovery/finish", &json!({}))
                .await?;
            let finished = done.get("finished") == Some(&Value::Bool(true));
            print_result(
                &api,
                &done,
                finished,
                "Recovery ended",
                "No recovery was in progress",
            );
            Ok(())
        }
        RecoveryAction::Resolve(api) => {
            let done = ApiClient::find(&api.node.config)?
                .post("/api/recovery/resolve", &json!({}))
                .await?;
            let resolved = done.get("resolved") == Some(&Value::Bool(true));
            let said = "Restart the node now: it starts a new epoch and reclaims its objects from \
             its peers";
            print_result(&api, &done, resolved, said, "This node is not read-only");
            Ok(())
        }
    }
}

fn print_result(api: &ApiArgs, done: &Value, is_done: bool, yes: &str, no: &str) {
    if api.json {
        print_json(done);
    } else {
        print(if is_done { yes } else { no });
    }
}

/// One line for the status, if writes are restricted.
pub(super) fn summary(recovery: &Value) -> Option<String> {
    match text(recovery, "write_mode") {
        "new_objects_only" => Some(match list(recovery, "waits_for").len() {
            0 => "changes wait for the first peer to connect (`postern recovery`)".to_owned(),
            peers => {
                format!("changes wait until {peers} more peers reply (`postern recovery`)")
            }
        }),
        "read_only" => {
            Some("READ-ONLY: clone or rollback detected (`postern recovery`)".to_owned())
        }
        _ => None,
    }
}

async fn status(api: &ApiArgs) -> Result<(), Failure> {
    let recovery = ApiClient::find(&api.node.config)?
        .get("/api/recovery")
        .await?;
    if api.json {
        print_json(&recovery);
        return Ok(());
    }
    match text(&recovery, "write_mode") {
        "new_objects_only" => {
            print(format_args!(
                "Recovery ({}). New objects are written as usual. Updates, deletions and key \
                 changes wait, because they could contradict changes made after the backup.",
                text(&recovery, "reason").replace('_', " ")
            ));
            let peers = list(&recovery, "waits_for");
            if peers.is_empty() {
                print("The backup knew no peer: the first peer to connect ends the recovery.");
            } else {
                print("The node waits for these peers to reply:");
            }
            for peer in peers {
                print(format_args!(
                    "  peer {}",
                    short(peer.as_str().unwrap_or_default())
                ));
            }
            print(format_args!(
                "The recovery ends in {} hours at the latest.",
                number(&recovery, "hours_left")
            ));
            print("If a peer is gone for good, end the recovery with `postern recovery finish`.");
        }
        "read_only" if recovery.get("resolved") == Some(&Value::Bool(true)) => {
            print("Resolved: start the node again.");
        }
        "read_only" => {
            print(format_args!(
                "Clone or rollback detected: peer {} has seen an epoch or sequence number signed \
                 by this node's key that this database does not contain.",
                text(&recovery, "reason")
            ));
            print(
                "Either another copy of this node runs, or this one was replaced by an older \
                 state. This node is read-only.",
            );
            print("  1. If another copy runs, stop this one for good.");
            print(
                "  2. If no other copy runs or ever will, run `postern recovery resolve` and \
                 restart this one.",
            );
        }
        _ => print("No recovery: this node writes as usual."),
    }
    Ok(())
}

//! `postern recovery`: what stands in the way of writing after a restore, and the operator's word on it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::show::{list, number, say, say_json, short, text};
use super::{Asking, Failure};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Recovery {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Shows what is waited for, and what to do.
    Status(Asking),
    /// Waits for nobody any more: what exists may be changed from now on.
    Finish(Asking),
    /// Says that no other copy of this node runs, nor ever will: it goes on as a restored one with its next start.
    Resolve(Asking),
}

pub(super) async fn run(recovery: Recovery) -> Result<(), Failure> {
    match recovery.word.unwrap_or(Word::Status(recovery.asking)) {
        Word::Status(asking) => status(&asking).await,
        Word::Finish(asking) => {
            let done = Client::find(&asking.node.config)?
                .post("/api/recovery/finish", &json!({}))
                .await?;
            let finished = done.get("finished") == Some(&Value::Bool(true));
            tell(
                &asking,
                &done,
                finished,
                "Nobody is waited for any more",
                "Nobody was waited for",
            );
            Ok(())
        }
        Word::Resolve(asking) => {
            let done = Client::find(&asking.node.config)?
                .post("/api/recovery/resolve", &json!({}))
                .await?;
            let resolved = done.get("resolved") == Some(&Value::Bool(true));
            let said = "Now start the node again: it begins a new epoch and asks its peers for what they hold of it";
            tell(&asking, &done, resolved, said, "This node is not read-only");
            Ok(())
        }
    }
}

fn tell(asking: &Asking, done: &Value, is_done: bool, yes: &str, no: &str) {
    if asking.json {
        say_json(done);
    } else {
        say(if is_done { yes } else { no });
    }
}

/// One line for the status; none where nothing is in the way.
pub(super) fn summary(recovery: &Value) -> Option<String> {
    match text(recovery, "state") {
        "recovering" => Some(match list(recovery, "waits_for").len() {
            0 => "changes wait for the first peer that comes (`postern recovery`)".to_owned(),
            peers => {
                format!("changes wait until {peers} more peers were asked (`postern recovery`)")
            }
        }),
        "read_only" => Some(
            "READ-ONLY: another copy of this node runs, or it was put back (`postern recovery`)"
                .to_owned(),
        ),
        _ => None,
    }
}

async fn status(asking: &Asking) -> Result<(), Failure> {
    let recovery = Client::find(&asking.node.config)?
        .get("/api/recovery")
        .await?;
    if asking.json {
        say_json(&recovery);
        return Ok(());
    }
    match text(&recovery, "state") {
        "recovering" => {
            say(format_args!(
                "This node begins anew ({}). New objects are made as always; updates, deletions and changes of keys wait,",
                text(&recovery, "reason").replace('_', " ")
            ));
            let peers = list(&recovery, "waits_for");
            if peers.is_empty() {
                say(
                    "since they may contradict what was done after the backup. No peer was known then: the first that comes ends it.",
                );
            } else {
                say(
                    "since they may contradict what was done after the backup. It waits for these peers:",
                );
            }
            for peer in peers {
                say(format_args!(
                    "  peer {}",
                    short(peer.as_str().unwrap_or_default())
                ));
            }
            say(format_args!(
                "It waits no longer than {} more hours.",
                number(&recovery, "hours_left")
            ));
            say("For peers that are gone for good: `postern recovery finish` waits no longer.");
        }
        "read_only" if recovery.get("resolved") == Some(&Value::Bool(true)) => {
            say("Resolved: start the node again.");
        }
        "read_only" => {
            say(format_args!(
                "Clone or rollback: peer {} has heard an epoch of this node's that was never begun here, or counted further.",
                text(&recovery, "reason")
            ));
            say(
                "Either another copy of this node runs, or this one was put back to an older state. It writes nothing more.",
            );
            say(
                "  1. If another copy runs: stop this one for good. Two of them contradict each other.",
            );
            say(
                "  2. If you know that no other runs, nor ever will: `postern recovery resolve`, and start this one again.",
            );
        }
        _ => say("Nothing is in the way: this node writes as always."),
    }
    Ok(())
}

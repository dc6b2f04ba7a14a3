//! `postern conversation invitations`, `accept` and `decline`.

use serde_json::{Value, json};

use super::args::{ApiArgs, ConversationArg};
use super::client::ApiClient;
use super::failure::Failure;
use super::lookup::{find_identity, find_invitation};
use super::show::{label as person_label, list, number, print, print_json, text, title, utc};

/// The effect of taking part in a conversation of three or more.
pub(super) const ADDRESS_SHOWN: &str = "\
Unless `sync.introduce` is \"never\" in the configuration, members that accepted may learn this
node's onion address and its listed identities.";

/// The conversation that a command is about, and the identity that decides.
#[derive(Debug, clap::Args)]
pub(super) struct DecisionArgs {
    #[command(flatten)]
    which: ConversationArg,
    /// The invited identity, by petname or oid. Default: the only one with an invitation.
    #[arg(long = "as", value_name = "IDENTITY")]
    identity: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn list_all(declined: bool, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let (mut after, mut all, mut is_empty) = (0, Vec::new(), true);
    loop {
        let path = format!("/api/v1/invitations?app=messages&declined={declined}&after={after}");
        let page = client.get(&path).await?;
        after = number(&page, "after");
        let found = list(&page, "invitations");
        is_empty &= found.is_empty();
        if api.json {
            all.extend_from_slice(found);
        } else {
            found.iter().for_each(|it| print(invitation(it)));
        }
        if page.get("more") != Some(&Value::Bool(true)) {
            break;
        }
    }
    if api.json {
        print_json(&json!({ "invitations": all }));
    } else if is_empty {
        print("no invitations");
    }
    Ok(())
}

/// How many invitations wait, from a status of the node. `None`: none.
pub(super) fn waiting(status: &Value) -> Option<String> {
    let count = number(status, "open_invitations");
    let waits = if count == 1 { "waits" } else { "wait" };
    (count > 0)
        .then(|| format!("{count} {waits} for your decision (`postern conversation invitations`)"))
}

/// Two lines on an invitation.
fn invitation(invitation: &Value) -> String {
    let person = |field| invitation.get(field).map_or(String::new(), person_label);
    let members = list(invitation, "members");
    let mut names: Vec<_> = members.iter().map(person_label).collect();
    let further = number(invitation, "member_count").saturating_sub(names.len() as u64);
    if further > 0 {
        names.push(format!("{further} more"));
    }
    let title = title(invitation).map_or(String::new(), |title| format!("  {title}"));
    format!(
        "{}{title}\n  from      {}, for {}, {}\n  members   {}",
        text(invitation, "oid"),
        person("owner"),
        person("identity"),
        utc(number(invitation, "at")),
        names.join(", "),
    )
}

/// Posts a decision. Returns the reply.
async fn decide(decision: &DecisionArgs, verb: &str) -> Result<Value, Failure> {
    let client = ApiClient::find(&decision.api.node.config)?;
    let oid = find_invitation(&client, &decision.which.conversation).await?;
    let identity = match &decision.identity {
        Some(wanted) => Some(find_identity(&client, wanted, true).await?),
        None => None,
    };
    let path = format!("/api/v1/rights/messages/{oid}/{verb}");
    client
        .post(&path, &json!({ "identity_oid": identity }))
        .await
}

pub(super) async fn accept(decision: &DecisionArgs) -> Result<(), Failure> {
    let done = decide(decision, "accept").await?;
    if decision.api.json {
        print_json(&done);
    } else {
        print("Accepted: the conversation is shown, and its members learn it.");
        print("Messages that this node dropped before come with the next pulls.");
        print(ADDRESS_SHOWN);
    }
    Ok(())
}

pub(super) async fn decline(decision: &DecisionArgs) -> Result<(), Failure> {
    let done = decide(decision, "decline").await?;
    if decision.api.json {
        print_json(&done);
    } else {
        print(
            "Declined: nothing new of the conversation is shown, and its members do not learn it.",
        );
    }
    Ok(())
}

//! `postern conversation`: founds and lists conversations, and changes their members.

use clap::Subcommand;
use serde_json::{Value, json};

use super::args::{ApiArgs, ConversationArg};
use super::client::ApiClient;
use super::delivery;
use super::failure::Failure;
use super::invitation::{self, ADDRESS_SHOWN, DecisionArgs};
use super::lookup::{find_conversation, find_identity, find_person, only_identity};
use super::show::{label as person_label, list, number, print, print_json, text, title, utc};
use crate::text::delimited;

#[derive(Debug, Subcommand)]
pub(super) enum ConversationCommand {
    /// Found a conversation.
    ///
    /// A conversation of two stays one of two. One of three or more can grow to 256 members.
    #[command(after_help = "Example: postern conversation new --from Alice --to Bob --to Carol")]
    New {
        /// The founder and owner: an identity of this node, by petname or oid.
        #[arg(long)]
        from: String,
        /// A founding member, by petname or oid. Repeat it for each member.
        #[arg(long, required = true)]
        to: Vec<String>,
        /// The title, which never changes: one line of at most 200 bytes. Default: none.
        #[arg(long)]
        title: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List conversations with their members, oldest first.
    #[command(after_help = "Example: postern conversation list --identity Alice")]
    List {
        /// An identity of this node, by petname or oid. Default: all of them.
        #[arg(long)]
        identity: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show a conversation and the rights of its members.
    #[command(after_help = "Example: postern conversation show 5b7d0c1e")]
    Show {
        #[command(flatten)]
        which: ConversationArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Add a member, who will read the whole history. Only the owner can.
    ///
    /// If two founded the conversation, either of them can. A new one of all three with the same
    /// title is founded then.
    #[command(after_help = "Example: postern conversation add 5b7d0c1e Dora")]
    Add {
        #[command(flatten)]
        which: ConversationArg,
        /// The new member, by petname or oid.
        who: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Remove a member, who keeps what it has received. Only the owner can.
    ///
    /// Other members' nodes send to the removed member until they have received the change.
    #[command(after_help = "Example: postern conversation remove 5b7d0c1e Dora")]
    Remove {
        #[command(flatten)]
        which: ConversationArg,
        /// The member, by petname or oid.
        who: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List conversations of three or more to which others invited identities of this node.
    ///
    /// Until one is accepted it is hidden, and no other member learns the onion address.
    #[command(after_help = "Example: postern conversation invitations")]
    Invitations {
        /// List those that were declined instead.
        #[arg(long)]
        declined: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Accept an invitation: the conversation is shown, and its members learn it.
    ///
    /// Also accepts one that was declined. Then its messages are fetched again.
    #[command(after_help = "Example: postern conversation accept 5b7d0c1e")]
    Accept(DecisionArgs),
    /// Decline an invitation: nothing new of the conversation is shown or kept.
    ///
    /// Other members do not learn that it was declined.
    #[command(after_help = "Example: postern conversation decline 5b7d0c1e")]
    Decline(DecisionArgs),
    /// Leave a conversation: nothing new of it arrives. The owner cannot leave.
    ///
    /// The right to write stays. Messages that the identity sends after it left are not in its
    /// inbox.
    #[command(after_help = "Example: postern conversation leave 5b7d0c1e --as Bob")]
    Leave {
        #[command(flatten)]
        which: ConversationArg,
        /// The leaving identity, by petname or oid. Default: this node's only identity.
        #[arg(long = "as", value_name = "IDENTITY")]
        identity: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(super) async fn run(command: ConversationCommand) -> Result<(), Failure> {
    match command {
        ConversationCommand::New {
            from,
            to,
            title,
            api,
        } => new(&from, &to, title, &api).await,
        ConversationCommand::List { identity, api } => list_all(identity, &api).await,
        ConversationCommand::Show { which, api } => show(&which, &api).await,
        ConversationCommand::Add { which, who, api } => add(&which, &who, &api).await,
        ConversationCommand::Remove { which, who, api } => remove(&which, &who, &api).await,
        ConversationCommand::Invitations { declined, api } => {
            invitation::list_all(declined, &api).await
        }
        ConversationCommand::Accept(decision) => invitation::accept(&decision).await,
        ConversationCommand::Decline(decision) => invitation::decline(&decision).await,
        ConversationCommand::Leave {
            which,
            identity,
            api,
        } => leave(&which, identity, &api).await,
    }
}

async fn new(
    from: &str,
    to: &[String],
    title: Option<String>,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let founder = find_identity(&client, from, true).await?;
    let mut participants = Vec::with_capacity(to.len());
    for wanted in to {
        participants.push(find_identity(&client, wanted, false).await?);
    }
    let request = json!({
        "founder_identity_oid": founder,
        "participant_identity_oids": participants,
        "title": title,
    });
    let made = client.post("/api/v1/conversations", &request).await?;
    if api.json {
        print_json(&made);
    } else {
        print(format_args!("conversation {}", text(&made, "oid")));
        if participants.len() > 1 {
            eprintln!("{ADDRESS_SHOWN}");
        }
    }
    Ok(())
}

async fn list_all(identity: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let of = match identity {
        Some(wanted) => format!("&identity={}", find_identity(&client, &wanted, true).await?),
        None => String::new(),
    };
    let (mut after, mut all, mut is_empty) = (0, Vec::new(), true);
    loop {
        let path = format!("/api/v1/conversations?after={after}{of}");
        let page = client.get(&path).await?;
        after = number(&page, "after");
        is_empty &= list(&page, "conversations").is_empty();
        if api.json {
            all.extend_from_slice(list(&page, "conversations"));
        } else {
            for conversation in list(&page, "conversations") {
                print(summary(conversation));
            }
        }
        if page.get("more") != Some(&Value::Bool(true)) {
            break;
        }
    }
    if api.json {
        print_json(&json!({ "conversations": all }));
    } else if is_empty {
        print(
            "no conversations: `postern conversation new` founds one, and `postern conversation \
             invitations` lists those of others",
        );
    }
    Ok(())
}

/// Two or three lines on a conversation.
fn summary(conversation: &Value) -> String {
    let members = list(conversation, "members").iter();
    let members: Vec<_> = members
        .map(|member| match text(member, "standing") {
            "member" => person_label(member),
            standing => format!("{} ({standing})", person_label(member)),
        })
        .collect();
    let counted = match conversation.get("messages_counted_of") {
        None | Some(Value::Null) => "",
        Some(_) => "+",
    };
    let newest = match conversation.get("newest_sent_at").and_then(Value::as_u64) {
        Some(at) => format!(", newest {}", utc(at)),
        None => String::new(),
    };
    let title = title(conversation).map_or(String::new(), |title| format!("  {title}"));
    format!(
        "{}{title}\n  members   {}\n  messages  {}{counted}{newest}",
        text(conversation, "oid"),
        members.join(", "),
        number(conversation, "messages"),
    )
}

/// The title of a message's conversation, or its members. `None`: a conversation of two.
pub(super) fn label(conversation: &Value) -> Option<String> {
    if conversation.get("of_two") == Some(&Value::Bool(true)) {
        return None;
    }
    if let Some(title) = title(conversation) {
        // In an inbox the title stands before the sender.
        return Some(delimited(&title));
    }
    let members = list(conversation, "members");
    let mut names: Vec<_> = members.iter().map(person_label).collect();
    let further = number(conversation, "member_count").saturating_sub(names.len() as u64);
    if further > 0 {
        names.push(format!("{further} more"));
    }
    Some(names.join(", "))
}

async fn show(which: &ConversationArg, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_conversation(&client, &which.conversation).await?;
    let found = client.get(&format!("/api/v1/conversations/{oid}")).await?;
    if api.json {
        print_json(&found);
        return Ok(());
    }
    print(summary(&found));
    for member in list(&found, "members") {
        let is_invited = text(member, "standing") == "member"
            && found.get("of_two") != Some(&Value::Bool(true))
            && text(member, "rights").starts_with("read")
            && member.get("accepted") == Some(&Value::Bool(false));
        print(format_args!(
            "  {}  {:<20} {}, {}{}",
            text(member, "identity_oid"),
            person_label(member),
            text(member, "standing"),
            rights(member),
            if is_invited { ", has not accepted" } else { "" }
        ));
    }
    delivery::own_messages(&found).iter().for_each(print);
    Ok(())
}

/// The rights of a member in words. A member that left does not read, whatever the list says.
fn rights(member: &Value) -> &'static str {
    match (text(member, "standing"), text(member, "rights")) {
        ("left", "read_write" | "write") => "may still write",
        ("left", _) => "no rights",
        (_, "read_write") => "reads and writes",
        (_, "read") => "reads",
        (_, "write") => "writes",
        _ => "no rights",
    }
}

async fn add(which: &ConversationArg, who: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_conversation(&client, &which.conversation).await?;
    let person = find_person(&client, who, false).await?;
    let path = format!("/api/v1/conversations/{oid}/members");
    let done = client
        .post(&path, &json!({ "identity_oid": text(&person, "oid") }))
        .await?;
    if api.json {
        print_json(&done);
        return Ok(());
    }
    let who = person_label(&person);
    if done.get("founded_new") == Some(&Value::Bool(true)) {
        print(format_args!(
            "A conversation of two stays one of two. Founded a new one with {who}:\n\
             conversation {}\n\
             {who} does not read the messages of the old one.",
            text(&done, "oid")
        ));
    } else {
        print(format_args!(
            "Added {who}, who will read the whole history of the conversation."
        ));
    }
    eprintln!("{ADDRESS_SHOWN}");
    Ok(())
}

async fn remove(which: &ConversationArg, who: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_conversation(&client, &which.conversation).await?;
    let person = find_person(&client, who, false).await?;
    let identity = text(&person, "oid");
    let path = format!("/api/v1/conversations/{oid}/members/{identity}");
    let done = client.delete(&path).await?;
    if api.json {
        print_json(&done);
    } else {
        print(format_args!(
            "Removed {}, who keeps what it has received and gets nothing new.",
            person_label(&person)
        ));
    }
    Ok(())
}

async fn leave(
    which: &ConversationArg,
    identity: Option<String>,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_conversation(&client, &which.conversation).await?;
    let identity = match identity {
        Some(wanted) => find_identity(&client, &wanted, true).await?,
        None => only_identity(&client, "--as").await?,
    };
    let path = format!("/api/v1/conversations/{oid}/leave");
    let done = client
        .post(&path, &json!({ "identity_oid": identity }))
        .await?;
    if api.json {
        print_json(&done);
    } else {
        print("Left the conversation: what was received stays, and nothing new arrives.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_shows_title_members_and_messages() {
        let member = |label: &str, standing: &str| json!({ "label": label, "standing": standing });
        let members = [
            member("Alice", "owner"),
            member("0123456789ab", "member"),
            member("Bo\nb", "left"),
        ];
        let shown = json!({
            "oid": "ff", "title": "Hi\u{1b}king", "members": members, "messages": 12,
            "messages_counted_of": null, "newest_sent_at": 0,
        });
        assert_eq!(
            summary(&shown),
            "ff  Hi\\u{1b}king\n  members   Alice (owner), 0123456789ab, Bo\\nb (left)\n  \
             messages  12, newest 1970-01-01 00:00 UTC"
        );
        let empty = json!({
            "oid": "ff", "title": null, "members": [], "messages": 10_000,
            "messages_counted_of": 10_000, "newest_sent_at": null,
        });
        assert_eq!(summary(&empty), "ff\n  members   \n  messages  10000+");
    }

    #[test]
    fn member_that_left_does_not_read() {
        for (standing, given, expected) in [
            ("owner", json!("read_write"), "reads and writes"),
            ("member", json!("read"), "reads"),
            ("left", json!("read_write"), "may still write"),
            ("left", json!("read"), "no rights"),
            ("removed", json!(null), "no rights"),
        ] {
            let member = json!({ "standing": standing, "rights": given });
            assert_eq!(rights(&member), expected);
        }
    }

    #[test]
    fn label_is_the_title_or_the_members() {
        let check = |conversation: Value, expected: Option<&str>| {
            assert_eq!(label(&conversation).as_deref(), expected);
        };
        let members = json!([{ "label": "Alice" }, { "label": "Bob" }]);
        check(
            json!({ "of_two": true, "title": "Us", "members": members }),
            None,
        );
        check(
            json!({ "of_two": false, "title": "Us", "members": members }),
            Some("Us"),
        );
        check(
            json!({ "of_two": false, "title": "x) Alice: hi", "members": members }),
            Some("\"x) Alice: hi\""),
        );
        for blank in [json!(null), json!(""), json!(" \n")] {
            check(
                json!({ "title": blank, "members": members, "member_count": 2 }),
                Some("Alice, Bob"),
            );
        }
        check(
            json!({ "title": null, "members": members, "member_count": 5 }),
            Some("Alice, Bob, 3 more"),
        );
    }
}

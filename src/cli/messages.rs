//! `postern send` and `postern inbox`.
//!
//! Text from other nodes is sanitized: see [`super::show`].

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::conversation::label;
use super::delivery;
use super::failure::Failure;
use super::lookup::{find_conversation, find_identity, only_identity};
use super::show::{line, list, number, print, print_json, sanitize, text};

/// Longest message read from standard input, in bytes. The API has its own limit.
const STDIN_BYTES_MAX: u64 = 1 << 20;

/// Sends a message to an identity, or into a conversation.
pub(super) async fn send(
    from: &str,
    to: Option<String>,
    conversation: Option<String>,
    body: String,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let sender = find_identity(&client, from, true).await?;
    let (path, recipient) = match (to, conversation) {
        (_, Some(wanted)) => {
            let oid = find_conversation(&client, &wanted).await?;
            (format!("/api/v1/conversations/{oid}/messages"), None)
        }
        (Some(wanted), None) => {
            let recipient = find_identity(&client, &wanted, false).await?;
            ("/api/messages/send".to_owned(), Some(recipient))
        }
        (None, None) => return Err(Failure::usage("name a recipient: --to or --conversation")),
    };
    let body = if body == "-" { from_stdin()? } else { body };
    if body.is_empty() {
        return Err(Failure::usage("the message is empty"));
    }
    let mut message = json!({ "sender_identity_oid": sender, "body": body });
    if let (Some(fields), Some(recipient)) = (message.as_object_mut(), recipient) {
        fields.insert("recipient_identity_oid".to_owned(), json!(recipient));
    }
    let sent = client.post(&path, &message).await?;
    if api.json {
        print_json(&sent);
    } else {
        print(format_args!(
            "sent as change {}",
            number(&sent, "change_seq")
        ));
        let delivery = sent.get("delivery").unwrap_or(&Value::Null);
        delivery::lines(delivery).iter().for_each(print);
    }
    Ok(())
}

fn from_stdin() -> Result<String, Failure> {
    let mut body = String::new();
    let read = std::io::stdin()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_string(&mut body);
    read.map_err(|error| Failure::of(&error))?;
    if body.len() as u64 > STDIN_BYTES_MAX {
        return Err(Failure::failed("the message is too long"));
    }
    // The newline that `echo` and editors append is not part of the message.
    if body.ends_with('\n') {
        body.pop();
    }
    Ok(body)
}

pub(super) async fn inbox(
    identity: Option<String>,
    after: u64,
    follow: bool,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let identity = match identity {
        Some(wanted) => find_identity(&client, &wanted, true).await?,
        None => only_identity(&client, "--identity").await?,
    };
    let mut after = after.to_string();
    loop {
        let wait_s = if follow { 30 } else { 0 };
        let path = format!(
            "/api/messages/inbox?identity={identity}&after={after}&limit=200&wait_s={wait_s}"
        );
        let page = match follow {
            true => client.get_patiently(&path).await?,
            false => client.get(&path).await?,
        };
        after = text(&page, "after").to_owned();
        let conversations = list(&page, "conversations").iter();
        let labels: BTreeMap<_, _> = conversations
            .filter_map(|conversation| Some((text(conversation, "oid"), label(conversation)?)))
            .collect();
        for message in list(&page, "messages") {
            if api.json {
                print_json(message);
            } else {
                let label = match labels.get(text(message, "conversation_oid")) {
                    Some(label) => format!("({label}) "),
                    None => String::new(),
                };
                let state = delivery::summary(message.get("delivery").unwrap_or(&Value::Null));
                let state = match state.is_empty() {
                    true => state,
                    false => format!(", {state}"),
                };
                print(format_args!(
                    "[{}{state}] {label}{}: {}",
                    number(message, "change_seq"),
                    line(text(message, "sender_label")),
                    sanitize(text(message, "body"))
                ));
            }
        }
        let more = page.get("more") == Some(&Value::Bool(true));
        if !more && !follow {
            break;
        }
    }
    if !api.json {
        let status = client.get("/api/status").await?;
        if let Some(line) = super::invitation::waiting(&status) {
            print(format_args!("Invitations: {line}"));
        }
    }
    Ok(())
}

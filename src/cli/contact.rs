//! `postern contact`: the address book of this node.

use clap::Subcommand;
use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::{ApiClient, query_value};
use super::failure::Failure;
use super::lookup::{find_identity, find_person};
use super::show::{label, list, print, print_json, sanitize, text};
use crate::text::show_claim;

#[derive(Debug, Subcommand)]
pub(super) enum ContactCommand {
    /// Name an identity of another node.
    #[command(after_help = "Example: postern contact add 0193abcd1234 Bob --note \"met at work\"")]
    Add {
        /// The oid, or the first 8 or more digits of a known one.
        who: String,
        /// The petname: one line of at most 64 bytes, unique on this node.
        name: String,
        /// A private note, which never leaves this node, at most 2,000 bytes.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List the named identities, this node's own included.
    List(ApiArgs),
    /// Change a petname.
    Rename {
        /// The identity, by petname or oid.
        name: String,
        /// The new petname.
        new: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change the private note on a named identity.
    Note {
        /// The identity, by petname or oid.
        name: String,
        /// The note, at most 2,000 bytes. Empty: none.
        text: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Remove an identity from the address book, with its note. Messages stay.
    Remove {
        /// The identity, by petname or oid.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(super) async fn run(command: ContactCommand) -> Result<(), Failure> {
    match command {
        ContactCommand::Add {
            who,
            name,
            note,
            api,
        } => add(&who, &name, note, &api).await,
        ContactCommand::List(api) => list_all(&api).await,
        ContactCommand::Rename { name, new, api } => {
            change(&name, &json!({ "name": new }), &api).await
        }
        ContactCommand::Note { name, text, api } => {
            change(&name, &json!({ "note": text }), &api).await
        }
        ContactCommand::Remove { name, api } => remove(&name, &api).await,
    }
}

async fn add(who: &str, name: &str, note: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let person = find_person(&client, who, false).await?;
    let request = json!({
        "identity_oid": text(&person, "oid"),
        "name": name,
        "note": note.unwrap_or_default(),
    });
    let made = client.post("/api/v1/contacts", &request).await?;
    if api.json {
        print_json(&made);
        return Ok(());
    }
    print(format_args!(
        "{} is {} here",
        oid_and_claim(&made),
        label(&made)
    ));
    if person.get("known") == Some(&Value::Bool(false)) {
        print("This node does not know the identity yet: connect to its node.");
    }
    Ok(())
}

async fn list_all(api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/contacts?after={}", query_value(&after));
        let page = client.get(&path).await?;
        after = text(&page, "after").to_owned();
        all.extend_from_slice(list(&page, "contacts"));
        if page.get("more") != Some(&Value::Bool(true)) {
            break;
        }
    }
    if api.json {
        print_json(&json!({ "contacts": all }));
        return Ok(());
    }
    for contact in &all {
        print(summary(contact));
    }
    Ok(())
}

/// A line on a contact, and its note.
fn summary(contact: &Value) -> String {
    let is = |field: &str| contact.get(field) == Some(&Value::Bool(true));
    let place = match (is("local"), is("known")) {
        (true, _) => ", on this node",
        (_, true) => "",
        _ => ", not known yet",
    };
    let note = match text(contact, "note") {
        "" => String::new(),
        note => format!("\n    {}", sanitize(note)),
    };
    format!(
        "{:<20} {}{place}{note}",
        label(contact),
        oid_and_claim(contact)
    )
}

/// The oid of an identity, and the marked name that it gives itself.
fn oid_and_claim(person: &Value) -> String {
    let oid = text(person, "identity_oid");
    match person.get("claim").and_then(Value::as_str) {
        Some(claim) => format!("{oid} ({})", show_claim(claim)),
        None => oid.to_owned(),
    }
}

async fn change(name: &str, fields: &Value, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, name, false).await?;
    let done = client
        .put(&format!("/api/v1/contacts/{oid}"), fields)
        .await?;
    if api.json {
        print_json(&done);
    } else {
        print(summary(&done));
    }
    Ok(())
}

async fn remove(name: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let person = find_person(&client, name, false).await?;
    let path = format!("/api/v1/contacts/{}", text(&person, "oid"));
    let done = client.delete(&path).await?;
    if api.json {
        print_json(&done);
    } else {
        print(format_args!(
            "Removed {} from the address book",
            label(&person)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_shows_petname_oid_claim_and_note() {
        let contact = json!({
            "label": "Bob", "identity_oid": "ff", "claim": "Robert", "known": true, "local": false,
            "note": "met\nat work\u{1b}",
        });
        assert_eq!(
            summary(&contact),
            "Bob                  ff (~Robert)\n    met\n    at work\\u{1b}"
        );
        let unknown = json!({ "label": "Eve", "identity_oid": "ee", "claim": null, "note": "" });
        assert_eq!(summary(&unknown), "Eve                  ee, not known yet");
    }
}

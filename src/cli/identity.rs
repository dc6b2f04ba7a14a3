//! `postern identity`: lists known identities and manages this node's own.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::keyring::KEY_BACKUP;
use super::lookup::{find_identity, find_person};
use super::moving;
use super::show::{label, list, number, print, print_json, short, text, utc};

#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Create an identity on this node.
    New {
        /// The name, as other nodes see it, which is also its petname here.
        name: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// List the known identities, this node's first. Those of untrusted peers come last, and only
    /// some of them.
    List {
        /// List all identities of untrusted peers instead.
        #[arg(long)]
        untrusted: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Rename an identity of this node.
    Rename {
        /// The identity, by petname or oid.
        identity: String,
        /// The new name, as other nodes see it, which is also its petname here. Default: none.
        name: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Retire an identity of this node: it writes no more, and peers are informed. Its objects
    /// stay.
    Retire {
        /// The identity, by petname or oid.
        identity: String,
        /// Undo the retirement.
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Replace the key of an identity, or of the node, by the next one. Peers then refuse what the
    /// earlier key signs.
    #[command(group = ArgGroup::new("whose").required(true))]
    Rotate {
        /// An identity of this node, by petname or oid.
        #[arg(group = "whose")]
        identity: Option<String>,
        /// Rotate the node's own key.
        #[arg(long, group = "whose")]
        node: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Unfreeze an identity. Prefer having its owner rotate the key, which unfreezes it
    /// automatically.
    Unfreeze {
        /// The identity, by petname or oid.
        identity: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Move an identity to another node. Its keys sign nothing here from then on. They go with all
    /// its objects into a sealed file for that node. Repeat it if it was interrupted, if the file
    /// is lost, or to name another node. To take the identity back, name this node.
    #[command(group = ArgGroup::new("step").required(true))]
    Move {
        /// The identity, by petname or oid.
        identity: String,
        /// The onion address of the node, which is a peer of this one.
        #[arg(long, value_name = "ONION", group = "step", requires = "file")]
        to: Option<String>,
        /// The file, which must not exist. This node's present passphrase opens it.
        #[arg(long, value_name = "FILE", requires = "to")]
        file: Option<PathBuf>,
        /// Remove the keys from the vault at last, after the new home was heard from.
        #[arg(long, group = "step")]
        done: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take an identity that moves to this node from its file. Repeat it if it was interrupted.
    Receive {
        /// The file that `postern identity move` wrote.
        file: PathBuf,
        /// File with the passphrase of the node that wrote it (mode 0600). Default: ask at the
        /// terminal.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Confirm that an identity moved to another node under the same key. Ask its owner first,
    /// because a thief of the key can claim this too.
    ConfirmHome {
        /// The identity, by petname or oid.
        identity: String,
        /// The peer id of the new home, or its first digits, to confirm this one only.
        #[arg(long, value_name = "PEER")]
        home: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(super) async fn run(command: IdentityCommand) -> Result<(), Failure> {
    match command {
        IdentityCommand::New { name, api } => new(name, &api).await,
        IdentityCommand::List {
            untrusted: false,
            api,
        } => known(&api).await,
        IdentityCommand::List {
            untrusted: true,
            api,
        } => all_untrusted(&api).await,
        IdentityCommand::Rename {
            identity,
            name,
            api,
        } => rename(&identity, name, &api).await,
        IdentityCommand::Retire {
            identity,
            undo,
            api,
        } => retire(&identity, !undo, &api).await,
        IdentityCommand::Rotate { identity, api, .. } => rotate(identity.as_deref(), &api).await,
        IdentityCommand::Unfreeze { identity, api } => unfreeze(&identity, &api).await,
        IdentityCommand::Move {
            identity,
            to,
            file,
            api,
            ..
        } => match to.zip(file) {
            Some((to, file)) => moving::leave(&identity, &to, &file, &api).await,
            None => moving::finish(&identity, &api).await,
        },
        IdentityCommand::Receive {
            file,
            passphrase_file,
            api,
        } => moving::arrive(&file, passphrase_file, &api).await,
        IdentityCommand::ConfirmHome {
            identity,
            home,
            api,
        } => confirm_home(&identity, home.as_deref(), &api).await,
    }
}

async fn new(name: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let made = client
        .post("/api/identities", &json!({ "name": name }))
        .await?;
    if api.json {
        print_json(&made);
        return Ok(());
    }
    print(format_args!("identity {}", text(&made, "oid")));
    print("Make a backup now: older backups lack its keys.");
    Ok(())
}

async fn known(api: &ApiArgs) -> Result<(), Failure> {
    let known = ApiClient::find(&api.node.config)?
        .get("/api/identities")
        .await?;
    if api.json {
        print_json(&known);
        return Ok(());
    }
    for card in list(&known, "identities") {
        print(summary(card));
    }
    let (some, count) = (list(&known, "untrusted"), number(&known, "untrusted_count"));
    if count == 0 {
        return Ok(());
    }
    print(format_args!(
        "\n{count} of untrusted peers, without a petname here (`postern peer ban --purge` removes \
         a peer's):"
    ));
    for card in some {
        print(summary(card));
    }
    if count > some.len() as u64 {
        print("and more: see `postern identity list --untrusted`");
    }
    Ok(())
}

async fn all_untrusted(api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/identities/untrusted?limit=1000&after={after}");
        let page = client.get(&path).await?;
        let found = list(&page, "identities");
        match api.json {
            true => all.extend_from_slice(found),
            false => found.iter().map(summary).for_each(print),
        }
        if page.get("more") != Some(&Value::Bool(true)) {
            break;
        }
        text(&page, "after").clone_into(&mut after);
    }
    if api.json {
        print_json(&json!({ "identities": all }));
    }
    Ok(())
}

/// A line on an identity.
fn summary(card: &Value) -> String {
    let is = |field: &str| card.get(field) == Some(&Value::Bool(true));
    let mut place = if is("local") {
        "on this node".to_owned()
    } else {
        format!("on peer {}", short(text(card, "home_peer_id")))
    };
    if is("retired") {
        place.push_str(", retired");
    }
    if is("frozen") {
        place.push_str(
            ", FROZEN: two homes were claimed (run `postern identity rotate` if it is yours)",
        );
    }
    if let Some(target) = card.get("moves_to").and_then(Value::as_str) {
        place.push_str(&format!(", moves to peer {}", short(target)));
    }
    if let Some(pending) = card.get("pending_home").filter(|it| it.is_object()) {
        place.push_str(&format!(", {}", waits(pending)));
    }
    format!("{}  {:<20} {place}", text(card, "oid"), label(card))
}

async fn rename(identity: &str, name: Option<String>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, identity, true).await?;
    let path = format!("/api/identities/{oid}/name");
    let done = client.put(&path, &json!({ "name": name })).await?;
    print_result(
        api,
        &done,
        "Renamed; peers receive the new name with the next pull",
    );
    Ok(())
}

async fn retire(identity: &str, retired: bool, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, identity, true).await?;
    let path = format!("/api/identities/{oid}/retire");
    let done = client.post(&path, &json!({ "retired": retired })).await?;
    let said = if retired {
        "Retired: the identity writes no more, its objects stay. Undo with `postern identity \
         retire --undo`"
    } else {
        "The identity may write again"
    };
    print_result(api, &done, said);
    Ok(())
}

/// Rotates the key of an identity. Without one, the node's own key.
async fn rotate(identity: Option<&str>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let path = match identity {
        None => "/api/keys/rotate-node".to_owned(),
        Some(identity) => {
            let oid = find_identity(&client, identity, true).await?;
            format!("/api/identities/{oid}/rotate")
        }
    };
    if !api.json {
        eprintln!("Rotating the key and re-signing live objects …");
    }
    let done = client.post(&path, &json!({})).await?;
    if api.json {
        print_json(&done);
        return Ok(());
    }
    print(format_args!(
        "The current key is number {}.",
        number(&done, "key_id")
    ));
    print(KEY_BACKUP);
    Ok(())
}

async fn unfreeze(identity: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let oid = find_identity(&client, identity, false).await?;
    let done = client
        .post(&format!("/api/identities/{oid}/unfreeze"), &json!({}))
        .await?;
    print_result(
        api,
        &done,
        "Unfrozen: the identity's objects are accepted again",
    );
    Ok(())
}

/// Says until when a home waits.
fn waits(pending: &Value) -> String {
    let home = short(text(pending, "home_peer_id"));
    match pending.get("due").and_then(Value::as_u64) {
        Some(due) => format!("moves to peer {home} at {}", utc(due)),
        None => format!(
            "a move to peer {home} waits for your confirmation (`postern identity confirm-home`)"
        ),
    }
}

/// Shows the known and the new home, then lets the new one count.
async fn confirm_home(identity: &str, home: Option<&str>, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let card = find_person(&client, identity, false).await?;
    let oid = text(&card, "oid");
    let Some(pending) = card.get("pending_home").filter(|it| it.is_object()) else {
        return Err(Failure::failed(
            "no home of this identity waits for a confirmation",
        ));
    };
    let new = text(pending, "home_peer_id");
    if home.is_some_and(|home| !new.starts_with(&home.to_ascii_lowercase())) {
        return Err(Failure::failed(format!(
            "another home waits than that: peer {new}"
        )));
    }
    if !api.json {
        print(format_args!("identity   {}  {oid}", label(&card)));
        print(format_args!("home       {}", text(&card, "home_peer_id")));
        print(format_args!("new home   {new}"));
    }
    let path = format!("/api/v1/identities/{oid}/confirm-home");
    let done = client.post(&path, &json!({ "home_peer_id": new })).await?;
    print_result(
        api,
        &done,
        "Confirmed: the identity's objects are taken from its new home",
    );
    Ok(())
}

fn print_result(api: &ApiArgs, done: &Value, said: &str) {
    if api.json {
        print_json(done);
    } else {
        print(said);
    }
}

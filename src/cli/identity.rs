//! `postern identity`: who lives here and who is known, and what may be done with those that live here.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::commands::find_identity;
use super::keyring::KEY_BACKUP;
use super::show::{list, number, say, say_json, short, tame, text};
use super::{Asking, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum Identity {
    /// Makes an identity that lives on this node.
    New {
        /// Its name, as others will see it.
        name: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Lists the known identities, this node's first.
    List(Asking),
    /// Gives an identity of this node another name.
    Rename {
        /// The identity, by name or oid.
        identity: String,
        /// Its new name, as others will see it. Default: none.
        name: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Says to everybody that an identity of this node writes no more, and lets it write no more. What it wrote stays.
    Retire {
        /// The identity, by name or oid.
        identity: String,
        /// Take it back.
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Makes the next key of an identity of this node the current one: a stolen one is worth nothing from then on.
    Rotate {
        /// The identity, by name or oid; `node` for the node's own key.
        identity: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Takes what a frozen identity signs again. Better: its owner rotates its key, which does it by itself.
    Thaw {
        /// The identity, by oid.
        identity: String,
        #[command(flatten)]
        asking: Asking,
    },
}

pub(super) async fn run(command: Identity) -> Result<(), Failure> {
    match command {
        Identity::New { name, asking } => new(name, &asking).await,
        Identity::List(asking) => known(&asking).await,
        Identity::Rename {
            identity,
            name,
            asking,
        } => rename(&identity, name, &asking).await,
        Identity::Retire {
            identity,
            undo,
            asking,
        } => retire(&identity, !undo, &asking).await,
        Identity::Rotate { identity, asking } => rotate(&identity, &asking).await,
        Identity::Thaw { identity, asking } => thaw(&identity, &asking).await,
    }
}

async fn new(name: Option<String>, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let made = client
        .post("/api/identities", &json!({ "name": name }))
        .await?;
    if asking.json {
        say_json(&made);
        return Ok(());
    }
    say(format_args!("identity {}", text(&made, "oid")));
    say("Make a backup now: older ones do not have its keys.");
    Ok(())
}

async fn known(asking: &Asking) -> Result<(), Failure> {
    let known = Client::find(&asking.node.config)?
        .get("/api/identities")
        .await?;
    if asking.json {
        say_json(&known);
        return Ok(());
    }
    for card in list(&known, "identities") {
        let is = |field: &str| card.get(field) == Some(&Value::Bool(true));
        let mut place = if is("here") {
            "here".to_owned()
        } else {
            format!("at peer {}", short(text(card, "home_peer_id")))
        };
        if is("retired") {
            place.push_str(", retired");
        }
        if is("frozen") {
            place.push_str(", FROZEN: two homes were claimed for it (`postern identity rotate` if it is yours)");
        }
        say(format_args!(
            "{}  {:<20} {place}",
            text(card, "oid"),
            tame(text(card, "name"))
        ));
    }
    Ok(())
}

async fn rename(identity: &str, name: Option<String>, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let oid = find_identity(&client, identity, true).await?;
    let path = format!("/api/identities/{oid}/name");
    let done = client.put(&path, &json!({ "name": name })).await?;
    tell(asking, &done, "Renamed; peers see it with the next pull");
    Ok(())
}

async fn retire(identity: &str, retired: bool, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let oid = find_identity(&client, identity, true).await?;
    let path = format!("/api/identities/{oid}/retire");
    let done = client.post(&path, &json!({ "retired": retired })).await?;
    let said = if retired {
        "Retired: it writes no more. What it wrote stays; `postern identity retire --undo` takes it back"
    } else {
        "It may write again"
    };
    tell(asking, &done, said);
    Ok(())
}

async fn rotate(identity: &str, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let path = if identity == "node" {
        "/api/keys/rotate-node".to_owned()
    } else {
        format!(
            "/api/identities/{}/rotate",
            find_identity(&client, identity, true).await?
        )
    };
    if !asking.json {
        eprintln!("Rotating, and signing again what lives …");
    }
    let done = client.post(&path, &json!({})).await?;
    if asking.json {
        say_json(&done);
        return Ok(());
    }
    say(format_args!(
        "Its key is number {} now.",
        number(&done, "key_id")
    ));
    say(KEY_BACKUP);
    Ok(())
}

async fn thaw(identity: &str, asking: &Asking) -> Result<(), Failure> {
    let client = Client::find(&asking.node.config)?;
    let oid = find_identity(&client, identity, false).await?;
    let done = client
        .post(&format!("/api/identities/{oid}/thaw"), &json!({}))
        .await?;
    tell(asking, &done, "Thawed: what it signs is taken again");
    Ok(())
}

fn tell(asking: &Asking, done: &Value, said: &str) {
    if asking.json {
        say_json(done);
    } else {
        say(said);
    }
}

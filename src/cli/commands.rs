//! Commands that call the running node's API, and the text form of its replies.
//!
//! Text from other nodes is sanitized: see [`super::show`].

use std::io::Read as _;

use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::progress;
use super::show::{list, number, print, print_json, sanitize, short, text, words};

/// Longest message read from standard input, in bytes. The API has its own limit.
const STDIN_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn status(api: &ApiArgs) -> Result<(), Failure> {
    let status = ApiClient::find(&api.node.config)?
        .get("/api/status")
        .await?;
    if api.json {
        print_json(&status);
        return Ok(());
    }
    print(format_args!("onion address  {}", text(&status, "onion")));
    print(format_args!("peer id        {}", text(&status, "peer_id")));
    print(format_args!("network        {}", text(&status, "network")));
    print(format_args!(
        "change_seq     {} in epoch {}",
        number(&status, "change_seq"),
        short(text(&status, "epoch"))
    ));
    print(format_args!(
        "sync domains   {}",
        words(&status, "sync_domains")
    ));
    if let Some(gate) = status.get("gate") {
        show_gate(gate);
    }
    if let Some(admission) = status.get("admission") {
        print(format_args!(
            "admission      {}",
            super::verdicts::summary(admission)
        ));
    }
    if number(&status, "frozen_identities") > 0 {
        print(format_args!(
            "identities     {} FROZEN: two homes were claimed (`postern identity list`)",
            number(&status, "frozen_identities")
        ));
    }
    if let Some(line) = status.get("recovery").and_then(super::recovery::summary) {
        print(format_args!("recovery       {line}"));
    }
    for line in status.get("tor").map(super::tor::lines).unwrap_or_default() {
        print(line);
    }
    show_peers(&status);
    Ok(())
}

fn show_gate(gate: &Value) {
    print(format_args!(
        "bastion        effort {}, load {}.{} %, {} open, {} to verify",
        number(gate, "effort"),
        number(gate, "load_permille") / 10,
        number(gate, "load_permille") % 10,
        number(gate, "open_handshakes"),
        number(gate, "queue") + number(gate, "verifying")
    ));
    print(format_args!(
        "               {} admitted ({} by ticket), {} refused ({} for lack of slots)",
        number(gate, "admitted_total"),
        number(gate, "by_ticket_total"),
        number(gate, "refused_total"),
        number(gate, "busy_total")
    ));
    print(format_args!(
        "               last minute: {} solutions verified, {} failed",
        number(gate, "admissions_per_minute"),
        number(gate, "failures_per_minute")
    ));
}

fn show_peers(status: &Value) {
    let sessions = list(status, "sessions");
    let peers = list(status, "peers");
    if peers.is_empty() {
        print(format_args!(
            "no peers yet: `postern peer add <onion address>` connects to a node"
        ));
    }
    for peer in peers {
        let id = text(peer, "peer_id");
        let is_connected = sessions
            .iter()
            .any(|session| text(session, "peer_id") == id);
        print("");
        print(format_args!(
            "peer {}  {}, {}",
            short(id),
            text(peer, "tier"),
            if is_connected {
                "connected"
            } else {
                "not connected"
            }
        ));
        print(format_args!("  onion    {}", text(peer, "onion")));
        print(format_args!("  domains  {}", words(peer, "domains")));
        for state in list(peer, "sync_state") {
            let (domain, last) = (text(state, "domain"), number(state, "last_seq"));
            match text(state, "direction") {
                "in" => print(format_args!("  {domain:<22} applied up to {last}")),
                _ => print(format_args!(
                    "  {domain:<22} sent up to {last}, acknowledged up to {}",
                    number(state, "acked_seq")
                )),
            }
        }
    }
}

pub(super) async fn peer_add(onion: &str, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    if !api.json {
        eprintln!("Dialling, and solving the puzzle if there is one …");
    }
    let request = json!({ "onion": onion });
    let dialled = match api.json {
        true => client.post("/api/peers", &request).await?,
        false => {
            progress::while_dialling(&client, onion, client.post("/api/peers", &request)).await?
        }
    };
    if api.json {
        print_json(&dialled);
        return Ok(());
    }
    print(format_args!(
        "Admitted by peer {}",
        text(&dialled, "peer_id")
    ));
    match number(&dialled, "effort") {
        0 => print("  with a ticket from an earlier admission, without a puzzle"),
        effort => print(format_args!(
            "  puzzle of {effort} expected evaluations, solved in {} ms",
            number(&dialled, "solving_ms")
        )),
    }
    Ok(())
}

pub(super) async fn peer_list(api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    if api.json {
        print_json(&client.get("/api/peers").await?);
    } else {
        show_peers(&client.get("/api/status").await?);
    }
    Ok(())
}

/// Returns the oid of an identity that is given by oid or by unique name.
pub(super) async fn find_identity(
    client: &ApiClient,
    wanted: &str,
    must_be_local: bool,
) -> Result<String, Failure> {
    if wanted.parse::<keys::Oid>().is_ok() {
        return Ok(wanted.to_owned());
    }
    let known = client.get("/api/identities").await?;
    let is_local = |card: &Value| card.get("local") == Some(&Value::Bool(true));
    let mut found = list(&known, "identities")
        .iter()
        .filter(|card| text(card, "name") == wanted && (!must_be_local || is_local(card)));
    match (found.next(), found.next()) {
        (Some(card), None) => Ok(text(card, "oid").to_owned()),
        (None, _) => Err(Failure::failed(format!(
            "no identity named {wanted} is known: see `postern identity list`"
        ))),
        (Some(_), Some(_)) => Err(Failure::failed(format!(
            "several identities are named {wanted}: give the oid (`postern identity list`)"
        ))),
    }
}

pub(super) async fn send(from: &str, to: &str, body: String, api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let (sender, recipient) = (
        find_identity(&client, from, true).await?,
        find_identity(&client, to, false).await?,
    );
    let body = if body == "-" { from_stdin()? } else { body };
    let message =
        json!({ "sender_identity_oid": sender, "recipient_identity_oid": recipient, "body": body });
    let sent = client.post("/api/messages/send", &message).await?;
    if api.json {
        print_json(&sent);
    } else {
        print(format_args!(
            "sent as change {}",
            number(&sent, "change_seq")
        ));
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
    mut after: u64,
    follow: bool,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    let identity = match identity {
        Some(wanted) => find_identity(&client, &wanted, true).await?,
        None => only_identity(&client).await?,
    };
    loop {
        let wait_s = if follow { 30 } else { 0 };
        let page = client
            .get(&format!(
                "/api/messages/inbox?identity={identity}&after={after}&limit=200&wait_s={wait_s}"
            ))
            .await?;
        after = number(&page, "after");
        for message in list(&page, "messages") {
            if api.json {
                print(message);
            } else {
                let sender = message
                    .get("sender_name")
                    .and_then(Value::as_str)
                    .unwrap_or_else(|| text(message, "sender_identity_oid"));
                print(format_args!(
                    "[{}] {}: {}",
                    number(message, "change_seq"),
                    sanitize(sender),
                    sanitize(text(message, "body"))
                ));
            }
        }
        let more = page.get("more") == Some(&Value::Bool(true));
        if !more && !follow {
            return Ok(());
        }
    }
}

async fn only_identity(client: &ApiClient) -> Result<String, Failure> {
    let known = client.get("/api/identities").await?;
    let mut local = list(&known, "identities")
        .iter()
        .filter(|card| card.get("local") == Some(&Value::Bool(true)));
    match (local.next(), local.next()) {
        (Some(card), None) => Ok(text(card, "oid").to_owned()),
        (None, _) => Err(Failure::failed(
            "this node has no identity: `postern identity new NAME` creates one",
        )),
        (Some(_), Some(_)) => Err(Failure::usage(
            "this node has several identities: choose one with --identity",
        )),
    }
}

pub(super) async fn sync(
    peer: Option<String>,
    domain: Option<String>,
    push: bool,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let direction = if push { "push" } else { "pull" };
    let mut request = json!({ "direction": direction });
    if let Some(fields) = request.as_object_mut() {
        fields.extend(peer.map(|peer| ("peer".to_owned(), json!(peer))));
        fields.extend(domain.map(|domain| ("domain".to_owned(), json!(domain))));
    }
    let answer = ApiClient::find(&api.node.config)?
        .post("/api/sync", &request)
        .await?;
    let reports = list(&answer, "reports");
    let failed = reports
        .iter()
        .filter(|report| text(report, "outcome") == "failed")
        .count();
    let done = match failed {
        0 => Ok(()),
        failed => Err(Failure::failed(format!(
            "{failed} of {} failed",
            reports.len()
        ))),
    };
    if api.json {
        print_json(&answer);
        return done;
    }
    if reports.is_empty() {
        print(format_args!("no peer is connected: see `postern status`"));
    }
    for report in reports {
        let (peer, domain) = (short(text(report, "peer")), text(report, "domain"));
        match report
            .get("window")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
        {
            Some([from, to]) => print(format_args!(
                "{peer} {domain:<22} {direction} {from}..{to}: {} objects, {} new, {} waiting, {} \
                 refused",
                number(report, "objects"),
                number(report, "written"),
                number(report, "waiting"),
                number(report, "rejected")
            )),
            _ if text(report, "outcome") == "failed" => {
                print(format_args!(
                    "{peer} {domain:<22} failed: {}",
                    sanitize(text(report, "error"))
                ));
            }
            _ => print(format_args!("{peer} {domain:<22} up to date")),
        }
    }
    done
}

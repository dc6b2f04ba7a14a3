//! Commands that call the running node's API, and the text form of its replies.
//!
//! Text from other nodes is sanitized: see [`super::show`].

use serde_json::{Value, json};

use super::args::ApiArgs;
use super::client::ApiClient;
use super::failure::Failure;
use super::progress;
use super::show::{label, labels, list, number, print, print_json, sanitize, short, text, words};

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
    if let Some(line) = super::invitation::waiting(&status) {
        print(format_args!("invitations    {line}"));
    }
    if let Some(line) = super::removal::status_line(&status) {
        print(line);
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
            "peer {}  {}{}, {}",
            short(id),
            text(peer, "tier"),
            match peer.get("introduced") {
                Some(Value::Bool(true)) => ", introduced by members",
                _ => "",
            },
            if is_connected {
                "connected"
            } else {
                "not connected"
            }
        ));
        print(format_args!("  onion    {}", text(peer, "onion")));
        if let Some(people) = people(peer) {
            print(format_args!("  people   {people}"));
        }
        print(format_args!("  domains  {}", words(peer, "domains")));
        for line in not_applied(peer) {
            print(line);
        }
        for line in other_schemas(status, peer) {
            print(line);
        }
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

/// The identities of a peer. `None`: none is known.
fn people(peer: &Value) -> Option<String> {
    let more = if has_more(peer) { ", and more" } else { "" };
    let is_known = !list(peer, "identities").is_empty();
    is_known.then(|| format!("{}{more}", labels(peer, "identities")))
}

fn has_more(of: &Value) -> bool {
    of.get("more_identities") == Some(&Value::Bool(true))
}

/// Lines on the apps of a peer whose schemas differ from those of this node in a way that the
/// operator should act on.
fn other_schemas(status: &Value, peer: &Value) -> Vec<String> {
    let theirs = peer.get("schemas").and_then(Value::as_object);
    let line = |(app, theirs): (&String, &Value)| {
        let own = status.get("schemas")?.get(app)?;
        let (version, here) = (number(theirs, "version"), number(own, "version"));
        if version > here {
            return Some(format!(
                "  schema   {app} version {version}, here {here}: install the later file and \
                 restart"
            ));
        }
        let is_other = version == here && text(theirs, "digest") != text(own, "digest");
        is_other.then(|| {
            format!(
                "  schema   another text of {app} version {version}: one of both must be published \
                 as version {}",
                version + 1
            )
        })
    };
    theirs.into_iter().flatten().filter_map(line).collect()
}

/// Lines on the objects of a peer that were not applied. None: all were.
fn not_applied(peer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |field: &str, label: &str, about: &str, causes: &[(&str, &str)]| {
        let Some(counts) = peer.get(field) else {
            return;
        };
        let all: u64 = causes.iter().map(|(cause, _)| number(counts, cause)).sum();
        let present = causes
            .iter()
            .filter(|(cause, _)| number(counts, cause) > 0)
            .map(|(cause, meaning)| format!("{} {meaning}", number(counts, cause)));
        let present: Vec<_> = present.collect();
        if all > 0 {
            lines.push(format!(
                "  {label:<8} {all} {about}: {}",
                present.join(", ")
            ));
        }
    };
    let causes = [
        ("object", "for the object that is their scope"),
        ("key", "for a later key of their owner"),
        ("unfreezing", "for a frozen owner"),
        ("home", "for a new home of their owner"),
        ("rights_list", "for a rights list"),
        (
            "schema",
            "for a later schema file of their app: install it and restart",
        ),
    ];
    add("waiting_for", "waiting", "objects", &causes);
    let causes = [
        ("no_room", "without room to wait"),
        ("expired", "after 30 days of waiting"),
        ("named", "of which this node may read more"),
    ];
    let about = "scopes or domains to pull again";
    add("pull_again", "again", about, &causes);
    if number(peer, "rejects") > 0 {
        lines.push(format!(
            "  refused  {} objects (`postern rejects`)",
            number(peer, "rejects")
        ));
    }
    lines
}

/// Dials a node. `name` becomes the petname of its only listed identity.
pub(super) async fn peer_add(
    onion: &str,
    name: Option<String>,
    api: &ApiArgs,
) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    if !api.json {
        eprintln!("Dialling, and solving the puzzle if there is one …");
    }
    let request = json!({ "onion": onion, "as": name });
    let dialled = match api.json {
        true => client.post("/api/peers", &request).await?,
        false => {
            progress::while_dialling(&client, onion, client.post("/api/peers", &request)).await?
        }
    };
    let unnamed = dialled.get("not_named").and_then(Value::as_str);
    let done = match unnamed {
        Some(why) => Err(Failure::failed(format!(
            "the node is a peer, but no identity was named: {}",
            sanitize(why)
        ))),
        None => Ok(()),
    };
    if api.json {
        print_json(&dialled);
        return done;
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
    for line in dialled_people(&dialled) {
        print(line);
    }
    done
}

/// Lines on the listed identities of a dialled node, each without a petname with the command that
/// names it.
fn dialled_people(dialled: &Value) -> Vec<String> {
    let people = list(dialled, "identities");
    let line = |person: &Value| match person.get("petname") {
        Some(Value::String(_)) => format!("  {}", label(person)),
        _ => {
            let digits = text(person, "identity_oid").get(..12).unwrap_or("-");
            format!("  {}  postern contact add {digits} NAME", label(person))
        }
    };
    let mut lines: Vec<_> = people.iter().map(line).collect();
    if has_more(dialled) {
        lines.push("  and more: see `postern identity list`".to_owned());
    }
    if !lines.is_empty() {
        lines.insert(0, "Its identities:".to_owned());
    }
    lines
}

pub(super) async fn peer_list(api: &ApiArgs) -> Result<(), Failure> {
    let client = ApiClient::find(&api.node.config)?;
    if api.json {
        print_json(&client.get("/api/peers").await?);
    } else {
        let status = client.get("/api/status").await?;
        if let Some(line) = super::removal::status_line(&status) {
            print(line);
        }
        show_peers(&status);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_were_not_applied_have_their_causes() {
        let peer = json!({
            "waiting_for": { "object": 10, "key": 0, "unfreezing": 0, "home": 0, "rights_list": 2 },
            "pull_again": { "no_room": 1, "expired": 0, "named": 2 },
            "rejects": 5,
        });
        let expected = [
            "  waiting  12 objects: 10 for the object that is their scope, 2 for a rights list",
            "  again    3 scopes or domains to pull again: 1 without room to wait, 2 of which this \
             node may read more",
            "  refused  5 objects (`postern rejects`)",
        ];
        assert_eq!(not_applied(&peer), expected);
        let none = json!({ "waiting_for": { "object": 0 }, "pull_again": {}, "rejects": 0 });
        assert!(not_applied(&none).is_empty());
    }

    #[test]
    fn later_and_other_schemas_of_a_peer_are_shown() {
        let schema = |version: u32, digest: &str| json!({ "version": version, "digest": digest });
        let status = json!({ "schemas": {
            "club": schema(1, "a"), "rides": schema(2, "a"), "same": schema(2, "a"),
            "earlier": schema(2, "a"),
        } });
        let peer = json!({ "schemas": {
            "club": schema(3, "b"), "rides": schema(2, "b"), "same": schema(2, "a"),
            "earlier": schema(1, "b"), "unknown": schema(9, "b"),
        } });
        let expected = [
            "  schema   club version 3, here 1: install the later file and restart",
            "  schema   another text of rides version 2: one of both must be published as version \
             3",
        ];
        assert_eq!(other_schemas(&status, &peer), expected);
        assert!(other_schemas(&status, &json!({})).is_empty());
    }
}

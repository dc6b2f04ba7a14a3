//! Looks up the identities and conversations that a person names, by petname or oid.

use serde_json::Value;

use super::client::{ApiClient, query_value};
use super::failure::Failure;
use super::show::{list, number, quoted, text};

/// Fewest digits of a suffix that names a conversation.
const SUFFIX_DIGITS_MIN: usize = 8;

/// Asks the node for the identity that a person names: by its petname, its oid, or the first 8 or
/// more digits of the oid. The reply has `oid`, `label`, `known` and `local`.
pub(super) async fn find_person(
    client: &ApiClient,
    wanted: &str,
    must_be_local: bool,
) -> Result<Value, Failure> {
    if wanted.is_empty() {
        return Err(Failure::usage(
            "an empty text names no identity: give a petname or an oid (`postern identity list`)",
        ));
    }
    let who = query_value(wanted);
    let path = format!("/api/v1/identities/find?who={who}&local={must_be_local}");
    client.get(&path).await
}

/// Returns the oid of an identity that is given as for [`find_person`].
pub(super) async fn find_identity(
    client: &ApiClient,
    wanted: &str,
    must_be_local: bool,
) -> Result<String, Failure> {
    let found = find_person(client, wanted, must_be_local).await?;
    Ok(text(&found, "oid").to_owned())
}

/// Returns the oid of this node's only identity. `option` chooses one of several.
pub(super) async fn only_identity(client: &ApiClient, option: &str) -> Result<String, Failure> {
    let known = client.get("/api/identities").await?;
    let mut local = list(&known, "identities")
        .iter()
        .filter(|card| card.get("local") == Some(&Value::Bool(true)));
    match (local.next(), local.next()) {
        (Some(card), None) => Ok(text(card, "oid").to_owned()),
        (None, _) => Err(Failure::failed(
            "this node has no identity: `postern identity new NAME` creates one",
        )),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "this node has several identities: choose one with {option}"
        ))),
    }
}

/// Returns the oid of a conversation that is given by its oid or by the last digits of it.
pub(super) async fn find_conversation(client: &ApiClient, wanted: &str) -> Result<String, Failure> {
    if wanted.parse::<keys::Oid>().is_ok() {
        return Ok(wanted.to_owned());
    }
    let found = ending_in(client, wanted, ("conversations", "conversations?")).await?;
    only(found, wanted, "`postern conversation list`")
}

/// Returns the oid of a conversation to which an identity was invited. One that is shown can be
/// accepted too.
pub(super) async fn find_invitation(client: &ApiClient, wanted: &str) -> Result<String, Failure> {
    if wanted.parse::<keys::Oid>().is_ok() {
        return Ok(wanted.to_owned());
    }
    let mut found = Vec::new();
    for (field, path) in [
        ("invitations", "invitations?app=messages&"),
        ("invitations", "invitations?app=messages&declined=true&"),
        ("conversations", "conversations?"),
    ] {
        found.extend(ending_in(client, wanted, (field, path)).await?);
    }
    found.sort_unstable();
    found.dedup();
    only(found, wanted, "`postern conversation invitations`")
}

/// The oids of some conversations that end in the given digits: all, or more than one.
async fn ending_in(
    client: &ApiClient,
    wanted: &str,
    (field, path): (&str, &str),
) -> Result<Vec<String>, Failure> {
    if wanted.is_empty() {
        return Err(Failure::usage(
            "an empty text names no conversation: give an oid (`postern conversation list`)",
        ));
    }
    let is_hex = wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || wanted.len() < SUFFIX_DIGITS_MIN {
        return Err(Failure::usage(format!(
            "{} is neither the oid of a conversation nor its last {SUFFIX_DIGITS_MIN} or more \
             digits",
            quoted(wanted)
        )));
    }
    let suffix = wanted.to_ascii_lowercase();
    let (mut after, mut found) = (0, Vec::new());
    loop {
        let path = format!("/api/v1/{path}suffix={suffix}&after={after}&limit=2");
        let page = client.get(&path).await?;
        after = number(&page, "after");
        let oids = list(&page, field).iter();
        found.extend(oids.map(|card| text(card, "oid").to_owned()));
        if found.len() > 1 || page.get("more") != Some(&Value::Bool(true)) {
            return Ok(found);
        }
    }
}

/// The only one of some oids that end in the given digits.
fn only(mut found: Vec<String>, wanted: &str, see: &str) -> Result<String, Failure> {
    match (found.pop(), found.pop()) {
        (Some(oid), None) => Ok(oid),
        (None, _) => Err(Failure::failed(format!(
            "no conversation has an oid that ends in {wanted}: see {see}"
        ))),
        (Some(_), Some(_)) => Err(Failure::failed(format!(
            "several conversations have oids that end in {wanted}: give more digits"
        ))),
    }
}

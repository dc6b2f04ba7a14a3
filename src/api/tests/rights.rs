//! Rights of any app's scopes.

use keys::Oid;
use serde_json::{Value, json};

use super::{ApiFixture, Reply, list};
use crate::services::identities;

async fn patch(api: &ApiFixture, path: &str, changes: Value) -> Reply {
    let body = json!({ "changes": changes }).to_string();
    api.ask(api.request("PATCH", path, body)).await
}

fn change(who: Oid, rights: &str) -> Value {
    json!({ "identity_oid": who.to_hex(), "rights": rights })
}

/// A contact card of Alice about Bob, which both may read.
async fn card(api: &ApiFixture) -> String {
    let attrs = json!({ "subject": api.bob.to_hex(), "name": "Bob" });
    let made = api
        .post(
            "/api/objects",
            json!({ "type": "contacts.card", "owner": api.alice.to_hex(), "attrs": attrs }),
        )
        .await
        .ok();
    format!("/api/v1/rights/contacts/{}", made["oid"].as_str().unwrap())
}

/// Identities with their rights.
fn entries(shown: &Value) -> Vec<(String, String)> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let mut entries: Vec<_> = list(shown, "entries")
        .iter()
        .map(|entry| (text(entry, "claim"), text(entry, "rights")))
        .collect();
    entries.sort();
    entries
}

#[tokio::test]
async fn rights_of_an_object_are_shown_and_changed() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    let shown = api.get(&path).await.ok();
    assert_eq!(
        (&shown["version"], &shown["owner_identity_oid"]),
        (&json!(0), &json!(api.alice.to_hex()))
    );
    let pair = |name: &str, rights: &str| (name.to_owned(), rights.to_owned());
    assert_eq!(
        entries(&shown),
        [pair("Alice", "read_write"), pair("Bob", "read")]
    );
    let changes = json!([change(api.bob, "none"), change(api.carol, "read_write")]);
    patch(&api, &path, changes).await.ok();
    let shown = api.get(&path).await.ok();
    assert_eq!(shown["version"], 1);
    assert_eq!(
        entries(&shown),
        [pair("Alice", "read_write"), pair("Carol", "read_write")]
    );
}

#[tokio::test]
async fn change_of_rights_reports_each_cause_of_failure() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    let unknown = Oid::from_bytes([9; 16]);
    for (changes, status, code) in [
        (json!([]), 400, "bad_request"),
        (json!([change(api.bob, "all")]), 400, "bad_request"),
        (
            json!([change(api.bob, "read"), change(api.bob, "none")]),
            400,
            "bad_request",
        ),
        (json!([change(unknown, "read")]), 404, "unknown_identity"),
        (json!([change(api.alice, "none")]), 403, "scope_owner_stays"),
    ] {
        patch(&api, &path, changes).await.refused(status, code);
    }
    assert_eq!(api.get(&path).await.ok()["version"], 0);
    let nothing = json!([change(api.carol, "read")]);
    for path in [
        format!("/api/v1/rights/contacts/{}", unknown.to_hex()),
        path.replace("contacts", "messages"),
    ] {
        api.get(&path).await.refused(404, "not_found");
        patch(&api, &path, nothing.clone())
            .await
            .refused(404, "not_found");
    }
    let nowhere = path.replace("contacts", "nothing");
    let shown = api.get(&nowhere).await;
    let changed = patch(&api, &nowhere, nothing).await;
    for refused in [shown, changed] {
        let message = refused.refused(404, "unknown_app").message();
        assert!(message.contains("\"nothing\""), "{message}");
    }
    api.delete(&path).await.refused(405, "method");
}

#[tokio::test]
async fn conversation_of_two_gets_no_third_member_by_a_change_of_rights() {
    let api = ApiFixture::new().await;
    let sent = api.send(api.alice, api.bob, "Hi").await.ok();
    let talk = sent["conversation_oid"].as_str().unwrap();
    let path = format!("/api/v1/rights/messages/{talk}");
    for rights in ["read", "write", "read_write"] {
        let changes = json!([change(api.carol, rights)]);
        let refused = patch(&api, &path, changes).await;
        let message = refused.refused(409, "of_two").message();
        assert!(message.contains("`postern conversation add`"), "{message}");
    }
    assert_eq!(api.get(&path).await.ok()["version"], 0);
    for rights in ["none", "read_write"] {
        let changes = json!([change(api.bob, rights)]);
        patch(&api, &path, changes).await.ok();
    }
}

async fn leave(api: &ApiFixture, path: &str, who: Oid) -> Reply {
    let request = json!({ "identity_oid": who.to_hex() });
    api.post(&format!("{path}/leave"), request).await
}

#[tokio::test]
async fn identity_leaves_a_scope_of_another_app_and_is_added_again() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    let carol = api.carol.to_hex();
    let has_left = || async {
        let shown = api.get(&path).await.ok();
        let mut entries = list(&shown, "entries").iter();
        let entry = entries.find(|entry| entry["identity_oid"] == carol);
        entry.map(|entry| entry["left"].clone())
    };
    let both = json!([change(api.carol, "read_write")]);
    patch(&api, &path, both.clone()).await.ok();
    assert_eq!(has_left().await, Some(json!(false)));
    let left = leave(&api, &path, api.carol).await.ok();
    assert_eq!(
        (&left["identity_oid"], &left["change_seq"]),
        (&json!(carol), &json!(head(&api).await))
    );
    assert_eq!(has_left().await, Some(json!(true)));
    leave(&api, &path, api.carol)
        .await
        .refused(404, "not_member");
    patch(&api, &path, both).await.ok();
    assert_eq!(has_left().await, Some(json!(false)));
}

#[tokio::test]
async fn leave_reports_each_cause_of_failure() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    for (who, status, code) in [
        (api.alice, 403, "scope_owner_stays"),
        (api.bob, 404, "not_here"),
        (Oid::from_bytes([9; 16]), 404, "not_here"),
        (api.carol, 404, "not_member"),
    ] {
        leave(&api, &path, who).await.refused(status, code);
    }
    let write = json!([change(api.carol, "write")]);
    patch(&api, &path, write).await.ok();
    leave(&api, &path, api.carol)
        .await
        .refused(404, "not_member");
    let (base, scope) = path.rsplit_once('/').unwrap();
    for (path, status, code) in [
        (format!("{base}/{}", "09".repeat(16)), 404, "not_found"),
        (format!("{base}/x"), 400, "bad_request"),
        (path.replace("contacts", "messages"), 404, "not_found"),
        (path.replace("contacts", "nothing"), 404, "unknown_app"),
    ] {
        leave(&api, &path, api.alice).await.refused(status, code);
    }
    let unknown = json!({ "identity_oid": api.carol.to_hex(), "why": "x" });
    let refused = api.post(&format!("{path}/leave"), unknown).await;
    refused.refused(400, "bad_request");
    let owner = api.alice.to_hex();
    let gone = format!("/api/objects/contacts/{scope}?owner={owner}");
    api.delete(&gone).await.ok();
    leave(&api, &path, api.alice)
        .await
        .refused(404, "not_found");
}

/// The newest sequence number of a node.
async fn head(api: &ApiFixture) -> u64 {
    api.engine.read(|view| view.head()).await.unwrap()
}

#[tokio::test]
async fn change_that_changes_nothing_returns_the_list_in_force() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    let head_before = head(&api).await;
    let same = json!([change(api.bob, "read"), change(api.alice, "read_write")]);
    let founding = patch(&api, &path, same.clone()).await.ok();
    assert_eq!(
        (&founding["version"], &founding["change_seq"]),
        (&json!(0), &json!(head_before))
    );
    let changes = json!([change(api.carol, "read")]);
    let written = patch(&api, &path, changes.clone()).await.ok();
    assert_eq!(written["version"], 1);
    let head_after = head(&api).await;
    assert_eq!(patch(&api, &path, changes).await.ok(), written);
    assert_eq!(head(&api).await, head_after);
}

#[tokio::test]
async fn rights_of_a_retired_identity_are_lowered_and_not_raised() {
    let api = ApiFixture::new().await;
    let (path, carol) = (card(&api).await, api.carol);
    let both = json!([change(carol, "read_write")]);
    patch(&api, &path, both.clone()).await.ok();
    let retire = api
        .engine
        .graph(move |graph| identities::retire(graph, carol, true));
    retire.await.unwrap();
    let lower = json!([change(carol, "read")]);
    assert_eq!(patch(&api, &path, lower.clone()).await.ok()["version"], 2);
    patch(&api, &path, lower).await.ok();
    let refused = patch(&api, &path, both).await;
    refused.refused(409, "retired");
    let none = json!([change(carol, "none")]);
    assert_eq!(patch(&api, &path, none).await.ok()["version"], 3);
}

#[tokio::test]
async fn too_many_rights_are_refused_before_identities_are_looked_up() {
    let api = ApiFixture::new().await;
    let path = card(&api).await;
    let stranger = |number: u16| {
        let mut oid = [9; 16];
        oid[..2].copy_from_slice(&number.to_be_bytes());
        change(Oid::from_bytes(oid), "read")
    };
    for count in [255, 257] {
        let changes: Vec<_> = (0..count).map(stranger).collect();
        let refused = patch(&api, &path, json!(changes)).await;
        refused.refused(422, "too_many_members");
    }
}

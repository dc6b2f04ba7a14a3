//! The address book, the identity that a person names, and the names in replies.

use serde_json::json;

use super::{ApiFixture, list};

#[tokio::test]
async fn petname_is_added_listed_changed_and_removed() {
    let api = ApiFixture::new().await;
    let (bob, path) = (
        api.bob.to_hex(),
        format!("/api/v1/contacts/{}", api.bob.to_hex()),
    );
    let request = json!({ "identity_oid": bob, "name": "Robert", "note": "met at work" });
    let made = api.post("/api/v1/contacts", request.clone()).await;
    assert_eq!(made.status, 201);
    let expected = json!({
        "identity_oid": bob, "petname": "Robert", "claim": "Bob", "label": "Robert",
        "note": "met at work", "known": true, "local": false,
    });
    assert_eq!(made.body, expected);
    api.post("/api/v1/contacts", request)
        .await
        .refused(409, "already_named");
    let page = api.get("/api/v1/contacts?limit=2").await.ok();
    let names: Vec<_> = list(&page, "contacts")
        .iter()
        .map(|it| &it["petname"])
        .collect();
    assert_eq!(
        (names, &page["more"]),
        (vec![&json!("Alice"), &json!("Carol")], &json!(true))
    );
    let after = page["after"].as_str().unwrap();
    let page = api
        .get(&format!("/api/v1/contacts?after={after}"))
        .await
        .ok();
    assert_eq!(
        (&page["contacts"], &page["more"]),
        (&json!([expected]), &json!(false))
    );

    let changed = api
        .put(&path, json!({ "name": "Rob", "note": "" }))
        .await
        .ok();
    assert_eq!(
        (&changed["petname"], &changed["note"]),
        (&json!("Rob"), &json!(""))
    );
    api.put(&path, json!({ "name": "ALICE" }))
        .await
        .refused(409, "name_taken");
    api.put(&path, json!({ "name": "two\nlines" }))
        .await
        .refused(422, "bad_name");
    let long = "x".repeat(2001);
    api.put(&path, json!({ "note": long }))
        .await
        .refused(422, "bad_note");
    api.put(&path, json!({})).await.refused(400, "bad_request");
    let own = format!("/api/v1/contacts/{}", api.alice.to_hex());
    api.delete(&own).await.refused(409, "own_identity");
    assert_eq!(api.delete(&path).await.ok(), json!({ "identity_oid": bob }));
    api.delete(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn identity_is_found_by_petname_and_oid_only() {
    let api = ApiFixture::new().await;
    let bob = api.bob.to_hex();
    let find = |who: &str, local: bool| {
        let path = format!("/api/v1/identities/find?who={who}&local={local}");
        let api = &api;
        async move { api.get(&path).await }
    };
    let found = find(&bob[..8], false).await.ok();
    let expected = json!({
        "oid": bob, "known": true, "local": false, "petname": null, "claim": "Bob", "name": "Bob",
        "label": format!("~Bob {}", &bob[..12]), "home_peer_id": api.bobs_node.to_hex(),
        "key_id": 0, "retired": false, "frozen": false, "moves_to": null, "pending_home": null,
    });
    assert_eq!(found, expected);
    let refused = find("Bob", false).await;
    refused.refused(409, "only_claimed");
    let command = format!("postern contact add {} NAME", &bob[..12]);
    assert!(
        refused.message().contains(&command),
        "{}",
        refused.message()
    );
    find("Dora", false).await.refused(404, "unknown_identity");
    find(&bob, true).await.refused(404, "not_here");
    find("", false).await.refused(400, "bad_request");
    assert_eq!(find("alice", true).await.ok()["oid"], api.alice.to_hex());
    let unknown = "f".repeat(32);
    assert_eq!(find(&unknown, false).await.ok()["known"], false);
}

#[tokio::test]
async fn hidden_characters_of_a_claim_are_escaped() {
    let api = ApiFixture::new().await;
    let alice = api.alice;
    // A record that another program wrote.
    let write = api
        .engine
        .graph(move |graph| graph.save_identity(alice, Some("Al\u{202e}ice")));
    write.await.unwrap();
    let known = api.get("/api/identities").await.ok();
    let card = list(&known, "identities")
        .iter()
        .find(|it| it["oid"] == alice.to_hex());
    assert_eq!(card.unwrap()["claim"], "Al\\u{202e}ice");
}

#[tokio::test]
async fn names_are_not_made_through_objects() {
    let api = ApiFixture::new().await;
    let (alice, bob) = (api.alice.to_hex(), api.bob.to_hex());
    let page = api.get("/api/objects?type=identities.identity").await.ok();
    let own = list(&page, "objects")
        .iter()
        .find(|it| it["oid"] == alice)
        .unwrap();
    let mut attrs = own["attrs"].clone();
    attrs["name"] = json!("Bob");
    let request = json!({
        "type": "identities.identity", "owner": alice, "oid": alice, "attrs": attrs,
    });
    api.post("/api/objects", request)
        .await
        .refused(400, "bad_request");
    let attrs = json!({ "participant_identity_oids": [alice, bob], "title": "a\u{202e}b" });
    let request = json!({ "type": "messages.conversation", "owner": alice, "attrs": attrs });
    api.post("/api/objects", request)
        .await
        .refused(422, "bad_title");
}

#[tokio::test]
async fn peers_show_their_identities_and_a_dial_names_the_only_one() {
    let api = ApiFixture::new().await;
    let peers = api.get("/api/peers").await.ok();
    let peer = &list(&peers, "peers")[0];
    let bob = api.bob.to_hex();
    assert_eq!(
        peer["identities"][0]["label"],
        format!("~Bob {}", &bob[..12])
    );
    assert_eq!(peer["more_identities"], false);
    let onion = peer["onion"].as_str().unwrap();
    // The fake node reaches a peer without identities.
    let dialled = api
        .post("/api/peers", json!({ "onion": onion, "as": "Robert" }))
        .await
        .ok();
    assert_eq!(dialled["named"], false);
    assert!(
        dialled["not_named"]
            .as_str()
            .unwrap()
            .contains("no listed identity")
    );
    let plain = api.post("/api/peers", json!({ "onion": onion })).await.ok();
    assert_eq!(
        (&plain["named"], &plain["not_named"]),
        (&json!(false), &json!(null))
    );
    let bad = api
        .post("/api/peers", json!({ "onion": onion, "as": "~Bob" }))
        .await;
    bad.refused(422, "bad_name");
}

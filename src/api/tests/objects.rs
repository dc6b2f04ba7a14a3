//! Objects of any app, with attributes by name.

use keys::Oid;
use serde_json::{Value, json};

use super::{ApiFixture, list};

fn offer(owner: Oid, attrs: Value) -> Value {
    json!({ "type": "rides.offer", "owner": owner.to_hex(), "attrs": attrs })
}

fn ride() -> Value {
    json!({
        "origin": "Berlin", "destination": "Prague", "departs_at": 1_700_000_000_000_i64,
        "seats": 3,
    })
}

#[tokio::test]
async fn object_can_be_created_read_updated_and_deleted() {
    let api = ApiFixture::new().await;
    let made = api
        .post("/api/objects", offer(api.alice, ride()))
        .await
        .ok();
    assert_eq!(made["rev"], 1);
    let page = api.get("/api/objects?type=rides.offer").await.ok();
    let [object] = list(&page, "objects").as_slice() else {
        panic!("{page}")
    };
    assert_eq!(
        (&object["oid"], &object["attrs"], &object["deleted"]),
        (&made["oid"], &ride(), &json!(false))
    );
    assert_eq!(
        (&object["owner"], &object["local"]),
        (&json!(api.alice.to_hex()), &json!(true))
    );

    let mut fewer = offer(api.alice, ride());
    fewer["attrs"]["seats"] = json!(2);
    fewer["oid"] = made["oid"].clone();
    let changed = api.post("/api/objects", fewer).await.ok();
    assert_eq!(
        (&changed["oid"], &changed["rev"]),
        (&made["oid"], &json!(2))
    );
    let after = format!("/api/objects?type=rides.offer&after={}", made["change_seq"]);
    assert_eq!(
        list(&api.get(&after).await.ok(), "objects")[0]["attrs"]["seats"],
        2
    );

    let path = format!("/api/objects/rides/{}", made["oid"].as_str().unwrap());
    api.delete(&format!("{path}?owner={}", api.carol.to_hex()))
        .await
        .refused(403, "owner_changed");
    let deleted = api
        .delete(&format!("{path}?owner={}", api.alice.to_hex()))
        .await
        .ok();
    assert_eq!(deleted["rev"], 3);
    let page = api.get("/api/objects?type=rides.offer").await.ok();
    assert_eq!(
        (
            &list(&page, "objects")[0]["deleted"],
            &list(&page, "objects")[0]["attrs"]
        ),
        (&json!(true), &json!({}))
    );
    api.delete(&format!("{path}?owner={}", api.alice.to_hex()))
        .await
        .refused(403, "deleted");
}

#[tokio::test]
async fn listing_continues_after_the_previous_page() {
    let api = ApiFixture::new().await;
    for _ in 0..3 {
        api.post("/api/objects", offer(api.alice, ride()))
            .await
            .ok();
    }
    let first = api.get("/api/objects?type=rides.offer&limit=2").await.ok();
    assert_eq!(
        (list(&first, "objects").len(), &first["more"]),
        (2, &json!(true))
    );
    let rest = api
        .get(&format!(
            "/api/objects?type=rides.offer&limit=2&after={}",
            first["after"].as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(
        (list(&rest, "objects").len(), &rest["more"]),
        (1, &json!(false))
    );
}

#[tokio::test]
async fn multiple_values_and_references_are_hex_arrays() {
    let api = ApiFixture::new().await;
    let participants = json!([api.alice.to_hex(), api.bob.to_hex(), api.carol.to_hex()]);
    let attrs = json!({ "participant_identity_oids": participants, "title": "All three" });
    let owner = api.alice.to_hex();
    let talk = json!({ "type": "messages.conversation", "owner": owner, "attrs": attrs });
    let talk = api.post("/api/objects", talk).await.ok();
    let message =
        json!({ "conversation_parent_oid": talk["oid"], "body": "Hello both", "sent_at": 1 });
    let message = json!({ "type": "messages.message", "owner": owner, "attrs": message });
    api.post("/api/objects", message).await.ok();
    let carols = api
        .get(&format!(
            "/api/messages/inbox?identity={}",
            api.carol.to_hex()
        ))
        .await
        .ok();
    assert_eq!(list(&carols, "messages")[0]["body"], "Hello both");
    let page = api
        .get("/api/objects?type=messages.conversation")
        .await
        .ok();
    assert_eq!(
        list(&page, "objects")[0]["attrs"]["participant_identity_oids"],
        participants
    );
}

#[tokio::test]
async fn invalid_attribute_error_names_the_attribute() {
    let api = ApiFixture::new().await;
    let changed = |field: &str, value: Value| {
        let mut attrs = ride();
        attrs[field] = value;
        offer(api.alice, attrs)
    };
    let wrong = [
        (
            changed("colour", json!("red")),
            400,
            "bad_request",
            "colour",
        ),
        (
            changed("seats", json!("three")),
            400,
            "bad_request",
            "seats",
        ),
        (changed("seats", json!(1.5)), 400, "bad_request", "seats"),
        (changed("seats", json!([1, 2])), 422, "schema", "seats"),
        (
            changed("origin", json!("x".repeat(201))),
            422,
            "schema",
            "origin",
        ),
        (offer(api.alice, json!({})), 422, "schema", "origin"),
        (offer(api.bob, ride()), 403, "owner_not_here", "owner"),
        (
            offer(Oid::from_bytes([9; 16]), ride()),
            404,
            "not_found",
            "0909",
        ),
    ];
    for (body, status, code, text) in wrong {
        let reply = api.post("/api/objects", body).await;
        assert!(
            reply.refused(status, code).message().contains(text),
            "{text}: {}",
            reply.message()
        );
    }
    api.get("/api/objects?type=rides.nothing")
        .await
        .refused(404, "not_found");
    api.delete(&format!(
        "/api/objects/rides/{}?owner={}",
        "09".repeat(16),
        api.alice.to_hex()
    ))
    .await
    .refused(404, "not_found");
    api.delete(&format!(
        "/api/objects/rides/x?owner={}",
        api.alice.to_hex()
    ))
    .await
    .refused(400, "bad_request");
}

#[tokio::test]
async fn identity_records_cannot_be_forged_through_objects() {
    let api = ApiFixture::new().await;
    let page = api.get("/api/objects?type=identities.identity").await.ok();
    let bob = list(&page, "objects")
        .iter()
        .find(|object| object["oid"] == json!(api.bob.to_hex()))
        .unwrap()
        .clone();
    let owner = api.alice.to_hex();
    let forged = json!({ "type": "identities.identity", "owner": owner, "attrs": bob["attrs"] });
    api.post("/api/objects", forged)
        .await
        .refused(400, "bad_request");
}

/// The numbers of messages that the API lists, and that Carol's inbox shows.
async fn shown(api: &ApiFixture) -> (usize, usize) {
    let objects = api.get("/api/objects?type=messages.message").await.ok();
    let inbox = format!("/api/messages/inbox?identity={}", api.carol.to_hex());
    let messages = api.get(&inbox).await.ok();
    (
        list(&objects, "objects").len(),
        list(&messages, "messages").len(),
    )
}

#[tokio::test]
async fn objects_and_inbox_show_only_what_a_local_identity_may_see() {
    for (earlier, expected) in [(0, 1), (1, 0)] {
        let api = ApiFixture::new().await;
        let message = json!({
            "sender_identity_oid": api.alice.to_hex(),
            "recipient_identity_oid": api.carol.to_hex(), "body": "between us",
        });
        let sent = api.post("/api/messages/send", message).await.ok();
        assert_eq!(shown(&api).await, (1, 1));
        // The right to read ends with the message, or with the write before it.
        let talk: Oid = sent["conversation_oid"].as_str().unwrap().parse().unwrap();
        let until = sent["change_seq"].as_u64().unwrap() - earlier;
        api.engine
            .graph(move |graph| {
                let tx = graph.tx();
                let parent = tx.parent(tx.apps().get("messages").unwrap(), &talk)?;
                tx.end_scope(parent.unwrap().scope_id, until)
            })
            .await
            .unwrap();
        assert_eq!(shown(&api).await, (expected, expected));
        let path = format!("/api/objects/messages/{}", sent["oid"].as_str().unwrap());
        let deleted = api
            .delete(&format!("{path}?owner={}", api.alice.to_hex()))
            .await;
        assert_eq!(deleted.code() == "not_found", expected == 0, "{deleted:?}");
    }
}

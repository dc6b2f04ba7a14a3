//! Any app's objects, by the names in its schema.

use keys::Oid;
use serde_json::{Value, json};

use super::{Here, list};

fn offer(owner: Oid, attrs: Value) -> Value {
    json!({ "type": "rides.offer", "owner": owner.to_hex(), "attrs": attrs })
}

fn ride() -> Value {
    json!({ "origin": "Berlin", "destination": "Prague", "departs_at": 1_700_000_000_000_i64, "seats": 3 })
}

#[tokio::test]
async fn an_object_is_written_read_changed_and_deleted() {
    let here = Here::new().await;
    let made = here
        .post("/api/objects", offer(here.alice, ride()))
        .await
        .ok();
    assert_eq!(made["rev"], 1);
    let page = here.get("/api/objects?type=rides.offer").await.ok();
    let [object] = list(&page, "objects").as_slice() else {
        panic!("{page}")
    };
    assert_eq!(
        (&object["oid"], &object["attrs"], &object["deleted"]),
        (&made["oid"], &ride(), &json!(false))
    );
    assert_eq!(
        (&object["owner"], &object["made_here"]),
        (&json!(here.alice.to_hex()), &json!(true))
    );

    let mut fewer = offer(here.alice, ride());
    fewer["attrs"]["seats"] = json!(2);
    fewer["oid"] = made["oid"].clone();
    let changed = here.post("/api/objects", fewer).await.ok();
    assert_eq!(
        (&changed["oid"], &changed["rev"]),
        (&made["oid"], &json!(2))
    );
    let after = format!("/api/objects?type=rides.offer&after={}", made["change_seq"]);
    assert_eq!(
        list(&here.get(&after).await.ok(), "objects")[0]["attrs"]["seats"],
        2
    );

    let path = format!("/api/objects/rides/{}", made["oid"].as_str().unwrap());
    here.delete(&format!("{path}?owner={}", here.carol.to_hex()))
        .await
        .refused(403, "owner_changed");
    let deleted = here
        .delete(&format!("{path}?owner={}", here.alice.to_hex()))
        .await
        .ok();
    assert_eq!(deleted["rev"], 3);
    let page = here.get("/api/objects?type=rides.offer").await.ok();
    assert_eq!(
        (
            &list(&page, "objects")[0]["deleted"],
            &list(&page, "objects")[0]["attrs"]
        ),
        (&json!(true), &json!({}))
    );
    here.delete(&format!("{path}?owner={}", here.alice.to_hex()))
        .await
        .refused(403, "deleted");
}

#[tokio::test]
async fn pages_follow_one_another() {
    let here = Here::new().await;
    for _ in 0..3 {
        here.post("/api/objects", offer(here.alice, ride()))
            .await
            .ok();
    }
    let first = here.get("/api/objects?type=rides.offer&limit=2").await.ok();
    assert_eq!(
        (list(&first, "objects").len(), &first["more"]),
        (2, &json!(true))
    );
    let rest = here
        .get(&format!(
            "/api/objects?type=rides.offer&limit=2&after={}",
            first["after"]
        ))
        .await
        .ok();
    assert_eq!(
        (list(&rest, "objects").len(), &rest["more"]),
        (1, &json!(false))
    );
}

#[tokio::test]
async fn several_values_and_references_go_by_hex() {
    let here = Here::new().await;
    let participants = json!([here.alice.to_hex(), here.bob.to_hex(), here.carol.to_hex()]);
    let attrs = json!({ "participant_identity_oids": participants, "title": "All three" });
    let owner = here.alice.to_hex();
    let talk = json!({ "type": "messages.conversation", "owner": owner, "attrs": attrs });
    let talk = here.post("/api/objects", talk).await.ok();
    let said =
        json!({ "conversation_parent_oid": talk["oid"], "body": "Hello both", "sent_at": 1 });
    let said = json!({ "type": "messages.message", "owner": owner, "attrs": said });
    here.post("/api/objects", said).await.ok();
    let carols = here
        .get(&format!(
            "/api/messages/inbox?identity={}",
            here.carol.to_hex()
        ))
        .await
        .ok();
    assert_eq!(list(&carols, "messages")[0]["body"], "Hello both");
    let page = here
        .get("/api/objects?type=messages.conversation")
        .await
        .ok();
    assert_eq!(
        list(&page, "objects")[0]["attrs"]["participant_identity_oids"],
        participants
    );
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let here = Here::new().await;
    let changed = |field: &str, value: Value| {
        let mut attrs = ride();
        attrs[field] = value;
        offer(here.alice, attrs)
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
        (offer(here.alice, json!({})), 422, "schema", "origin"),
        (offer(here.bob, ride()), 403, "owner_not_here", "owner"),
        (
            offer(Oid::from_bytes([9; 16]), ride()),
            404,
            "not_found",
            "0909",
        ),
    ];
    for (body, status, code, word) in wrong {
        let answer = here.post("/api/objects", body).await;
        assert!(
            answer.refused(status, code).message().contains(word),
            "{word}: {}",
            answer.message()
        );
    }
    here.get("/api/objects?type=rides.nothing")
        .await
        .refused(404, "not_found");
    here.delete(&format!(
        "/api/objects/rides/{}?owner={}",
        "09".repeat(16),
        here.alice.to_hex()
    ))
    .await
    .refused(404, "not_found");
    here.delete(&format!(
        "/api/objects/rides/x?owner={}",
        here.alice.to_hex()
    ))
    .await
    .refused(400, "bad_request");
}

#[tokio::test]
async fn nobody_speaks_for_an_identity_through_the_generic_door() {
    let here = Here::new().await;
    let page = here.get("/api/objects?type=identities.identity").await.ok();
    let bob = list(&page, "objects")
        .iter()
        .find(|object| object["oid"] == json!(here.bob.to_hex()))
        .unwrap()
        .clone();
    let forged = json!({ "type": "identities.identity", "owner": here.alice.to_hex(), "attrs": bob["attrs"] });
    here.post("/api/objects", forged)
        .await
        .refused(422, "schema");
}

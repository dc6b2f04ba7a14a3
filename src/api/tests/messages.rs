//! Sending messages and reading inboxes (`docs/STORY.md` 3).

use axum::http::StatusCode;
use futures::poll;
use futures::stream::{FuturesUnordered, StreamExt as _};
use keys::Oid;
use serde_json::{Value, json};

use super::{ApiFixture, list, router};
use crate::api::delivery;
use crate::services::messages::Sent;

fn inbox_of(identity: Oid, more: &str) -> String {
    format!("/api/messages/inbox?identity={}{more}", identity.to_hex())
}

fn bodies(inbox: &Value) -> Vec<&str> {
    list(inbox, "messages")
        .iter()
        .map(|message| message["body"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn message_that_was_sent_is_no_error_without_its_states() {
    let api = ApiFixture::new().await;
    let oid = Oid::from_bytes([7; 16]);
    let sent = Sent {
        oid,
        conversation: oid,
        change_seq: 3,
    };
    let reply = delivery::sent(&api.state(), sent).await.unwrap().0;
    let oid = oid.to_hex();
    let expected = json!({
        "oid": oid, "conversation_oid": oid, "change_seq": 3, "delivery": null,
    });
    assert_eq!(reply, expected);
}

#[tokio::test]
async fn message_is_one_change_group_in_its_conversation() {
    let api = ApiFixture::new().await;
    let head = api.get("/api/status").await.ok()["change_seq"]
        .as_u64()
        .unwrap();
    let first = api.send(api.alice, api.bob, "Hi").await.ok();
    assert_eq!(first["change_seq"], head + 1);
    let second = api.send(api.alice, api.bob, "Are you there?").await.ok();
    assert_eq!(
        (&second["change_seq"], &second["conversation_oid"]),
        (&json!(head + 2), &first["conversation_oid"])
    );
    let inbox = api.get(&inbox_of(api.alice, "")).await.ok();
    let message = &list(&inbox, "messages")[0];
    let expected = json!({
        "oid": first["oid"],
        "conversation_oid": first["conversation_oid"],
        "sender_identity_oid": api.alice.to_hex(),
        "sender_petname": "Alice",
        "sender_claim": "Alice",
        "sender_label": "Alice",
        "body": "Hi",
        "sent_at": super::NOW.0,
        "change_seq": head + 1,
        "local": true,
        "delivery": {
            "now": super::NOW.0, "delivered": 0, "queued": 1, "no_route": 0,
            "more_recipients": false,
            "recipients": [{
                "identity_oid": api.bob.to_hex(),
                "petname": null,
                "claim": "Bob",
                "label": format!("~Bob {}", &api.bob.to_hex()[..12]),
                "state": "queued",
                "at": null,
                "last_reached": super::NOW.0,
                "connected": false,
            }],
        },
    });
    assert_eq!(message, &expected);
    assert_eq!(first["delivery"], expected["delivery"]);
    let path = format!(
        "/api/v1/messages/{}/delivery",
        first["oid"].as_str().unwrap()
    );
    let shown = api.get(&path).await.ok();
    assert_eq!(shown["delivery"], expected["delivery"]);
    let unknown = format!("/api/v1/messages/{}/delivery", api.bob.to_hex());
    api.get(&unknown).await.refused(404, "not_found");
}

#[tokio::test]
async fn send_reports_each_cause_of_failure() {
    let api = ApiFixture::new().await;
    let unknown_oid = Oid::from_bytes([9; 16]);
    api.send(unknown_oid, api.bob, "Hi")
        .await
        .refused(404, "unknown_sender");
    api.send(api.bob, api.alice, "Hi")
        .await
        .refused(404, "unknown_sender");
    let unknown = api.send(api.alice, unknown_oid, "Hi").await;
    assert!(
        unknown
            .refused(404, "unknown_recipient")
            .message()
            .contains("identities"),
        "{}",
        unknown.message()
    );
    api.send(api.alice, api.alice, "Hi")
        .await
        .refused(422, "alone");
    let long = api.send(api.alice, api.bob, &"x".repeat(16_385)).await;
    assert!(long.refused(422, "schema").message().contains("body"));
    let inbox = api.get(&inbox_of(api.alice, "")).await.ok();
    assert_eq!(bodies(&inbox), [""; 0]);
    let talks = api
        .get("/api/objects?type=messages.conversation")
        .await
        .ok();
    assert!(
        list(&talks, "objects").is_empty(),
        "a failed send creates no conversation"
    );
}

#[tokio::test]
async fn invalid_request_error_names_the_field() {
    let api = ApiFixture::new().await;
    let (alice, bob) = (api.alice.to_hex(), api.bob.to_hex());
    let wrong = [
        (
            json!({ "sender_identity_oid": alice, "body": "Hi" }),
            "recipient_identity_oid",
        ),
        (
            json!({
                "sender_identity_oid": alice, "recipient_identity_oid": bob, "body": "Hi",
                "colour": 1,
            }),
            "colour",
        ),
        (
            json!({ "sender_identity_oid": alice, "recipient_identity_oid": bob, "body": 5 }),
            "body",
        ),
        (
            json!({ "sender_identity_oid": "alice", "recipient_identity_oid": bob, "body": "Hi" }),
            "sender_identity_oid",
        ),
        (
            json!({ "sender_identity_oid": alice, "recipient_identity_oid": null, "body": "Hi" }),
            "recipient_identity_oid",
        ),
    ];
    for (body, field) in wrong {
        let reply = api.post("/api/messages/send", body).await;
        assert!(
            reply.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            reply.message()
        );
    }
    for text in ["", "{", "[]", "{\"body\": \"hush\""] {
        let reply = api
            .ask(api.request("POST", "/api/messages/send", text))
            .await;
        assert!(!reply.refused(400, "bad_request").message().contains("hush"));
    }
    let queries = [
        ("", "identity"),
        ("?identity=x", "identity"),
        ("?identity=00&colour=1", "colour"),
    ];
    for (query, field) in queries {
        let reply = api.get(&format!("/api/messages/inbox{query}")).await;
        assert!(
            reply.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            reply.message()
        );
    }
    for (more, field) in [
        ("&limit=0", "limit"),
        ("&limit=1000000", "limit"),
        ("&after=-1", "after"),
        ("&after=1.", "after"),
    ] {
        let reply = api.get(&inbox_of(api.alice, more)).await;
        assert!(
            reply.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            reply.message()
        );
    }
}

#[tokio::test]
async fn inbox_pages_contain_every_message_once() {
    let api = ApiFixture::new().await;
    for number in 0..5 {
        api.send(api.alice, api.bob, &format!("to Bob {number}"))
            .await
            .ok();
        api.send(api.carol, api.bob, &format!("not Alice's {number}"))
            .await
            .ok();
    }
    let (mut after, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let page = api
            .get(&inbox_of(api.alice, &format!("&after={after}&limit=3")))
            .await
            .ok();
        assert!(list(&page, "messages").len() <= 3);
        seen.extend(bodies(&page).into_iter().map(str::to_owned));
        after = page["after"].as_str().unwrap().to_owned();
        if page["more"] == json!(false) {
            break;
        }
    }
    assert_eq!(
        seen,
        (0..5)
            .map(|number| format!("to Bob {number}"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn inbox_shows_only_the_identitys_conversations() {
    let api = ApiFixture::new().await;
    api.send(api.alice, api.bob, "between Alice and Bob")
        .await
        .ok();
    api.send(api.carol, api.bob, "between Carol and Bob")
        .await
        .ok();
    api.send(api.alice, api.carol, "between Alice and Carol")
        .await
        .ok();
    let (alices, carols) = (
        api.get(&inbox_of(api.alice, "")).await.ok(),
        api.get(&inbox_of(api.carol, "")).await.ok(),
    );
    assert_eq!(
        bodies(&alices),
        ["between Alice and Bob", "between Alice and Carol"]
    );
    assert_eq!(
        bodies(&carols),
        ["between Carol and Bob", "between Alice and Carol"]
    );
    for not_local in [api.bob, Oid::from_bytes([9; 16])] {
        api.get(&inbox_of(not_local, ""))
            .await
            .refused(404, "not_here");
    }
}

#[tokio::test]
async fn waiting_inbox_returns_on_a_message_and_on_shutdown() {
    let api = ApiFixture::new().await;
    let path = inbox_of(api.alice, "&wait_s=60");
    let (inbox, sent) = tokio::join!(api.get(&path), api.send(api.carol, api.alice, "now"));
    assert_eq!(sent.status, StatusCode::OK);
    assert_eq!(bodies(&inbox.ok()), ["now"]);
    let path = inbox_of(api.bob, "");
    api.get(&path).await.refused(404, "not_here");
    let path = inbox_of(api.carol, "&after=1000&wait_s=60");
    let (inbox, ()) = tokio::join!(api.get(&path), async { api.stop.cancel() });
    assert_eq!(bodies(&inbox.ok()), [""; 0]);
}

#[tokio::test]
async fn waiting_inboxes_leave_half_of_the_places_to_others() {
    let mut api = ApiFixture::new().await;
    api.config.requests_max = 4;
    let router = router(api.state());
    let get = |path: &str| api.ask_through(router.clone(), api.request("GET", path, ""));
    let path = inbox_of(api.alice, "&wait_s=60");
    let mut waiting: FuturesUnordered<_> = (0..4).map(|_| get(&path)).collect();
    for _ in 0..2 {
        let reply = waiting.next().await.unwrap();
        reply.refused(503, "busy");
    }
    get("/healthz").await.ok();
    get("/api/status").await.ok();
    // A poll that does not wait needs no place among the waiting ones.
    let at_once = get(&inbox_of(api.alice, "")).await;
    assert_eq!(bodies(&at_once.ok()), [""; 0]);
    api.send(api.carol, api.alice, "now").await.ok();
    while let Some(reply) = waiting.next().await {
        assert_eq!(bodies(&reply.ok()), ["now"]);
    }
    let mut waiting = Box::pin(get(&inbox_of(api.carol, "&after=1000&wait_s=60")));
    assert!(poll!(&mut waiting).is_pending(), "its place is free again");
}

//! What is written, and who reads it (docs/STORY.md 3).

use axum::http::StatusCode;
use keys::Oid;
use serde_json::{Value, json};

use super::{Here, list};

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
async fn a_message_is_one_change_group_and_stays_in_its_conversation() {
    let here = Here::new().await;
    let head = here.get("/api/status").await.ok()["change_seq"]
        .as_u64()
        .unwrap();
    let first = here.send(here.alice, here.bob, "Hi").await.ok();
    assert_eq!(first["change_seq"], head + 1);
    let second = here.send(here.alice, here.bob, "Are you there?").await.ok();
    assert_eq!(
        (&second["change_seq"], &second["conversation_oid"]),
        (&json!(head + 2), &first["conversation_oid"])
    );
    let inbox = here.get(&inbox_of(here.alice, "")).await.ok();
    let message = &list(&inbox, "messages")[0];
    let expected = json!({
        "oid": first["oid"],
        "conversation_oid": first["conversation_oid"],
        "sender_identity_oid": here.alice.to_hex(),
        "sender_name": "Alice",
        "body": "Hi",
        "sent_at": super::NOW.0,
        "change_seq": head + 1,
        "made_here": true,
    });
    assert_eq!(message, &expected);
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_says_why() {
    let here = Here::new().await;
    let nobody = Oid::from_bytes([9; 16]);
    here.send(nobody, here.bob, "Hi")
        .await
        .refused(404, "unknown_sender");
    here.send(here.bob, here.alice, "Hi")
        .await
        .refused(404, "unknown_sender");
    let unknown = here.send(here.alice, nobody, "Hi").await;
    assert!(
        unknown
            .refused(404, "unknown_recipient")
            .message()
            .contains("identities"),
        "{}",
        unknown.message()
    );
    here.send(here.alice, here.alice, "Hi")
        .await
        .refused(422, "alone");
    let long = here.send(here.alice, here.bob, &"x".repeat(16_385)).await;
    assert!(long.refused(422, "schema").message().contains("body"));
    let inbox = here.get(&inbox_of(here.alice, "")).await.ok();
    assert_eq!(bodies(&inbox), [""; 0]);
    let talks = here
        .get("/api/objects?type=messages.conversation")
        .await
        .ok();
    assert!(
        list(&talks, "objects").is_empty(),
        "a message that fails leaves no conversation behind"
    );
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_which_field() {
    let here = Here::new().await;
    let (alice, bob) = (here.alice.to_hex(), here.bob.to_hex());
    let wrong = [
        (
            json!({ "sender_identity_oid": alice, "body": "Hi" }),
            "recipient_identity_oid",
        ),
        (
            json!({ "sender_identity_oid": alice, "recipient_identity_oid": bob, "body": "Hi", "colour": 1 }),
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
        let answer = here.post("/api/messages/send", body).await;
        assert!(
            answer.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            answer.message()
        );
    }
    for text in ["", "{", "[]", "{\"body\": \"hush\""] {
        let answer = here
            .ask(here.request("POST", "/api/messages/send", text))
            .await;
        assert!(
            !answer
                .refused(400, "bad_request")
                .message()
                .contains("hush")
        );
    }
    let queries = [
        ("", "identity"),
        ("?identity=x", "identity"),
        ("?identity=00&colour=1", "colour"),
    ];
    for (query, field) in queries {
        let answer = here.get(&format!("/api/messages/inbox{query}")).await;
        assert!(
            answer.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            answer.message()
        );
    }
    for (more, field) in [
        ("&limit=0", "limit"),
        ("&limit=1000000", "limit"),
        ("&after=-1", "after"),
    ] {
        let answer = here.get(&inbox_of(here.alice, more)).await;
        assert!(
            answer.refused(400, "bad_request").message().contains(field),
            "{field}: {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn an_inbox_comes_in_pages_and_none_is_lost() {
    let here = Here::new().await;
    for place in 0..5 {
        here.send(here.alice, here.bob, &format!("to Bob {place}"))
            .await
            .ok();
        here.send(here.carol, here.bob, &format!("not Alice's {place}"))
            .await
            .ok();
    }
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = here
            .get(&inbox_of(here.alice, &format!("&after={after}&limit=3")))
            .await
            .ok();
        assert!(list(&page, "messages").len() <= 3);
        seen.extend(bodies(&page).into_iter().map(str::to_owned));
        after = page["after"].as_u64().unwrap();
        if page["more"] == json!(false) {
            break;
        }
    }
    assert_eq!(
        seen,
        (0..5)
            .map(|place| format!("to Bob {place}"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_reader_sees_its_own_conversations_only() {
    let here = Here::new().await;
    here.send(here.alice, here.bob, "between Alice and Bob")
        .await
        .ok();
    here.send(here.carol, here.bob, "between Carol and Bob")
        .await
        .ok();
    here.send(here.alice, here.carol, "between Alice and Carol")
        .await
        .ok();
    let (alices, carols) = (
        here.get(&inbox_of(here.alice, "")).await.ok(),
        here.get(&inbox_of(here.carol, "")).await.ok(),
    );
    assert_eq!(
        bodies(&alices),
        ["between Alice and Bob", "between Alice and Carol"]
    );
    assert_eq!(
        bodies(&carols),
        ["between Carol and Bob", "between Alice and Carol"]
    );
    for stranger in [here.bob, Oid::from_bytes([9; 16])] {
        here.get(&inbox_of(stranger, ""))
            .await
            .refused(404, "not_here");
    }
}

#[tokio::test]
async fn a_waiting_inbox_answers_when_something_comes_and_when_the_node_stops() {
    let here = Here::new().await;
    let path = inbox_of(here.alice, "&wait_s=60");
    let (inbox, sent) = tokio::join!(here.get(&path), here.send(here.carol, here.alice, "now"));
    assert_eq!(sent.status, StatusCode::OK);
    assert_eq!(bodies(&inbox.ok()), ["now"]);
    let path = inbox_of(here.bob, "");
    here.get(&path).await.refused(404, "not_here");
    let path = inbox_of(here.carol, "&after=1000&wait_s=60");
    let (inbox, ()) = tokio::join!(here.get(&path), async { here.stop.cancel() });
    assert_eq!(bodies(&inbox.ok()), [""; 0]);
}

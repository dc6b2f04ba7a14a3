//! Conversations: founding, listing, members and messages.

use axum::http::header;
use keys::Oid;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ApiFixture, Reply, list, router};

const ROUTE: &str = "/api/v1/conversations";

async fn found(api: &ApiFixture, others: &[Oid], title: Option<&str>) -> Reply {
    let others: Vec<_> = others.iter().map(|oid| oid.to_hex()).collect();
    let request = json!({
        "founder_identity_oid": api.alice.to_hex(),
        "participant_identity_oids": others,
        "title": title,
    });
    api.post(ROUTE, request).await
}

/// A conversation of Alice, Bob and Carol, and its path.
async fn of_three(api: &ApiFixture) -> (Value, String) {
    let made = found(api, &[api.bob, api.carol], Some("Hiking")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("{ROUTE}/{}", made.body["oid"].as_str().unwrap());
    (made.body["oid"].clone(), path)
}

async fn say(api: &ApiFixture, path: &str, sender: Oid, body: &str) -> Reply {
    let message = json!({ "sender_identity_oid": sender.to_hex(), "body": body });
    api.post(&format!("{path}/messages"), message).await
}

async fn add(api: &ApiFixture, path: &str, who: Oid) -> Reply {
    let request = json!({ "identity_oid": who.to_hex() });
    api.post(&format!("{path}/members"), request).await
}

async fn remove(api: &ApiFixture, path: &str, who: Oid) -> Reply {
    api.delete(&format!("{path}/members/{}", who.to_hex()))
        .await
}

async fn leave(api: &ApiFixture, path: &str, who: Oid) -> Reply {
    let request = json!({ "identity_oid": who.to_hex() });
    api.post(&format!("{path}/leave"), request).await
}

#[tokio::test]
async fn founded_conversation_has_a_location_and_is_shown() {
    let api = ApiFixture::new().await;
    let request = json!({
        "founder_identity_oid": api.alice.to_hex(),
        "participant_identity_oids": [api.bob.to_hex(), api.carol.to_hex()],
        "title": "Hiking",
    });
    let request = api.request("POST", ROUTE, request.to_string());
    let response = router(api.state()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 201);
    let path = response.headers()[header::LOCATION].to_str().unwrap();
    say(&api, path, api.alice, "one").await.ok();
    let sent = say(&api, path, api.carol, "two").await.ok();
    let mut shown = api.get(path).await.ok();
    let own = shown.as_object_mut().unwrap().remove("own_messages");
    let own = own.unwrap();
    assert_eq!(own.as_array().unwrap().len(), 2);
    assert_eq!(own[0]["oid"], sent["oid"], "the newest first");
    assert_eq!(own[0]["delivery"], sent["delivery"]);
    let counts = |state: &str| own[0]["delivery"][state].as_u64().unwrap();
    assert_eq!(
        (counts("delivered"), counts("queued")),
        (1, 1),
        "Alice, Bob"
    );
    let member = |oid: Oid, claim: &str, standing: &str, is_local: bool| {
        let label = match is_local {
            true => claim.to_owned(),
            false => format!("~{claim} {}", &oid.to_hex()[..12]),
        };
        json!({
            "identity_oid": oid.to_hex(), "petname": is_local.then_some(claim), "claim": claim,
            "label": label, "rights": "read_write", "standing": standing, "accepted": is_local,
            "local": is_local,
        })
    };
    let mut members = [
        member(api.alice, "Alice", "owner", true),
        member(api.bob, "Bob", "member", false),
        member(api.carol, "Carol", "member", true),
    ];
    members.sort_by_key(|member| member["identity_oid"].to_string());
    let expected = json!({
        "oid": sent["conversation_oid"],
        "title": "Hiking",
        "owner_identity_oid": api.alice.to_hex(),
        "of_two": false,
        "members": members,
        "messages": 2,
        "messages_counted_of": null,
        "newest_sent_at": super::NOW.0,
    });
    assert_eq!(shown, expected);
    let listed = api.get(ROUTE).await.ok();
    assert_eq!(list(&listed, "conversations"), &[expected]);
}

#[tokio::test]
async fn list_is_paged_filtered_and_shows_local_readers_only() {
    let api = ApiFixture::new().await;
    let (three, _) = of_three(&api).await;
    let two = found(&api, &[api.bob], None).await.body["oid"].clone();
    let oids = |page: &Value| {
        let cards = list(page, "conversations").iter();
        cards.map(|card| card["oid"].clone()).collect::<Vec<_>>()
    };
    let first = api.get(&format!("{ROUTE}?limit=1")).await.ok();
    assert_eq!(
        (oids(&first), &first["more"]),
        (vec![three.clone()], &json!(true))
    );
    let rest = format!("{ROUTE}?limit=5&after={}", first["after"]);
    let rest = api.get(&rest).await.ok();
    assert_eq!(
        (oids(&rest), &rest["more"]),
        (vec![two.clone()], &json!(false))
    );
    let carols = format!("{ROUTE}?identity={}", api.carol.to_hex());
    assert_eq!(
        oids(&api.get(&carols).await.ok()),
        std::slice::from_ref(&three)
    );
    let suffix = &two.as_str().unwrap()[22..];
    let by_suffix = api.get(&format!("{ROUTE}?suffix={suffix}")).await.ok();
    assert_eq!(oids(&by_suffix), [two]);
    api.get(&format!("{ROUTE}?identity={}", api.bob.to_hex()))
        .await
        .refused(404, "not_here");
    for query in ["limit=0", "limit=1001", "identity=x", "after=x", "colour=1"] {
        api.get(&format!("{ROUTE}?{query}"))
            .await
            .refused(400, "bad_request");
    }
}

#[tokio::test]
async fn founding_reports_each_cause_of_failure() {
    let api = ApiFixture::new().await;
    let unknown = Oid::from_bytes([9; 16]);
    let refused = |others: Vec<Oid>, status, code| {
        let api = &api;
        async move {
            found(api, &others, None).await.refused(status, code);
        }
    };
    refused(vec![], 422, "alone").await;
    refused(vec![api.alice], 422, "alone").await;
    refused(vec![api.bob, unknown], 404, "unknown_identity").await;
    refused(vec![api.bob, api.bob], 409, "already_member").await;
    let long = "x".repeat(201);
    found(&api, &[api.bob], Some(&long))
        .await
        .refused(422, "bad_title");
    let others = json!([api.alice.to_hex()]);
    let foreign = json!({
        "founder_identity_oid": api.bob.to_hex(), "participant_identity_oids": others,
    });
    api.post(ROUTE, foreign).await.refused(404, "not_here");
    let no_founder = json!({ "participant_identity_oids": others });
    let reply = api.post(ROUTE, no_founder).await;
    let message = reply.refused(400, "bad_request").message();
    assert!(message.contains("founder_identity_oid"), "{message}");
    for title in ["", "two\nlines"] {
        found(&api, &[api.bob], Some(title))
            .await
            .refused(422, "bad_title");
    }
    let listed = api.get(ROUTE).await.ok();
    assert_eq!(list(&listed, "conversations").len(), 0);
}

#[tokio::test]
async fn members_are_added_removed_and_leave() {
    let api = ApiFixture::new().await;
    let (oid, path) = of_three(&api).await;
    let standing = |who: Oid| {
        let (api, path) = (&api, &path);
        async move {
            let shown = api.get(path).await.ok();
            let members = list(&shown, "members").iter();
            let member = members
                .clone()
                .find(|member| member["identity_oid"] == who.to_hex());
            member.unwrap()["standing"].as_str().unwrap().to_owned()
        }
    };
    add(&api, &path, api.bob)
        .await
        .refused(409, "already_member");
    leave(&api, &path, api.carol).await.ok();
    assert_eq!(standing(api.carol).await, "left");
    leave(&api, &path, api.carol)
        .await
        .refused(404, "not_member");
    say(&api, &path, api.carol, "still writes").await.ok();
    let inbox = format!("/api/messages/inbox?identity={}", api.carol.to_hex());
    let inbox = api.get(&inbox).await.ok();
    assert_eq!(list(&inbox, "messages").len(), 0, "and does not read");
    let added = add(&api, &path, api.carol).await.ok();
    assert_eq!(
        (&added["oid"], &added["founded_new"]),
        (&oid, &json!(false))
    );
    assert_eq!(standing(api.carol).await, "member");
    remove(&api, &path, api.bob).await.ok();
    assert_eq!(standing(api.bob).await, "removed");
    remove(&api, &path, api.bob)
        .await
        .refused(404, "not_member");
    remove(&api, &path, api.alice)
        .await
        .refused(403, "scope_owner_stays");
    leave(&api, &path, api.alice)
        .await
        .refused(403, "scope_owner_stays");
    leave(&api, &path, api.bob).await.refused(404, "not_here");
    let nowhere = format!("{ROUTE}/{}", "09".repeat(16));
    add(&api, &nowhere, api.bob).await.refused(404, "not_found");
    api.get(&nowhere).await.refused(404, "not_found");
    api.get(&format!("{ROUTE}/x"))
        .await
        .refused(400, "bad_request");
}

#[tokio::test]
async fn adding_to_a_conversation_of_two_founds_another() {
    let api = ApiFixture::new().await;
    let two = found(&api, &[api.bob], Some("Plans")).await;
    let path = format!("{ROUTE}/{}", two.body["oid"].as_str().unwrap());
    let added = add(&api, &path, api.carol).await;
    assert_eq!(
        (added.status.as_u16(), &added.body["founded_new"]),
        (201, &json!(true))
    );
    assert_ne!(added.body["oid"], two.body["oid"]);
    let path = format!("{ROUTE}/{}", added.body["oid"].as_str().unwrap());
    let shown = api.get(&path).await.ok();
    assert_eq!(
        (&shown["title"], list(&shown, "members").len()),
        (&json!("Plans"), 3)
    );
}

#[tokio::test]
async fn inbox_names_the_conversations_of_its_messages() {
    let api = ApiFixture::new().await;
    let (oid, path) = of_three(&api).await;
    say(&api, &path, api.alice, "all").await.ok();
    let sent = api.send(api.alice, api.bob, "Bob alone").await.ok();
    let inbox = format!("/api/messages/inbox?identity={}", api.alice.to_hex());
    let inbox = api.get(&inbox).await.ok();
    let label = |wanted: &Value| {
        let mut labels = list(&inbox, "conversations").iter();
        labels.find(|label| label["oid"] == *wanted).unwrap()
    };
    let (three, two) = (label(&oid), label(&sent["conversation_oid"]));
    assert_eq!(
        (&three["title"], &three["of_two"], &three["member_count"]),
        (&json!("Hiking"), &json!(false), &json!(3))
    );
    assert_eq!(
        (&two["title"], &two["of_two"]),
        (&json!(null), &json!(true))
    );
    let names: Vec<_> = list(two, "members").iter().map(|it| &it["claim"]).collect();
    assert!(names.contains(&&json!("Alice")) && names.contains(&&json!("Bob")));
}
